"""Births and deaths of heads: known answers, and a head planted by hand is found."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from optrode.errors import BadOption
from optrode.nn.transformer import Spec, as_model, build
from optrode.study.kit.births import (
    Census,
    census,
    frequencies,
    heads_of,
    jaccard,
    mean_births,
    mean_jaccard,
    resampled,
    scores_of,
)
from optrode.trial.prompts import Pair, Task

SETS = (frozenset("ab"), frozenset("abc"), frozenset("bcd"), frozenset("bc"))
WIDTH = 12


@pytest.fixture(scope="module")
def planted():
    """Scores of a model in which head 1 of layer 0 copies the token before; all other heads write nothing."""
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
    return scores_of(as_model(module), Task("copy", "Say the token before.", "logit_gap", pairs))


def with_effects(scores, *prompts):
    """The same graph with other effects: for each prompt, edge -> effect."""
    per_prompt = np.zeros((len(prompts), scores.graph.n_edges))
    for row, effects in enumerate(prompts):
        for edge, effect in effects.items():
            per_prompt[row, scores.graph.edge(edge)] = effect
    return replace(scores, per_prompt=per_prompt)


def through(head, size=1.0):
    """Effects of a way from the input through one head to the logits."""
    return {f"embed->{head}.v": -size, f"{head}->logits": -size}


def test_a_planted_head_is_the_one_in_the_circuit(planted):
    assert heads_of(planted, 2 / planted.graph.n_edges) == {"blocks.0.attn.z[head=1]"}


def test_every_edge_is_the_circuit_of_all_heads(planted):
    assert len(heads_of(planted, 1.0)) == 4


def test_a_head_without_a_way_to_the_logits_is_in_no_circuit(planted):
    lame = with_effects(planted, {"embed->a0.h0.v": -5.0} | through("a1.h1"))
    assert heads_of(lame, 3 / lame.graph.n_edges) == {"blocks.1.attn.z[head=1]"}


def test_prompts_that_agree_give_one_circuit_and_others_do_not(planted):
    share = 2 / planted.graph.n_edges
    agreed = with_effects(planted, *[through("a0.h0")] * 3)
    assert set(resampled(agreed, share, n=10)) == {frozenset({"blocks.0.attn.z[head=0]"})}
    torn = with_effects(planted, *[through("a0.h0"), through("a0.h1")] * 2, through("a0.h0"))  # an odd number has no ties
    found = resampled(torn, share, n=40)
    assert set(found) == {frozenset({f"blocks.0.attn.z[head={head}]"}) for head in (0, 1)}
    assert found == resampled(torn, share, n=40)
    assert 0 < mean_births(found) < 1
    assert sum(frequencies(found).values()) == pytest.approx(1.0)


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


def test_a_census_is_made_in_the_order_of_the_steps(planted):
    one, other = (with_effects(planted, through(head)) for head in ("a0.h0", "a1.h0"))
    found = census({20: other, 0: one}, 2 / planted.graph.n_edges)
    assert found.steps == (0, 20)
    assert found.born() == {"blocks.1.attn.z[head=0]"}
    assert found.died() == {"blocks.0.attn.z[head=0]"}


def test_overlap_is_shared_over_either():
    assert jaccard(SETS[1], SETS[2]) == 0.5
    assert jaccard(frozenset(), frozenset()) == 1.0
    assert mean_jaccard([SETS[0], SETS[1], SETS[1]]) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert mean_births([SETS[0], SETS[2]]) == 1.5
    assert frequencies(SETS[:2]) == {"a": 1.0, "b": 1.0, "c": 0.5}


def test_what_there_is_none_of_is_refused(planted):
    with pytest.raises(BadOption, match="2 steps and 1 sets"):
        Census((0, 1), SETS[:1])
    with pytest.raises(BadOption, match="give 2 or more"):
        mean_jaccard(SETS[:1])
    with pytest.raises(BadOption, match="share of the edges"):
        heads_of(planted, 0.0)
