"""What a user is told about models that cannot be loaded, or not as asked."""

import re
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MambaConfig, MambaForCausalLM, T5Config, T5ForConditionalGeneration

import optrode as op
from optrode.errors import CheckFailed, ConfigRefused, ForeignHooks, UnknownModel, UnsupportedArchitecture
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.messages.conftest import PROMPT, refused, state_of
from tests.words import save_worded


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    return save_worded(tmp_path / "tiny-llama")


@pytest.mark.parametrize("name", ["smolm2", "./smollm2", "~/smollm2", "a/b/c"])
def test_unknown_names(name):
    with refused(UnknownModel, f"model {name!r}", "neither a known name, a folder, nor a hub id", "optrode models"):
        op.load(name)


def test_a_hub_id_that_cannot_be_reached():
    with refused(UnknownModel, "'someone/some-model'", "transformers could not read it", "download the model first"):
        op.load("someone/some-model")


def test_a_folder_without_a_model(tmp_path):
    with refused(UnknownModel, f"model folder '{tmp_path}'", "it holds no config.json", "save_pretrained"):
        op.load(tmp_path)
    (tmp_path / "config.json").write_text("{torn")
    with refused(UnknownModel, "not a valid JSON file", "check the folder"):
        op.load(tmp_path)
    assert contents(tmp_path) == {"config.json": b"{torn"}


@pytest.mark.parametrize("fault", ["absent", "torn", "of another shape", "incomplete"])
def test_weights_that_are(folder, fault):
    file = folder / "model.safetensors"
    weights = load_file(file)
    key = "model.layers.1.mlp.up_proj.weight"
    if fault == "absent":
        file.unlink()
    elif fault == "torn":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        changed = {key: torch.zeros(3, 3)} if fault == "of another shape" else {}
        save_file({k: v for k, v in weights.items() if k != key} | changed, file, {"format": "pt"})
    before = contents(folder)
    reason = f"1 are not in the file and would be random numbers, the first {key}" if fault == "incomplete" else "could not"
    with refused(UnknownModel, f"weights of model '{folder}'", reason, "save or download the model again"):
        op.load(folder)
    assert contents(folder) == before


def test_weights_that_are_no_numbers(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with refused(CheckFailed, "it returns NaN or infinity", "check its weights"):
        op.load(folder)


def test_a_torn_tokenizer_is_not_passed_over(folder):
    (folder / "tokenizer.json").write_text("{torn")
    with refused(UnknownModel, f"tokenizer {folder / 'tokenizer.json'}", "save or download it again"):
        op.load(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert op.load(folder).tokenizer is None


def test_architectures_without_a_family(tmp_path):
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=20, num_layers=1, num_heads=2))
    mamba = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1))
    before = state_of(t5)
    for module, name in ((t5, "t5"), (mamba, "mamba")):
        with refused(UnsupportedArchitecture, f"architecture '{name}'", "gpt2, gpt_neox, llama", "family=None"):
            op.load(module)
    assert state_of(t5) == before
    t5.save_pretrained(tmp_path)
    with refused(UnsupportedArchitecture, "architecture 't5'", "family=None"):
        op.load(tmp_path)
    assert op.load(t5, family=None).table.family == "generic"  # the next step that the message names
    with refused(UnsupportedArchitecture, "tiny model 'lama'", "Nearest: llama"):
        tiny("lama")


def test_configs_that_are_not_understood():
    module = tiny("llama")
    module.config.residual_twist = 3
    before = state_of(module)
    with refused(ConfigRefused, "llama config field residual_twist=3", "model/zoo/llama.py does not say", "`understood`"):
        op.load(module)
    assert state_of(module) == before
    with refused(ConfigRefused, "gpt2 config field add_cross_attention=True", "only for add_cross_attention in [False]",
                 "op.load(module, family=None)"):  # fmt: skip
        op.load(tiny("gpt2", add_cross_attention=True))


def test_hooks_of_ones_own_are_named_stay_and_run():
    module, calls = tiny("llama"), []
    handle = module.model.layers[1].register_forward_hook(lambda *_: calls.append(1))
    before = state_of(module)
    with pytest.warns(ForeignHooks, match=re.escape("1 modules carry forward hooks")) as seen:
        model = op.load(module)
    text = str(seen[0].message)
    assert "did not place: model.layers.1." in text and "They stay and run before" in text
    assert state_of(module) == before
    calls.clear()
    with op.gates(model, op.zero("blocks.1.attn.z")):
        model.module(**model.batch([[5, 9, 2]]).arguments())
    assert calls == [1] and state_of(module) == before
    handle.remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_source(module)


def test_a_good_folder_loads_without_a_word(folder):
    assert op.load(folder).to_str_tokens(PROMPT)[1] == " Mary"
