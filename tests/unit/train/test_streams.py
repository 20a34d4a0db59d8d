"""Stiffness and massive activations are their definitions written out, on streams by hand and on a model."""

import statistics

import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.nn.transformer import Spec, as_model, build
from optrode.train.streams import (
    has_massive,
    is_massive,
    massive_ratio,
    massive_ratios,
    residual_streams,
    stiffness_profile,
)

SPEC = Spec(n_layers=2, n_heads=2, d_model=8, vocab=11, n_ctx=6, d_mlp=8)


@pytest.fixture(scope="module")
def model():
    return as_model(build(SPEC, random_seed=3, dtype=torch.float64))


def test_stiffness_is_the_mean_relative_change_of_a_token():
    streams = torch.randn(4, 2, 3, 5, dtype=torch.float64)
    expected = []
    for layer in range(3):
        pairs = zip(streams[layer].flatten(0, 1), streams[layer + 1].flatten(0, 1), strict=True)
        expected.append(statistics.mean(float((after - before).norm() / before.norm()) for before, after in pairs))
    assert stiffness_profile(streams).tolist() == pytest.approx(expected)


def test_stiffness_does_not_see_size_and_leaves_padding_out():
    streams = torch.randn(3, 2, 4, 5)
    assert torch.allclose(stiffness_profile(streams * 7), stiffness_profile(streams))
    padded = streams.clone()
    padded[:, 1, 2:] = 0.0
    cut = torch.cat([streams[:, 0], streams[:, 1, :2]], 1)[:, None]
    assert torch.allclose(stiffness_profile(padded, (4, 2)), stiffness_profile(cut))


def test_doubling_has_stiffness_one():
    stream = torch.randn(1, 2, 3)
    assert stiffness_profile(torch.stack([stream, 2 * stream, 2 * stream])).tolist() == pytest.approx([1.0, 0.0])


def test_massive_ratio_is_largest_over_median_of_each_row():
    stream = torch.randn(3, 4, 5, dtype=torch.float64)
    rows = [[abs(x) for x in row.flatten().tolist()] for row in stream]
    expected = statistics.mean(max(row) / statistics.median(row) for row in rows)
    assert massive_ratio(stream) == pytest.approx(expected)
    assert massive_ratio(-3 * stream) == pytest.approx(expected)
    odd = stream[:, :3]
    padded = torch.cat([odd, torch.full((3, 1, 5), 1e6, dtype=torch.float64)], 1)
    assert massive_ratio(padded, (3, 3, 3)) == pytest.approx(massive_ratio(odd))


def test_massive_needs_both_size_and_ratio():
    quiet = torch.full((1, 3, 4), 0.1)
    large, ratio, both = quiet.clone(), quiet / 100, quiet.clone()
    large[0, 1, 2], ratio[0, 1, 2], both[0, 1, 2] = 99.0, 99.0, -101.0
    assert not has_massive(large) and not has_massive(ratio) and has_massive(both)
    assert is_massive(both).nonzero().tolist() == [[0, 1, 2]]
    loud = torch.full((1, 3, 4), 1.0)
    loud[0, 0, 0] = 900.0
    assert not has_massive(loud)
    loud[0, 0, 0] = 1000.0
    assert has_massive(loud)


def test_massive_is_judged_row_by_row():
    stream = torch.full((2, 2, 3), 0.1)
    stream[1] = 10.0
    stream[0, 0, 0] = stream[1, 0, 0] = 150.0
    assert is_massive(stream).nonzero().tolist() == [[0, 0, 0]]


def test_half_precision_does_not_overflow():
    stream = torch.full((1, 2, 4), 0.01, dtype=torch.float16)
    stream[0, 0, 0] = 60000.0
    assert massive_ratio(stream) == pytest.approx(6e6, rel=1e-3)


def test_streams_of_a_model_are_what_is_recorded(model):
    tokens = [[1, 2, 3, 4], [5, 6]]
    streams, lengths = residual_streams(model, tokens)
    found = op.record(model, tokens, ["blocks.0.resid_pre", "blocks.0.resid_post", "blocks.1.resid_post"])
    assert lengths == (4, 2) and streams.shape == (3, 2, 4, 8)
    for layer, name in enumerate(found):
        assert torch.equal(streams[layer], found[name]), name
    expected = [
        (massive_ratio(stream[:1]) + massive_ratio(stream[1:, :2])) / 2 for stream in streams[1:]
    ]  # fmt: skip
    assert massive_ratios(model, tokens) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: stiffness_profile(torch.ones(1, 2, 3, 4)), "stiffness of one stream: a change needs two"),
        (lambda: stiffness_profile(torch.zeros(2, 2, 3, 4)), "relative change of stream 0: it is 0 (or nan) at a token"),
        (lambda: massive_ratio(torch.zeros(2, 3, 4)), "half of it is 0, or it is not finite (median 0, maximum 0)"),
        (lambda: massive_ratio(torch.full((1, 3, 4), torch.nan)), "half of it is 0, or it is not finite"),
        (lambda: massive_ratio(torch.ones(2, 3, 4), (3,)), "lengths (3,): the stream has 2 rows of 3 positions"),
        (lambda: massive_ratio(torch.ones(1, 3, 4), (4,)), "lengths (4,)"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(call, text):
    with pytest.raises(BadOption) as caught:
        call()
    assert text in str(caught.value)
