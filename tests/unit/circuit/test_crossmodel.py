"""Patching from one model into another: against hand-held gates, and where the one difference is known."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

import optrode as op
from optrode.circuit.crossmodel import cross_patch
from optrode.errors import BadOption, UnknownSite
from optrode.model.model import Model
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.circuit.planted import D_HEAD, FETCH, POSITIONAL, planted_model, prompts
from tests.unit.trial.test_run import make_task

KINDS = ["attn.q", "attn.k", "attn.v", "attn.z", "mlp_in", "mlp_out"]


def noised(head, parts=("v",)):
    """The planted model with noise in some weights of one head of layer 1."""
    good = planted_model()
    bad = Model(deepcopy(good.module), good.table, name="noised")
    rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
    with torch.no_grad():
        for part in parts:
            weight = getattr(bad.module.blocks[1].attn, part).weight
            weight[rows] = 3 * torch.randn(D_HEAD, weight.shape[1], dtype=weight.dtype)
    return good, bad


@pytest.mark.parametrize(("at", "parts"), [("output", ("v",)), ("output", ("q", "v")), ("input", ("q", "v"))])
def test_the_good_models_head_restores_the_one_with_a_noised_head(at, parts):
    good, bad = noised(2, parts)
    sets = {"fetch": [FETCH], "positional": list(POSITIONAL)}
    found = cross_patch(bad, good, prompts(40, "base"), sets, at, n_random=6)
    fetch, positional = found.gains
    assert found.accuracy_b == 1 and found.accuracy_a < 0.6
    assert abs(fetch.accuracy - found.accuracy_b) <= 0.01 and fetch.restored == pytest.approx(1, abs=0.01)
    assert fetch.accuracy_gain == pytest.approx(1 - found.accuracy_a) and fetch.accuracy_interval.low > 0
    assert positional.accuracy_gain == 0 and positional.gain == pytest.approx(0, abs=1e-12)
    assert fetch.random_accuracy_gain == (0.0,) * 6, "no other head holds what was lost"


def test_only_the_selected_positions_are_patched():
    good, bad = noised(2, ("q", "v"))
    sets = {"end": ["blocks.1.attn.z[head=2, pos=-1]"], "before": ["blocks.1.attn.z[head=2, pos=:-1]"]}
    end, before = cross_patch(bad, good, prompts(20, "base"), sets, n_random=2).gains
    assert end.restored == pytest.approx(1, abs=0.01) and before.gain == pytest.approx(0, abs=1e-12)
    assert end.nodes == ("blocks.1.attn.z[head=2, pos=-1]",)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "phi3"])
@pytest.mark.parametrize("at", ["output", "input"])
def test_values_are_those_of_gates_held_by_hand(family, at):
    a, b = (from_source(tiny(family, random_seed=seed).double()) for seed in (0, 1))
    task = make_task((6, 6, 8))
    sets = {"two": ["blocks.1.attn.z[head=0|3]", "blocks.2.mlp_out[pos=2:]"]}
    (gain,) = cross_patch(a, b, task, sets, at, n_random=0).gains
    groups = {0: (0,), 3: (3 * a.table.n_kv_heads // a.table.n_heads,)}
    kv = sorted({group for some in groups.values() for group in some})
    heads = "|".join(map(str, kv))
    sites = {
        "output": ["blocks.1.attn.z[head=0|3]", "blocks.2.mlp_out[pos=2:]"],
        "input": ["blocks.1.attn.q[head=0|3]", f"blocks.1.attn.k[head={heads}]", f"blocks.1.attn.v[head={heads}]",
                  "blocks.2.mlp_in[pos=2:]"],
    }[at]  # fmt: skip
    values = []
    for pair in task.pairs:
        theirs = op.record(b, [list(pair.clean)], [f"blocks.*.{kind}" for kind in KINDS])
        with op.gates(a, *(op.patch(site, theirs) for site in sites)), torch.no_grad():
            last = a(input_ids=torch.tensor([pair.clean])).logits[0, -1]
        values.append(float(last[list(pair.right)].mean() - last[list(pair.wrong)].mean()))
    assert gain.metric == pytest.approx(sum(values) / len(values), abs=1e-10)


def test_a_model_gains_nothing_from_itself():
    a = from_source(tiny("gpt2").double())
    found = cross_patch(a, a, make_task(), {"all": ["blocks.*.attn.z", "blocks.*.mlp_out"]}, n_random=0)
    (gain,) = found.gains
    assert gain.gain == pytest.approx(0, abs=1e-12) and gain.restored != gain.restored and len(gain.nodes) == 15
    assert found.metric_a == found.metric_b and found.provenance.weights_hash == found.provenance_b.weights_hash


def test_passes_are_one_of_b_one_of_a_and_one_for_each_set():
    good, bad = noised(2)
    found = cross_patch(bad, good, prompts(10, "base"), {"x": [FETCH], "y": [POSITIONAL[0]]}, n_random=3)
    assert found.provenance.n_passes == 1 + 2 * (1 + 3)
    assert found.provenance_b.n_passes == 1


def test_models_of_different_make_are_refused():
    gpt2 = from_source(tiny("gpt2"))
    sets = {"all": ["blocks.*.attn.z"]}
    for other, text in (
        (from_source(tiny("llama")), "family is llama there and gpt2 here"),
        (from_source(tiny("gpt2", num_hidden_layers=2)), "n_layers is 2 there and 3 here"),
        (from_source(tiny("gpt2", vocab_size=50)), "do not read the same tokens"),
        (from_source(tiny("gpt2").double()), "load both alike"),
    ):
        with pytest.raises(BadOption, match=text):
            cross_patch(gpt2, other, make_task(), sets)
    moved = Model(gpt2.module, replace(gpt2.table, places={**gpt2.table.places, "attn_out": gpt2.table.places["mlp_out"]}))
    with pytest.raises(BadOption, match="place attn_out differently"):
        cross_patch(gpt2, moved, make_task(), sets)


@pytest.mark.parametrize(
    ("sets", "at", "error", "text"),
    [
        ({}, "output", BadOption, "no node to patch"),
        ({"none": []}, "output", BadOption, "set 'none'"),
        ({"far": ["blocks.9.attn.z"]}, "output", UnknownSite, "layers 0 to 2"),
        ({"odd": ["blocks.1.attn.q"]}, "output", BadOption, "attn.z"),
        ({"all": ["blocks.1.attn.z"]}, "inputs", BadOption, "Nearest: input"),
    ],
)
def test_bad_input_is_named(sets, at, error, text):
    model = from_source(tiny("gpt2"))
    with pytest.raises(error, match=text):
        cross_patch(model, model, make_task(), sets, at)
