"""A Site is a named place with a view: where a tensor is, and which of its axes is what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optrode.axes import GENERIC_AXES, POS, SRC
from optrode.errors import SiteUnavailable, UnknownSite
from optrode.model.adapter import Place, View
from optrode.model.names import Index, SiteName, parse


@dataclass(frozen=True, slots=True)
class Site:
    """One concrete site of one model: a name with at most one layer, and its place."""

    name: SiteName
    place: Place

    def axes(self, n_dims: int) -> tuple[str, ...]:
        """Axis names of the viewed tensor; for modules without a table, by the number of dimensions.

        So too for the logits of a head that has no positions, such as a sequence classifier's.
        """
        known = self.place.view.axes
        if known and (self.place.how != "logits" or len(known) == n_dims):
            return known
        return GENERIC_AXES.get(n_dims, ("batch", *("other",) * (n_dims - 1)))


@final
@dataclass(slots=True)
class Around:
    """What else is known of the pass under way, for gates whose value is computed from it.

    Attributes:
        inputs: the pass's arguments by name, e.g. `inputs["input_ids"]`.
        seen: what came by at the sites that a gate reads, by name.
        asides: what a pass aside had at the sites where it is put in, by (id of the aside, site name).
    """

    inputs: Mapping[str, Any]
    seen: dict[str, Tensor] = field(default_factory=dict)
    asides: dict[tuple[int, str], Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        """What came by at a site that the gate reads; its name in any spelling."""
        if name not in self.seen:
            name = str(parse(name))
        if name not in self.seen:
            step = "name it in the gate's `reads`; what comes later is known only of a first pass, op.first_pass()"
            raise SiteUnavailable(f"{name}, read by a gate", "it has not come by in this pass", next_step=step)
        return self.seen[name]


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known of a pass when a site's tensor comes by.

    Attributes:
        row_pos: [batch, pos] position of each token in its own row, counted from the row's first real token; -1 at
            padding. None where positions are not known.
        prompt_len: [batch] number of prompt tokens of each row (later tokens are generated).
        call_ix: how many times this site has come by in this pass before (recurrent cells).
        rows: [batch] which rows of the run these are, when only some of its rows and positions come by (`trial/packed.py`);
            None when all of them do.
        around: what gates that are computed from the pass were promised of it.
    """

    row_pos: Int[Tensor, "batch pos"] | None
    prompt_len: Int[Tensor, " batch"] | None
    call_ix: int
    rows: Int[Tensor, " batch"] | None = None
    around: Around | None = None

    def positions(self, n_rows: int, n_pos: int, device: torch.device) -> Int[Tensor, "batch pos"]:
        """Row positions for a tensor with `n_pos` positions; counted from 0 when the pass did not say."""
        known = self.row_pos
        if known is not None and known.shape[1] >= n_pos and known.shape[0] == n_rows:
            return known[:, known.shape[1] - n_pos :].to(device)
        return torch.arange(n_pos, device=device).expand(n_rows, n_pos)

    def lengths(self, n_rows: int, n_pos: int, device: torch.device) -> Int[Tensor, " batch"]:
        """Prompt lengths of the rows: what a position counted from the end, such as -1, counts from."""
        if self.prompt_len is not None and len(self.prompt_len) == n_rows:
            return self.prompt_len.to(device)
        return torch.full((n_rows,), n_pos, device=device)


def indices(name: SiteName, axis: str, index: Index, size: int) -> tuple[int, ...]:
    """What an index selects on an axis of this length.

    Sources are let through: how many there are changes from one step of a generation to the next.

    Raises:
        UnknownSite: it selects nothing, or names an integer that is out of range.
    """
    found = index.resolve(size)
    outside = [part for part in index.parts if isinstance(part, int) and not -size <= part < size]
    if axis != SRC and (outside or not found):
        raise UnknownSite(
            f"{axis} {outside[0] if outside else index} at {name.path}", f"the site has {axis}s 0 to {size - 1}",
            nearest=(f"{name.path}[{axis}={size - 1}]",),
        )  # fmt: skip
    return found


def split(tensor: Tensor, view: View) -> Tensor:
    """The module's tensor as the site shows it: `[..., features]` -> the view's axes. Shares memory."""
    part = tensor[..., view.start : view.stop] if _is_cut(view.start, view.stop) else tensor
    if view.heads is None:
        return part
    by_head: Tensor = part.unflatten(-1, (view.heads, -1))
    return by_head[..., view.head_start : view.head_stop] if _is_cut(view.head_start, view.head_stop) else by_head


def join(tensor: Tensor, view: View, part: Tensor) -> Tensor:
    """`tensor` with the site's part replaced; the inverse of `split`. Makes a new tensor."""
    if view.heads is not None:
        if _is_cut(view.head_start, view.head_stop):
            whole = tensor[..., view.start : view.stop].unflatten(-1, (view.heads, -1))
            part = _cat(whole, view.head_start, view.head_stop, part)
        part = part.flatten(-2)
    return _cat(tensor, view.start, view.stop, part) if _is_cut(view.start, view.stop) else part


def _is_cut(start: int | None, stop: int | None) -> bool:
    return start is not None or stop is not None


def _cat(whole: Tensor, start: int | None, stop: int | None, part: Tensor) -> Tensor:
    before = whole[..., : start or 0]
    after = whole[..., whole.shape[-1] if stop is None else stop :]
    return torch.cat([before, part, after], dim=-1)


def selection(
    site: Site, tensor: Float[Tensor, "..."], moment: Moment, scope: str = "all"
) -> Bool[Tensor, "..."] | None:
    """Which elements of the viewed tensor a name and scope select; broadcastable, or None for all of them.

    Args:
        scope: "all", "prompt" or "generated": tokens of the prompt, or tokens that generation fed back.

    Raises:
        SiteUnavailable: a selector names an axis that the tensor does not have.
    """
    axes = site.axes(tensor.dim())
    masks = [_axis_mask(site, axes, axis, index, tensor, moment) for axis, index in site.name.select]
    if scope != "all":
        masks.append(_scope_mask(axes, tensor, moment, scope))
    if not masks:
        return None
    mask = masks[0]
    for other in masks[1:]:
        mask = mask & other
    return mask


def _axis_mask(
    site: Site, axes: tuple[str, ...], axis: str, index: Index, tensor: Tensor, moment: Moment
) -> Bool[Tensor, "..."]:
    if axis == POS:
        return _pos_mask(site, axes, index, tensor, moment)
    if axis not in axes:
        raise SiteUnavailable(
            f"selector {axis}={index} at {site.name}",
            f"the tensor there has the axes {', '.join(axes)}",
            next_step=f"select on one of {', '.join(a for a in axes if a != 'batch')}",
        )
    at = axes.index(axis)
    mask = torch.zeros(tensor.shape[at], dtype=torch.bool, device=tensor.device)
    mask[list(indices(site.name, axis, index, tensor.shape[at]))] = True
    return mask.reshape([-1 if d == at else 1 for d in range(tensor.dim())])


def _pos_mask(
    site: Site, axes: tuple[str, ...], index: Index, tensor: Tensor, moment: Moment
) -> Bool[Tensor, "..."]:
    if POS not in axes:  # a recurrent cell: the call number is the position
        hit = _chosen(index, *_steps(site, index, tensor, moment))
        return hit.reshape(-1, *(1,) * (tensor.dim() - 1))
    n_rows, n_pos = tensor.shape[0], tensor.shape[axes.index(POS)]
    positions = moment.positions(n_rows, n_pos, tensor.device)
    lengths = moment.lengths(n_rows, n_pos, tensor.device)[:, None]
    return _along_pos(axes, _chosen(index, positions, lengths) & (positions >= 0), tensor.dim())


def _chosen(index: Index, positions: Int[Tensor, "rows pos"], lengths: Int[Tensor, "rows 1"]) -> Bool[Tensor, "rows pos"]:
    """Which positions an index stands for, in rows of these lengths."""
    chosen: Tensor = torch.zeros_like(positions, dtype=torch.bool)
    for part in index.parts:
        if isinstance(part, int):
            chosen = chosen | torch.eq(positions, part if part >= 0 else lengths + part)
        else:
            start, stop = part
            low = lengths * 0 + (start or 0) if (start or 0) >= 0 else lengths + (start or 0)
            above = positions >= low
            chosen = chosen | (above if stop is None else above & (positions < (stop if stop >= 0 else lengths + stop)))
    return chosen


def _steps(
    site: Site, index: Index, tensor: Tensor, moment: Moment
) -> tuple[Int[Tensor, "rows 1"], Int[Tensor, "rows 1"]]:
    """The step that a site without positions is at, and how many there are: each row's number of positions in the inputs.

    Raises:
        SiteUnavailable: the index counts from the end, and the inputs did not say where that is.
    """
    at = torch.full((1, 1), moment.call_ix, device=tensor.device)
    if moment.prompt_len is not None and len(moment.prompt_len) == tensor.shape[0]:
        lengths = moment.prompt_len.to(tensor.device)[:, None]
        return at.expand_as(lengths), lengths
    ends = [end for part in index.parts for end in (part if isinstance(part, tuple) else (part,))]
    if any(end is not None and end < 0 for end in ends):
        found = "the site comes by once per step, and the inputs do not say how many steps there are"
        raise SiteUnavailable(f"pos={index} at {site.name.path}", found, next_step="count steps from the first, like pos=3")
    return at, torch.zeros_like(at)


def _scope_mask(axes: tuple[str, ...], tensor: Tensor, moment: Moment, scope: str) -> Bool[Tensor, "..."]:
    if POS not in axes:
        return torch.full((1,) * tensor.dim(), scope == "prompt", device=tensor.device)
    n_rows, n_pos = tensor.shape[0], tensor.shape[axes.index(POS)]
    positions = moment.positions(n_rows, n_pos, tensor.device)
    is_generated = positions >= moment.lengths(n_rows, n_pos, tensor.device)[:, None]
    hit = is_generated if scope == "generated" else ~is_generated
    return _along_pos(axes, hit & (positions >= 0), tensor.dim())


def _along_pos(axes: tuple[str, ...], hit: Bool[Tensor, "batch pos"], n_dims: int) -> Bool[Tensor, "..."]:
    shape = [1] * n_dims
    shape[0], shape[axes.index(POS)] = hit.shape
    return hit.reshape(shape)
