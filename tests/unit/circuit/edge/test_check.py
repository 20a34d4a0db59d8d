"""Spot checks: which edges are measured again, and what is said of them."""

import numpy as np
import pytest

from optrode.circuit.edge.check import check, compared, correlation
from optrode.circuit.edge.exact import exact_effects
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.wiring import wiring_of
from optrode.trial.run import Bench, no_progress
from optrode.truth.programs import load
from tests.unit.circuit.edge.cases import make_task, model_of

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")


def runs_of(case="attention only", lengths=(4, 5)):
    model = model_of(case)
    return EdgeRuns(Bench(model, make_task(lengths)), wiring_of(model))


def test_the_strongest_and_as_many_others_are_measured_exactly():
    runs = runs_of()
    values = np.random.default_rng(0).normal(size=runs.wiring.graph.n_edges)
    found = check(runs, values, 6, 0, no_progress)
    graph = runs.wiring.graph
    edges = [graph.edge(name) for name in found.edges]
    assert found.is_top == (True,) * 6 + (False,) * 6 and len(set(edges)) == 12
    assert edges[:6] == np.argsort(-np.abs(values))[:6].tolist()
    np.testing.assert_array_equal(found.approximate, values[edges])
    np.testing.assert_allclose(found.exact, exact_effects(runs, edges).mean(0), atol=1e-12)
    assert found.correlation == pytest.approx(np.corrcoef(found.approximate, found.exact)[0, 1])


def test_checks_are_drawn_alike_for_one_seed_and_apart_for_others():
    runs = runs_of()
    values = np.arange(1.0, runs.wiring.graph.n_edges + 1)
    first, again, other = (check(runs, values, 5, seed, no_progress).edges for seed in (0, 0, 1))
    assert first == again != other and first[:5] == other[:5]


def test_more_checks_than_edges_are_all_edges():
    runs = runs_of()
    n_edges = runs.wiring.graph.n_edges
    for n, n_checked in ((n_edges - 3, n_edges), (10_000, n_edges)):
        found = check(runs, np.ones(n_edges), n, 0, no_progress)
        assert len(found.edges) == n_checked == len(set(found.edges))
    assert check(runs, np.ones(n_edges), 0, 0, no_progress) is None


def told(scores, exact, n):
    return compared(runs_of(), range(len(scores)), np.array(scores), np.array(exact), n)


def test_an_edge_scored_small_with_a_large_effect_is_missed():
    found = told([1.0, 0.5, 0.01, 0.0], [1.0, 0.5, 0.9, 0.0], 2)
    name = runs_of().wiring.graph.name
    assert found.missed == (name(2),) and not found.agrees
    assert told([1.0, 0.5, 0.01, 0.0], [1.0, 0.5, 0.1, 0.0], 2).missed == ()


def test_scores_that_rank_otherwise_disagree():
    assert told([1.0, 0.8, 0.2, 0.1], [1.0, 0.8, 0.2, 0.1], 2).agrees
    found = told([1.0, 0.8, 0.2, 0.1], [0.1, 0.2, 0.8, 1.0], 2)
    assert found.correlation < 0 and not found.agrees
    assert not told([1.0, 0.8, 0.2, 0.1], [-1.0, -0.8, -0.2, -0.1], 2).agrees


def test_what_does_not_vary_is_not_correlated():
    assert correlation(np.ones(3), np.arange(3.0)) == 0.0 == correlation(np.ones(1), np.ones(1))
    assert correlation(np.arange(3.0), -np.arange(3.0)) == pytest.approx(-1)


def test_on_the_induction_program_eap_disagrees_and_the_missed_edges_are_named():
    bench = load("induction").bench(8)
    found = score_edges(bench.model, bench.task, method="eap", bench=bench).check
    assert set(found.missed) == {"a0.h0 -> a1.h0.k", "embed -> a1.h0.q", "embed -> a0.h0.v"} and not found.agrees
    better = score_edges(bench.model, bench.task, method="atp-qk", bench=bench).check
    assert better.missed == ("embed -> a0.h0.v",)  # its way leads through the saturated attention of the layer after
    assert better.correlation > found.correlation


def test_what_is_measured_exactly_is_not_checked_again():
    model = model_of("attention only")
    assert score_edges(model, make_task((4,)), method="exact").check is None
    assert score_edges(model, make_task((4,)), method="eap", n_checks=0).check is None
