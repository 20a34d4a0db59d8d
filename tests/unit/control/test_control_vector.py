"""Control vectors go to llama.cpp's file format, come back to the bit, and act on the residual stream after their block."""

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

import optrode as op
from optrode.control.artefact import load_artefact, save_artefact
from optrode.control.card import card_of
from optrode.control.control_vector import export_control_vector, load_control_vector
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.control.gate_samples import drawn

TOKENS = torch.tensor([[5, 9, 2, 30, 11, 7]])


@pytest.fixture(scope="module")
def model():
    return from_source(tiny("llama"))


def written(path, directions, hint="llama"):
    """A file as repeng writes it: layers as they come, and how many there are."""
    writer = GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer, vector in directions.items():
        writer.add_tensor(f"direction.{layer}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(model, *gates):
    with torch.no_grad(), op.gates(model, *gates):
        return model.module(TOKENS).logits


def test_the_file_is_what_llama_cpp_reads(tmp_path, model):
    gates = [op.add("blocks.2.resid_post", drawn(48), strength=0.5), op.add("blocks.1.resid_post", -drawn(48))]
    path = export_control_vector(tmp_path / "happy", gates, model)
    assert path == tmp_path / "happy.gguf" and list(tmp_path.iterdir()) == [path]
    reader = GGUFReader(path)
    fields = {key: reader.get_field(key).contents() for key in reader.fields if not key.startswith("GGUF.")}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama" and fields["controlvector.layer_count"] == 2
    held = {tensor.name: tensor for tensor in reader.tensors}
    assert list(held) == ["direction.1", "direction.2"]
    assert all(tensor.tensor_type.name == "F32" and list(tensor.shape) == [48] for tensor in held.values())
    assert np.array_equal(held["direction.2"].data, (0.5 * drawn(48)).numpy())


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(vectors=st.lists(st.lists(numbers, min_size=48, max_size=48), min_size=1, max_size=2))
@settings(max_examples=15, deadline=None)
def test_any_vectors_come_back_to_the_bit(tmp_path_factory, model, vectors):
    gates = [op.add(f"blocks.{k}.resid_post", torch.tensor(vector)) for k, vector in enumerate(vectors, 1)]
    folder = tmp_path_factory.mktemp("cv")
    back = load_control_vector(export_control_vector(folder / "a.gguf", gates, model), model)
    for gate, found in zip(gates, back.gates(model), strict=True):
        assert str(gate) == str(found)
        assert gate.actuator.vector.numpy().tobytes() == found.actuator.vector.numpy().tobytes()


def test_strengths_are_multiplied_in_and_gates_of_one_layer_summed(tmp_path, model):
    both, second = op.add("blocks.1:.resid_post", drawn(48), strength=2.0), op.add("blocks.2.resid_post", -0.5 * drawn(48))
    gates = [both, second]
    back = load_control_vector(export_control_vector(tmp_path / "a", gates, model), model).gates(model)
    assert [str(gate.site) for gate in back] == ["blocks.1.resid_post", "blocks.2.resid_post"]
    assert torch.equal(back[0].actuator.vector, 2 * drawn(48))
    assert torch.allclose(back[1].actuator.vector, 1.5 * drawn(48))
    assert torch.allclose(logits(model, *gates), logits(model, *back), atol=1e-5)


def test_a_file_of_repeng_acts_after_its_block(tmp_path, model):
    """repeng adds to the output of layer k, counted from 0, and so does llama.cpp."""
    vectors = {k: drawn(48).numpy() * k for k in (2, 1)}
    artefact = load_control_vector(written(tmp_path / "repeng.gguf", vectors, hint="mistral"), model)
    assert artefact.card.name == "repeng" and "mistral" in artefact.card.method
    added = {k: torch.from_numpy(vector) for k, vector in vectors.items()}
    layers = model.module.model.layers
    handles = [layers[k].register_forward_hook(lambda _m, _a, out, k=k: out + added[k]) for k in added]
    with torch.no_grad():
        by_hand = model.module(TOKENS).logits
    for handle in handles:
        handle.remove()
    assert torch.allclose(logits(model, *artefact.gates(model)), by_hand, atol=1e-6)
    assert not torch.allclose(logits(model), by_hand, atol=1e-2)


def test_an_artefact_is_exported_as_it_is(tmp_path, model):
    gates = (op.add("blocks.1.resid_post", drawn(48)),)
    artefact = load_artefact(save_artefact(tmp_path / "a", gates, card_of(model, gates, name="a", behaviour="b")))
    one = export_control_vector(tmp_path / "one", artefact, model).read_bytes()
    assert one == export_control_vector(tmp_path / "two", gates, model).read_bytes()


def test_gates_that_leave_out_the_first_position_act_there_too_in_llama_cpp(tmp_path, model):
    gate = op.add("blocks.1.resid_post[pos=1:]", drawn(48))
    (back,) = load_control_vector(export_control_vector(tmp_path / "a", [gate], model, with_sink=True), model).gates(model)
    assert str(back.site) == "blocks.1.resid_post" and torch.equal(back.actuator.vector, drawn(48))
    assert torch.equal(logits(model, back)[0, 0], logits(model, op.add("blocks.1.resid_post", drawn(48)))[0, 0])
    assert torch.equal(logits(model, gate)[0, 0], logits(model)[0, 0])


def test_other_types_of_numbers_are_rounded_to_float32(tmp_path):
    model = from_source(tiny("llama").double())
    exact = drawn(48, dtype=torch.float64) / 3
    back = load_control_vector(export_control_vector(tmp_path / "a", [op.add("blocks.1.resid_post", exact)], model), model)
    (gate,) = back.gates(model)
    assert gate.actuator.vector.dtype == torch.float64
    assert torch.equal(gate.actuator.vector, exact.float().double())
