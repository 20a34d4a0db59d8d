"""The posterior is its formula, its parameters are found again in mixtures that it made, and a set held out is predicted."""

import math

import numpy as np
import pytest

from optrode.errors import BadOption
from optrode.study.kit.posterior import START, Cell, Pair, Posterior, fit_posterior, held_out, nodes, slope

TRUE = Posterior(0.6, 0.2, 8.0)
PAIRS = {n: Pair(400.0 + 250 * n, 450.0, 0.16 - 0.1 / n**0.5, 0.17) for n in (4, 16, 64, 256)}


def cells_of(posterior):
    """Networks that are mixtures at the posterior's weight: the misfit is a parabola with its least there."""
    return [
        Cell(n, pair, step, tuple(((nodes() - posterior.weight(pair, step)) ** 2).tolist()))
        for n, pair in PAIRS.items() for step in (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
    ]  # fmt: skip


def test_log_odds_are_the_formula():
    pair, step = PAIRS[16], 100.0
    memory = -math.log(2) * pair.bits_m**0.2 - 8 * step**0.4 * pair.loss_m
    law = -math.log(2) * pair.bits_g**0.2 - 8 * step**0.4 * pair.loss_g
    assert TRUE.log_odds(pair, step) == pytest.approx(memory - law)
    assert TRUE.weight(pair, step) == pytest.approx(math.exp(memory) / (math.exp(memory) + math.exp(law)))


def test_both_strategies_weigh_the_same_at_the_switch():
    for pair in PAIRS.values():
        assert TRUE.weight(pair, TRUE.switch_step(pair)) == pytest.approx(0.5)


def test_no_switch_where_memorising_never_pays_or_costs_nothing():
    assert math.isnan(TRUE.switch_step(Pair(1000.0, 450.0, 0.2, 0.17)))
    assert math.isnan(TRUE.switch_step(Pair(300.0, 450.0, 0.1, 0.17)))


def test_parameters_are_found_again():
    found = fit_posterior(cells_of(TRUE), (START, (0.6, 0.2, 20.0)))
    assert (found.alpha, found.beta, found.gamma) == pytest.approx((0.6, 0.2, 8.0), rel=0.1)


def test_a_set_that_was_held_out_is_predicted():
    cells = cells_of(TRUE)
    predicted = held_out(cells, (START, (0.6, 0.2, 20.0)))
    assert predicted == pytest.approx([TRUE.weight(cell.pair, cell.step) for cell in cells], abs=0.02)


def test_best_weight_is_where_the_misfit_is_least():
    for cell in cells_of(TRUE):
        assert cell.best_weight == pytest.approx(TRUE.weight(cell.pair, cell.step), abs=0.003)


def test_fewer_cells_than_parameters_are_refused():
    with pytest.raises(BadOption, match="there are 2 cells"):
        fit_posterior(cells_of(TRUE)[:2])


def test_nodes_cover_all_weights():
    assert nodes()[0] == 0 and nodes()[-1] == pytest.approx(1)
    assert bool((np.diff(nodes()) > 0).all())


def test_slope_is_a_power_laws_exponent_and_leaves_out_what_is_not_known():
    x = (4, 16, 64, 256)
    assert slope(x, [3 * n**1.5 for n in x]) == pytest.approx(1.5)
    assert slope(x, [math.nan, 16.0, math.nan, 256.0]) == pytest.approx(1)
    assert math.isnan(slope(x, [math.nan, 2.0, math.nan, math.nan]))
