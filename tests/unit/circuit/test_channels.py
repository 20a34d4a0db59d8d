"""Singular channels of heads against dense decompositions, edits against the rank-1 parts that they claim to change."""

import pytest
import torch

import optrode as op
from optrode.circuit.channels import channels, edit, inhibition, move
from optrode.errors import BadOption
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.run import Bench
from tests.unit.circuit.planted import FETCH, POSITIONAL, planted_model, prompts
from tests.unit.circuit.test_compose import dense_gpt2, dense_llama

HEAD = "blocks.1.attn.z[head=2]"
TOKENS = [[3, 14, 15, 9, 26, 5], [35, 8, 9, 7, 9, 3]]
SITES = ["blocks.1.attn_in", "blocks.1.attn.pattern", "blocks.1.attn.result", "blocks.1.attn.scores"]


def make_model(family="gpt2", *, has_k_bias=True):
    module = tiny(family).double()
    if not has_k_bias:
        for block in module.transformer.h:
            torch.nn.init.zeros_(block.attn.c_attn.bias[36:72])
    return from_source(module)


def held(model, *gates):
    with op.gates(model, *gates):
        return op.record(model, TOKENS, SITES)


def normalised(stream):
    """Layer norm without gain and bias."""
    centred = stream - stream.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize(("family", "dense"), [("gpt2", dense_gpt2), ("llama", dense_llama)])
@pytest.mark.parametrize("kind", ["ov", "qk"])
def test_channels_are_the_singular_vectors_of_the_dense_matrix(family, dense, kind):
    model = make_model(family)
    found, rank = channels(model, HEAD, kind), model.table.d_head
    with torch.no_grad():
        matrix = dense(model, 1, 2)[kind == "qk"]
        wanted = torch.linalg.svd(matrix).S
        whole = torch.einsum("id,i,ie->de", found.inputs, found.values, found.outputs)
    assert len(found) == rank and found.share == pytest.approx(1)
    assert torch.allclose(found.values, wanted[:rank]) and torch.allclose(whole, matrix, atol=1e-10)
    few = channels(model, HEAD, kind, 3)
    assert len(few) == 3 and few.share == pytest.approx(float((wanted[:3] ** 2).sum() / (wanted**2).sum()))


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("which", [0, [1, 4]])
def test_an_edit_scales_those_rank_one_parts_and_nothing_else(scale, which):
    model = make_model()
    found = channels(model, HEAD)
    plain, gated = held(model), held(model, edit(model, found, which, scale))
    ixs = [which] if isinstance(which, int) else which
    matrix = torch.einsum("id,i,ie->de", found.inputs[ixs], found.values[ixs], found.outputs[ixs])
    part = plain["blocks.1.attn.pattern"][:, 2] @ normalised(plain["blocks.1.attn_in"]) @ matrix
    was, now = plain["blocks.1.attn.result"], gated["blocks.1.attn.result"]
    assert torch.allclose(now[:, :, 2], was[:, :, 2] + (scale - 1) * part, atol=1e-11)
    others = [0, 1, 3]
    assert torch.equal(now[:, :, others], was[:, :, others])


def test_an_edit_without_the_constant_takes_out_all_that_is_written_along_a_channel():
    model = make_model("llama")
    found = channels(model, HEAD)
    plain, gated = held(model), held(model, edit(model, found, [0, 2], keep_constant=False))
    was, now = (one["blocks.1.attn.result"][:, :, 2] for one in (plain, gated))
    kept = was - was @ found.outputs[[0, 2]].T @ found.outputs[[0, 2]]
    assert torch.allclose(now, kept, atol=1e-11) and not torch.allclose(was, kept, atol=1e-3)


@pytest.mark.parametrize("fold_norm", [True, False])
def test_channels_of_a_normed_write_are_edited_before_that_norm(fold_norm):
    model = make_model("gemma2")
    found = channels(model, HEAD, fold_norm=fold_norm)
    gated = held(model, edit(model, found, 1, keep_constant=False))["blocks.1.attn.result"][:, :, 2]
    assert (gated @ found.outputs[1]).abs().max() < 1e-11


def test_scaling_by_one_changes_nothing():
    model = make_model()
    plain, gated = held(model), held(model, edit(model, channels(model, HEAD), range(9), 1.0))
    assert torch.allclose(plain["blocks.1.attn.result"], gated["blocks.1.attn.result"], atol=1e-12)


def test_a_move_adds_to_what_is_written():
    model = make_model()
    found = channels(model, HEAD)
    plain, gated = held(model), held(model, move(model, found, [0, 3], [2.0, -1.0]))
    was, now = (one["blocks.1.attn.result"][:, :, 2] for one in (plain, gated))
    assert torch.allclose(now, was + 2 * found.outputs[0] - found.outputs[3], atol=1e-11)


def test_an_edit_of_qk_scales_what_a_channel_adds_to_the_scores():
    model = make_model(has_k_bias=False)
    found = channels(model, HEAD, "qk")
    plain, gated = held(model), held(model, edit(model, found, 0))
    x, (u, s, v) = normalised(plain["blocks.1.attn_in"]), (found.inputs[0], found.values[0], found.outputs[0])
    # the norm's bias stands on the key's side too, where it is the same for every source
    change = (gated["blocks.1.attn.scores"] - plain["blocks.1.attn.scores"])[:, 2]
    wanted = -s * (x @ u)[:, :, None] * (x @ v)[:, None, :] / 3
    for pos in range(1, 6):
        found_here, wanted_here = (one[:, pos, : pos + 1] for one in (change, wanted))
        centred = [one - one[..., :1] for one in (found_here, wanted_here)]
        assert torch.allclose(*centred, atol=1e-11) and centred[0].abs().max() > 1e-3


def test_channels_of_a_positional_head_draw_the_movers_attention():
    model, task = planted_model(), prompts(12, "base")
    found = inhibition(model, task, channels(model, POSITIONAL[0], n=5), FETCH, ("end", "slot"))
    bench = Bench(model, task)
    with op.gates(model, op.zero(POSITIONAL[0])):
        without = op.record(model, bench.worlds.tokens("clean", 0), "blocks.1.attn.pattern[head=2]")
    at = [pair.marks["slot"] for pair in task.pairs]
    wanted = float(without["blocks.1.attn.pattern[head=2]"][range(12), 0, 6, at].mean())
    assert found.plain > 0.9 and found.plain + found.together == pytest.approx(wanted, abs=1e-10)
    assert all(effect <= 1e-12 for effect in found.effects) and min(found.effects) < -0.01
    assert len(found.per_prompt) == 5 and found.provenance.n_passes == 7


def test_a_route_can_be_given_by_numbers():
    model, task = planted_model(), prompts(4, "base")
    found = channels(model, POSITIONAL[1], n=1)
    named, numbered = (inhibition(model, task, found, FETCH, (end, "slot")) for end in ("end", -1))
    assert named.per_prompt == numbered.per_prompt and numbered.route == ("-1", "slot")


def test_bad_input_is_named():
    model = make_model()
    found = channels(model, HEAD)
    for call, text in (
        (lambda: channels(model, HEAD, "vo"), "Nearest: ov"),
        (lambda: channels(model, HEAD, n=10), "Nearest: n=9"),
        (lambda: channels(model, "blocks.1.attn.z"), "stands for 4 nodes"),
        (lambda: channels(model, "blocks.1.mlp_out"), "it is no head"),
        (lambda: edit(model, found, 9), "channels 0 to 8"),
        (lambda: edit(model, found, [1, 1]), "named once"),
        (lambda: edit(make_model("llama"), found, 0), "36 features"),
        (lambda: edit(from_source(tiny("gpt2", random_seed=1).double()), found, 0), "does not write them"),
        (lambda: move(model, found, [0, 1], [1.0, 2.0, 3.0]), "3 amounts along 2 channels"),
        (lambda: move(model, channels(model, HEAD, "qk"), 0, 1.0), "only OV writes"),
        (lambda: inhibition(model, prompts(2, "base"), found, "blocks.0.attn.z[head=1]", (0, 0)), "does not come later"),
        (lambda: inhibition(model, prompts(2, "base"), found, "blocks.2.attn.z[head=1]", ("ends", 0)), "Nearest: end"),
        (lambda: inhibition(model, prompts(2, "base"), found, "blocks.2.attn.z[head=1]", (7, 0)), "7 tokens"),
    ):
        with pytest.raises(BadOption, match=text):
            call()
