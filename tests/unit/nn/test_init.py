"""Weights start with the standard deviations that the rules state."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.nn import recurrent
from optrode.nn.init import RULES, initialise
from optrode.nn.transformer import Spec, build

WIDE = Spec(1, 2, 256, vocab=200, n_ctx=16, d_mlp=384, head_layers=1, unembed_bias=True, d_head=64)


def deviations(init, spec=WIDE):
    return {name: float(p.detach().std()) for name, p in build(spec, 3, init=init).named_parameters() if p.dim() > 1}


@pytest.mark.parametrize("init", RULES)
def test_gains_are_1_and_biases_0(init):
    for name, parameter in build(WIDE, init=init).named_parameters():
        if parameter.dim() == 1:
            expected = 0.0 if name.endswith("bias") else 1.0
            assert torch.equal(parameter.detach(), torch.full_like(parameter.detach(), expected)), name


def test_lecun_has_variance_one_over_inputs_and_is_cut_at_two_deviations():
    found = deviations("lecun")
    assert found["embed.weight"] == pytest.approx(0.02, rel=0.03)
    assert found["pos_embed.weight"] == pytest.approx(0.02, rel=0.05)
    assert found["blocks.0.attn.q.weight"] == pytest.approx(256**-0.5, rel=0.02)
    assert found["blocks.0.attn.o.weight"] == pytest.approx(128**-0.5, rel=0.02)
    assert found["blocks.0.mlp.down.weight"] == pytest.approx(384**-0.5, rel=0.02)
    assert found["unembed.weight"] == pytest.approx(256**-0.5, rel=0.02)
    weight = build(WIDE, 3, init="lecun").blocks[0].attn.q.weight.detach()
    assert float(weight.abs().max()) * 256**0.5 == pytest.approx(2 / 0.8796, rel=0.01)


def test_he_doubles_the_variance_around_relus_alone():
    found = deviations("he")
    assert found["blocks.0.attn.q.weight"] == pytest.approx(256**-0.5, rel=0.02)
    assert found["blocks.0.mlp.up.weight"] == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert found["head.0.weight"] == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert found["unembed.weight"] == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    plain = Spec(1, 2, 256, vocab=200, n_ctx=16)
    assert deviations("he", plain)["unembed.weight"] == pytest.approx(256**-0.5, rel=0.02)


def test_small_is_the_same_everywhere():
    assert all(value == pytest.approx(0.02, rel=0.05) for value in deviations("small").values())


def test_rules_hold_for_recurrent_networks_too():
    module = recurrent.build(recurrent.RecurrentSpec("lstm", 64, 128, 3), 3, init="lecun")
    cell = module.cells[0]
    assert float(cell.read.weight.detach().std()) == pytest.approx(1 / 8, rel=0.02)
    assert float(cell.recur.weight.detach().std()) == pytest.approx(128**-0.5, rel=0.02)
    assert float(cell.read.bias.detach().abs().max()) == 0


@pytest.mark.parametrize("make", [lambda: initialise(torch.nn.Linear(2, 2), "lecunn"), lambda: build(WIDE, init="lecunn")])
def test_an_unknown_rule_is_refused(make):
    with pytest.raises(BadOption, match=r"init='lecunn': no such rule. Nearest: lecun"):
        make()
