"""The proof, made at load, that a family's table is right for this very module.

A table is a list of claims: this tensor, of these axes, is that site. Each kind of site is put to the test on a few
random tokens (or pixels): its tensor has the axes and sizes that the table states; recording changes nothing; what is
recorded obeys the identities that its names promise (the residual stream is the sum of what is added to it, z is the
pattern's mean of v); and moving the site moves what the model returns.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from optrode.axes import BATCH, POS, SRC
from optrode.errors import CheckFailed, SiteUnavailable
from optrode.model.model import Model
from optrode.site.recording import Recording, recording, run
from optrode.site.select import select_sites
from optrode.site.site import Moment, Site
from optrode.site.tap import tapped

N_POS: Final = 4
LARGE: Final = 10**9  # parameters; beyond it only the last layer's sites are moved


@dataclass(frozen=True)
class Checked:
    """What was verified of one kind of site.

    Attributes:
        kind: the site's kind, e.g. `attn.z`.
        shape: of its tensor on one prompt; empty where it could not be recorded.
        how: what was verified, in words.
        moved: how far moving it moved the model's output, relative to the output's largest value.
    """

    kind: str
    shape: tuple[int, ...]
    how: str
    moved: float


@dataclass(frozen=True)
class Check:
    """The proof of one model's table: one entry per kind of site, in the order of the computation."""

    model: str
    family: str
    kinds: tuple[Checked, ...]

    def __str__(self) -> str:
        head = f"{self.model} ({self.family}): {len(self.kinds)} kinds of sites proven"
        return "\n".join([head, *(f"  {c.kind:<15} {c.shape!s:<18} {c.how}" for c in self.kinds)])


def check_model(model: Model) -> Check:
    """Prove the model's table. Mode, random state, hooks and config are afterwards as before.

    A model of the generic route claims nothing, so there is nothing to prove.

    Raises:
        CheckFailed: a claim of the table does not hold; the message names the site.
    """
    if not model.table.places:
        return Check(model.name, model.table.family, ())
    with _undisturbed(model):
        inputs = _inputs(model, 1)
        plain = _answer(run(model, inputs))
        if not bool(torch.isfinite(plain).all()):
            raise CheckFailed(f"{model.name} on random inputs", "it returns NaN or infinity", next_step="check its weights")
        held, seen = _look(model, _kinds(model, inner=False), inputs)
        if not torch.equal(plain, seen):
            raise _failed(model, "all sites", "recording them changes what the model returns")
        inner, missing = _look_inside(model, inputs, plain)
        held.tensors.update(inner.tensors)
        shapes = _check_shapes(model, held)
        _check_stream(model, held)
        _check_pattern(model, held)
        moved = _check_moves(model, [kind for kind in shapes if kind not in missing])
    return _report(model, shapes, moved, missing)


@contextmanager
def _undisturbed(model: Model) -> Iterator[None]:
    modes = [(module, module.training) for module in model.module.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        model.module.eval()
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _inputs(model: Model, n_rows: int) -> Mapping[str, Tensor]:
    """`n_rows` times the same random prompt of `N_POS` tokens, or random image."""
    generator = torch.Generator().manual_seed(0)
    config: Any = model.module.config
    if _reads_pixels(model):
        size = config.image_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        image = torch.randn(1, config.num_channels, height, width, generator=generator)
        return {"pixel_values": image.to(model.device, model.dtype).repeat(n_rows, 1, 1, 1)}
    # Special tokens sit at either end of a vocabulary; a padding token would ask for a mask.
    low, high = config.vocab_size // 4, 3 * config.vocab_size // 4
    token_ids = torch.randint(low, high, (1, N_POS), generator=generator)
    return {"input_ids": token_ids.to(model.device).repeat(n_rows, 1)}


def _reads_pixels(model: Model) -> bool:
    return getattr(model.module, "main_input_name", "input_ids") == "pixel_values"


def _answer(output: Any) -> Tensor:
    """What the model returns: its logits, or a base model's last hidden state."""
    for name in ("logits", "last_hidden_state"):
        if isinstance(getattr(output, name, None), Tensor):
            return getattr(output, name)  # type: ignore[no-any-return]
    raise CheckFailed(
        f"output {type(output).__name__}", "it holds neither logits nor a last hidden state",
        next_step="load with check=False, or without a table: op.load(module, family=None)",
    )  # fmt: skip


def _kinds(model: Model, *, inner: bool) -> tuple[str, ...]:
    """Kinds of sites, in order: those inside attention, which needs another attention function, or all others."""
    kinds = dict.fromkeys(name.kind for name in model.site_names())
    return tuple(k for k in kinds if (model.table.places[k].how in ("scores", "pattern")) == inner)


def _pattern(model: Model, kind: str, layer: int | str = "*") -> str:
    return f"blocks.{layer}.{kind}" if model.table.in_block(kind) else kind


def _look(model: Model, kinds: tuple[str, ...], inputs: Mapping[str, Tensor]) -> tuple[Recording, Tensor]:
    with recording(model, [_pattern(model, kind) for kind in kinds], device=model.device) as held:
        output = run(model, inputs)
    return held, _answer(output)


def _look_inside(model: Model, inputs: Mapping[str, Tensor], plain: Tensor) -> tuple[Recording, dict[str, str]]:
    """Scores and pattern, and the kinds that this attention implementation keeps to itself, with the reason."""
    kinds = _kinds(model, inner=True)
    try:
        held, seen = _look(model, kinds, inputs)
    except SiteUnavailable as error:
        return Recording(), dict.fromkeys(kinds, error.found)
    if not _is_close(seen, plain):
        raise _failed(model, " and ".join(kinds), f"recording them moves the output by {_gap(seen, plain):.1e} of its size")
    return held, {}


def _check_shapes(model: Model, held: Recording) -> dict[str, tuple[int, ...]]:
    """Kind -> shape. Every layer's tensor has the axes and the sizes of the table."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in model.site_names():
        if str(name) not in held:
            shapes[name.kind] = ()
            continue
        found = shapes[name.kind] = tuple(held[name].shape)
        axes = Site(name, model.place(name)).axes(len(found))
        expected = [_size(model, name.kind, axis) for axis in axes]
        if len(found) != len(axes) or any(e not in (None, f) for e, f in zip(expected, found, strict=True)):
            stated = ", ".join(f"{axis} {size or 'any'}" for axis, size in zip(axes, expected, strict=True))
            raise _failed(model, str(name), f"its tensor has the shape {found}, the table says ({stated})")
    return shapes


def _size(model: Model, kind: str, axis: str) -> int | None:
    """Length that an axis must have on one probing prompt, where that is known."""
    if axis == BATCH:
        return 1
    if axis in (POS, SRC):
        return None if _reads_pixels(model) else N_POS
    return model.table.size(kind, axis)


def _check_stream(model: Model, held: Recording) -> None:
    """The residual stream runs on from block to block, and is the sum of what is added to it."""
    for layer in range(model.table.n_layers):
        block, previous = f"blocks.{layer}", f"blocks.{layer - 1}"
        is_joined = _holds(held, block, "resid_pre") and _holds(held, previous, "resid_post")
        if is_joined and not torch.equal(held[f"{block}.resid_pre"], held[f"{previous}.resid_post"]):
            raise _failed(model, f"{block}.resid_pre", "it is not the previous block's resid_post")
        if not _holds(held, block, "resid_pre", "attn_out", "mlp_out", "resid_post"):
            continue
        middle = held[f"{block}.resid_pre"] + held[f"{block}.attn_out"]
        if _holds(held, block, "resid_mid") and not _is_close(middle, held[f"{block}.resid_mid"]):
            raise _failed(model, f"{block}.attn_out", "resid_pre + attn_out is not resid_mid")
        after = middle + held[f"{block}.mlp_out"]
        if not (model.table.is_post_norm or _is_close(after, held[f"{block}.resid_post"])):
            raise _failed(model, f"{block}.mlp_out", "added to the residual stream it does not give resid_post")


def _check_pattern(model: Model, held: Recording) -> None:
    """Rows of the pattern sum to one, and z is what they take from v: this proves heads, groups and their order."""
    for layer in range(model.table.n_layers):
        block = f"blocks.{layer}"
        if not _holds(held, block, "attn.pattern", "attn.v", "attn.z"):
            continue
        pattern, v = held[f"{block}.attn.pattern"], held[f"{block}.attn.v"]
        if not _is_close(pattern.sum(-1), torch.ones_like(pattern[..., 0])):
            raise _failed(model, f"{block}.attn.pattern", "its rows do not sum to one")
        v = v.repeat_interleave(pattern.shape[1] // v.shape[2], dim=2)
        if not _is_close(torch.einsum("bhps,bshd->bphd", pattern, v), held[f"{block}.attn.z"]):
            raise _failed(model, f"{block}.attn.z", "it is not the pattern's sum over attn.v, head by head")


def _holds(held: Recording, block: str, *kinds: str) -> bool:
    return all(f"{block}.{kind}" in held for kind in kinds)


def _check_moves(model: Model, kinds: list[str]) -> dict[str, float]:
    """Kind -> how far moving it moves the output, relative to the output's size; the least over the sampled layers."""
    moved: dict[str, float] = {}
    for inner in (False, True):  # apart, since those inside attention bring another attention function with them
        chosen = [kind for kind in _kinds(model, inner=inner) if kind in kinds]
        sites = [site for kind in chosen for site in _sampled(model, kind)]
        for site, by in zip(sites, _moves(model, sites), strict=True) if sites else ():
            moved[site.name.kind] = min(by, moved.get(site.name.kind, by))
    return moved


def _sampled(model: Model, kind: str) -> tuple[Site, ...]:
    if not model.table.in_block(kind):
        return select_sites(model, kind)
    last = model.table.n_layers - 1
    is_large = sum(p.numel() for p in model.module.parameters()) > LARGE
    layers = (last,) if is_large or not last else (0, last)
    return tuple(site for layer in layers for site in select_sites(model, _pattern(model, kind, layer)))


def _moves(model: Model, sites: list[Site]) -> list[float]:
    """How far each site moves the output: one pass, in which every row has one site moved, the first and last none."""
    generator = torch.Generator().manual_seed(1)
    taps = [(site, _mover(row, generator)) for row, site in enumerate(sites, start=1)]
    with tapped(model, taps):
        answer = _answer(run(model, _inputs(model, len(sites) + 2))).float()
    noise = 10 * _gap(answer[-1], answer[0]) + 4 * torch.finfo(model.dtype).eps
    found = [_gap(answer[row], answer[0]) for row in range(1, len(sites) + 1)]
    for site, by in zip(sites, found, strict=True):
        if not by > noise:
            raise _failed(model, str(site.name), f"moving it moves the output by {by:.1e} of its size, no more than noise")
    return found


def _mover(row: int, generator: torch.Generator) -> Callable[[Tensor, Moment], Tensor]:
    """A tap that adds noise of three times a site's own size to one row; closed attention scores stay closed."""

    def move(tensor: Tensor, moment: Moment) -> Tensor:
        part = tensor[row]
        finite = part[part.isfinite()].float()
        size = float(finite.square().mean().sqrt()) or 1.0
        noise = torch.randn(part.shape, generator=generator).to(part.device, part.dtype)
        moved = tensor.clone()
        moved[row] = part + 3 * size * noise
        return moved

    return move


def _gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def _is_close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and _gap(a.float(), b.float()) <= max(1e-3, 8 * torch.finfo(b.dtype).eps)


def _failed(model: Model, site: str, found: str) -> CheckFailed:
    return CheckFailed(
        f"check of {site} in {model.name}", found,
        next_step=f"compare model/zoo/{model.table.family}.py with the module; op.load(module, family=None) needs no table",
    )  # fmt: skip


def _report(
    model: Model, shapes: dict[str, tuple[int, ...]], moved: dict[str, float], missing: dict[str, str]
) -> Check:
    entries = []
    for kind, shape in shapes.items():
        exact = "output within 1e-3" if model.table.places[kind].how in ("scores", "pattern") else "output bit-equal"
        how = f"axes, {exact} when recorded, moves the output by {moved.get(kind, 0.0):.1e}"
        entries.append(Checked(kind, shape, missing.get(kind, how), moved.get(kind, 0.0)))
    return Check(model.name, model.table.family, tuple(entries))
