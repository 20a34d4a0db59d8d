"""What is particular to the study of where reward moves weights."""

import pytest
import torch

from optrode.study.papers.rlvr_off_principals import masks_of, norm_at, share_at
from optrode.train.masks import low_mask, principal_mask

POINTS = [(1e-4, 1.0), (1e-3, 0.8), (1e-2, 0.2), (1e-1, 0.0)]


def test_norms_and_shares_are_read_off_a_curve_as_the_logarithm_goes():
    assert norm_at(POINTS, 0.5) == pytest.approx(10**-2.5) and share_at(POINTS, 10**-2.5) == pytest.approx(0.5)
    assert share_at(POINTS, norm_at(POINTS, 0.6)) == pytest.approx(0.6)


def test_masks_are_the_papers_and_random_ones_have_their_sizes():
    weights = {"a": torch.randn(20, 30), "b": torch.randn(8, 8)}
    masks = masks_of(weights, 4, torch.Generator().manual_seed(1))
    for name, weight in weights.items():
        principal, low = principal_mask(weight, 4), low_mask(weight)
        assert masks["principal half"][name].equal(principal) and masks["low half"][name].equal(low)
        safe = masks["low or not principal"][name]
        assert safe.equal(low | ~principal) and 0.5 < float(safe.float().mean()) < 1
        assert int(masks["as many at random"][name].sum()) == int(safe.sum())
        one, other = (masks[key][name] for key in ("random half", "other random half"))
        assert int(one.sum()) == int(other.sum()) == weight.numel() // 2 and not one.equal(other)
