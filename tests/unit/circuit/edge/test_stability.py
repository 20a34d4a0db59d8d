"""Overlaps against resampling written out, and against scores whose stability is known."""

from itertools import combinations

import numpy as np
import pytest

from optrode.circuit.edge import stability
from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.select import ORDERS, select, strengths
from optrode.circuit.edge.stability import bootstrap_jaccard, jaccard, overlaps, split_jaccard
from optrode.circuit.interval import draws
from optrode.errors import BadOption
from tests.unit.circuit.edge.samples import GRAPHS, make_scores


def overlap(a, b):
    a, b = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("how", list(ORDERS))
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_bootstrap_is_its_definition(graph, how):
    scores = make_scores(graph, noise=1.0)
    found = bootstrap_jaccard(scores, 5, how, n_bootstrap=8, random_seed=3)
    circuits = [
        select(make_scores(graph, strengths(scores.per_prompt[drawn], how), n_prompts=1), 5, how) for drawn in draws(6, 3, 8)
    ]  # fmt: skip
    pairs = [overlap(a, b) for a, b in combinations(circuits, 2)]
    assert found.mean == pytest.approx(np.mean(pairs)) and 0 < found.mean < 1
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(np.percentile(pairs, [2.5, 97.5])))
    assert found.frequency == pytest.approx(np.mean(circuits, axis=0)) and found.frequency.sum() == pytest.approx(5)
    assert (found.n_circuits, found.n_edges, found.n_prompts, found.selection) == (8, 5, 6, how)


def test_chunks_change_nothing(monkeypatch):
    scores = make_scores(noise=1.0)
    whole = bootstrap_jaccard(scores, 9), split_jaccard(scores, 9)
    monkeypatch.setattr(stability, "_CHUNK", 200)
    parts = bootstrap_jaccard(scores, 9), split_jaccard(scores, 9)
    for a, b in zip(whole, parts, strict=True):
        assert (a.mean, a.interval) == (b.mean, b.interval) and (a.frequency == b.frequency).all()


@pytest.mark.parametrize("measure", [bootstrap_jaccard, split_jaccard])
def test_prompts_that_agree_give_one_circuit(measure):
    found = measure(make_scores(noise=0.0), 7)
    assert (found.mean, found.interval.low, found.interval.high) == (1.0, 1.0, 1.0)
    assert sorted(set(found.frequency)) == [0.0, 1.0]


@pytest.mark.parametrize("measure", [bootstrap_jaccard, split_jaccard])
def test_noise_lowers_the_overlap(measure):
    means = [measure(make_scores(noise=noise), 9).mean for noise in (0.0, 0.3, 3.0)]
    assert means == sorted(means, reverse=True) and means[2] < 0.7


def test_halves_of_pure_noise_overlap_by_chance():
    graph = Graph(3, 4, 4)
    scores = make_scores(graph, np.zeros(graph.n_edges), noise=1.0, n_prompts=40)
    found = split_jaccard(scores, graph.n_edges // 2, n_splits=50)
    assert found.mean == pytest.approx(found.by_chance, abs=0.03) and found.by_chance == pytest.approx(1 / 3, abs=0.01)
    assert split_jaccard(scores, graph.n_edges).mean == split_jaccard(scores, graph.n_edges).by_chance == 1.0


def test_halves_share_no_prompt():
    """One prompt votes for one edge each; two halves that shared a prompt would agree on its edge."""
    graph = GRAPHS["plain"]
    votes = np.eye(5, graph.n_edges)
    found = split_jaccard(make_scores(graph, per_prompt=votes), 2, n_splits=20)
    assert found.mean == 0.0 and found.n_prompts == 5 and found.n_circuits == 40
    assert found.frequency[:5].sum() == pytest.approx(2.0) and (found.frequency[:5] > 0).all()


def test_seeds_repeat():
    scores = make_scores(noise=1.0)
    assert bootstrap_jaccard(scores, 9, random_seed=1).mean == bootstrap_jaccard(scores, 9, random_seed=1).mean
    assert bootstrap_jaccard(scores, 9, random_seed=1).mean != bootstrap_jaccard(scores, 9, random_seed=2).mean


def test_single_precision_scores_are_not_widened():
    scores = make_scores(noise=1.0)
    single = make_scores(noise=1.0, per_prompt=scores.per_prompt.astype(np.float32))
    assert bootstrap_jaccard(single, 9).mean == pytest.approx(bootstrap_jaccard(scores, 9).mean, abs=1e-3)


def test_jaccard_of_sets():
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert (jaccard(a, b), jaccard(a, a), jaccard(a, ~a), jaccard(a & ~a, b & ~b)) == (1 / 3, 1.0, 0.0, 1.0)
    chosen = np.stack([a, b, ~a, a & ~a])
    assert overlaps(chosen).tolist() == [[jaccard(first, second) for second in chosen] for first in chosen]


@pytest.mark.parametrize(
    ("measure", "changed", "message"),
    [
        (bootstrap_jaccard, {"n_edges": 0}, "n_edges=0: circuits without edges"),
        (bootstrap_jaccard, {"n_bootstrap": 1}, "n_bootstrap=1: overlap is that of pairs; 2 is the least"),
        (split_jaccard, {"n_splits": 0}, "n_splits=0: overlap is that of pairs; 1 is the least"),
        (split_jaccard, {"n_edges": 999}, "n=999: the graph has"),
        (bootstrap_jaccard, {"how": "gready"}, "selection 'gready': no such selection. Nearest: greedy"),
    ],
)
def test_what_has_no_overlap(measure, changed, message):
    with pytest.raises(BadOption, match=message):
        measure(make_scores(), **({"n_edges": 3} | changed))
    with pytest.raises(BadOption, match="the scores are of 1 prompts; resampling needs 2"):
        measure(make_scores(n_prompts=1), 3)
