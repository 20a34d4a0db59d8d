"""Progress measures of the residual stream: how stiff each layer's step is, and how massive its largest activations are."""

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.site.recording import Inputs, record
from optrode.train.measures import wide

MASSIVE_SIZE: Final = 100.0
MASSIVE_RATIO: Final = 1000.0


def stiffness_profile(
    streams: Float[Tensor, "layer batch pos d"], lengths: Sequence[int] = ()
) -> Float[Tensor, " step"]:  # fmt: skip
    """||x_{l+1} - x_l|| / ||x_l||, mean over tokens: the relative change that each layer makes, [layer - 1].

    With a residual network read as an Euler scheme this is the stiffness index of StepNet, arXiv 2308.09939 (as recalled).

    Args:
        streams: the residual stream before the first layer and after each, as `residual_streams` gives it.
        lengths: number of tokens of each row; all positions count where it is empty.

    Raises:
        BadOption: a single layer, or a token whose stream is 0 before a layer.
    """
    if len(streams) < 2:
        raise BadOption("stiffness of one stream", "a change needs two", next_step="stack the streams of more layers")
    x = torch.stack([torch.cat(_rows(layer, lengths)) for layer in wide(streams)])
    before = x[:-1].norm(dim=-1)
    if not bool((before > 0).all()):
        at = int((before > 0).all(1).logical_not().nonzero()[0])
        raise BadOption(f"relative change of stream {at}", "it is 0 (or nan) at a token", next_step="leave that token out")
    profile: Tensor = ((x[1:] - x[:-1]).norm(dim=-1) / before).mean(-1)
    return profile


def massive_ratio(stream: Float[Tensor, "batch pos d"], lengths: Sequence[int] = ()) -> float:
    """Largest over median |h| of each row, over its positions and dimensions; mean over rows (arXiv 2508.03616).

    Args:
        lengths: number of tokens of each row; all positions count where it is empty.

    Raises:
        BadOption: a row's median is 0 or not a number.
    """
    return sum(float(row.abs().max() / _median(row)) for row in _rows(wide(stream), lengths)) / len(stream)


def is_massive(stream: Float[Tensor, "batch pos d"]) -> Bool[Tensor, "batch pos d"]:
    """Where activations are massive: |h| > 100 and at least 1000 times the row's median (Sun et al., arXiv 2402.17762).

    Padding is not told apart: give rows of one length.

    Raises:
        BadOption: as `massive_ratio`.
    """
    sizes = wide(stream).abs()
    least = torch.stack([_median(row) for row in sizes])[:, None, None] * MASSIVE_RATIO
    return (sizes > MASSIVE_SIZE) & (sizes >= least)


def has_massive(stream: Float[Tensor, "batch pos d"]) -> bool:
    """Whether any activation is massive; see `is_massive`.

    Raises:
        BadOption: as `massive_ratio`.
    """
    return bool(is_massive(stream).any())


def residual_streams(model: Model, inputs: Inputs) -> tuple[Float[Tensor, "layer batch pos d"], tuple[int, ...]]:
    """The residual stream before the first block and after each, and the number of tokens of each row, in one pass.

    Raises:
        UnknownSite, SiteUnavailable: the model has no residual stream.
        BadOption: no prompt, or an empty one.
    """
    found = record(model, inputs, ["blocks.0.resid_pre", "blocks.*.resid_post"])
    first = found["blocks.0.resid_pre"]
    return torch.cat([first[None], found.stack("resid_post")]), found.lengths


def massive_ratios(model: Model, inputs: Inputs) -> tuple[float, ...]:
    """The massive ratio of the residual stream after each block: what `fit_massive` takes one layer of, step by step.

    Raises:
        UnknownSite, SiteUnavailable, BadOption: as `residual_streams` and `massive_ratio`.
    """
    streams, lengths = residual_streams(model, inputs)
    return tuple(massive_ratio(stream, lengths) for stream in streams[1:])


def _rows(stream: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Each row [pos, d] without its padding."""
    if lengths and (len(lengths) != len(stream) or not all(0 < n <= stream.shape[1] for n in lengths)):
        raise BadOption(f"lengths {tuple(lengths)}", f"the stream has {len(stream)} rows of {stream.shape[1]} positions")
    return [row[:n] for row, n in zip(stream, lengths or [stream.shape[1]] * len(stream), strict=True)]


def _median(row: Tensor) -> Tensor:
    """Median of the sizes; of an even number of them the mean of the middle two."""
    sizes = row.abs().flatten().sort().values
    middle = (sizes[(len(sizes) - 1) // 2] + sizes[len(sizes) // 2]) / 2
    if not (bool(middle > 0) and bool(sizes[-1].isfinite())):
        found = f"half of it is 0, or it is not finite (median {float(middle):g}, maximum {float(sizes[-1]):g})"
        step = "read the stream of a network that is not dead and has not diverged"
        raise BadOption("massive ratio of a row", found, next_step=step)
    return middle
