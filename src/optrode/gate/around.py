"""What gates that depend on the pass under way need of it: its inputs, other sites, conditions, and passes aside."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from optrode.axes import POS
from optrode.errors import BadGate, SiteUnavailable
from optrode.gate.conditions import Reading, observations
from optrode.gate.deciding import Decider
from optrode.gate.gate import Aside, Gate
from optrode.gate.held import Held
from optrode.gate.trace import Tape
from optrode.model.model import Model
from optrode.site.recording import narrow
from optrode.site.select import one_site, select_sites
from optrode.site.site import Around, Moment, Site
from optrode.site.tap import Clock, Function, aside, tapped

Pass = Callable[[tuple[Any, ...], dict[str, Any]], None]


@final
@dataclass(frozen=True, eq=False)
class _Wanted:
    """A pass aside, with the sites to take from it.

    Attributes:
        takers: gates that take from it; while their schedules keep all of them closed, it is not made.
        has_grad: whether gradients are to flow through it.
        is_latched: whether all that is taken is decided at the prompt, so that later steps need no pass.
    """

    source: Aside
    sites: tuple[Site, ...]
    takers: tuple[Gate, ...]
    has_grad: bool
    is_latched: bool


@final
class Surroundings:
    """What all gates that are held need together of the pass under way.

    Attributes:
        decider: decides conditions.
        tape: notes how open gates were; None where nobody asked.
        before: taps that come before the gates at their sites: what conditions read.
        after: taps that come after them: what computed gates read.
    """

    def __init__(self, model: Model, placed: Sequence[tuple[Gate, Site]], keeper: Held, tape: Tape | None) -> None:
        self.model, self.keeper, self.tape = model, keeper, tape
        self._seen: dict[str, Tensor] = {}
        self._read: dict[str, Tensor] = {}
        self._asides: dict[tuple[int, str], Tensor] = {}
        self._caches: dict[int, Any] = {}
        self._followed: Any = None
        self._clock: Clock | None = None
        computed = {str(name): one_site(model, name) for gate, _ in placed for name in gate.actuator.reads}
        conditions = {id(gate.openness): gate.openness for gate, _ in placed if gate.openness is not None}
        readings = [reading for one in conditions.values() for seen in observations(one) for reading in seen.readings]
        self._sites = {id(r): one_site((r.source and r.source.model) or model, r.site) for r in readings}
        read = {str(name := self._sites[id(r)].name.whole): one_site(model, name) for r in readings if r.source is None}
        self.after = tuple((site, _noting(self._seen, name)) for name, site in computed.items())
        self.before = tuple((site, _noting(self._read, name)) for name, site in read.items())
        self._wanted = tuple(_want(model, source, placed) for source in _sources(placed).values())
        self.decider = Decider(tuple(conditions.values()), self._features)
        self._is_needed = bool(conditions or tape or self._wanted) or any(
            gate.actuator.is_computed or gate.rows is not None for gate, _ in placed
        )

    def starter(self, clock: Clock) -> Pass | None:
        """What is to be done at the start of each pass."""
        self._clock = clock
        return self._start if self._is_needed else None

    def _start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        clock = self._clock
        assert clock is not None
        self.decider.begin(clock)
        if self.tape is not None:
            self.tape.begin(clock)
        self._follow(clock.cache)
        for kept in (self._seen, self._read, self._asides):
            kept.clear()
        clock.around = None  # a pass aside knows nothing of the one that it is made for
        self._make_asides(clock, args, kwargs)
        clock.around = Around(_named(self.model, args, kwargs), self._seen, self._asides)

    def close(self) -> None:
        """Nothing is followed or kept any more."""
        self._follow(None)
        self._read.clear()
        self._asides.clear()
        self._caches.clear()

    def _follow(self, cache: Any) -> None:
        """Beams change places by way of the cache."""
        if cache is self._followed or cache is not None and not hasattr(cache, "reorder_cache"):
            return
        if self._followed is not None:
            vars(self._followed).pop("reorder_cache", None)
        self._followed = cache
        if cache is not None:
            self._also_reorder(cache)

    def _also_reorder(self, cache: Any) -> None:
        reorder = cache.reorder_cache

        def both(rows: Tensor) -> None:
            reorder(rows)
            self._reorder(rows)

        cache.reorder_cache = both

    def _reorder(self, rows: Tensor) -> None:
        self.decider.reorder(rows)
        if self.tape is not None:
            self.tape.reorder(rows)
        for cache in self._caches.values():
            cache.reorder_cache(rows)

    def _features(self, reading: Reading) -> Tensor:
        """What came by at a reading: [rows, columns, feature]."""
        site = self._sites[id(reading)]
        key = str(site.name.whole)
        held = self._read.get(key) if reading.source is None else self._asides.get((id(reading.source), key))
        if held is None:
            step = "read what comes earlier, or in a first pass: source=op.first_pass()"
            raise SiteUnavailable(f"{reading}, read by a condition", "it has not come by in this pass", next_step=step)
        part = narrow(site, held, Moment(None, None, 0))
        axes = site.axes(part.dim())
        if POS not in axes:
            return part.flatten(1)[:, None]
        return part.movedim(axes.index(POS), 1).flatten(2)

    def _refuse_recomputed(self, one: _Wanted) -> None:
        """A pass aside that is over cannot be made again in parts."""
        if not (one.has_grad and torch.is_grad_enabled()):
            return
        if any(getattr(m, "gradient_checkpointing", False) and m.training for m in self.model.module.modules()):
            found = "its activations would be recomputed during the backward pass, when it is over"
            step = "model.module.gradient_checkpointing_disable(), or detach=True"
            raise BadGate(f"gate from {one.source}", found, next_step=step)

    def _make_asides(self, clock: Clock, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for one in self._wanted:
            if not any(self.keeper.is_open(gate) for gate in one.takers) or one.is_latched and clock.n_past:
                continue
            self._refuse_recomputed(one)
            values, output = _run(one, self.model, args, self._arguments(one, clock, kwargs))
            if clock.cache is not None and not one.is_latched:
                self._caches[id(one.source)] = output.past_key_values
            self._asides |= {(id(one.source), name): value for name, value in values.items()}

    def _arguments(self, one: _Wanted, clock: Clock, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A pass aside goes along the tokens with a K/V cache of its own, and tells the logits of all positions."""
        given = dict(kwargs)
        if "logits_to_keep" in given:
            given["logits_to_keep"] = 0
        if clock.cache is None:
            return given
        own = self._caches.get(id(one.source)) if clock.n_past else None
        if clock.n_past and (own is None or int(own.get_seq_length()) != clock.n_past):
            found = "the pass goes on from a K/V cache that the pass aside has no counterpart of"
            raise BadGate(f"gate from {one.source}", found, next_step="hold the gate from the prompt on, or use_cache=False")
        return given | {"past_key_values": own, "use_cache": not one.is_latched}


def _sources(placed: Sequence[tuple[Gate, Site]]) -> dict[int, Aside]:
    """Every pass aside that gates take values or conditions from."""
    taken = [gate.actuator.aside for gate, _ in placed]
    read = [r.source for gate, _ in placed for one in observations(gate.openness) for r in one.readings]
    return {id(source): source for source in (*taken, *read) if source is not None}


def _want(model: Model, source: Aside, placed: Sequence[tuple[Gate, Site]]) -> _Wanted:
    owner = source.model or model
    patched = [(gate, site.name.whole) for gate, site in placed if gate.actuator.aside is source]
    decided = [
        (gate, reading.site.whole, one.read) for gate, _ in placed for one in observations(gate.openness)
        for reading in one.readings if reading.source is source
    ]  # fmt: skip
    names = {str(name): name for _, name in patched} | {str(name): name for _, name, _ in decided}
    sites = tuple(select_sites(owner, name)[0] for name in names.values())
    takers = [gate for gate, _ in patched] + [gate for gate, *_ in decided]
    has_grad = source.model is None and not all(gate.detach for gate in takers)
    is_latched = not patched and all(read == "prompt" for *_, read in decided)
    return _Wanted(source, sites, tuple(takers), has_grad, is_latched)


def _noting(seen: dict[str, Tensor], name: str) -> Function:
    def note(tensor: Tensor, moment: Moment) -> None:
        seen[name] = tensor

    return note


def _run(
    one: _Wanted, model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Tensor], Any]:  # fmt: skip
    """The values of one pass aside, and what it returned; random numbers are afterwards as before."""
    from optrode.gate.place import gates  # the pass aside holds gates itself

    seen: dict[str, Tensor] = {}
    owner = one.source.model or model
    with ExitStack() as stack:
        stack.enter_context(aside())
        stack.enter_context(_same_draws(owner.device))
        stack.enter_context(gates(owner, *one.source.gates))
        stack.enter_context(tapped(owner, [(site, _noting(seen, str(site.name))) for site in one.sites]))
        stack.enter_context(torch.set_grad_enabled(one.has_grad and torch.is_grad_enabled()))
        output = owner.module(*args, **kwargs)
    return seen, output


@contextmanager
def _same_draws(device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


def _named(model: Model, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """A pass's arguments by name."""
    if not args:
        return kwargs
    bound = inspect.signature(model.module.forward).bind_partial(*args, **kwargs).arguments
    return {**bound, **bound.pop("kwargs", {})}
