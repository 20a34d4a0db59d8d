"""Desiderata masks against gates of the same strength, and on a model whose positional heads are planted."""

from dataclasses import replace

import pytest
import torch

import optrode as op
from optrode.circuit.desiderata import _Masking, desiderata_masks, expected_accuracy
from optrode.circuit.pick import every_node
from optrode.errors import BadOption, UnknownSite
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.prompts import Task
from tests.unit.circuit.planted import FETCH, POSITIONAL, planted_model, prompts
from tests.unit.trial.test_run import make_task


def test_masks_are_the_planted_heads_one_for_each_desideratum():
    tasks = {"position": prompts(24, "position"), "token": prompts(24, "token", 1)}
    found = desiderata_masks(planted_model(), tasks)
    assert found["position"].nodes == POSITIONAL and found["token"].nodes == (FETCH,)
    assert all(mask.accuracy == 1 and mask.nothing == 0 and set(mask.random) == {0.0} for mask in found.values())
    assert found["position"].everything == 0, "the fetched token too comes from the source then"
    assert found["position"].undecided == () and found["position"].losses[-1] < -9 < found["position"].losses[0]


def test_a_mask_that_is_still_moving_is_told():
    model, task = planted_model(), {"token": prompts(24, "token", 1)}
    early, late = (desiderata_masks(model, task, n_steps=n)["token"] for n in (25, 150))
    assert early.undecided == POSITIONAL and late.undecided == ()


def test_the_mask_holds_on_prompts_that_it_was_not_learned_on():
    model, fresh = planted_model(), prompts(30, "position", 7)
    assert expected_accuracy(model, fresh, POSITIONAL) == 1 and expected_accuracy(model, fresh, POSITIONAL[:1]) < 0.2
    assert expected_accuracy(model, fresh, ["blocks.0.attn.z[head=1|3]"], marks=("end",)) == 1
    assert expected_accuracy(model, fresh, POSITIONAL, marks=("pointer",)) == 0


def test_a_mask_at_marked_positions_finds_what_acts_there():
    model, task = planted_model(), prompts(16, "position")
    at_end = desiderata_masks(model, {"position": task}, marks=("end",), n_steps=25)["position"]
    elsewhere = desiderata_masks(model, {"position": task}, marks=("pointer",), n_steps=5)["position"]
    assert at_end.nodes == POSITIONAL
    assert elsewhere.nodes == () and elsewhere.random == () and elsewhere.accuracy == 0
    assert set(elsewhere.weights.values()) == {1.0}


def test_a_price_above_the_gain_keeps_every_node():
    dear = desiderata_masks(planted_model(), {"position": prompts(8, "position")}, lam=100.0, n_steps=3)["position"]
    assert dear.nodes == () and dear.accuracy == dear.nothing == 0


def test_a_price_alone_is_the_loss_of_a_group_without_effect():
    group = ["blocks.0.attn.z[head=0|2]"]  # noise that nobody reads
    free = desiderata_masks(planted_model(), {"position": prompts(8, "position")}, group, lam=0.0, n_steps=2)["position"]
    assert list(free.weights) == ["blocks.0.attn.z[head=0]", "blocks.0.attn.z[head=2]"]
    assert free.losses[0] == pytest.approx(free.losses[1], abs=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_the_loss_is_that_of_gates_with_strengths_and_its_gradient_their_slope(family):
    model, task = from_source(tiny(family).double()), make_task((6, 6, 8))
    group = every_node(model)[::3]
    weights = torch.rand(len(group), dtype=torch.float64, requires_grad=True)
    loss, slope = _Masking(model, task, group, ()).loss(weights)

    def gated(values):
        total = 0.0
        for pair in task.pairs:
            source = op.record(model, [list(pair.corrupt)], ["blocks.*.attn.z", "blocks.*.mlp_out"])
            gates = [op.patch(node, source, strength=1 - value) for node, value in zip(group, values, strict=True)]
            with op.gates(model, *gates), torch.no_grad():
                logits = model(input_ids=torch.tensor([pair.clean])).logits
            total -= float(logits[0, -1, list(pair.right)].mean()) / len(task)
        return total

    values = weights.detach().tolist()
    assert loss == pytest.approx(gated(values), abs=1e-10)
    tolerance = 2e-2 if family == "llama" else 1e-4  # RMS norms round to float32
    for ix in (0, len(group) - 1):
        moved = [value - 1e-4 * (at == ix) for at, value in enumerate(values)]
        assert float(slope[ix]) == pytest.approx((loss - gated(moved)) / 1e-4, rel=tolerance, abs=tolerance)


def test_random_controls_are_other_sets_of_the_same_size_and_the_seed_fixes_them():
    model, task = planted_model(), {"position": prompts(12, "position")}
    one, two = (desiderata_masks(model, task, n_steps=20, n_random=4, random_seed=5)["position"] for _ in range(2))
    assert len(one.random) == 4 and one.random == two.random and one.weights == two.weights


def test_nothing_stays_on_the_model():
    model = planted_model()
    desiderata_masks(model, {"position": prompts(4, "position")}, n_steps=1)
    assert all(p.grad is None and p.requires_grad for p in model.module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def test_steps_are_told():
    seen = []
    task = {"position": prompts(4, "position")}
    desiderata_masks(planted_model(), task, n_steps=2, progress=lambda *step: seen.append(step))
    assert seen == [("mask of position", 1, 2), ("mask of position", 2, 2)]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tasks": {}}, BadOption, "no desideratum"),
        ({"nodes": []}, BadOption, "nothing to mask"),
        ({"nodes": ["blocks.0.resid_pre"]}, BadOption, "a node is a head's or an MLP's output"),
        ({"nodes": ["blocks.0.attn.z[head=1, pos=2]"]}, BadOption, "marks=\\(...\\)"),
        ({"nodes": ["blocks.0.attn.z[feature=1]"]}, BadOption, "selects on feature"),
        ({"nodes": ["blocks.7.attn.z"]}, UnknownSite, "layers 0 to 1"),
        ({"marks": ["ends"]}, BadOption, "Nearest: end"),
        ({"lam": -1.0}, BadOption, "lam=-1"),
        ({"n_steps": 0}, BadOption, "n_steps=0"),
    ],
)
def test_bad_input_is_named(change, error, text):
    options = {"tasks": {"position": prompts(2, "position")}} | change
    with pytest.raises(error, match=text):
        desiderata_masks(planted_model(), **options)


def test_targets_elsewhere_do_not_matter():
    task = prompts(6, "position")
    pairs = tuple(replace(pair, targets=((0, 1),), wrong=()) for pair in task.pairs)
    assert expected_accuracy(planted_model(), Task("t", "", "logprob", pairs), POSITIONAL) == 1
