"""The proof at load: it passes what is right, catches what is wrong, and leaves the module as it was."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from optrode.errors import CheckFailed
from optrode.gate.check import Check, check_model
from optrode.loading import load
from optrode.model.adapter import Place, Table, heads
from optrode.model.model import Model
from optrode.model.tiny import tiny
from optrode.model.zoo import find_family
from optrode.model.zoo.llama import FAMILY

LAYER = "model.layers.{L}"


def table_of(module: nn.Module, **changed: Place) -> Table:
    """The right table with some places replaced; `attn_q` stands for `attn.q`, other names for themselves."""
    table = find_family(module.config).table(module.config, f"{module.base_model_prefix}.")
    names = {kind.replace(".", "_"): kind for kind in table.places}
    return replace(table, places={**table.places, **{names[name]: place for name, place in changed.items()}})


WRONG = {
    "k and v are swapped": {
        "attn_k": Place(f"{LAYER}.self_attn.v_proj", view=heads(2)),
        "attn_v": Place(f"{LAYER}.self_attn.k_proj", view=heads(2)),
    },
    "head counts": {"attn_q": Place(f"{LAYER}.self_attn.q_proj", view=heads(3))},
    "groups": {"attn_v": Place(f"{LAYER}.self_attn.v_proj", view=heads(4))},
    "the MLP's hidden layer for its output": {"mlp_out": Place(f"{LAYER}.mlp.gate_proj")},
    "a norm for what is added": {"attn_out": Place(f"{LAYER}.input_layernorm")},
    "the stream after attention": {"resid_mid": Place(f"{LAYER}.post_attention_layernorm")},
    "the stream before the block": {"resid_pre": Place(f"{LAYER}.input_layernorm")},
    "what z is": {"attn_z": Place(f"{LAYER}.self_attn.q_proj", view=heads(6))},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_caught(wrong):
    module = tiny("llama")
    with pytest.raises(CheckFailed) as error:
        check_model(Model(module, table_of(module, **wrong)))
    assert any(name.replace("_", ".", 1) in str(error.value) or name in str(error.value) for name in (*wrong, "attn_z"))


def test_a_wrong_table_is_caught_by_load_and_let_through_when_asked():
    module = tiny("llama")
    family = replace(FAMILY, table=lambda config, prefix: table_of(module, **WRONG["k and v are swapped"]))
    with pytest.raises(CheckFailed, match="attn.z"):
        load(module, family=family)
    assert load(module, family=family, check=False).table.family == "llama"
    assert load(module).table.family == "llama"


def run_unused(layer, args):
    layer.unused(args[0])


def test_a_site_that_the_model_does_not_use_is_caught():
    module = tiny("llama")
    for layer in module.model.layers:
        layer.unused = nn.Linear(48, 48)
        layer.register_forward_pre_hook(run_unused)
    table = table_of(module, ln2=Place(f"{LAYER}.unused"))
    with pytest.raises(CheckFailed, match=r"blocks\.0\.ln2.*moving it"):
        check_model(Model(module, table))


def test_an_interleaved_projection_read_side_by_side_is_caught():
    module = tiny("gpt_neox")
    fused = "gpt_neox.layers.{L}.attention.query_key_value"
    side_by_side = {f"attn_{part}": Place(fused, view=heads(6, 48 * ix, 48 * ix + 48)) for ix, part in enumerate("qkv")}
    with pytest.raises(CheckFailed, match=r"attn\.z"):
        check_model(Model(module, table_of(module, **side_by_side)))


def test_bloom_attention_output_with_the_residual_in_it_is_caught():
    module = tiny("bloom")
    with pytest.raises(CheckFailed, match="attn_out"):
        check_model(Model(module, table_of(module, attn_out=Place("transformer.h.{L}.self_attention"))))


def test_weights_that_give_nan_are_named():
    module = tiny("llama")
    module.model.norm.weight.data[0] = torch.nan
    with pytest.raises(CheckFailed, match="NaN"):
        load(module)


def test_mode_random_state_hooks_and_config_are_left_alone():
    module = tiny("qwen3").train()
    module.model.layers[1].eval()
    modes = [m.training for m in module.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in module.modules()]
    config, random_state = module.config.to_dict(), torch.random.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    load(module)
    assert [m.training for m in module.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in module.modules()] == hooks
    assert module.config.to_dict() == config
    assert module.model.layers[0].self_attn.config is module.config
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())


def test_the_report_names_every_kind():
    check = check_model(load(tiny("mixtral"), check=False))
    assert isinstance(check, Check)
    by_kind = {entry.kind: entry for entry in check.kinds}
    assert by_kind["mlp.router"].shape == (1, 4, 5) and by_kind["attn.k"].shape == (1, 4, 2, 8)
    assert "moves the output" in by_kind["attn.q"].how and "mlp.router" in str(check)


def test_attention_that_keeps_its_pattern_is_reported_not_refused(monkeypatch):
    module = tiny("llama")
    monkeypatch.setattr("optrode.site.attend.REPLACEABLE", ())
    by_kind = {entry.kind: entry for entry in check_model(load(module, check=False)).kinds}
    assert by_kind["attn.pattern"].shape == () and "sdpa" in by_kind["attn.pattern"].how
    assert by_kind["attn.q"].shape == (1, 4, 6, 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats_are_proven_too(dtype):
    load(tiny("gemma2").to(dtype))
    load(tiny("vit").to(dtype))


@pytest.mark.slow
def test_the_embedded_language_model_is_proven():
    assert len(check_model(load("smollm2", check=False)).kinds) == 22
