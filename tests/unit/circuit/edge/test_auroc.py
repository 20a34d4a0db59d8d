"""The area against a count of pairs, the floor, and MIB's protocol against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.circuit.edge.auroc import FLOOR, auroc
from optrode.circuit.edge.curve import SHARES, sizes_of
from optrode.circuit.edge.select import select
from optrode.errors import BadOption
from tests.unit.circuit.edge.samples import GRAPHS, make_scores


@st.composite
def cases(draw):
    """Scores with many ties, and a truth with edges of both kinds."""
    n = draw(st.integers(2, 30))
    scores = draw(st.lists(st.sampled_from([-2.0, -1e-5, 0.0, 1e-9, 0.5, 2.0, 3.0]), min_size=n, max_size=n))
    n_true = draw(st.integers(1, n - 1))
    truth = draw(st.permutations([True] * n_true + [False] * (n - n_true)))
    return np.array(scores), np.array(truth)


def count_of_pairs(size, truth):
    pairs = [(t, f) for t in size[truth] for f in size[~truth]]
    return sum(1.0 if t > f else 0.5 if t == f else 0.0 for t, f in pairs) / len(pairs)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_the_area_is_a_count_of_pairs(case):
    scores, truth = case
    assert auroc(scores, truth) == pytest.approx(count_of_pairs(abs(scores), truth), abs=1e-12)
    floored = np.where(abs(scores) < FLOOR * abs(scores).max(), 0.0, abs(scores))
    assert auroc(scores, truth, floor=FLOOR) == pytest.approx(count_of_pairs(floored, truth), abs=1e-12)


@given(cases())
def test_truth_and_its_opposite_add_to_one(case):
    scores, truth = case
    assert auroc(scores, truth) + auroc(scores, ~truth) == pytest.approx(1.0)
    assert auroc(-7 * scores, truth) == auroc(scores, truth)


@pytest.mark.parametrize(
    ("n_all", "n_true", "n_found", "expected"),
    [(23, 5, 2, 0.70), (8, 4, 1, 0.625), (23, 6, 1, 0.5833), (77, 2, 2, 1.0)],
)
def test_the_floor_unmasks_true_edges_found_by_rounding_noise_alone(n_all, n_true, n_found, expected):
    """The figures of EAP on induction, hist, count_less_freq and reverse: so many of the true edges score above noise."""
    scores, truth = np.zeros(n_all), np.arange(n_all) < n_true
    scores[:n_true], scores[:n_found] = -2.7e-7, -0.4
    assert auroc(scores, truth) == 1.0
    assert auroc(scores, truth, floor=FLOOR) == pytest.approx(expected, abs=1e-3)


def test_scores_that_say_nothing_are_chance():
    truth = np.arange(10) < 3
    assert auroc(np.zeros(10), truth) == auroc(np.zeros(10), truth, floor=FLOOR) == 0.5


def test_a_score_at_the_floor_still_counts():
    assert auroc(np.array([1.0, 1e-3, 0.0]), np.array([True, True, False]), floor=1e-3) == 1.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_greedy", [True, False])
def test_the_protocol_of_mib_is_ten_circuits(seed, is_greedy):
    graph = GRAPHS["plain"]
    scores = make_scores(graph, random_seed=seed)
    truth = np.random.default_rng(seed + 9).random(graph.n_edges) < 0.2
    rates = []
    for size in sizes_of(graph.n_edges, SHARES):
        chosen = select(scores, size, "greedy" if is_greedy else "absolute")
        rates.append(((chosen & ~truth).sum() / (~truth).sum(), (chosen & truth).sum() / truth.sum()))
    expected = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(rates, rates[1:], strict=False))
    found = auroc(scores.values, truth, protocol="mib", graph=graph if is_greedy else None)
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_protocol_of_mib_gives_nothing_for_what_is_left_of_its_smallest_circuit():
    truth = np.arange(1000) >= 999
    scores = np.where(truth, 0.5, np.linspace(1, 0, 1000))
    scores[0] = 9.0  # one false edge first; the rest of the ranking finds the true one half way
    assert auroc(scores, truth, protocol="mib") < auroc(scores, truth)
    best = np.where(truth, 1.0, 0.0)
    assert auroc(best, truth, protocol="mib") == auroc(best, truth) == 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"truth": np.ones(4, dtype=bool)}, "4 of 4 edges are true"),
        ({"truth": np.zeros(4, dtype=bool)}, "0 of 4 edges are true"),
        ({"truth": np.array([True, False])}, "4 scores and a truth of 2 edges"),
        ({"scores": np.array([1.0, np.nan, 0.0, np.inf])}, "2 of 4 scores are not finite"),
        ({"floor": 1.5}, "floor=1.5: a floor is a share of the largest score"),
        ({"protocol": "mip"}, "protocol 'mip': no such protocol. Nearest: mib"),
    ],
)
def test_what_has_no_area(changed, message):
    with pytest.raises(BadOption, match=message):
        auroc(**({"scores": np.arange(4.0), "truth": np.arange(4) < 2} | changed))
