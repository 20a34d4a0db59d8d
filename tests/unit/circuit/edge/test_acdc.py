"""ACDC, which tests several edges at once, against a loop that tests one after another."""

import numpy as np
import pytest
import torch

from optrode.circuit.edge.acdc import acdc
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadOption
from optrode.nn.transformer import Spec, as_model, build
from optrode.trial.run import Bench
from optrode.truth.planted import or_gate
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import make_task, model_of


def runs_of(case, task=None, ablation="resample", random_seed=0):
    model = model_of(case, random_seed)
    return EdgeRuns(Bench(model, task or make_task((4, 4))), wiring_of(model), ablation)


def one_by_one(runs, tau):
    net = naive.net_of(runs.wiring.model.module)
    return naive.acdc(net, lambda mask: np.array(runs.measure([mask])[0]), tau)


SMALL = {
    "sequential": Spec(2, 2, 8, vocab=19, n_ctx=4, d_mlp=6),
    "parallel": Spec(2, 2, 8, vocab=19, n_ctx=4, d_mlp=6, is_parallel=True),
}


@pytest.mark.parametrize("case", SMALL)
def test_edges_are_those_of_a_loop_over_one_test_after_another(monkeypatch, case):
    model = as_model(build(SMALL[case], 3, torch.float64), case)
    runs = EdgeRuns(Bench(model, make_task((4, 4))), wiring_of(model))
    tau = 0.03 * float(np.abs(np.array(runs.full) - np.array(runs.empty)).mean())
    wanted = one_by_one(runs, tau)
    assert 0 < wanted.sum() < len(wanted)
    for longest in (3, 32):
        monkeypatch.setattr("optrode.circuit.edge.acdc.LONGEST", longest)
        np.testing.assert_array_equal(acdc(runs, tau)[0], wanted)


def test_circuits_measured_by_the_written_out_forward_pass_lead_to_the_same_edges():
    task, runs = make_task((4, 4)), runs_of("attention only")
    net = naive.net_of(runs.wiring.model.module)
    tau = 0.05 * float(np.abs(np.array(runs.full) - np.array(runs.empty)).mean())
    wanted = naive.acdc(net, lambda mask: naive.circuits(net, task, [mask])[0], tau)
    np.testing.assert_array_equal(acdc(runs, tau)[0], wanted)


def test_gains_add_up_to_what_the_circuit_loses():
    runs = runs_of("attention only")
    kept, gains = acdc(runs, 0.05)
    lost = np.abs(np.array(runs.full) - np.array(runs.measure([kept])[0]))
    np.testing.assert_allclose(gains[:, ~kept].sum(1), lost, atol=1e-10)
    assert (gains[:, kept].mean(0) >= 0.05).all() and (gains[:, ~kept].mean(0) < 0.05).all()


def test_edges_that_are_no_candidates_are_out_from_the_start():
    runs = runs_of("attention only")
    candidates = np.arange(runs.wiring.graph.n_edges) % 2 == 0
    kept, gains = acdc(runs, 0.01, candidates)
    assert not kept[~candidates].any() and not gains[:, ~candidates].any()
    assert candidates.sum() == len(candidates) // 2 + len(candidates) % 2  # the caller's own mask is as it was


def test_a_threshold_above_everything_leaves_nothing_and_no_threshold_keeps_what_is_missed():
    runs = runs_of("attention only")
    assert not acdc(runs, 1e9)[0].any()
    kept, gains = acdc(runs, 0.0)
    assert (gains[:, kept].mean(0) >= 0).all() and (gains[:, ~kept].mean(0) < 0).all()


def test_of_two_copies_one_stays():
    planted = or_gate(6, leak=0.0)
    runs = EdgeRuns(Bench(planted.model, planted.task), wiring_of(planted.model))
    kept = {runs.wiring.graph.name(int(ix)) for ix in np.flatnonzero(acdc(runs, 0.01)[0])}
    assert kept == {"embed -> a0.h0.v", "a0.h0 -> m0", "m0 -> logits"}  # later senders are tested first


def test_progress_ends_with_every_edge_tested():
    told, runs = [], runs_of("attention only")
    acdc(runs, 0.05, None, lambda *step: told.append(step))
    ours = [step for step in told if step[0] == "acdc"]
    assert ours[-1] == ("acdc", runs.wiring.graph.n_edges, runs.wiring.graph.n_edges)
    assert [step[1] for step in ours] == sorted(step[1] for step in ours)


@pytest.mark.parametrize("tau", [-0.1, float("nan"), float("inf"), -float("inf")])
def test_a_threshold_that_is_none_is_refused(tau):
    with pytest.raises(BadOption, match="a threshold is a finite number, 0 or more"):
        acdc(runs_of("attention only"), tau)
