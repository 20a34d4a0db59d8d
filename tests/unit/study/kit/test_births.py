"""Births and deaths of heads: known answers, and a head planted by hand is found."""

import math

import numpy as np
import pytest
import torch

from optrode.errors import BadOption
from optrode.nn.transformer import Spec, as_model, build
from optrode.study.kit.births import Census, Losses, census, jaccard, losses_of, mean_births, mean_jaccard
from optrode.trial.prompts import Pair, Task

SETS = (frozenset("ab"), frozenset("abc"), frozenset("bcd"), frozenset("bc"))
WIDTH = 12


def losses(*per_head, gap=1.0, n=4):
    return Losses(tuple("abcd"[: len(per_head)]), np.tile(per_head, (n, 1)), np.full(n, gap))


def test_a_head_is_active_from_its_share_on():
    found = losses(0.2, 0.19, -0.5, 0.4, gap=2.0)
    assert found.shares() == pytest.approx({"a": 0.1, "b": 0.095, "c": -0.25, "d": 0.2})
    assert found.active() == {"a", "d"}
    assert found.active(0.15) == {"d"}


def test_nothing_is_active_where_both_worlds_are_the_same():
    assert losses(1.0, 1.0, gap=0.0).active() == frozenset()


def test_prompts_that_agree_give_one_set_and_others_do_not():
    assert set(losses(0.5, 0.0).resampled(n=10)) == {frozenset("a")}
    torn = Losses(("a", "b"), np.array([[0.5, 0.0], [-0.4, 0.0]] * 3), np.ones(6))
    found = torn.resampled(n=40)
    assert set(found) == {frozenset("a"), frozenset()}
    assert found == torn.resampled(n=40)
    assert 0 < mean_births(found) < 1


def test_a_planted_head_is_the_one_that_is_active():
    """Head 1 of layer 0 copies the token before; all other heads write nothing."""
    spec = Spec(
        n_layers=2, n_heads=2, d_model=WIDTH, d_head=WIDTH, vocab=6, n_ctx=2, norm="none", positions="none", has_bias=False
    )  # fmt: skip
    module = build(spec, 0)
    with torch.no_grad():
        for block in module.blocks:
            block.attn.o.weight.zero_()
        attn = module.blocks[0].attn
        attn.q.weight.zero_()  # attention is even, so that half of it is at the token before
        attn.v.weight.zero_()[WIDTH:] = torch.eye(WIDTH)
        attn.o.weight[:, WIDTH:] = torch.eye(WIDTH).roll(6, 0)
        module.embed.weight.zero_()[:, :6] = torch.eye(6)
        module.unembed.weight.zero_()[:, 6:] = 8 * torch.eye(6)
    pairs = tuple(Pair((a, 5), (b, 5), (a,), (b,)) for a, b in ((0, 1), (1, 2), (3, 0)))
    found = losses_of(as_model(module), Task("copy", "Say the token before.", "logit_gap", pairs))
    assert found.active() == {"blocks.0.attn.z[head=1]"}
    assert list(found.shares().values()) == pytest.approx([0.0, 1.0, 0.0, 0.0])
    assert found.gaps.tolist() == pytest.approx([8.0] * 3)


def test_a_census_counts_births_and_deaths_against_the_start():
    found = Census((0, 10, 20, 30), SETS)
    assert found.n_born() == (0, 1, 2, 1)
    assert found.born() == {"c"}
    assert found.died() == {"a"}
    assert found.died(1) == frozenset()
    assert found.ever_born() == {"c", "d"}
    assert found.pruned_share() == 0.5


def test_without_any_birth_no_share_is_pruned():
    assert math.isnan(Census((0, 1), (frozenset("ab"), frozenset("a"))).pruned_share())


def test_a_census_is_made_in_the_order_of_the_steps():
    found = census({20: losses(0.0, 0.5), 0: losses(0.5, 0.0)})
    assert found.steps == (0, 20)
    assert found.active == (frozenset("a"), frozenset("b"))


def test_overlap_is_shared_over_either():
    assert jaccard(SETS[1], SETS[2]) == 0.5
    assert jaccard(frozenset(), frozenset()) == 1.0
    assert mean_jaccard([SETS[0], SETS[1], SETS[1]]) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert mean_births([SETS[0], SETS[2]]) == 1.5


def test_what_there_is_none_of_is_refused():
    with pytest.raises(BadOption, match="2 steps and 1 sets"):
        Census((0, 1), SETS[:1])
    with pytest.raises(BadOption, match="give 2 or more"):
        mean_jaccard(SETS[:1])
