"""Schedules: openness is in [0, 1], zero outside, rises evenly, and a threshold once passed counts from there."""

from hypothesis import given, settings
from hypothesis import strategies as st

import optrode as op
from optrode.gate.held import Held
from optrode.gate.openness import Schedule

many = settings(max_examples=150, deadline=None, database=None)
starts, lengths = st.integers(0, 20), st.none() | st.integers(1, 20)
schedules = st.tuples(starts, lengths, st.integers(0, 12), st.integers(1, 5))
steps = st.integers(0, 60)


def made(drawn, **threshold):
    start, length, ramp, every = drawn
    return Schedule(start, None if length is None else start + length, ramp, every, **threshold)


@many
@given(schedules, steps)
def test_openness_is_a_share_and_zero_outside(drawn, step):
    schedule = made(drawn)
    value = schedule.openness(step)
    assert 0.0 <= value <= 1.0
    inside = step >= schedule.start and (schedule.until is None or step < schedule.until)
    assert (value > 0) == (inside and (step - schedule.start) % schedule.every == 0)


@many
@given(schedules)
def test_a_ramp_rises_in_equal_parts_to_one_and_stays(drawn):
    start, _, ramp, _ = drawn
    schedule = Schedule(start, ramp=ramp)
    values = [schedule.openness(step) for step in range(start, start + ramp + 5)]
    assert values == [min(1.0, (ix + 1) / ramp) if ramp else 1.0 for ix in range(ramp + 5)]


@many
@given(schedules, st.integers(0, 30))
def test_later_is_the_same_shifted(drawn, by):
    start, length, ramp, every = drawn
    first, later = made(drawn), made((start + by, length, ramp, every))
    assert [first.openness(step) for step in range(60)] == [later.openness(step + by) for step in range(60)]


@many
@given(schedules, st.lists(st.floats(-2, 2, width=16), min_size=1, max_size=30), st.floats(-1, 1, width=16), st.booleans())
def test_a_threshold_is_latched_and_counts_from_where_it_was_passed(drawn, values, bound, is_above):
    schedule = made(drawn, measure="loss", **({"above": bound} if is_above else {"below": bound}))
    held = Held((op.zero("embed", when=schedule),))
    passed = next((ix for ix, value in enumerate(values) if (value > bound if is_above else value < bound)), None)
    for ix, value in enumerate(values):
        held.tell(loss=value)
        known = passed is not None and ix >= passed
        assert held.openness(schedule) == (made(drawn).openness(ix - passed) if known else 0.0)
        held.step()


@many
@given(st.lists(st.tuples(st.integers(1, 4), st.floats(-2, 2, width=16)), max_size=20), schedules, st.integers(0, 19))
def test_a_state_taken_anywhere_goes_on_alike(history, drawn, at):
    gates = (op.zero("embed", when=made(drawn)), op.zero("embed", when=made(drawn, measure="loss", below=0.0)))
    whole, part = Held(gates), Held(gates)
    for ix, (n, value) in enumerate(history):
        for held in (whole, part):
            held.tell(loss=value)
            held.step(n)
        if ix == at:
            state, part = part.state(), Held(gates)
            part.resume(state)
        assert [whole.openness(one) for one in whole.schedules] == [part.openness(one) for one in part.schedules]
        assert whole.state() == part.state()
