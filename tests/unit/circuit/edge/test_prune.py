"""Edge pruning: masks learned by gradient find what is known, and touch nothing but themselves."""

import numpy as np
import pytest
import torch

from optrode.circuit.edge.prune import BETA, HIGH, LOW, prune
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadOption
from optrode.trial.run import Bench
from optrode.truth.programs import load
from tests.messages.conftest import state_of
from tests.unit.circuit.edge.cases import make_task, model_of


def runs_of(case="attention only", lengths=(4, 5)):
    model = model_of(case)
    return EdgeRuns(Bench(model, make_task(lengths)), wiring_of(model))


def test_the_edges_of_a_program_stay_open():
    bench = load("xproportion").bench(8)
    runs = EdgeRuns(bench, wiring_of(bench.model))
    kept, _ = prune(runs, 3, n_steps=60)
    assert {runs.wiring.graph.name(int(ix)) for ix in np.flatnonzero(kept)} == set(load("xproportion").edges())


def test_what_is_kept_are_the_edges_most_likely_to_be():
    runs = runs_of()
    kept, scores = prune(runs, 9, n_steps=4)
    assert kept.sum() == 9 and scores.shape == (2, 61)
    np.testing.assert_array_equal(scores[0], scores[1])
    assert ((scores > 0) & (scores < 1)).all() and scores[0, kept].min() >= scores[0, ~kept].max()


def test_a_tenth_is_kept_by_default():
    assert prune(runs_of(), n_steps=1)[0].sum() == 6
    assert prune(runs_of(), 61, n_steps=1)[0].all()


def test_one_seed_gives_one_circuit():
    runs = runs_of()
    first, again, other = (prune(runs, 5, n_steps=3, random_seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_model_and_the_callers_random_state_are_as_before():
    runs = runs_of()
    module = runs.wiring.model.module
    before = state_of(module)
    prune(runs, 5, n_steps=2)
    assert state_of(module) == before and all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 3.0])
def test_a_mask_is_open_as_often_as_its_closed_form_says(log_alpha):
    """P(a > 0) of the hard-concrete distribution, drawn by its definition (Louizos et al., eq. 10 and 11)."""
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = torch.sigmoid((u.log() - (1 - u).log() + log_alpha) / BETA)
    drawn = (s * (HIGH - LOW) + LOW).clamp(0, 1)
    closed = torch.sigmoid(torch.tensor(log_alpha - BETA * np.log(-LOW / HIGH)))
    assert float((drawn > 0).double().mean()) == pytest.approx(float(closed), abs=5e-3)


@pytest.mark.parametrize("options", [{"size": -1}, {"size": 62}, {"size": 3, "n_steps": 0}])
def test_what_is_out_of_range_is_refused(options):
    with pytest.raises(BadOption, match="the graph has 61 edges"):
        prune(runs_of(), **options)
