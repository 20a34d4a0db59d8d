"""Optimal ablation: constants that lose less than those they start from, and than zeros and corrupt outputs."""

import numpy as np
import pytest
import torch

import optrode as op
from optrode.circuit.edge.optimal import optimal_ablation
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.select import select
from optrode.circuit.edge.senders import Sent
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadOption
from optrode.trial.kept import keeping
from optrode.truth import or_gate
from optrode.truth.programs import load
from tests.unit.circuit.edge.cases import make_task, model_of

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")


def runs_on(model, task, ablation="mean"):
    return EdgeRuns(op.Bench(model, task), wiring_of(model), ablation)


def strongest(runs, size):
    scores = op.score_edges(runs.bench.model, runs.bench.task, method="eap", n_checks=0, bench=runs.bench)
    return select(scores, size)


def lost(runs, values):
    """Mean over prompts of |m(whole) - m(circuit)|."""
    return float(np.abs(np.subtract(runs.full, values)).mean())


@pytest.mark.parametrize(("size", "worse"), [(0, ("mean", "zero", "resample")), (40, ("zero",))])
@pytest.mark.parametrize("name", ["layer norm", "RMS norm, grouped K/V", "attention only"])
def test_fitted_constants_lose_less_than_what_they_start_from_and_than_other_ablations(name, size, worse):
    """Not always less than means at each position or corrupt outputs, which know where they stand and, these, the prompt."""
    model, task = model_of(name), make_task((6, 6, 6, 6))
    runs = runs_on(model, task)
    kept = strongest(runs, size)
    found = optimal_ablation(runs, kept, n_steps=40)
    after = lost(runs, found.metric)
    assert after == pytest.approx(min(found.losses), rel=1e-9) and after < found.losses[0]
    for ablation in worse:
        other = runs_on(model, task, ablation)
        assert after < lost(other, other.measure([kept])[0])


def test_it_starts_from_means_over_prompts_and_positions():
    model, task = model_of("no norm"), make_task((5, 7, 5))
    runs = runs_on(model, task)
    found = optimal_ablation(runs, np.zeros(runs.wiring.graph.n_edges, dtype=bool), n_steps=1, rate=0.0)
    outputs = [op.record(model, [list(pair.clean)], ["blocks.0.resid_pre", "blocks.1.mlp_out"]) for pair in task.pairs]
    for value, site in ((found.values.embed, "blocks.0.resid_pre"), (found.values.mlp[1], "blocks.1.mlp_out")):
        mean = torch.cat([held[site][0] for held in outputs]).mean(0)
        assert value.shape == (1, 1, 12) and torch.allclose(value[0, 0], mean, atol=1e-12)
    assert found.losses[0] == pytest.approx(found.losses[1]) and len(found.losses) == 2


def test_its_loss_is_that_of_the_circuit_with_its_constants():
    model, task = model_of("layer norm"), make_task((6, 6, 7))
    runs = runs_on(model, task)
    kept = strongest(runs, 30)
    found = optimal_ablation(runs, kept, n_steps=5)
    again = EdgeRuns(runs.bench, runs.wiring, "optimal", fixed=found.values)
    assert isinstance(found.values, Sent) and not found.values.embed.requires_grad
    assert again.measure([kept])[0] == pytest.approx(found.metric) and len(found.metric) == 3


def test_fitted_constants_leave_no_trial_in_a_store(tmp_path):
    model, task = model_of("layer norm"), make_task((6, 6))
    with keeping(tmp_path, model, title="optimal") as store:
        runs = EdgeRuns(op.Bench(model, task, store=store), wiring_of(model), "mean")
        kept = np.zeros(runs.wiring.graph.n_edges, dtype=bool)
        first = optimal_ablation(runs, kept, n_steps=2).metric
        assert optimal_ablation(runs, ~kept, n_steps=2).metric == pytest.approx(runs.full) != pytest.approx(first)
        assert not store.read([""])


def test_nothing_is_lost_where_nothing_is_ablated():
    model, task = model_of("layer norm"), make_task((6, 6))
    runs = runs_on(model, task)
    found = optimal_ablation(runs, np.ones(runs.wiring.graph.n_edges, dtype=bool), n_steps=1)
    assert found.losses == pytest.approx((0, 0), abs=1e-12) and found.metric == pytest.approx(runs.full)


def test_it_finds_the_constant_by_which_a_gate_gives_the_clean_answer():
    """The gate gives all clean prompts one answer: a constant in place of its copies gives it too, corrupt copies do not."""
    planted = or_gate()
    runs, resample = runs_on(planted.model, planted.task), runs_on(planted.model, planted.task, "resample")
    kept = ~runs.wiring.graph.edges(planted.redundant[1])
    found = optimal_ablation(runs, kept, n_steps=10)
    assert lost(resample, resample.measure([kept])[0]) == pytest.approx(1.01)
    assert lost(runs, found.metric) < min(0.05, found.losses[0])


def test_one_constant_at_all_positions_cannot_stand_for_positions():
    """Means at each position keep what attention needs to know where it is; one constant does not."""
    program = load("reverse")
    bench = program.bench(12)
    runs = EdgeRuns(bench, wiring_of(program.model), "mean")
    kept = runs.wiring.graph.edges(program.edges())
    found = optimal_ablation(runs, kept, n_steps=5)
    assert lost(runs, runs.measure([kept])[0]) < 1e-6 and lost(runs, found.metric) > 0.2


def test_constants_at_each_position_lose_no_more_than_means_there():
    program = load("reverse")
    bench = program.bench(12)
    runs = EdgeRuns(bench, wiring_of(program.model), "mean")
    kept = runs.wiring.graph.edges(program.edges())
    found = optimal_ablation(runs, kept, n_steps=3, by_pos=True)
    assert found.values.z[0].shape[1] == bench.task.length and lost(runs, found.metric) < 1e-6
    for name in ("layer norm", "no norm"):
        model, task = model_of(name), make_task((6, 6, 6, 6))
        runs = runs_on(model, task)
        kept = strongest(runs, 40)
        found = optimal_ablation(runs, kept, n_steps=3, by_pos=True)
        assert found.losses[0] == pytest.approx(lost(runs, runs.measure([kept])[0]))
        assert lost(runs, found.metric) <= found.losses[0] + 1e-12
    with pytest.raises(BadOption, match="optimal ablation by position: the prompts of .* differ in length"):
        optimal_ablation(runs_on(model, make_task((5, 6))), kept, by_pos=True)


def test_the_model_and_its_gradients_are_left_alone():
    model, task = model_of("layer norm"), make_task((6, 6))
    before = {name: parameter.detach().clone() for name, parameter in model.module.named_parameters()}
    runs = runs_on(model, task)
    optimal_ablation(runs, strongest(runs, 10), n_steps=2)
    for name, parameter in model.module.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None


def test_progress_and_bad_steps():
    model, task = model_of("layer norm"), make_task((6, 6))
    runs, steps = runs_on(model, task), []
    kept = np.zeros(runs.wiring.graph.n_edges, dtype=bool)
    optimal_ablation(runs, kept, n_steps=2, progress=lambda *step: steps.append(step))
    fitting = [step for step in steps if step[0] == "optimal ablation"]
    assert fitting == [("optimal ablation", step, 2) for step in range(3)]
    with pytest.raises(BadOption, match="n_steps=0: fitting takes at least one step. Next: leave it out for 100"):
        optimal_ablation(runs, kept, n_steps=0)
