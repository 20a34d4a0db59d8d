"""Coupled blocks: what the sides share, what they differ in, and what hangs on the gain."""

import torch

from optrode.site.recording import record
from optrode.study.kit import coupled

LAW = coupled.Coupled(gain=2.0, n_idle=3)


def draw(side, n=20000, seed=0):
    return coupled.draw(LAW, side, n, torch.Generator().manual_seed(seed))


def test_sides_differ_in_shift_and_in_how_pairs_go_together_and_in_nothing_else():
    source, target = draw("source"), draw("target", seed=1)
    assert source.shape == (20000, LAW.d_stream) == (20000, 19)
    torch.testing.assert_close(target[:, :8].mean(0) - source[:, :8].mean(0), torch.full((8,), 0.5), atol=0.04, rtol=0)
    torch.testing.assert_close(source.std(0), target.std(0), atol=0.04, rtol=0)
    for side, sign in ((source, -1), (target, 1)):
        within = torch.corrcoef(side.T)
        torch.testing.assert_close(within[0, 1], torch.tensor(sign * 0.9), atol=0.02, rtol=0)
        assert float(within[1, 2:].abs().max()) < 0.05


def test_the_first_block_shows_what_no_feature_of_its_input_does():
    net = coupled.network(LAW)
    spreads = [record(net, draw(side), coupled.SITES[1])[coupled.SITES[1]][:, 8:16].std(0) for side in ("source", "target")]
    assert bool((spreads[1] > 1.25 * spreads[0]).all())


def test_without_gain_the_blocks_add_nothing_and_idle_features_never_change():
    rows = draw("target", 10)
    assert torch.equal(coupled.network(coupled.Coupled(0.0, n_idle=3))(rows), rows)
    found = coupled.network(LAW)(rows)
    assert torch.equal(found[:, 16:], rows[:, 16:]) and not torch.equal(found[:, 8:16], rows[:, 8:16])


def test_rows_without_labels_are_half_of_either_kind():
    source, target = torch.zeros(8, 2), torch.ones(8, 2)
    for side in coupled.mixed(source, target):
        assert side.shape == (8, 2) and float(side.mean()) == 0.5
