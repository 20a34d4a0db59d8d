"""Modules that no family describes: every module's input and output is a site."""

import pytest
import torch
from torch import Tensor, nn

from optrode.errors import UnknownSite
from optrode.gate.check import check_model
from optrode.gate.kinds import add, mean, patch, zero
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.model.source import from_source
from optrode.site.recording import record


class Cells(nn.Module):
    """A recurrent net as a hand-written loop: the cell comes by once per step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.readout = nn.RNNCell(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 7)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.readout(state)


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.readout = nn.GRU(5, 7, num_layers=2, batch_first=True), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.gru(x)[0])


class AttentionOnly(nn.Module):
    """Two heads and a residual stream, no norm, no MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.unembed = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
        self.qkv, self.pattern, self.out = nn.Linear(8, 24), nn.Identity(), nn.Linear(8, 8)

    def forward(self, token_ids: Tensor) -> Tensor:
        stream = self.embed(token_ids)
        q, k, v = self.qkv(stream).unflatten(-1, (3, 2, 4)).unbind(2)
        scores = torch.einsum("bphd,bshd->bhps", q, k) / 2
        closed = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        pattern = self.pattern(scores.masked_fill(closed, -torch.inf).softmax(-1))
        return self.unembed(stream + self.out(torch.einsum("bhps,bshd->bphd", pattern, v).flatten(2)))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    )


def load(module: nn.Module) -> Model:
    model = from_source(module.eval())
    assert check_model(model).kinds == ()
    return model


CASES = {
    "cells": (Cells, lambda: torch.randn(2, 6, 5), ("module:cell.out", "module:readout.in")),
    "gru": (Gru, lambda: torch.randn(2, 6, 5), ("module:gru.in", "module:gru.out")),
    "cnn": (cnn, lambda: torch.randn(2, 3, 9, 9), ("module:0.out", "module:1.out", "module:2.in")),
    "attention": (AttentionOnly, lambda: torch.randint(0, 11, (2, 6)), ("module:qkv.out", "module:pattern.in")),
}


@pytest.mark.parametrize("case", CASES)
def test_recording_and_self_patching_are_exact_and_zeroing_moves(case):
    make, inputs, sites = CASES[case]
    model, x = load(make()), inputs()
    plain = model(x)
    held = record(model, x, sites)
    for site in sites:
        with gates(model, patch(site, held)):
            assert torch.equal(model(x), plain)
        with gates(model, zero(site)):
            assert not torch.allclose(model(x), plain)
    assert torch.equal(model(x), plain)


def test_a_recurrent_cell_is_recorded_along_its_steps():
    model, x = load(Cells()), torch.randn(2, 6, 5)
    held = record(model, x, "module:cell.out")["module:cell.out"]
    assert held.shape == (2, 6, 7)
    assert torch.equal(model.module.readout(held[:, -1]), model(x))


def test_a_recurrent_cell_is_gated_at_one_step():
    model, x = load(Cells()), torch.randn(2, 6, 5)
    state = torch.zeros(2, 7)
    for step in range(6):
        state = model.module.cell(x[:, step], state) * (step != 2)
    with gates(model, zero("module:cell.out[pos=2]")):
        torch.testing.assert_close(model(x), model.module.readout(state))


def test_a_recurrent_cell_is_patched_step_by_step():
    model, x, other = load(Cells()), torch.randn(2, 6, 5), torch.randn(2, 6, 5)
    held = record(model, other, "module:cell.out")
    with gates(model, patch("module:cell.out[pos=5]", held)):
        assert torch.equal(model(x), model(other))
    state = model.module.cell(x[:, 5], held["module:cell.out"][:, 4])
    with gates(model, patch("module:cell.out[pos=4]", held)):
        torch.testing.assert_close(model(x), model.module.readout(state))


@pytest.mark.parametrize("over", ["rows", "all"])
def test_mean_ablation_without_positions(over):
    model, x = load(cnn()), torch.randn(4, 3, 9, 9)
    held = record(model, x, "module:0.out")
    expected = model.module[1:](held["module:0.out"].mean(0, keepdim=True).expand(4, -1, -1, -1))
    with gates(model, mean("module:0.out", held, over=over)):
        assert torch.equal(model(x), expected)
    model, x = load(Cells()), torch.randn(4, 6, 5)
    held = record(model, x, "module:cell.out")
    last = held["module:cell.out"].mean((0, 1) if over == "all" else 0)
    with gates(model, mean("module:cell.out", held, over=over)):
        torch.testing.assert_close(model(x), model.module.readout(last if over == "all" else last[-1]).expand(4, -1))


def test_a_gru_is_gated_at_its_last_position_and_one_unit():
    model, x = load(Gru()), torch.randn(2, 6, 5)
    states = model.module.gru(x)[0].clone()
    states[:, -1, 3] = 0
    with gates(model, zero("module:gru.out[pos=-1, feature=3]")):
        assert torch.equal(model(x), model.module.readout(states))


def test_a_channel_of_a_convolution_is_gated():
    model, x = load(cnn()), torch.randn(2, 3, 9, 9)
    first = model.module[0](x)
    first[:, 2] = 0
    with gates(model, zero("module:0.out[channel=2]")):
        assert torch.equal(model(x), model.module[1:](first))


def test_a_hand_written_transformer_by_its_modules():
    model, x = load(AttentionOnly()), torch.randint(0, 11, (2, 6))
    pattern = record(model, x, "module:pattern.out")["module:pattern.out"]
    assert pattern.shape == (2, 2, 6, 6)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 2, 6))
    with gates(model, zero("module:out.out")):
        assert torch.equal(model(x), model.module.unembed(model.module.embed(x)))
    plain = model(x)
    with gates(model, add("module:embed.out[pos=3]", torch.ones(8))):
        moved = (model(x) - plain).abs().amax((0, 2))
    assert (moved[:3] == 0).all() and (moved[3:] > 1e-3).all()


def test_family_sites_are_unknown_and_a_module_site_is_named():
    with pytest.raises(UnknownSite, match=r"module:cell\.out"):
        record(load(Cells()), torch.randn(1, 2, 5), "blocks.0.resid_pre")
