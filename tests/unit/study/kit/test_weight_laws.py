"""Laws of weight geometry hold of what is drawn, and what is drawn can break a wrong law."""

import pytest
import torch

from optrode.study.kit import weight_laws


def numbers():
    return torch.Generator().manual_seed(5)


def test_pairs_are_bfloat16_values_near_each_other_with_every_special_case():
    old, new = weight_laws.bf16_pairs(4000, numbers())
    assert old.equal(old.bfloat16().float()) and new.equal(new.bfloat16().float()) and bool(new.isfinite().all())
    assert bool((old == 0).any()) and bool((old == new).any()) and bool((old != new).any())
    is_power = torch.frexp(old).mantissa.abs() == 0.5
    assert float(is_power.float().mean()) > 0.08


def test_a_thousandth_tells_bfloat16_values_apart_and_a_hundredth_does_not():
    assert weight_laws.mismatches(4000, 1e-3, numbers()) == 0
    assert weight_laws.mismatches(4000, 2.0**-7, numbers()) > 100


def test_near_crossings_break_the_bound_of_the_wrong_gap_alone():
    generator = numbers()
    pairs = [weight_laws.crossing(6, generator) for _ in range(10)]
    assert weight_laws.over_bounds(pairs, 1) <= 1 < weight_laws.over_wrong_bound(pairs, 1)
    before, after = (torch.linalg.svdvals(one) for one in pairs[0])
    assert before[:2].tolist() == pytest.approx([2.0, 1.0]) and float(after[0] - after[1]) < 0.5


def test_random_updates_keep_within_the_bounds():
    generator = numbers()
    assert weight_laws.over_bounds([weight_laws.perturbed(5, generator) for _ in range(20)], 2) <= 1


def test_random_updates_overlap_with_half_of_the_weights_by_half_and_aimed_ones_altogether():
    weight = torch.randn(40, 40, generator=numbers())
    assert abs(weight_laws.overlaps(weight, 4, 20, numbers()) - 0.5) < 0.03
    assert weight_laws.overlaps(weight, 4, 2, numbers(), is_aimed=True) == 1.0
