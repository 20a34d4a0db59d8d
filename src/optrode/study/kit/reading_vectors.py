"""Control vectors read off a model's states while it solves items (Højer et al., arXiv 2504.19483).

A state is the residual stream at an item's last token. Vectors are scaled to one norm, so that the dose of a gate that adds
one is a share of the norm that the stream has there.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.site.recording import record

States = Float[Tensor, "item feature"]


def last_states(model: Model, ids: Int[Tensor, "item pos"], site: str) -> States:
    """The states at a site, at the last token."""
    return record(model, ids, f"{site}[pos=-1]")[f"{site}[pos=-1]"][:, 0]


def typical_norm(model: Model, ids: Int[Tensor, "item pos"], site: str) -> float:
    """The median norm of a site's vectors over items and positions."""
    return float(record(model, ids, site)[site].norm(dim=-1).median())


def solved(states: States, is_solved: Bool[Tensor, " item"]) -> Float[Tensor, " feature"]:
    """Reading "R": the mean state on solved items.

    Raises:
        BadOption: none is solved.
    """
    return _some(states, is_solved, "solved").mean(0)


def contrasted(
    states: States, is_solved: Bool[Tensor, " item"], others: Float[Tensor, "other feature"]
) -> Float[Tensor, " feature"]:
    """Reading "R-C": the mean state on solved items less that on others, such as random strings.

    Raises:
        BadOption: none is solved.
    """
    return solved(states, is_solved) - others.mean(0)


def principal(
    states: States, is_solved: Bool[Tensor, " item"], others: Float[Tensor, "other feature"]
) -> Float[Tensor, " feature"]:
    """Reading "PCA-C": the first principal axis of the differences, each taken both ways, between solved items and others.

    It points from the others to the solved items.

    Raises:
        BadOption: none is solved.
    """
    kept = _some(states, is_solved, "solved")
    n = min(len(kept), len(others))
    differences = kept[:n] - others[:n]
    axis: Tensor = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    towards = torch.sign(axis @ differences.mean(0))
    return axis * towards


def of_outcome(states: States, is_solved: Bool[Tensor, " item"]) -> Float[Tensor, " feature"]:
    """The mean state on solved items less that on failed ones.

    Raises:
        BadOption: none is solved, or none failed.
    """
    return _some(states, is_solved, "solved").mean(0) - _some(states, ~is_solved, "failed").mean(0)


def scaled(vector: Float[Tensor, " feature"], norm: float) -> Float[Tensor, " feature"]:
    """The vector with another norm.

    Raises:
        BadOption: it is zero, and points nowhere.
    """
    length = float(vector.norm())
    if length < _LEAST:
        raise BadOption("a control vector", "it is zero", next_step="read it from groups that differ")
    return vector * (norm / length)


_LEAST: Final = 1e-12


def _some(states: States, chosen: Bool[Tensor, " item"], what: str) -> Float[Tensor, "kept feature"]:
    if not bool(chosen.any()):
        found = f"of {len(states)} items none is {what}"
        raise BadOption("a control vector", found, next_step="give items of which the model solves some and fails others")
    return states[chosen]
