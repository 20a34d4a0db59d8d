"""What gates that are computed from the pass under way need of it: its inputs, other sites, and passes aside."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from optrode.errors import BadGate
from optrode.gate.gate import Aside, Gate
from optrode.gate.held import Held
from optrode.model.model import Model
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
    """

    source: Aside
    sites: tuple[Site, ...]
    takers: tuple[Gate, ...]
    has_grad: bool


@final
@dataclass(frozen=True, eq=False)
class Surroundings:
    """What all gates that are held need together.

    Attributes:
        keeper: knows the step that schedules are at.
        taps: that note what comes by at sites which gates read.
        wanted: passes aside.
        is_needed: whether any gate needs to know the pass.
    """

    keeper: Held
    model: Model
    seen: dict[str, Tensor]
    taps: tuple[tuple[Site, Function], ...]
    wanted: tuple[_Wanted, ...]
    is_needed: bool

    def starter(self, clock: Clock) -> Pass | None:
        """What is to be done at the start of each pass."""
        if not self.is_needed:
            return None

        def start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.seen.clear()
            clock.around = None  # a pass aside knows nothing of the one that it is made for
            asides = self._asides(args, kwargs)
            clock.around = Around(_named(self.model, args, kwargs), self.seen, asides)

        return start

    def _refuse_recomputed(self, one: _Wanted) -> None:
        """A pass aside that is over cannot be made again in parts."""
        if not (one.has_grad and torch.is_grad_enabled()):
            return
        if any(getattr(m, "gradient_checkpointing", False) and m.training for m in self.model.module.modules()):
            found = "its activations would be recomputed during the backward pass, when it is over"
            step = "model.module.gradient_checkpointing_disable(), or detach=True"
            raise BadGate(f"gate from {one.source}", found, next_step=step)

    def _asides(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[tuple[int, str], Tensor]:
        if self.wanted and kwargs.get("past_key_values") is not None:
            found = "a pass aside would add to the same K/V cache"
            raise BadGate(f"gate from {self.wanted[0].source}", found, next_step="generate with use_cache=False")
        held: dict[tuple[int, str], Tensor] = {}
        for one in self.wanted:
            if not any(self.keeper.is_open(gate) for gate in one.takers):
                continue
            self._refuse_recomputed(one)
            values = _run(one, self.model, args, kwargs)
            held |= {(id(one.source), name): value for name, value in values.items()}
        return held


def surroundings(model: Model, placed: Sequence[tuple[Gate, Site]], keeper: Held) -> Surroundings:
    """What gates at sites need of a pass.

    Args:
        keeper: knows the step that their schedules are at.

    Raises:
        BadName, UnknownSite, SiteUnavailable: a site to read, or one of another model, does not exist.
    """
    seen: dict[str, Tensor] = {}
    names = {str(name): one_site(model, name) for gate, _ in placed for name in gate.actuator.reads}
    taps = tuple((site, _noting(seen, name)) for name, site in names.items())
    sources = {id(gate.actuator.aside): gate.actuator.aside for gate, _ in placed if gate.actuator.aside is not None}
    wanted = tuple(_want(model, source, placed) for source in sources.values())
    return Surroundings(keeper, model, seen, taps, wanted, any(gate.actuator.is_computed for gate, _ in placed))


def _want(model: Model, source: Aside, placed: Sequence[tuple[Gate, Site]]) -> _Wanted:
    takers = [(gate, site) for gate, site in placed if gate.actuator.aside is source]
    owner = source.model or model
    sites = {str(site.name.whole): select_sites(owner, site.name.whole)[0] for _, site in takers}
    has_grad = source.model is None and not all(gate.detach for gate, _ in takers)
    return _Wanted(source, tuple(sites.values()), tuple(gate for gate, _ in takers), has_grad)


def _noting(seen: dict[str, Tensor], name: str) -> Function:
    def note(tensor: Tensor, moment: Moment) -> None:
        seen[name] = tensor

    return note


def _run(one: _Wanted, model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    """The values of one pass aside; random numbers are afterwards as before."""
    from optrode.gate.place import gates  # the pass aside holds gates itself

    seen: dict[str, Tensor] = {}
    owner = one.source.model or model
    with ExitStack() as stack:
        stack.enter_context(aside())
        stack.enter_context(_same_draws(owner.device))
        stack.enter_context(gates(owner, *one.source.gates))
        stack.enter_context(tapped(owner, [(site, _noting(seen, str(site.name))) for site in one.sites]))
        stack.enter_context(torch.set_grad_enabled(one.has_grad and torch.is_grad_enabled()))
        owner.module(*args, **kwargs)
    return seen


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
