"""Adapters that PEFT made act as gates as they do in PEFT, on the rows and tokens that a gate can choose."""

import copy
import warnings

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

import optrode as op
from optrode.control.adapter_export import export_adapter
from optrode.control.adapter_import import load_adapter
from optrode.control.artefact import load_artefact, save_artefact
from optrode.control.card import card_of
from optrode.control.merging import merge
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.control.test_merging import TOKENS, drawn, groups, logits


def made(model, folder, config):
    """A PEFT adapter with random numbers in it, saved; and the logits of the module with it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = get_peft_model(copy.deepcopy(model.module), config).eval()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if "lora_" in name or "ia3_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) / 3)
            found = module(TOKENS).logits
        module.save_pretrained(folder)
    return found


LLAMA = ["q_proj", "o_proj", "down_proj"]
BY_RANK = {"rank_pattern": {"layers.1.*o_proj": 2}, "alpha_pattern": {"o_proj": 7}}
GPT2 = ["c_attn", "c_proj"]
CONFIGS = {
    "lora": ("llama", LoraConfig(r=3, lora_alpha=5, target_modules=LLAMA)),
    "lora by rank": ("llama", LoraConfig(r=4, target_modules=LLAMA, **BY_RANK)),
    "lora with bias": ("gpt2", LoraConfig(r=3, lora_bias=True, target_modules=GPT2, fan_in_fan_out=True)),
    "rslora": ("llama", LoraConfig(r=4, use_rslora=True, target_modules="all-linear")),
    "ia3": ("llama", IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "ia3 of gpt2": ("gpt2", IA3Config(target_modules=GPT2, feedforward_modules=["c_proj"], fan_in_fan_out=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_an_adapter_of_peft_does_the_same_as_gates(tmp_path, name):
    family, config = CONFIGS[name]
    model = from_source(tiny(family))
    wanted = made(model, tmp_path, config)
    gates = load_adapter(tmp_path, model)
    assert float((wanted - logits(model)).abs().max()) > 0.3
    assert torch.allclose(logits(model, *gates), wanted, atol=2e-5)
    assert torch.allclose(logits(model, *load_adapter(tmp_path, model, strength=0.0)), logits(model), atol=1e-6)


def test_what_was_exported_comes_back(tmp_path):
    model = from_source(tiny("gpt2"))
    for name, gates in groups(model).items():
        back = load_adapter(export_adapter(tmp_path / name, gates, model), model)
        assert torch.allclose(logits(model, *back), logits(model, *gates), atol=5e-5), name


def test_an_adapter_is_merged_and_exported_with_gates_at_the_same_linear(tmp_path):
    model = from_source(tiny("gpt2"))
    made(model, tmp_path / "peft", CONFIGS["lora with bias"][1])
    gates = [
        op.scale("blocks.1.mlp.post[feature=3:9]", 0.5), *load_adapter(tmp_path / "peft", model, strength=0.7),
        op.add("blocks.1.mlp.post", drawn(50, dtype=torch.float32)), op.scale("blocks.1.mlp_out", 2.0),
    ]  # fmt: skip
    assert torch.allclose(logits(merge(model, gates)), logits(model, *gates), atol=5e-5)
    back = load_adapter(export_adapter(tmp_path / "again", gates, model), model)
    assert torch.allclose(logits(model, *back), logits(model, *gates), atol=5e-5)


@pytest.fixture
def lora(tmp_path):
    model = from_source(tiny("llama"))
    return model, made(model, tmp_path, CONFIGS["lora"][1]), tmp_path


def test_an_adapter_can_act_on_some_rows_only(lora):
    model, wanted, folder = lora
    found = logits(model, *load_adapter(folder, model, rows=[1]))
    assert torch.equal(found[0], logits(model)[0])
    assert torch.allclose(found[1], wanted[1], atol=2e-5)


def generated(model, gates, **options):
    options |= {"max_new_tokens": 5, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with op.gates(model, *gates):
        return model.module.generate(TOKENS, pad_token_id=0, **options)


def test_an_adapter_held_in_generation_is_right_under_the_cache(lora):
    model, _, folder = lora
    cached, uncached = (generated(model, load_adapter(folder, model), use_cache=use) for use in (True, False))
    assert torch.equal(cached.sequences, uncached.sequences)
    assert torch.allclose(torch.stack(cached.logits), torch.stack(uncached.logits), atol=1e-4)
    late, plain = generated(model, load_adapter(folder, model, scope="generated")), generated(model, ())
    assert torch.equal(late.logits[0], plain.logits[0]) and not torch.allclose(late.logits[1], plain.logits[1], atol=1e-2)


def test_an_adapter_can_be_an_artefact(lora):
    model, wanted, folder = lora
    gates = load_adapter(folder, model)
    card = card_of(model, gates, name="lora", behaviour="Is random.")
    back = load_artefact(save_artefact(folder / "lora", gates, card)).gates(model)
    assert torch.equal(logits(model, *back), logits(model, *gates))
