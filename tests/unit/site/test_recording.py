"""Recordings: parts, formats, padding, names, files."""

import pytest
import torch

import optrode as op
from optrode.errors import NotRecorded
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.recording import record
from optrode.site.saved import load_recording, save_recording

ROWS = [[5, 9, 2, 7, 11, 3], [8, 1, 4]]


@pytest.fixture(scope="module")
def model():
    return from_source(tiny("gpt2").double())


def test_selected_parts_keep_their_axes(model):
    whole = record(model, ROWS[:1], "blocks.1.attn.z")["z", 1]
    part = record(model, ROWS[:1], "blocks.1.attn.z[head=2, pos=1:4, feature=0|3]")
    assert torch.equal(part["blocks.1.attn.z[head=2, pos=1:4, feature=0|3]"], whole[:, 1:4, 2:3, [0, 3]])


def test_rows_of_unequal_length_are_padded_and_keep_their_values(model):
    both = record(model, ROWS, "blocks.2.resid_post", keep_logits=True)
    alone = record(model, ROWS[1:], "blocks.2.resid_post", keep_logits=True)
    assert both.lengths == (6, 3)
    torch.testing.assert_close(both["resid_post", 2][1, :3], alone["resid_post", 2][0])
    torch.testing.assert_close(both.logits[1, :3], alone.logits[0])


def test_the_last_position_is_each_rows_own(model):
    both = record(model, ROWS, ["blocks.2.resid_post[pos=-1]", "blocks.2.resid_post"])
    whole = both["blocks.2.resid_post"]
    assert torch.equal(both["blocks.2.resid_post[pos=-1]"], torch.stack([whole[0, 5:], whole[1, 2:3]]))


def test_positions_that_rows_do_not_share_are_refused(model):
    with pytest.raises(NotRecorded, match="rows have 1 to 4 of these positions"):
        record(model, ROWS, "blocks.2.resid_post[pos=2:]")


def test_batches_join(model):
    sites = ["blocks.*.resid_pre", "blocks.1.attn.pattern"]
    at_once, in_parts = (record(model, ROWS, sites, batch_size=size) for size in (None, 1))
    assert in_parts.lengths == at_once.lengths == (6, 3)
    for site in at_once:
        torch.testing.assert_close(in_parts[site][0], at_once[site][0])


def test_other_number_formats_and_devices(model):
    held = record(model, ROWS, "embed", dtype=torch.float16, device="cpu")
    assert held["embed"].dtype == torch.float16


def test_names_of_transformer_lens_are_understood(model):
    held = record(model, ROWS, ["blocks.1.attn.hook_z", "blocks.0.hook_resid_pre", "hook_embed"])
    assert list(held) == ["blocks.1.attn.z", "blocks.0.resid_pre", "embed"]
    assert held["z", 1] is held["blocks.1.attn.hook_z"]
    assert held.stack("resid_pre").shape == (1, 2, 6, 36)


def test_what_was_not_recorded_is_named(model):
    held = record(model, ROWS, "blocks.1.attn.z")
    with pytest.raises(NotRecorded, match=r"Nearest: blocks\.1\.attn\.z"):
        held["blocks.1.attn.q"]


def test_recordings_survive_a_file(model, tmp_path):
    held = record(model, ROWS, ["blocks.*.attn.z", "embed"])
    back = load_recording(save_recording(held, tmp_path / "a" / "held.safetensors", {"seed": "0"}))
    assert back.lengths == held.lengths and set(back) == set(held)
    assert all(torch.equal(back[site], held[site]) for site in held)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["held.safetensors"]


def test_gates_at_the_logits_see_all_of_them_while_something_else_is_recorded():
    model = op.load(tiny("llama"))
    with op.gates(model, op.zero("logits[pos=0]"), op.scale("module:lm_head.out", 2.0)):
        held = op.record(model, [(1, 2, 3)], "embed")
    assert torch.equal(held["embed"], op.record(model, [(1, 2, 3)], ["embed", "logits"])["embed"])
