"""Many trials in one pass: the tokens that can differ, of all trials and positions, through the model's own blocks.

At each block stand the tokens of every strip that has started: of strips that start there, the plain run's residual
stream. The block is called once on all of them, [1, token, d_model], with the arguments that it was called with in the
plain run, taken at the tokens' positions; `attention.py` keeps the trials apart. In the last block, only the tokens that
the metric reads go on after the keys and values. `naive.py` is the reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from optrode.errors import SiteUnavailable
from optrode.gate.gate import Gate, apply_gate
from optrode.model.model import Model
from optrode.site.site import Moment, Site
from optrode.site.tap import Function, tapped
from optrode.trial.attention import (
    Captured,
    KeysValues,
    Packing,
    Rectangle,
    by_job,
    is_fused,
    mixing,
    packed_attention,
    packing_of,
    refusal,
)  # fmt: skip
from optrode.trial.blocks import blocks_of
from optrode.trial.kernels import fast, linears_of
from optrode.trial.reach import Strip
from optrode.trial.work import Tally
from optrode.trial.worlds import Worlds


@dataclass(frozen=True, eq=False)
class Live:
    """A strip that has started.

    Attributes:
        first: its keys and values differ from the plain run's from this position on.
        positions: of its tokens in the pack, the same in each row.
        tokens: where they stand.
    """

    strip: Strip
    first: int
    positions: Int[Tensor, " pos"]
    tokens: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, positions)."""
        return len(self.strip.rows), len(self.positions)


@dataclass(frozen=True, eq=False)
class Pack:
    """The tokens in flight: [1, token, d_model], and whose they are."""

    stream: Float[Tensor, "1 token d_model"]
    lives: tuple[Live, ...]


@final
class Packer:
    """Runs strips of one world's trials through a model's blocks."""

    def __init__(self, worlds: Worlds, tally: Tally) -> None:
        self.worlds, self.model, self.tally = worlds, worlds.model, tally
        self.blocks = blocks_of(worlds.model)
        self.attentions = _attentions(worlds)
        self._plain: dict[str, list[list[KeysValues]]] = {}

    def refusal(self) -> str | None:
        """Why this model's trials cannot be packed, or None."""
        if not self.blocks:
            return "no family file names its blocks, and it is no nn.Sequential"
        if not self.worlds.has_tokens:
            return "its inputs are not tokens"
        if not self.attentions:
            return f"the {self.model.table.family} family mixes values outside transformers' attention interface"
        return next((why for why in map(refusal, self.attentions) if why), None)

    @torch.no_grad()
    def run(self, strips: Sequence[Strip]) -> list[Tensor]:
        """[strip] stream after the last block where the metric reads, [row, read, d_model].

        Raises:
            SiteUnavailable: a block takes an argument that cannot be taken apart by position.
        """
        world = strips[0].world
        with packed_attention(self.attentions), fast(linears_of(self.blocks)):
            self._plain_keys(world)
            pack = Pack(torch.empty(1, 0, 0), ())
            for layer in range(len(self.blocks) - 1):
                pack = self._joined(pack, strips, layer)
                pack = replace(pack, stream=self._block(layer, pack, self._rectangles(pack.lives)))
            pack = self._joined(pack, strips, len(self.blocks) - 1)
            return self._at_reads(self._last(pack), strips)

    # Which tokens are in flight

    def _joined(self, pack: Pack, strips: Sequence[Strip], layer: int) -> Pack:
        """The pack before a block: with the strips that start there, and those that start earlier in their prompt."""
        due = {id(strip): first for strip in strips for at, first in strip.starts if at == layer}
        if not due:
            return pack
        held = {id(live.strip): live for live in pack.lives}
        streams: dict[int, tuple[Strip, int, Tensor]] = {}
        for strip in strips:
            live = held.get(id(strip))
            if live is not None or id(strip) in due:
                first = due.get(id(strip), live.first if live else 0)
                streams[id(strip)] = (strip, first, self._grown(pack, strip, live, layer, first))
        return _packed(sorted(streams.values(), key=lambda one: (one[0].group, one[1], one[0].rows)), self.model.device)

    def _grown(self, pack: Pack, strip: Strip, live: Live | None, layer: int, first: int) -> Tensor:
        """A strip's stream from position `first` on, [row, pos, d_model]."""
        end = live.first if live else self._end(strip.group)
        plain = self.worlds.walk(strip.world, strip.group).streams[layer]
        source = strip.stream if layer == 0 and strip.stream is not None else plain
        early = source[list(strip.rows), first:end]
        if live is None:
            return early
        own = pack.stream[0, live.tokens].unflatten(0, live.shape)
        return torch.cat([early, own], 1)

    def _end(self, group: int) -> int:
        """One past the last position that can reach what the metric reads."""
        return max(self.worlds.positions(group)) + 1 if self.model.table.is_causal else self.worlds.length(group)

    def _rectangles(self, lives: Sequence[Live]) -> list[Rectangle]:
        """Strips that stand side by side, with the same rows at the same positions, joined."""
        found: list[Rectangle] = []
        last: tuple[Any, ...] = ()
        for live in lives:
            if found and last == _alike(live):
                tokens = slice(found[-1].tokens.start, live.tokens.stop)
                found[-1] = replace(found[-1], tokens=tokens, n_trials=found[-1].n_trials + 1)
            else:
                rows = torch.tensor(live.strip.rows, device=self.model.device)
                found.append(Rectangle(live.tokens, live.positions, live.strip.group, rows, live.first))
            last = _alike(live)
        return found

    # Calling blocks

    def _block(self, layer: int, pack: Pack, rectangles: Sequence[Rectangle]) -> Tensor:
        """The stream after a block."""
        if not pack.lives:
            return pack.stream
        world = pack.lives[0].strip.world
        module, plain = self.attentions[layer], self._plain_keys(world)[layer]
        packing = Packing(rectangles, plain, self._masks(world, layer), mixing(module), is_fused(module))
        self.tally.add(token_layers=pack.stream.shape[1])
        with packing_of(self.attentions[layer], packing):
            return self._called(layer, pack, rectangles)

    def _called(self, layer: int, pack: Pack, rectangles: Sequence[Rectangle]) -> Tensor:
        with tapped(self.model, self.taps(layer, pack.lives)):
            out = self.blocks[layer](pack.stream, **self._arguments(pack, layer, rectangles))
        stream: Tensor = out[0] if isinstance(out, tuple) else out
        return stream

    def _last(self, pack: Pack) -> Pack:
        """The pack after the last block, with the tokens that the metric reads."""
        layer = len(self.blocks) - 1
        many = [live for live in pack.lives if len(live.positions) > len(self._reads(live))]
        owned = self._own_keys(layer, _part(pack, many)) if many else {}
        reads = _part(pack, pack.lives, [self._reads(live) for live in pack.lives])
        rectangles = self._rectangles(reads.lives)
        rectangles = [replace(one, own=owned.get(_key(one))) for one in rectangles]
        return replace(reads, stream=self._block(layer, reads, rectangles))

    def _own_keys(self, layer: int, pack: Pack) -> dict[tuple[Any, ...], KeysValues]:
        """Keys and values of all of a pack's tokens, by (group, first, rows)."""
        rectangles = self._rectangles(pack.lives)
        self.tally.add(kv_token_layers=pack.stream.shape[1])
        key, value = self._captured(layer, pack, rectangles)
        return {
            _key(one): (by_job(key[:, one.tokens], one.n_jobs), by_job(value[:, one.tokens], one.n_jobs))
            for one in rectangles
        }

    def _captured(self, layer: int, pack: Pack, rectangles: Sequence[Rectangle]) -> tuple[Tensor, Tensor]:
        """Keys and values of the tokens, [kv_head, token, d_head]."""
        try:
            with packing_of(self.attentions[layer], None):
                self._called(layer, pack, rectangles)
        except Captured as caught:
            return caught.key, caught.value
        raise SiteUnavailable(f"block {layer} of {self.model.name}", "it did not call its attention function")

    def _plain_keys(self, world: str) -> list[list[KeysValues]]:
        """[layer][group] keys and values of a world's plain run."""
        if world not in self._plain:
            whole = [_whole(self.worlds, world, group) for group in range(len(self.worlds.groups))]
            self._plain[world] = [self._plain_layer(world, layer, whole) for layer in range(len(self.blocks))]
        return self._plain[world]

    def _plain_layer(self, world: str, layer: int, whole: Sequence[Strip]) -> list[KeysValues]:
        streams = [(s, 0, self.worlds.walk(world, s.group).streams[layer]) for s in whole]
        owned = self._own_keys(layer, _packed(streams, self.model.device))
        return list(owned.values())

    def _arguments(self, pack: Pack, layer: int, rectangles: Sequence[Rectangle]) -> dict[str, Any]:
        """What the block was called with in the plain run, at the pack's tokens."""
        world = pack.lives[0].strip.world
        calls = [self.worlds.walk(world, one.group).calls[layer] for one in rectangles]
        return {name: _gathered(name, [call[name] for call in calls], rectangles, self.worlds) for name in calls[0]}

    def _masks(self, world: str, layer: int) -> list[Tensor]:
        """[group] the mask of the plain run, the same for all prompts, as none is padded."""
        is_added = not is_fused(self.attentions[layer])
        calls = [self.worlds.walk(world, group).calls[layer] for group in range(len(self.worlds.groups))]
        return [_mask(c, self.worlds.length(g), self.model, is_added=is_added) for g, c in enumerate(calls)]

    # Gates

    def taps(self, layer: int, lives: Sequence[Live]) -> list[tuple[Site, Function]]:
        """Taps where some strip has a gate in a layer, placed so that each strip's gates keep their order."""
        acting: dict[tuple[int, str], tuple[Site, list[tuple[Live, Site, Gate]]]] = {}
        for live in lives:
            for turn, act in enumerate(act for act in live.strip.acts if act.layer == layer):
                entry = acting.setdefault((turn, str(act.site.name.whole)), (act.site, []))
                entry[1].append((live, act.site, self.worlds.bound(act.gate, live.strip.group)))
        return [(site, self._tap(acts)) for _, (site, acts) in sorted(acting.items(), key=lambda item: item[0])]

    def _tap(self, acts: Sequence[tuple[Live, Site, Gate]]) -> Function:
        moments = [self._moment(live) for live, _, _ in acts]

        def see(h: Tensor, moment: Moment) -> Tensor:
            flat = h.flatten(0, 1).clone()
            for (live, site, gate), when in zip(acts, moments, strict=True):
                mine = flat[live.tokens].unflatten(0, live.shape)
                gated = apply_gate(gate, site, mine, when)
                if gated is not None:
                    flat[live.tokens] = gated.flatten(0, 1)
            return flat.view(h.shape)

        return see

    def _moment(self, live: Live) -> Moment:
        n_rows, n_pos = live.shape
        rows = torch.tensor(live.strip.rows, device=self.model.device)
        lengths = torch.full((n_rows,), self.worlds.length(live.strip.group), device=self.model.device)
        return Moment(live.positions.expand(n_rows, n_pos), lengths, 0, rows)

    # What the metric reads

    def _reads(self, live: Live) -> Int[Tensor, " read"]:
        """Which of a strip's positions the metric reads, ascending."""
        reads = sorted({p for p in self.worlds.positions(live.strip.group) if p >= live.first})
        return torch.tensor(reads, device=self.model.device)

    def _at_reads(self, pack: Pack, strips: Sequence[Strip]) -> list[Tensor]:
        found = {id(live.strip): live for live in pack.lives}
        return [self._final(pack, strip, found.get(id(strip))) for strip in strips]

    def _final(self, pack: Pack, strip: Strip, live: Live | None) -> Tensor:
        whole = self.worlds.walk(strip.world, strip.group).before(len(self.blocks))[list(strip.rows)]
        if live is not None:
            whole[:, live.positions] = pack.stream[0, live.tokens].unflatten(0, live.shape)
        return whole[:, list(self.worlds.positions(strip.group))]


def _alike(live: Live) -> tuple[Any, ...]:
    """What strips of one rectangle have in common."""
    return live.strip.group, live.first, live.strip.rows, len(live.positions)


def _key(one: Rectangle) -> tuple[Any, ...]:
    return one.group, one.first, tuple(one.rows.tolist())


def _attentions(worlds: Worlds) -> tuple[nn.Module, ...]:
    model = worlds.model
    place = model.table.places.get("attn.pattern")
    if place is None or place.how != "pattern":
        return ()
    return tuple(model.submodule(place.path.replace("{L}", str(layer))) for layer in range(model.table.n_layers))


def _whole(worlds: Worlds, world: str, group: int) -> Strip:
    return Strip(-1, world, group, tuple(range(len(worlds.groups[group]))), ((0, 0),), ())


def _packed(streams: Sequence[tuple[Strip, int, Tensor]], device: torch.device) -> Pack:
    """Strips with their streams [row, pos, d_model], side by side."""
    lives, at = [], 0
    for strip, first, stream in streams:
        n_tokens = stream.shape[0] * stream.shape[1]
        positions = torch.arange(first, first + stream.shape[1], device=device)
        lives.append(Live(strip, first, positions, slice(at, at + n_tokens)))
        at += n_tokens
    return Pack(torch.cat([stream.flatten(0, 1) for _, _, stream in streams])[None], tuple(lives))


def _part(pack: Pack, lives: Sequence[Live], positions: Sequence[Tensor] | None = None) -> Pack:
    """Some strips of a pack, at some of their positions (all by default)."""
    kept, streams, at = [], [], 0
    for live, wanted in zip(lives, positions or [live.positions for live in lives], strict=True):
        part = pack.stream[0, live.tokens].unflatten(0, live.shape)[:, wanted - live.first]
        tokens = slice(at, at := at + part.shape[0] * part.shape[1])
        kept.append(Live(live.strip, live.first, wanted, tokens))
        streams.append(part.flatten(0, 1))
    return Pack(torch.cat(streams)[None] if streams else pack.stream, tuple(kept))


def _gathered(name: str, values: Sequence[Any], rectangles: Sequence[Rectangle], worlds: Worlds) -> Any:
    """An argument of the plain run's calls (one for each rectangle), at the pack's tokens."""
    first = values[0]
    if name == "attention_mask" or hasattr(first, "get_seq_length"):
        return None  # attention.py has the masks; keys and values are not cached
    if isinstance(first, tuple):
        return tuple(_gathered(name, part, rectangles, worlds) for part in zip(*values, strict=True))
    if not isinstance(first, Tensor):
        return first
    return torch.cat(list(_at_tokens(name, values, rectangles, worlds)), -1 if first.dim() == 1 else 1)


def _at_tokens(name: str, values: Sequence[Tensor], rectangles: Sequence[Rectangle], worlds: Worlds) -> Iterator[Tensor]:
    for value, one in zip(values, rectangles, strict=True):
        n_rows, n_pos = len(worlds.groups[one.group]), worlds.length(one.group)
        if value.dim() == 1 and len(value) == n_pos:
            yield value[one.queries].repeat(one.n_jobs)
        elif value.dim() > 1 and value.shape[1] == n_pos and value.shape[0] in (1, n_rows):
            rows = one.rows if value.shape[0] > 1 else torch.zeros_like(one.rows)
            part = value[rows[:, None], one.queries].flatten(0, 1)[None]
            yield part.repeat(1, one.n_trials, *(1,) * (part.dim() - 2))
        else:
            found = f"its shape {tuple(value.shape)} has no axis of positions"
            raise SiteUnavailable(f"packed block argument {name}", found)


def _mask(call: Mapping[str, Any], n_pos: int, model: Model, *, is_added: bool) -> Tensor:
    mask = call.get("attention_mask")
    if mask is None:
        whole = torch.ones(1, 1, n_pos, n_pos, dtype=torch.bool, device=model.device)
        mask = whole.tril() if model.table.is_causal else whole
    if is_added and mask.dtype == torch.bool:
        zeros = torch.zeros(mask.shape, dtype=model.dtype, device=model.device)
        mask = zeros.masked_fill(~mask, torch.finfo(model.dtype).min)
    if not bool((mask == mask[:1]).all()):
        raise SiteUnavailable("packed attention mask", "it differs between prompts of one length")
    one: Tensor = mask[:1]
    return one
