"""Cuts take exactly their arrows away; random masks are as large and never the same."""

import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.nn.spec import Spec
from optrode.nn.transformer import as_model, build
from optrode.study.kit import masks


def tiny():
    return as_model(build(Spec(2, 2, 8, 5, 6), 0))


def patterns(model, *gates):
    with op.gates(model, *gates):
        return op.record(model, torch.tensor([[0, 1, 2, 3, 4, 1]]), ["blocks.*.attn.pattern"]).stack("attn.pattern")


def test_an_arrow_goes_from_a_source_to_a_later_position():
    mask = masks.arrows(4, [(0, 3), (1, 2)])
    assert mask.nonzero().tolist() == [[2, 1], [3, 0]]


@pytest.mark.parametrize("pair", [(2, 2), (3, 1), (0, 4), (-1, 2)])
def test_arrows_that_do_not_go_forward_are_refused(pair):
    with pytest.raises(BadOption, match="arrows go forward"):
        masks.arrows(4, [pair])


def test_a_cut_closes_its_arrows_in_its_layers_and_leaves_the_rest_in_proportion():
    model, mask = tiny(), masks.arrows(6, [(0, 3), (2, 3), (1, 5)])
    free, cut = patterns(model), patterns(model, *masks.cut(mask, [0]))
    assert float(cut[0][:, :, mask].max()) == 0 and float(cut[1][:, :, mask].min()) > 0
    expected = free[0].masked_fill(mask, 0)
    assert torch.allclose(cut[0], expected / expected.sum(-1, keepdim=True), atol=1e-6)
    everywhere = patterns(model, *masks.cut(mask, [0, 1]))
    assert float(everywhere[1][:, :, mask].max()) == 0


def test_keeping_arrows_alone_closes_all_others_but_a_positions_own():
    model, mask = tiny(), masks.arrows(6, [(0, 3), (1, 5)])
    kept = patterns(model, *masks.keep_only(mask, [0, 1]))
    opened = (kept > 0).flatten(0, 2).any(0)
    assert torch.equal(opened, mask | torch.eye(6, dtype=torch.bool))


def test_random_masks_have_as_many_other_arrows():
    mask = masks.arrows(6, [(0, 3), (2, 3), (1, 5)])
    drawn = [masks.as_many(mask, torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert all(int(one.sum()) == 3 and not bool((one & (mask | ~masks.forward(6))).any()) for one in drawn)
    hit = torch.stack(drawn).float().mean(0)
    assert torch.allclose(hit[masks.forward(6) & ~mask], torch.tensor(3 / 12), atol=0.12)


def test_there_must_be_as_many_others():
    with pytest.raises(BadOption, match="has 0 others"):
        masks.as_many(masks.forward(3), torch.Generator())
