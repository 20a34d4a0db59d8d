"""Pasted blocks are those of the source and stay so; what is around them is fresh and learns."""

from dataclasses import replace

import pytest
import torch

from optrode.errors import BadOption
from optrode.nn.transformer import Spec, build
from optrode.study.kit.pasting import pasted

SPEC = Spec(3, 2, 8, 5, 6, d_mlp=16)


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_pasted_blocks_are_the_sources_in_the_order_given():
    source = build(SPEC, 0)
    model = pasted(source, (2, 0), 1)
    assert len(model.module.blocks) == 2
    assert same(model.module.blocks[0], source.blocks[2]) and same(model.module.blocks[1], source.blocks[0])
    assert not torch.equal(model.module.embed.weight, source.embed.weight)


def test_only_what_is_new_learns_and_the_source_is_left_alone():
    source = build(SPEC, 0)
    model = pasted(source, (1, 2), 1)
    learns = {name for name, parameter in model.module.named_parameters() if parameter.requires_grad}
    assert learns == {"embed.weight", "pos_embed.weight", "final_norm.weight", "final_norm.bias", "unembed.weight"}
    assert all(parameter.requires_grad for parameter in source.parameters())
    model(torch.zeros(1, 3, dtype=torch.long)).logits.sum().backward()
    assert model.module.embed.weight.grad is not None and model.module.blocks[1].mlp.up.weight.grad is None


def test_the_new_embedding_can_read_vectors_of_another_width():
    model = pasted(build(replace(SPEC, d_in=4), 0), (1,), 1, d_in=7)
    assert model(inputs_embeds=torch.randn(2, 3, 7)).logits.shape == (2, 3, 5)


def test_sites_are_those_of_as_many_blocks():
    assert pasted(build(SPEC, 0), (1,), 1).table.n_layers == 1


@pytest.mark.parametrize(("layers", "found"), [((3,), "blocks 0 to 2"), ((), "no block")])
def test_blocks_that_are_not_there_are_refused(layers, found):
    with pytest.raises(BadOption, match=found):
        pasted(build(SPEC, 0), layers, 1)
