"""Phase changes are found where a curve moves abruptly, and nowhere else."""

import math

import numpy as np
import pytest

from optrode.errors import BadOption
from optrode.train.phases import phase_changes, thinned
from optrode.train.plan import log_spaced
from optrode.train.records import Series

EVERY = np.arange(2000)
SPARSE = np.array(log_spaced(2000))


def series(steps, values):
    return Series(tuple(int(step) for step in steps), tuple(float(value) for value in values))


def logistic(steps, middle, power=5.0):
    """A logistic curve of log steps; 7 % and 93 % of its way are (14 ** (2 / power)) apart in steps."""
    return 1 / (1 + (middle / np.maximum(steps, 0.5)) ** power)


@pytest.mark.parametrize("steps", [EVERY, SPARSE], ids=["every step", "two per doubling"])
@pytest.mark.parametrize("middle", [100, 600])
def test_a_logistic_curve_changes_in_its_middle(steps, middle):
    (change,) = phase_changes(series(steps, 3 - 2 * logistic(steps, middle)))
    assert abs(math.log2(change.step / middle)) < 0.15
    assert change.start < 0.8 * middle and change.end > 1.25 * middle
    assert change.end / change.start == pytest.approx(14 ** (2 / 5.0), rel=0.6)
    assert change.height == change.after - change.before == pytest.approx(-2 * 0.87, abs=0.12)


def test_a_jump_between_two_checkpoints_lies_between_them():
    (change,) = phase_changes(series(SPARSE, SPARSE > 600))
    assert max(SPARSE[SPARSE <= 600]) < change.step < min(SPARSE[SPARSE > 600])


def test_two_changes_are_found_in_the_order_of_their_steps():
    first, second = phase_changes(series(EVERY, logistic(EVERY, 30, 6) - 0.5 * logistic(EVERY, 600, 8)))
    assert first.height > 0.8 and abs(math.log2(first.step / 30)) < 0.2
    assert -0.5 < second.height < -0.38 and abs(math.log2(second.step / 600)) < 0.2


@pytest.mark.parametrize("random_seed", range(8))
def test_noise_neither_hides_a_change_nor_is_one(random_seed):
    noise = 0.15 * np.random.default_rng(random_seed).normal(size=len(EVERY))
    (change,) = phase_changes(series(EVERY, logistic(EVERY, 400) + noise))
    assert abs(math.log2(change.step / 400)) < 0.35
    assert phase_changes(series(EVERY, noise)) == ()


SMOOTH = {
    "flat": np.full(2000, 0.7),
    "flat up to rounding": 0.7 + 1e-12 * np.sin(EVERY),
    "an exponential approach": np.exp(-EVERY / 200),
    "a power law": (EVERY + 1.0) ** -0.3,
    "a line, not at its end": EVERY / 2000,
    "a change that has not ended": logistic(EVERY, 1900, 5),
    "a slow logistic curve": logistic(EVERY, 50, 1.5),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_no_phase_change(name):
    assert phase_changes(series(EVERY, SMOOTH[name])) == ()


def test_a_small_change_counts_when_it_is_asked_for():
    values = logistic(EVERY, 20, 6) + 0.1 * logistic(EVERY, 600, 8)
    assert len(phase_changes(series(EVERY, values))) == 1
    assert len(phase_changes(series(EVERY, values), least=0.05)) == 2
    assert phase_changes(series(EVERY, values), factor=1.5) == ()


def test_few_values_have_none_and_what_is_not_finite_is_left_out():
    assert phase_changes(series(SPARSE[:7], SPARSE[:7] > 3)) == ()
    assert phase_changes(series([], [])) == ()
    values = logistic(EVERY, 400)
    values[[3, 700]] = np.nan
    assert len(phase_changes(series(EVERY, values))) == 1


@pytest.mark.parametrize("options", [{"width": 0.0}, {"least": -0.1}, {"factor": 1.0}, {"noise": 0.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(BadOption, match=f"{next(iter(options))}=.*give positive numbers"):
        phase_changes(series(EVERY, EVERY), **options)


def test_steps_must_ascend():
    with pytest.raises(BadOption, match="the steps of the series do not ascend.*sort it by step"):
        phase_changes(series([0, 2, 1], [0, 1, 2]))


def test_thinned_curves_keep_means_and_all_early_steps():
    found = thinned(series(EVERY, EVERY))
    assert found.steps[:40] == tuple(range(40)) and found.values[:40] == tuple(range(40))
    assert len(found.steps) < 330 and max(found.steps) < 2000
    for low in (64, 512):
        assert sum(low <= step < 2 * low for step in found.steps) <= 49
    assert np.allclose(found.steps, found.values, atol=1.0), "the mean of neighbours stands at their middle"
    assert thinned(series([], [])) == series([], [])
    assert thinned(series(SPARSE, SPARSE)) == series(SPARSE, SPARSE)
