"""Adapters that are written load in PEFT, and the module with them does what the gates did."""

import copy
import json
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

import optrode as op
from optrode.control.adapter_export import export_adapter
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.control.test_merging import BOUND, FAMILIES, TOKENS, drawn, groups, logits


def adapted(model, folder):
    """Logits of a copy of the module with the adapter that PEFT finds in a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT: a deprecated property, and that a Linear without bias cannot be merged
        module = PeftModel.from_pretrained(copy.deepcopy(model.module), folder).eval()
    with torch.no_grad():
        return module(TOKENS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_module_with_the_adapter_does_what_the_gates_did(tmp_path, family):
    dtype = torch.float64 if family == "gpt2" else torch.float32
    model = from_source(tiny(family).to(dtype))
    for name, gates in groups(model).items():
        folder = export_adapter(tmp_path / name, gates, model)
        wanted = logits(model, *gates)
        found = adapted(model, folder)
        assert float((wanted - found).abs().max()) <= BOUND[dtype] * max(1.0, float(wanted.abs().max())), name


def config(folder):
    return json.loads((folder / "adapter_config.json").read_text())


@pytest.fixture(scope="module")
def model():
    return from_source(tiny("llama"))


def test_what_is_only_scaled_becomes_an_ia3_adapter(tmp_path, model):
    gates = [op.scale("blocks.0.attn.z[head=1]", 0.2), op.scale("blocks.1.attn.q", 2.0)]
    gates += [op.zero("blocks.2.mlp_out[feature=3]")]
    folder = export_adapter(tmp_path, gates, model)
    assert config(folder)["peft_type"] == "IA3"
    assert config(folder)["feedforward_modules"] == ["model.layers.0.self_attn.o_proj"]
    held = load_file(folder / "adapter_model.safetensors")
    on_input = held["base_model.model.model.layers.0.self_attn.o_proj.ia3_l"]
    assert on_input.shape == (1, 48) and torch.equal(on_input[0, 8:16], torch.full((8,), 0.2))
    assert sum(tensor.numel() for tensor in held.values()) == 3 * 48
    assert torch.allclose(adapted(model, folder), logits(model, *gates), atol=1e-5)


def test_inputs_and_outputs_scaled_at_one_linear_need_lora(tmp_path, model):
    gates = [op.scale("blocks.0.attn.z[head=1]", 0.2), op.scale("blocks.0.attn_out[feature=3]", 2.0)]
    folder = export_adapter(tmp_path, gates, model)
    assert config(folder)["peft_type"] == "LORA"
    assert torch.allclose(adapted(model, folder), logits(model, *gates), atol=1e-5)


def test_a_lora_adapter_has_the_rank_of_the_change(tmp_path, model):
    plane, vector = drawn(2, 48, dtype=torch.float32), drawn(48, dtype=torch.float32)
    gates = [op.project_out("blocks.0.attn_out", plane), op.add("blocks.1.mlp_out", vector)]
    folder = export_adapter(tmp_path, gates, model)
    assert config(folder)["rank_pattern"] == {"model.layers.0.self_attn.o_proj": 2, "model.layers.1.mlp.down_proj": 1}
    assert config(folder)["lora_bias"] and config(folder)["r"] == 2
    held = load_file(folder / "adapter_model.safetensors")
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_{}"
    assert not held[key.format("A.weight")].any() and not held[key.format("B.weight")].any()
    assert torch.equal(held[key.format("B.bias")], vector)


def test_one_part_of_a_name_does_not_stand_for_another_module(tmp_path):
    model = from_source(tiny("llama", num_hidden_layers=12))
    gates = [op.project_out("blocks.1.attn_out", drawn(48, dtype=torch.float32))]
    folder = export_adapter(tmp_path, gates, model)
    assert torch.allclose(adapted(model, folder), logits(model, *gates), atol=1e-5)
