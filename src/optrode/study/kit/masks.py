"""Attention masks over named arrows: cut them, keep nothing else, or cut as many others.

An arrow is a pair (from, to) of positions, information going from a source to a later position that attends to it; a mask
[to, from] is true at its arrows. All rows have one layout. Revisiting the ICL inference circuit, arXiv 2410.04468, cuts the
steps of its circuit this way, in a range of layers, and as many random arrows for a control.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from optrode.errors import BadOption
from optrode.gate.actuators import Function
from optrode.gate.gate import Gate
from optrode.gate.kinds import compute


def arrows(n_pos: int, pairs: Iterable[tuple[int, int]]) -> Bool[Tensor, "pos src"]:
    """The mask that is true at these (from, to).

    Raises:
        BadOption: an arrow that does not go to a later position of a row.
    """
    mask = torch.zeros(n_pos, n_pos, dtype=torch.bool)
    for source, target in pairs:
        if not 0 <= source < target < n_pos:
            found = f"arrows go forward, from 0 to {n_pos - 1}; each position keeps itself"
            raise BadOption(f"an arrow from {source} to {target}", found, next_step="give (from, to), counted from 0")
        mask[target, source] = True
    return mask


def cut(mask: Bool[Tensor, "pos src"], layers: Sequence[int]) -> tuple[Gate, ...]:
    """Gates that take a mask's arrows away from all heads of some layers: their scores become -infinity."""
    closed = _without(mask)
    return tuple(compute(f"blocks.{layer}.attn.scores", closed) for layer in layers)


def keep_only(mask: Bool[Tensor, "pos src"], layers: Sequence[int]) -> tuple[Gate, ...]:
    """Gates that leave nothing but a mask's arrows, and each position itself, in some layers."""
    return cut(forward(len(mask)) & ~mask, layers)


def forward(n_pos: int) -> Bool[Tensor, "pos src"]:
    """All arrows of a row."""
    return torch.ones(n_pos, n_pos, dtype=torch.bool).tril(-1)


def as_many(mask: Bool[Tensor, "pos src"], generator: torch.Generator) -> Bool[Tensor, "pos src"]:
    """As many other arrows, any as likely.

    Raises:
        BadOption: there are not as many others.
    """
    others = (forward(len(mask)) & ~mask).nonzero()
    n = int(mask.sum())
    if n > len(others):
        found = f"a row of {len(mask)} positions has {len(others)} others"
        raise BadOption(f"{n} random arrows", found, next_step="cut fewer than half of all arrows")
    chosen = others[torch.randperm(len(others), generator=generator)[:n]]
    drawn = torch.zeros_like(mask)
    drawn[chosen[:, 0], chosen[:, 1]] = True
    return drawn


def _without(mask: Tensor) -> Function:
    return lambda scores, _: scores.masked_fill(mask.to(scores.device), -torch.inf)
