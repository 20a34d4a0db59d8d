"""What a user is told about artefacts, control vectors, adapters and merged weights that cannot be."""

import json

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.torch import save

import optrode as op
from optrode.control import control_vector
from optrode.control.adapter_export import export_adapter
from optrode.control.adapter_import import load_adapter
from optrode.control.artefact import artefact_of, load_artefact, save_artefact
from optrode.control.card import card_of
from optrode.control.control_vector import export_control_vector, load_control_vector
from optrode.control.merging import merge
from optrode.errors import BadFile, BadGate, BadOption, CheckFailed, GateNotFinite, GateShape, SiteUnavailable, UnknownSite
from optrode.gate import conditions, maps
from optrode.gate.actuators import Add
from optrode.gate.gate import Gate
from optrode.gate.scorers import Network
from optrode.model.names import parse
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.messages.conftest import PROMPT, refused

RESID, Z = "blocks.1.resid_post", "blocks.1.attn.z"
NAN = float("nan")
V = torch.ones(48)
NETWORK = Network(torch.nn.Linear(48, 1))


def card(model, *gates, **rest):
    return card_of(model, gates, name="happy", behaviour="Sounds happier.", **rest)


def open_by(openness):
    return op.add(RESID, V, openness=openness)


def saved(path, model, *gates):
    return save_artefact(path / "happy", gates, card(model, *gates))


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda model: op.compute(Z, torch.tanh), ("compute tanh", "its function is code", "affine")),
        (lambda model: op.patch(RESID, op.record(model, PROMPT, RESID)), ("from a recording", "one run's", "op.clamp")),
        (lambda model: op.patch(RESID), ("patch from clean", "op.clamp")),
        (lambda model: op.patch(RESID, op.first_pass()), ("patch from a first pass", "op.clamp")),
        (lambda model: op.mean(RESID), ("mean of clean", "recording", "op.clamp(site, mean)")),
        (lambda model: op.zero("blocks.*.attn.z", each="layer"), ("each=", "a trial of each", "gate.at(site)")),
        (lambda model: op.zero(Z, when=op.when(until=3)), ("when=", "training run")),
        (lambda model: op.add(RESID, V, rows=[1]), ("rows=", "one batch")),
        (lambda model: open_by(conditions.by_row([1.0])), ("one batch's rows",)),
        (lambda model: open_by(conditions.oracle(op.other_model(model))), ("a pass of", "no file can hold")),
        (lambda model: open_by(conditions.controlled(NETWORK, [RESID])), ("its module is code", "linear probe")),
    ],
)
def test_gates_that_no_file_can_hold(model, make, parts):
    gate = make(model)
    with refused(BadGate, "write", *parts, by=model):
        artefact_of([gate], card(model, gate))


def test_numbers_that_are_none(tmp_path, model):
    bad = torch.ones(48)
    bad[3] = torch.inf
    for gate in (op.add(RESID, bad), Gate(parse(RESID), Add(V), NAN)):
        with refused(GateNotFinite, "write add tensor (48,)"):
            saved(tmp_path, model, gate)
    assert not any(tmp_path.iterdir())
    artefact = load_artefact(saved(tmp_path, model, op.add(RESID, V)))
    for dose in (NAN, float("inf")):
        with refused(GateNotFinite, f"happy at dose {dose}", by=model):
            artefact.gates(model, dose)


def test_cards_that_say_too_little_or_what_cannot_be(model):
    gate = op.add(RESID, V)
    with refused(BadOption, "card of ''", "no name", "behaviour="):
        card_of(model, [gate], name="", behaviour="x")
    with refused(BadOption, "card of 'happy'", "does not say what it does"):
        card_of(model, [gate], name="happy", behaviour=" ")
    with refused(BadOption, "vader is not a finite number"):
        card(model, gate, evaluation={"vader": NAN})
    with refused(BadOption, "dose 2 is outside of its range 0 to 1"):
        card(model, gate, dose=2.0)
    with refused(BadOption, "card entry license=", "licence"):
        card(model, gate, license="MIT")
    with refused(BadOption, "artefact happy", Z, f"the card is for gates at {RESID}", "card_of("):
        artefact_of([op.zero(Z)], card(model, gate))
    with refused(BadOption, "there is no gate"):
        artefact_of([], card(model, gate))


def test_an_artefact_for_another_model(tmp_path, model):
    artefact = load_artefact(saved(tmp_path, model, op.add(RESID, V)))
    other = from_source(tiny("llama", random_seed=3, vocab_size=model.module.config.vocab_size))
    parts = (f"weights {model.weights_hash[:12]}", other.weights_hash[:12], "allow_other=True")
    with refused(BadGate, "happy on", *parts, by=other):
        artefact.gates(other)


@pytest.mark.parametrize("allow_other", [False, True])
def test_an_artefact_for_a_model_of_other_sizes(tmp_path, model, allow_other):
    artefact = load_artefact(saved(tmp_path, model, op.add(RESID, V), op.zero("blocks.2.attn.z")))
    for name, changes, found in [
        ("llama", {"hidden_size": 36}, "width 48, and this model's is 36"),
        ("llama", {"num_hidden_layers": 2}, "number of layers 3, and this model's is 2"),
        ("llama", {"num_hidden_layers": 4}, "number of layers 3, and this model's is 4"),
    ]:
        other = from_source(tiny(name, **changes))
        with refused(GateShape, f"at {RESID}, blocks.2.attn.z", found, by=other):
            artefact.gates(other, allow_other=allow_other)


def test_an_artefact_of_a_site_that_the_model_does_not_have(tmp_path):
    one, two = (from_source(tiny("llama", num_attention_heads=n, num_key_value_heads=2, hidden_size=48)) for n in (6, 4))
    artefact = load_artefact(saved(tmp_path, one, op.zero("blocks.1.attn.z[head=5]")))
    with refused(UnknownSite, "head 5 at blocks.1.attn.z"), pytest.warns(UserWarning):
        artefact.gates(two, allow_other=True)
    wide = load_artefact(saved(tmp_path, one, op.add("blocks.1.attn.z", torch.ones(8))))
    with refused(GateShape, "blocks.1.attn.z", "last axis has length 12"), pytest.warns(UserWarning):
        wide.gates(two, allow_other=True)


def changed(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def first(data):
    return data["record"]["records"][0]


def actuator(data):
    return first(data)["actuator"]


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda data: data.update(kind="EdgeCircuit"), ("EdgeCircuit",)),
        (lambda data: data.update(format=9), ("its format is 9",)),
        (lambda data: data["record"].pop("card"), ("not a whole Artefact",)),
        (lambda data: actuator(data).update(kind="compute"), ("none that this version knows", "compute")),
        (lambda data: actuator(data).update(command="rm"), ("none that this version knows", "command")),
        (lambda data: actuator(data)["vector"].update({"$tensor": "9"}), ("none that this version knows", "9")),
        (lambda data: first(data).update(site="blocks.1.attn..z"), ("none that this version knows", "[bad-name]")),
        (lambda data: first(data).update(site=Z), ("its card names other sites",)),
        (lambda data: first(data).update(scope="some"), ("none that this version knows", "scope")),
    ],
)
def test_a_file_that_is_no_artefact_or_was_tampered_with(tmp_path, model, change, parts):
    path = saved(tmp_path, model, op.add(RESID, V))
    changed(path, change)
    with refused(BadFile, "happy.json", *parts):
        load_artefact(path)


def test_files_that_are_damaged_or_not_there(tmp_path, model):
    path = saved(tmp_path, model, op.add(RESID, V))
    with refused(BadFile, "sad.json: no such file", "happy.json"):
        load_artefact(tmp_path / "sad")
    with refused(BadFile, "sad.json: no such file", "save_artefact"):
        load_artefact(tmp_path / "folder" / "sad")
    tensors = path.with_suffix(".safetensors")
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-3] + b"abc")
    with refused(BadFile, "happy.safetensors", "not those that happy.json was written with"):
        load_artefact(path)
    tensors.write_bytes(whole[:40])
    with refused(BadFile, "not safetensors, or torn"):
        load_artefact(path)
    tensors.unlink()
    with refused(BadFile, "no such file", "keep the two files together"):
        load_artefact(path)
    path.write_text("{")
    with refused(BadFile, "not JSON, or torn"):
        load_artefact(path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with refused(BadFile, "it cannot be written"):
        save_artefact(blocked / "x", [op.zero(Z)], card(model, op.zero(Z)))


@pytest.mark.parametrize(
    ("gates", "parts"),
    [
        ([op.scale(RESID, 2.0)], ("scale by 2", "can do nothing else", "save_artefact")),
        ([op.add(RESID, V, scope="generated")], ("scope='generated'", "every token")),
        ([op.add(RESID, V, openness=conditions.probe(RESID, V))], ("openness=",)),
        ([op.add(RESID, V, when=op.when(until=4))], ("when=",)),
        ([op.add(RESID, V, rows=[0])], ("rows=",)),
        ([op.add("blocks.1.resid_post[pos=-1]", V)], ("a selection", "pos=-1")),
        ([op.add("blocks.1.resid_post[pos=1:]", V)], ("a selection", "with_sink=True", "position 0 too")),
        ([op.add("blocks.1.resid_pre", V)], ("adds after a block", "blocks.k.resid_post")),
        ([op.add("blocks.0.resid_post", V)], ("no place for block 0", "direction.0", "blocks.1:.resid_post")),
        ([op.add(RESID, V), op.add("blocks.*.resid_post", V)], ("no place for block 0",)),
    ],
)
def test_gates_that_are_no_control_vector(tmp_path, model, gates, parts):
    with refused(BadGate, "control vector of", *parts, by=model):
        export_control_vector(tmp_path / "a", gates, model)
    assert not any(tmp_path.iterdir())


def test_control_vectors_of_other_shapes(tmp_path, model):
    with refused(GateShape, "shape (1, 48)", "width 48", "[feature]"):
        export_control_vector(tmp_path / "a", [op.add(RESID, torch.ones(1, 48))], model)
    with refused(BadOption, "there is no gate"):
        export_control_vector(tmp_path / "a", [], model)
    with refused(BadGate, "direction.1 is not finite in float32", "smaller strength"):
        export_control_vector(tmp_path / "a", [op.add(RESID, torch.full((48,), 3e38), strength=2.0)], model)


def written(path, tensors, architecture="controlvector"):
    writer = GGUFWriter(path, architecture)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


ONES = np.ones(48, dtype=np.float32)


@pytest.mark.parametrize(
    ("tensors", "parts"),
    [
        ({"direction.0": ONES, "direction.1": ONES}, ("direction.0", "llama.cpp refuses", "block 0")),
        ({"direction.x": ONES}, ("a tensor 'direction.x'", "direction.1")),
        ({"blk.1": ONES}, ("a tensor 'blk.1'",)),
        ({"direction.1": ONES.astype(np.float16)}, ("direction.1 is F16 48", "F32")),
        ({"direction.1": np.ones((2, 48), np.float32)}, ("direction.1 is F32 48x2",)),
        ({"direction.2": ONES * np.float32(NAN)}, ("direction.2 holds NaN",)),
    ],
)
def test_files_that_are_no_control_vector(tmp_path, model, tensors, parts):
    path = written(tmp_path / "a.gguf", tensors)
    with refused(BadFile, "control vector", "a.gguf", *parts, by=model):
        load_control_vector(path, model)


def test_control_vectors_for_other_models_and_torn_files(tmp_path, model):
    with refused(GateShape, "direction.3 belongs to blocks.3.resid_post", "layers 0 to 2"):
        load_control_vector(written(tmp_path / "deep.gguf", {"direction.1": ONES, "direction.3": ONES}), model)
    with refused(GateShape, "direction.1 has width 47", f"{RESID} 48"):
        load_control_vector(written(tmp_path / "wide.gguf", {"direction.1": ONES[:47]}), model)
    with refused(BadFile, "its architecture is 'llama'"):
        load_control_vector(written(tmp_path / "model.gguf", {"direction.1": ONES}, "llama"), model)
    with refused(BadFile, "it has no direction"):
        load_control_vector(written(tmp_path / "empty.gguf", {}), model)
    with refused(BadFile, "no such file", "deep.gguf"):
        load_control_vector(tmp_path / "other", model)
    torn = tmp_path / "torn.gguf"
    torn.write_bytes((tmp_path / "deep.gguf").read_bytes()[:90])
    with refused(BadFile, "no GGUF, or torn"):
        load_control_vector(torn, model)
    assert GGMLQuantizationType.F32 == 0


def test_without_the_package_gguf(tmp_path, model, monkeypatch):
    monkeypatch.setattr(control_vector, "find_spec", lambda name: None)
    with refused(BadOption, "the package gguf", "pip install 'optrode[hf]'"):
        load_control_vector(tmp_path / "a", model)
    with refused(BadOption, "the package gguf", "pip install 'optrode[hf]'"):
        export_control_vector(tmp_path / "a", [], model)


@pytest.mark.parametrize(
    ("gate", "parts"),
    [
        (op.add(RESID, V, scope="prompt"), ("scope='prompt'", "every row, at every position")),
        (op.add(RESID, V, openness=conditions.probe(RESID, V)), ("openness=", "op.gates")),
        (op.add(RESID, V, when=op.when(until=4)), ("when=",)),
        (op.add(RESID, V, rows=[0]), ("rows=",)),
        (op.zero("blocks.1.attn_out[pos=-1]"), ("pos=",)),
        (op.zero("blocks.*.attn_out", each="layer"), ("each=",)),
        (op.project_out(RESID, V), ("what all earlier blocks wrote", "attn_out and mlp_out")),
        (op.scale("blocks.2.resid_mid", 0.5), ("what all earlier blocks wrote",)),
        (op.add("blocks.0.resid_pre", V), ("every embedding", "blocks.0.resid_post")),
        (op.zero("blocks.1.attn.result[head=2]"), ("no Linear", "at attn.z")),
        (op.add("blocks.1.ln1", V), ("LlamaRMSNorm", "attn.z, mlp.post")),
        (op.zero("blocks.1.attn.pattern[head=2]"), ("it is the pattern of",)),
        (op.scale("logits", 0.5), ("it is the logits of the model",)),
        (op.clamp(Z, low=0.0), ("within bounds is not linear",)),
        (op.compute(Z, torch.tanh), ("no linear map",)),
        (op.patch(RESID, V), ("no linear map",)),
        (op.add("blocks.1.attn_out", torch.ones(14, 48)), ("an entry for each row or position",)),
        (maps.rescale("blocks.1.attn_out", V, V, low=-V), ("only within a support",)),
        (maps.scale_heads("blocks.1.attn_out", torch.ones(6)), ("no heads",)),
    ],
)
def test_gates_that_weights_cannot_do(tmp_path, model, gate, parts):
    for case in (lambda: merge(model, [gate]), lambda: export_adapter(tmp_path / "a", [gate], model)):
        with refused(BadGate, "into weights", *parts, by=model):
            case()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("family", "site", "part"),
    [
        ("gemma2", "blocks.1.mlp_out", "a norm between the projection and the stream"),
        ("olmo2", RESID, "a norm between the projection and the stream"),
        ("mixtral", RESID, "expert"),
        ("bert", RESID, "norms are in the stream itself"),
    ],
)
def test_families_whose_stream_no_projection_writes_to_alone(family, site, part):
    other = from_source(tiny(family))
    with refused(BadGate, "into weights", part, by=other):
        merge(other, [op.add(site, torch.ones(other.table.d_model))])


def adapter(folder, config=None, weights=None, name="adapter_model.safetensors"):
    folder.mkdir(exist_ok=True)
    key = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.weight"
    weights = {key.format("A"): torch.ones(2, 56), key.format("B"): torch.ones(48, 2)} if weights is None else weights
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2} | (config or {})))
    (folder / name).write_bytes(save(weights))
    return folder


BLOCK = "base_model.model.model.layers.1.ia3_l"
PREFIX = "base_model.model.model.layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    ("config", "weights", "parts"),
    [
        ({"peft_type": "PREFIX_TUNING"}, None, ("peft_type is 'PREFIX_TUNING'", "LORA or IA3")),
        ({"use_dora": True}, None, ("use_dora=True", "merge it with PEFT")),
        ({"init_lora_weights": "pissa"}, None, ("init_lora_weights='pissa'",)),
        ({"bias": "all"}, None, ("bias='all'",)),
        ({"modules_to_save": ["lm_head"]}, None, ("modules_to_save=['lm_head']",)),
        ({"lora_alpha": "much"}, None, ("alphas cannot be read",)),
        ({"alpha_pattern": {"(": 3}}, None, ("alphas cannot be read",)),
        ({}, {f"{PREFIX}.lora_A.weight": torch.ones(2, 56)}, ("it holds only lora_A.weight",)),
        ({}, {f"{PREFIX}.lora_embedding_A": torch.ones(2, 56)}, ("lora_embedding_A", "no adapter of a Linear")),
        ({}, {f"{PREFIX}.ia3_l": torch.full((48, 1), NAN)}, ("holds NaN",)),
        ({}, {}, ("it adapts no module",)),
    ],
)
def test_adapters_that_are_more_or_less_than_is_read(tmp_path, model, config, weights, parts):
    with refused(BadFile, "adapter", *parts, by=model):
        load_adapter(adapter(tmp_path / "a", config, weights), model)


def test_adapters_that_do_not_fit_or_are_not_there(tmp_path, model):
    with refused(GateShape, "layers.1.mlp.down_proj", "it is 48 by 56, at rank 2 and 2", "the module 36 by 56"):
        load_adapter(adapter(tmp_path / "a"), from_source(tiny("llama", hidden_size=36)))
    with refused(GateShape, "layers.1.mlp.down_proj", "it is 3 by 1, and the module 48 by 56"):
        load_adapter(adapter(tmp_path / "b", {"peft_type": "IA3"}, {f"{PREFIX}.ia3_l": torch.ones(3, 1)}), model)
    with refused(GateShape, "module model.layers.1 is a LlamaDecoderLayer"):
        load_adapter(adapter(tmp_path / "b", {"peft_type": "IA3"}, {BLOCK: torch.ones(3, 1)}), model)
    with refused(BadFile, "there is no adapter_config.json", "save_pretrained"):
        load_adapter(tmp_path / "none", model)
    pickled = adapter(tmp_path / "p", name="adapter_model.bin")
    with refused(BadFile, "no adapter_model.safetensors, only adapter_model.bin", "safe_serialization=True"):
        load_adapter(pickled, model)
    torn = adapter(tmp_path / "t")
    (torn / "adapter_model.safetensors").write_bytes(b"torn")
    with refused(BadFile, "is torn"):
        load_adapter(torn, model)
    with refused(SiteUnavailable, "model.layers.1.mlp.down_proj", "no such module"):
        load_adapter(adapter(tmp_path / "a"), from_source(tiny("gpt2")))
    with refused(BadGate, "option sope=", "scope"):
        load_adapter(adapter(tmp_path / "a"), model, sope="all")


def test_adapters_that_weights_cannot_do(tmp_path, model):
    folder = adapter(tmp_path / "a")
    (gate,) = load_adapter(folder, model)
    elsewhere = Gate(parse("blocks.1.mlp_out"), gate.actuator)
    with refused(BadGate, "not beside a Linear that reads the same", by=model):
        merge(model, [elsewhere])
    with refused(BadGate, "scope='generated'", by=model):
        merge(model, load_adapter(folder, model, scope="generated"))


def test_weights_that_are_shared_held_or_not_to_be_compared(model):
    tied = from_source(tiny("gpt2"))
    with refused(BadGate, "transformer.wte", "weight is shared by transformer.wte and lm_head", by=tied):
        merge(tied, [op.scale("embed", 2.0)])
    with refused(BadGate, "an adapter here is one of Linears", "use merge"):
        export_adapter("unused", [op.scale("embed", 2.0)], from_source(tiny("llama", tie_word_embeddings=False)))
    gate = op.zero("blocks.1.attn_out")
    with op.gates(model, op.zero("blocks.0.attn_out")):
        with refused(BadGate, "carries hooks", "outside of op.gates"):
            merge(model, [gate])
        model(PROMPT)
    with refused(BadOption, "there is no gate"):
        merge(model, [])
    network = op.load(torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh()), family=None)
    with refused(BadOption, "it does not say what tokens it takes", "inputs="):
        merge(network, [op.scale("module:0.out", 0.5)])


def test_a_module_that_uses_more_than_its_linear(model):
    class Doubling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(4, 4)

        def forward(self, x):
            return torch.nn.functional.linear(x, self.inner.weight) + self.inner(x)

    network = op.load(Doubling(), family=None)
    with refused(CheckFailed, "the merged logits differ", "something else stands between"):
        merge(network, [op.scale("module:inner.out", 3.0)], inputs=torch.ones(2, 4))
