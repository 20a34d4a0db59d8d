"""Activations of a frozen model as samples: one row per text, or per token, with gradients into the gates that are held.

    rows = rows_of(model, texts)
    with frozen(model):
        found = read(model, rows, chosen_sites(model, "blocks.*.mlp_out"), Sampling("mean")).values
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, final, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optrode.axes import POS, SRC
from optrode.errors import BadOption, NotRecorded, nearest
from optrode.model.model import Batch, Model
from optrode.model.names import SiteName
from optrode.site.recording import Inputs, Patterns, run
from optrode.site.select import select_sites
from optrode.site.site import Moment, Site
from optrode.site.tap import tapped

Pool = Literal["mean", "all", "last"]
POOLS: Final = get_args(Pool)


@final
@dataclass(frozen=True)
class Sampling:
    """How activations become samples.

    Attributes:
        pool: what a sample is: the "mean" over a text's tokens, "all" tokens, or the "last".
        skip_first: neither read nor map each text's first token, where many language models have massive activations.
        batch_size: texts per pass; all at once when None.
    """

    pool: str = "mean"
    skip_first: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise BadOption(f"pool={self.pool!r}", "not a way to read tokens", nearest=nearest(self.pool, POOLS) or POOLS)
        if self.batch_size is not None and self.batch_size < 1:
            raise BadOption(f"batch_size={self.batch_size}", "a pass has at least one row", next_step="leave it out")


def sampling(**options: Any) -> Sampling:
    """How activations become samples, from keyword arguments.

    Raises:
        BadOption: no such option, or no such way to pool.
    """
    known = tuple(field.name for field in fields(Sampling))
    for name in options:
        if name not in known:
            raise BadOption(f"option {name}=", "no such option", nearest=nearest(name, known) or known)
    return Sampling(**options)


@final
@dataclass(frozen=True, eq=False)
class Samples:
    """What was read at sites.

    Attributes:
        values: site -> [sample, *feature], in the order in which the sites came by.
        along: the sites that come by once per token, or per step.
    """

    values: Mapping[SiteName, Tensor]
    along: frozenset[SiteName]


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs that can be taken row by row.

    Attributes:
        inputs: as the module takes them.
        mask: [batch, pos], true at real tokens; None where every token is.
    """

    inputs: Batch | Tensor | Mapping[str, Tensor]
    mask: Bool[Tensor, "batch pos"] | None

    def __len__(self) -> int:
        return len(_parts(self.inputs)[0])

    def take(self, rows: Int[Tensor, " row"]) -> "Rows":
        """Some of the rows."""
        mask = None if self.mask is None else self.mask[rows]
        if isinstance(self.inputs, Batch):
            return Rows(Batch(self.inputs.token_ids[rows], mask), mask)
        if isinstance(self.inputs, Tensor):
            return Rows(self.inputs[rows], mask)
        return Rows({name: part[rows] for name, part in self.inputs.items()}, mask)

    def split(self, size: int | None) -> Iterator["Rows"]:
        """All rows, so many at a time."""
        yield from (self.take(part) for part in torch.arange(len(self)).split(size or len(self)))


def rows_of(model: Model, inputs: Inputs, what: str = "texts") -> Rows:
    """Inputs in any form that `record` takes.

    Args:
        what: they are called, in errors.

    Raises:
        BadOption: there are fewer than two of them, or one of no token.
    """
    rows = _rows_of(model, inputs)
    if len(rows) < 2:
        found = "there is only one" if len(rows) else "there is none"
        raise BadOption(f"{what} of {model.name}", found, next_step="give at least two; 32 of each kind are a good start")
    return rows


def _rows_of(model: Model, inputs: Inputs) -> Rows:
    if isinstance(inputs, Mapping):
        mask = inputs.get("attention_mask")
        return Rows(dict(inputs), None if mask is None or mask.dim() != 2 else mask.bool())
    if isinstance(inputs, Tensor) and (inputs.is_floating_point() or not model.table.places):
        return Rows(inputs.to(model.device), None)
    if not isinstance(inputs, (Batch, str, Tensor)) and not len(inputs):
        return Rows(torch.empty(0), None)
    batch = inputs if isinstance(inputs, Batch) else model.batch(inputs)
    return Rows(batch, batch.mask)


def _parts(inputs: Batch | Tensor | Mapping[str, Tensor]) -> list[Tensor]:
    if isinstance(inputs, Batch):
        return [inputs.token_ids]
    return [inputs] if isinstance(inputs, Tensor) else list(inputs.values())


def chosen_sites(model: Model, patterns: Patterns) -> tuple[Site, ...]:
    """Whole sites, as they are given.

    Raises:
        BadName, UnknownSite, SiteUnavailable: from the site names.
        BadOption: there is none, one is named twice or in part, or one has a source axis.
    """
    given = [patterns] if isinstance(patterns, (str, SiteName)) else list(patterns)
    sites = [site for pattern in given for site in select_sites(model, pattern)]
    if not sites:
        raise BadOption(f"sites of {model.name}", "there is none", next_step='name some, like "blocks.*.mlp_out"')
    for ix, site in enumerate(sites):
        if site.name.select:
            near, step = (str(site.name.whole),), "name the whole site; which tokens are read is said by pool="
            raise BadOption(f"a map at {site.name}", "maps are of whole sites", nearest=near, next_step=step)
        if site.name in [other.name for other in sites[:ix]]:
            raise BadOption(f"a map at {site.name}", "the site is named twice", next_step="name it once")
        if SRC in site.place.view.axes:
            found = "its features are source positions, which differ from text to text"
            raise BadOption(f"a map at {site.name}", found, next_step="map what attention adds: attn_out or attn.z")
    return tuple(sites)


def in_order(sites: Sequence[Site], read: Samples) -> tuple[Site, ...]:
    """Sites in the order in which they came by."""
    order = list(read.values)
    return tuple(sorted(sites, key=lambda site: order.index(site.name)))


def read(model: Model, rows: Rows, sites: Sequence[Site], how: Sampling) -> Samples:
    """What comes by at sites, after the gates that are held, as samples; all rows in one pass.

    Raises:
        BadOption: a row has no token left.
        NotRecorded: the pass did not come by.
    """
    return _sampled(sites, _seen(model, rows, sites), rows, how)


def read_all(model: Model, rows: Rows, sites: Sequence[Site], how: Sampling) -> Samples:
    """The same without gradients, so many rows per pass; see `read`."""
    with torch.no_grad():
        return _joined([read(model, part, sites, how) for part in rows.split(how.batch_size)])


def read_one(model: Model, rows: Rows, site: Site, *ways: Sampling) -> tuple[Samples, ...]:
    """One site read in several ways from the same passes, which end once they came by there; see `read_all`."""
    parts: list[list[Samples]] = [[] for _ in ways]
    with torch.no_grad():
        for part in rows.split(ways[0].batch_size):
            seen = _seen(model, part, [site], is_all=not site.name.is_module)
            for found, how in zip(parts, ways, strict=True):
                found.append(_sampled([site], seen, part, how))
    return tuple(_joined(found) for found in parts)


class _Enough(Exception):
    """All that was to be read has come by."""


def _seen(model: Model, rows: Rows, sites: Sequence[Site], *, is_all: bool = False) -> dict[SiteName, list[Tensor]]:
    """What comes by at each site, call by call; sites in the order in which they do.

    Args:
        is_all: end the pass at the first site that comes by; what lies behind it is not computed.
    """
    seen: dict[SiteName, list[Tensor]] = {}

    def noting(name: SiteName) -> Callable[[Tensor, Moment], None]:
        def note(tensor: Tensor, moment: Moment) -> None:
            seen.setdefault(name, []).append(tensor)
            if is_all:
                raise _Enough

        return note

    with tapped(model, [(site, noting(site.name)) for site in sites]), suppress(_Enough):
        run(model, rows.inputs)
    return seen


def _sampled(sites: Sequence[Site], seen: Mapping[SiteName, list[Tensor]], rows: Rows, how: Sampling) -> Samples:
    for site in sites:
        if site.name not in seen:
            step = "check that the module is part of the forward pass"
            raise NotRecorded(f"recording of {site.name}", "the model ran, but did not come by", next_step=step)
    by_name = {site.name: site for site in sites}
    along = frozenset(name for name, tensors in seen.items() if _has_pos(by_name[name], tensors))
    return Samples({name: _pooled(by_name[name], tensors, rows.mask, how) for name, tensors in seen.items()}, along)


def _joined(parts: Sequence[Samples]) -> Samples:
    return Samples({name: torch.cat([part.values[name] for part in parts]) for name in parts[0].values}, parts[0].along)


def _has_pos(site: Site, seen: list[Tensor]) -> bool:
    return len(seen) > 1 or POS in site.axes(seen[0].dim())


def _pooled(
    site: Site, seen: list[Tensor], mask: Bool[Tensor, "batch pos"] | None, how: Sampling
) -> Float[Tensor, "sample *feature"]:
    if not _has_pos(site, seen):
        return seen[0]
    axes = site.axes(seen[0].dim())
    by_pos = seen[0].movedim(axes.index(POS), 1) if POS in axes else torch.stack(seen, 1)
    keep = _kept(site, by_pos, mask, how.skip_first)
    if how.pool == "all":
        return by_pos[keep]
    if how.pool == "last":
        ends = keep.shape[1] - 1 - keep.flip(1).int().argmax(1)
        return by_pos[torch.arange(len(by_pos), device=by_pos.device), ends]
    weight = (keep / keep.sum(1, keepdim=True)).to(by_pos.dtype)
    return torch.einsum("bp,bp...->b...", weight, by_pos)


def _kept(site: Site, by_pos: Tensor, mask: Bool[Tensor, "batch pos"] | None, skip_first: bool) -> Bool[Tensor, "batch pos"]:
    """Which tokens are read."""
    shape = by_pos.shape[:2]
    real = mask.to(by_pos.device) if mask is not None and mask.shape == shape else torch.ones(
        shape, dtype=torch.bool, device=by_pos.device
    )  # fmt: skip
    keep = real & (real.long().cumsum(1) > 1) if skip_first else real
    empty = (~keep.any(1)).nonzero().flatten().tolist()
    if empty:
        found = f"row {empty[0]} has " + ("no token but the first, which is left out" if skip_first else "no token")
        raise BadOption(f"tokens at {site.name}", found, next_step="give longer texts, or skip_first=False")
    return keep


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """The module as a fixed function: evaluation mode, no gradients of its own, whatever the caller's. Then as it was."""
    module = model.module
    training = {part: part.training for part in module.modules()}
    learns = {weight: weight.requires_grad for weight in module.parameters()}
    module.eval()
    module.requires_grad_(False)
    try:
        with torch.inference_mode(False):
            yield
    finally:
        for weight, was in learns.items():
            weight.requires_grad_(was)
        for part, was in training.items():
            part.training = was


def check_precision(model: Model, what: str) -> None:
    """Refuse to learn in half precision, in which small steps are lost.

    Raises:
        BadOption: the model's type is neither float32 nor float64.
    """
    if model.dtype not in (torch.float32, torch.float64):
        step = "load the model in float32 to learn the maps, and convert them: maps.to(dtype)"
        raise BadOption(f"{what} of {model.name}", f"it is in {model.dtype}, in which small steps are lost", next_step=step)
