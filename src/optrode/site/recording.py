"""Record any set of sites in one pass, or over a whole generation."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from optrode.axes import POS, SRC
from optrode.errors import BadOption, NotRecorded, SiteUnavailable, nearest
from optrode.model.model import Batch, Model, Text, Tokens
from optrode.model.names import SiteName, parse
from optrode.site.select import select_sites
from optrode.site.site import Moment, Site, indices, selection
from optrode.site.tap import tapped

Inputs = Text | Tokens | Batch | Mapping[str, Tensor]
Patterns = str | SiteName | Sequence[str | SiteName]


@final
@dataclass
class Recording(Mapping[str, Tensor]):
    """What was read at sites: canonical site name -> tensor.

    Keys are site names in any spelling the grammar understands; `recording["z", 3]` is short for
    `recording["blocks.3.attn.z"]`, as in TransformerLens.

    Attributes:
        tensors: tensors with the site's axes ([batch, pos, feature], [batch, pos, head, feature], ...). Rows are
            padded on the right; `lengths` says where each row ends. A selected axis keeps its place.
        lengths: number of tokens of each row, empty where that is unknown.
        logits: the model's logits, when they were asked for.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    logits: Tensor | None = None

    def __getitem__(self, key: str | SiteName | tuple[str, int]) -> Tensor:
        name = str(_full_name(key, self.tensors))
        if name not in self.tensors:
            raise NotRecorded(
                f"recording of {name}", f"it holds {_count(len(self.tensors), 'site')}", nearest=nearest(name, self.tensors),
                next_step="name it among the sites to record",
            )  # fmt: skip
        return self.tensors[name]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, (str, tuple, SiteName)) and str(_full_name(key, self.tensors)) in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __repr__(self) -> str:
        size = sum(t.numel() * t.element_size() for t in self.tensors.values()) / 2**20
        return f"Recording({len(self)} sites, {len(self.lengths)} rows, {size:.1f} MiB)"

    def stack(self, kind: str) -> Tensor:
        """All layers of one kind, stacked in front: `stack("resid_pre")` is [layer, batch, pos, feature]."""
        found = [value for key, value in self.tensors.items() if parse(key).kind == parse(kind).kind]
        if not found:
            kinds = {parse(key).kind for key in self.tensors}
            raise NotRecorded(f"recording of {kind}", "no layer of it is held", nearest=tuple(sorted(kinds)))
        return torch.stack(found)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _full_name(key: str | SiteName | tuple[str, int], held: Mapping[str, Tensor]) -> SiteName:
    if isinstance(key, SiteName):
        return key
    if isinstance(key, str):
        return parse(key)
    kind, layer = key
    tail = [name for name in map(parse, held) if name.kind == kind or name.kind.rpartition(".")[2] == kind]
    return parse(f"blocks.{layer}.{tail[0].kind if tail else kind}")


def record(
    model: Model, inputs: Inputs, sites: Patterns, *, device: Any = None, dtype: torch.dtype | None = None,
    keep_logits: bool = False, batch_size: int | None = None,
) -> Recording:  # fmt: skip
    """Record sites over prompts, without gradients.

    Args:
        inputs: texts, token id lists, a tensor [batch, pos] (or the module's own input), or keyword arguments.
        sites: names or patterns, with selectors where only a part is wanted: `blocks.*.resid_post[pos=-1]`.
        device, dtype: where and how to keep what is read, e.g. device="cpu", dtype=torch.float16.
        keep_logits: also keep the logits.
        batch_size: rows per pass; all at once when None.

    Raises:
        BadName, UnknownSite, SiteUnavailable: from the site names.
        BadOption: no prompt, an empty one, or a batch size below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise BadOption(f"batch_size={batch_size}", "a pass has at least one row", next_step="leave it out for one pass")
    options = {} if keep_logits else _fewest_logits(model, sites)
    with recording(model, sites, device=device, dtype=dtype) as found, torch.no_grad():
        for part in _parts(model, inputs, batch_size):
            output = run(model, part, **options)
            if isinstance(part, Batch):
                found.lengths += part.lengths
            if keep_logits:
                logits = _logits(output).to(device=device, dtype=dtype)
                found.logits = logits if found.logits is None else torch.cat([found.logits, logits])
    return found


def run(model: Model, inputs: Inputs, **options: Any) -> Any:
    """One forward pass of the user's module on inputs in any accepted form.

    Args:
        options: further keyword arguments for prompts.
    """
    if isinstance(inputs, Mapping):
        return model.module(**inputs)
    if isinstance(inputs, Batch):
        return model.module(**inputs.arguments(), **options)
    if isinstance(inputs, Tensor) and (inputs.is_floating_point() or not model.table.places):
        return model.module(inputs.to(model.device))
    return model.module(**model.batch(inputs).arguments(), **options)


def _fewest_logits(model: Model, sites: Patterns) -> dict[str, int]:
    """Where nobody reads the logits, one position's are enough: nothing before them changes."""
    patterns = [sites] if isinstance(sites, (str, SiteName)) else list(sites)
    chosen = [site for pattern in patterns for site in select_sites(model, pattern)]
    reads_end = any(site.name.is_module or site.name.kind == "logits" for site in chosen)
    get_head = getattr(model.module, "get_output_embeddings", None)
    ends = [model.module, *([head] if get_head and (head := get_head()) is not None else [])]
    is_held = any(end._forward_hooks for end in ends) or any(end._forward_pre_hooks for end in ends[1:])  # by a gate, say
    knows = "logits_to_keep" in inspect.signature(model.module.forward).parameters
    return {"logits_to_keep": 1} if knows and not reads_end and not is_held else {}


def _parts(model: Model, inputs: Inputs, batch_size: int | None) -> Iterator[Inputs]:
    is_own = isinstance(inputs, Mapping) or (
        isinstance(inputs, Tensor) and (inputs.is_floating_point() or not model.table.places)
    )
    if is_own:
        yield inputs
        return
    batch = inputs if isinstance(inputs, Batch) else model.batch(inputs)  # type: ignore[arg-type]
    step = batch_size or len(batch.token_ids)
    for start in range(0, len(batch.token_ids), step):
        rows = slice(start, start + step)
        yield Batch(batch.token_ids[rows], None if batch.mask is None else batch.mask[rows])


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise SiteUnavailable("logits", f"the model returned {type(output).__name__} without logits")
    return found


@contextmanager
def recording(
    model: Model, sites: Patterns, *, device: Any = None, dtype: torch.dtype | None = None
) -> Iterator[Recording]:
    """Record every pass made inside the context; tensors are there when it ends.

    Passes over new prompts are joined along rows; the steps of a generation along positions. A module called several
    times in one pass (a recurrent cell) is recorded once per call, along positions.
    """
    patterns = [sites] if isinstance(sites, (str, SiteName)) else list(sites)
    chosen = {str(site.name): site for pattern in patterns for site in select_sites(model, pattern)}
    reels = {name: _Reel(site, device, dtype) for name, site in chosen.items()}
    found = Recording()
    with tapped(model, [(chosen[name], reel.see) for name, reel in reels.items()]):
        yield found
    found.tensors.update({name: reel.develop() for name, reel in reels.items()})


@final
class _Reel:
    """The pieces read at one site, in order."""

    def __init__(self, site: Site, device: Any, dtype: torch.dtype | None) -> None:
        self.site, self.device, self.dtype = site, device, dtype
        self.passes: list[list[Tensor]] = []

    def see(self, tensor: Tensor, moment: Moment) -> None:
        """Keep a copy of what came by (a Function for `tapped`)."""
        is_first = moment.row_pos is None or bool((moment.row_pos <= 0).any(1).all())
        if moment.call_ix == 0 and (is_first or not self.passes):
            self.passes.append([])
        part = narrow(self.site, tensor.detach(), moment)
        if part.shape[-1] == 0 or part.numel() == 0:
            return
        moved = part.to(device=self.device, dtype=self.dtype)
        self.passes[-1].append(moved.clone() if moved.data_ptr() == tensor.data_ptr() else moved)

    def develop(self) -> Tensor:
        """One tensor of all pieces."""
        rows = [self._join(pieces) for pieces in self.passes if pieces]
        if not rows:
            raise NotRecorded(
                f"recording of {self.site.name}", "nothing was read there",
                next_step="run the model inside the context, and check the selected positions",
            )  # fmt: skip
        return torch.cat(_padded(self.site, rows)) if len(rows) > 1 else rows[0]

    def _join(self, pieces: list[Tensor]) -> Tensor:
        axes = self.site.axes(pieces[0].dim())
        if POS not in axes and (len(pieces) > 1 or self.site.name.index(POS) is not None):
            return torch.stack(pieces, dim=1)  # a selected axis keeps its place, one step of it too
        return pieces[0] if len(pieces) == 1 else torch.cat(_grown(pieces, axes), dim=axes.index(POS))


def _grown(pieces: list[Tensor], axes: tuple[str, ...]) -> list[Tensor]:
    """Attention rows of later steps see more sources: pad the earlier ones with zeros."""
    if SRC not in axes:
        return pieces
    width = max(p.shape[axes.index(SRC)] for p in pieces)
    return [nn.functional.pad(p, (0, width - p.shape[-1])) for p in pieces]


def _padded(site: Site, rows: list[Tensor]) -> list[Tensor]:
    """Passes over prompts of different length: pad positions (and sources) on the right with zeros."""
    axes = site.axes(rows[0].dim())
    for axis in (POS, SRC):
        if axis in axes:
            at = axes.index(axis)
            width = max(r.shape[at] for r in rows)
            rows = [nn.functional.pad(r, [0, 0] * (r.dim() - 1 - at) + [0, width - r.shape[at]]) for r in rows]
    return rows


def narrow(site: Site, tensor: Tensor, moment: Moment) -> Tensor:
    """The selected part of a viewed tensor; axes stay, with the selected length."""
    axes = site.axes(tensor.dim())
    for axis, index in site.name.select:
        if axis == POS:
            continue
        if axis not in axes:
            selection(site, tensor, moment)  # raises the error that names the axes
        at = axes.index(axis)
        chosen = torch.tensor(indices(site.name, axis, index, tensor.shape[at]), dtype=torch.long, device=tensor.device)
        tensor = tensor.index_select(at, chosen)
    return _narrow_pos(site, axes, tensor, moment)


def _narrow_pos(site: Site, axes: tuple[str, ...], tensor: Tensor, moment: Moment) -> Tensor:
    index = site.name.index(POS)
    if index is None:
        return tensor
    only_pos = Site(SiteName(site.name.kind, None, ((POS, index),)), site.place)
    hit = selection(only_pos, tensor, moment)
    if hit is None or POS not in axes and bool(hit.all()):
        return tensor
    if POS not in axes and not bool(hit.any()):
        return tensor[..., :0]
    if POS not in axes:
        step = "count steps from the first, or record rows of one length"
        found = "rows end at different steps"
        raise NotRecorded(f"recording of {site.name}", found, next_step=step)
    at = axes.index(POS)
    columns = hit.reshape(hit.shape[0], -1)
    counts = columns.sum(1)
    if int(counts.min()) != int(counts.max()):
        raise NotRecorded(
            f"recording of {site.name}", f"rows have {int(counts.min())} to {int(counts.max())} of these positions",
            next_step="select positions that every row has, or record prompts of one length",
        )  # fmt: skip
    chosen = columns.nonzero()[:, 1].reshape(len(columns), -1)
    rows = [t.index_select(at - 1, c) for t, c in zip(tensor, chosen, strict=False)]
    return torch.stack(rows)
