"""An induction circuit planted by hand is found where it was planted, and only there."""

import itertools

import pytest
import torch

from optrode.nn.spec import Spec
from optrode.nn.transformer import as_model, build
from optrode.study.kit import clamps, heads, icl

N_ITEMS, N_LABELS, N_POS, WIDTH = 6, 4, 5, 8
WORDS = icl.Vocabulary(torch.eye(N_ITEMS), N_LABELS)
ROWS = icl.draw(WORDS, icl.Pool(range(N_ITEMS), icl.label_sets(N_LABELS)[0]), 200, torch.Generator().manual_seed(0))
POS, LABEL, ITEM, BEFORE, OUT = (slice(a, b) for a, b in itertools.pairwise((0, 5, 9, 15, 21, 25)))
"""Dimensions of the residual stream: one-hot position, label, item, item of the token before, answer."""
PREVIOUS, INDUCTION, SHARP = 1, 2, 60.0


@pytest.fixture(scope="module")
def model():
    """Head 1 of layer 1 moves the previous item forward; head 2 of layer 2 looks for the query's and copies the label."""
    spec = Spec(
        n_layers=2, n_heads=3, d_model=25, d_head=WIDTH, vocab=N_LABELS, n_ctx=N_POS, norm="none", positions="one_hot",
        has_bias=False, n_items=N_ITEMS, d_item=N_ITEMS,
    )  # fmt: skip
    module = build(spec, items=WORDS.features)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.embed.weight[:, 0:4] = torch.eye(N_LABELS)  # a token's dimensions count from after the positions
        module.embed.read_item.weight[4:10] = torch.eye(N_ITEMS)
        first, second = (block.attn for block in module.blocks)
        at = slice(PREVIOUS * WIDTH, PREVIOUS * WIDTH + WIDTH)
        first.q.weight[at][range(4), range(1, 5)] = SHARP  # a position looks for the one before
        first.k.weight[at][range(5), range(5)] = 1
        _copies(first, at, ITEM, BEFORE)
        at = slice(INDUCTION * WIDTH, INDUCTION * WIDTH + WIDTH)
        second.q.weight[at][:N_ITEMS, ITEM] = SHARP * torch.eye(N_ITEMS)
        second.k.weight[at][:N_ITEMS, BEFORE] = torch.eye(N_ITEMS)
        _copies(second, at, LABEL, OUT)
        module.unembed.weight[:, OUT] = 10 * torch.eye(N_LABELS)
    return as_model(module)


def _copies(attention, at, read, written):
    n = read.stop - read.start
    attention.v.weight[at][:n, read] = torch.eye(n)
    attention.o.weight[:, at][written, :n] = torch.eye(n)


def test_the_planted_circuit_solves_the_task(model):
    assert heads.accuracy(model, ROWS) == 1.0
    assert heads.loss(model, ROWS) < 0.02


def test_strengths_and_previous_scores_name_the_heads(model):
    to_first = float((ROWS.right == 1).float().mean())  # position 0 can only look at itself: x1 is before l1, and before x1
    assert torch.allclose(heads.strengths(model, ROWS), torch.tensor([0.0, 0.0, 1 - to_first / 2]), atol=1e-3)
    assert torch.allclose(heads.previous_scores(model, ROWS), torch.tensor([0.375, 1.0, 0.375]), atol=1e-3)


def test_only_the_planted_heads_cost_anything(model):
    first, second = heads.costs(model, ROWS, 0), heads.costs(model, ROWS, 1)
    assert first[PREVIOUS] > 0.2 and first[0] == first[2] == 0
    assert second[INDUCTION] > 0.2 and second[0] == second[1] == 0


def test_the_ladder_begins_with_none_and_ends_with_all(model):
    steps = heads.ladder(model, ROWS, [0, INDUCTION, 1])
    assert steps[0] == pytest.approx(torch.log(torch.tensor(4.0)).item(), abs=1e-4) and steps[1] == pytest.approx(steps[0])
    assert steps[2] < 0.02 and steps[3] == pytest.approx(heads.loss(model, ROWS))


def test_the_previous_token_head_acts_through_keys_alone(model):
    found = heads.dissociation(model, ROWS, [PREVIOUS])
    assert found["group, patterns"] == 1.0 and found["group, values"] < 0.8
    assert found["others, patterns"] == found["others, values"] == 1.0
    assert heads.double_dissociation(found) == pytest.approx((1 - found["group, values"]) / 2)


def test_the_double_dissociation_of_the_papers_table_is_475():
    table = {"group, patterns": 0.9985, "group, values": 0.6987, "others, patterns": 0.3427, "others, values": 0.9932}
    assert heads.double_dissociation(table) == pytest.approx(0.47515)


def test_one_pair_is_wired_through_keys_and_none_through_values(model):
    keys, lone = heads.wiring(model, ROWS, "key"), heads.without_writers(model, ROWS, "key")
    assert keys[INDUCTION, PREVIOUS] == 1.0
    assert float(keys[INDUCTION, 0]) == float(keys[INDUCTION, 2]) == float(lone[INDUCTION]) < 0.8
    values = heads.wiring(model, ROWS, "value")
    assert torch.equal(values[INDUCTION], torch.ones(3))  # values are the embedding's: no writer is needed
    assert float(heads.without_writers(model, ROWS, "value")[INDUCTION]) == 1.0
    assert heads.fan(keys > 0.9) == 1


def test_layer_one_has_no_path_of_its_own(model):
    silent = clamps.only(None, 0, 3)
    assert heads.accuracy(model, ROWS, *clamps.keeping_patterns(*clamps.keeping_values(*silent))) == 1.0


def test_a_fan_is_the_smaller_of_readers_and_writers():
    wired = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0]]).bool()
    assert heads.fan(wired) == 2 and heads.fan(wired[:1]) == 1 and heads.fan(torch.zeros(3, 3).bool()) == 0


def test_composition_finds_the_planted_pair(model):
    scores = heads.composes(model, "k")
    assert scores.shape == (3, 3)
    assert float(scores[INDUCTION, PREVIOUS]) > 0.3


def test_rank_correlation_is_spearmans_with_ties():
    a, b = torch.tensor([1.0, 2.0, 2.0, 5.0]), torch.tensor([10.0, 30.0, 20.0, 40.0])
    assert heads.rank_correlation(a, b) == pytest.approx(0.948683, abs=1e-5)
    assert heads.rank_correlation(a, a.exp()) == pytest.approx(1.0, abs=1e-6)
    assert heads.rank_correlation(a, -a) == pytest.approx(-1.0, abs=1e-6)
