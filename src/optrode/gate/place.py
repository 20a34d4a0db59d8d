"""Hold gates on a model: check them, attach, run, detach, and prove that they fired."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor
from torch.optim import Optimizer

from optrode.axes import POS
from optrode.errors import BadGate, GateDevice, GateDtype, GateNotFinite, GateNotFired, GateShape
from optrode.gate.around import Surroundings
from optrode.gate.bank import Bank, Doses, is_fusable
from optrode.gate.gate import Gate, apply_gate
from optrode.gate.held import Held
from optrode.gate.opening import Open, Opener
from optrode.gate.order import check_condition
from optrode.gate.trace import Tape
from optrode.model.model import Model
from optrode.site.select import select_sites
from optrode.site.site import Moment, Site
from optrode.site.tap import Clock, Function, tapped


@contextmanager
def gates(
    model: Model, *held: Gate, optimizer: Optimizer | None = None, trace: bool = False, fused: bool = True
) -> Iterator[Held]:
    """Hold gates during anything: forward, generate, training. They compose in the order given.

    Everything that can be checked is checked before the first hook is placed. When the context ends, the model is as
    it was, and so is the optimizer.

    Args:
        optimizer: whose steps the gates' schedules count. Without it they count calls of `Held.step`.
        trace: keep how open each gate was at each row and position: `held.trace`.
        fused: add vectors at one site by one add from a bank; otherwise one by one, the plain twin.

    Yields:
        What counts the steps of schedules, takes the measures that some of them wait for, and has the trace.

    Raises:
        BadGate: what is to be held is not a gate, or a condition reads what comes after a site that it is to open.
        BadName, UnknownSite, SiteUnavailable: from a gate's site, or one that it reads.
        GateShape, GateDtype, GateDevice, GateNotFinite: a gate's value does not fit the site.
        GateNotFired: a gate's site and scope never came by while it was held, or its schedule never opened it.
    """
    for gate in held:
        if not isinstance(gate, Gate):
            found = f"it is of type {type(gate).__name__}, not a gate"
            raise BadGate(f"hold {gate!r}", found, next_step="make one, like op.zero(site)")
    for gate in held:
        check_condition(model, gate)
    tape = Tape() if trace else None
    keeper = Held(held, tape)
    sites = [(ix, gate, site) for ix, gate in enumerate(held) for site in select_sites(model, gate.site)]
    for _, gate, site in sites:
        check_value(model, gate, site)
    around = Surroundings(model, [(gate, site) for _, gate, site in sites], keeper, tape)
    opener = Opener(keeper, around.decider, tape)
    placed = [_Placed(gate, site, keeper, ix, opener) for ix, gate, site in sites]
    handle = optimizer.register_step_post_hook(lambda *_: keeper.step()) if optimizer is not None else None
    try:
        with tapped(model, [*around.before, *_taps(placed, fused), *around.after]) as clock:
            for one in placed:
                one.clock = clock
            clock.on_pass = around.starter(clock)
            yield keeper
            n_passes = clock.pass_ix
    finally:
        around.close()
        if handle is not None:
            handle.remove()
    for one in placed:
        one.check_fired(n_passes)


def _taps(placed: "Sequence[_Placed]", fused: bool) -> list[tuple[Site, Function]]:
    """One tap for each gate at each site; adds at one site that follow each other share one."""
    runs: list[list[_Placed]] = []
    last: dict[str, list[_Placed]] = {}
    for one in placed:
        key = str(one.site.name.whole)
        run = last.get(key)
        if fused and run is not None and is_fusable(one.gate, one.site) and is_fusable(run[-1].gate, run[-1].site):
            run.append(one)
        else:
            last[key] = [one]
            runs.append(last[key])
    doses = Doses()
    return [
        (run[0].site, _banked(run, doses) if fused and is_fusable(run[0].gate, run[0].site) else run[0].see) for run in runs
    ]


def _banked(run: "Sequence[_Placed]", doses: Doses) -> Function:
    bank = Bank(run, doses)

    def see(h: Tensor, moment: Moment) -> Tensor | None:
        clock = run[0].clock
        return bank.see(h, moment, 0 if clock is None else clock.pass_ix)

    return see


@final
class _Placed:
    """One gate at one concrete site, with the count of passes in which it acted."""

    def __init__(self, gate: Gate, site: Site, keeper: Held, ix: int, opener: Opener) -> None:
        self.gate, self.site, self.keeper, self.ix, self.opener = gate, site, keeper, ix, opener
        self.clock: Clock | None = None
        self.n_seen = self.n_fired = self.n_closed = 0

    def open_now(self, h: Tensor) -> Open:
        """How open the gate is in the pass under way; counts that its site came by."""
        pass_ix = 0 if self.clock is None else self.clock.pass_ix
        openness = self.opener.openness(self.ix, self.gate, h.shape[0], pass_ix, h)
        self.n_seen += 1
        self.n_closed += isinstance(openness, float) and openness == 0
        return openness

    def fired(self) -> None:
        """Count that the gate acted."""
        self.n_fired += 1
        self.keeper.acted(self.ix)

    def see(self, h: Tensor, moment: Moment) -> Tensor | None:
        new = apply_gate(self.gate, self.site, h, moment, self.open_now(h))
        if new is not None:
            self.fired()
        return new

    def _sought(self) -> str:
        """What the gate waited for, in words."""
        index = self.site.name.index(POS)
        token = "a token" if self.gate.scope == "all" else f"a {self.gate.scope} token"
        return token if index is None else f"{token} at pos={index}"

    def check_fired(self, n_passes: int) -> None:
        """Raise GateNotFired if the gate never acted."""
        if self.n_fired or self.keeper.has_acted_before(self.ix):
            return
        if self.n_seen and self.gate.openness is not None:
            return  # that a condition stayed closed is an answer, and stands in the trace
        if self.n_seen and self.n_closed == self.n_seen and self.gate.when is not None:
            found, step = self.keeper.why_closed(self.gate.when)
        elif self.n_seen:
            times = "once" if self.n_seen == 1 else f"{self.n_seen} times"
            found = f"its site came by {times}, never with {self._sought()}"
            step = "check the selected positions against the prompts' lengths, and the scope"
        elif n_passes:
            found = "the model ran, but not through this module, or through compiled code that did not see the hook"
            step = "check that the module is part of the forward pass; for compiled code set "
            step += "torch._dynamo.config.skip_nnmodule_hook_guards = False"
        else:
            found, step = "the model never ran while it was held", "call the model, not one of its parts, inside the context"
        raise GateNotFired(f"gate {self.gate.actuator} at {self.site.name}", found, next_step=step)


def check_value(model: Model, gate: Gate, site: Site) -> None:
    """Check what a gate brings to a site, before anything runs.

    Raises:
        GateShape, GateDtype, GateDevice, GateNotFinite: it does not fit the site.
    """
    asked = f"gate {gate.actuator} at {site.name}"
    for tensor in gate.actuator.tensors(site):
        if tensor.device != model.device:
            found = f"its value is on {tensor.device}, the model on {model.device}"
            raise GateDevice(asked, found, next_step=f'value.to("{model.device}")')
        if tensor.dtype != model.dtype:
            raise GateDtype(
                asked, f"its value is {tensor.dtype}, the model {model.dtype}", next_step=f"value.to({model.dtype})"
            )
        _check_finite(asked, tensor, site)
        _check_width(model, asked, tensor, site)


def _check_finite(asked: str, tensor: Tensor, site: Site) -> None:
    if site.name.kind == "attn.scores":
        return  # masked scores are -inf by definition
    bad = ~torch.isfinite(tensor)
    if bool(bad.any()):
        where = tuple(int(i) for i in bad.nonzero()[0])
        found = f"{int(bad.sum())} of {tensor.numel()} values are NaN or infinite, first at {where}"
        raise GateNotFinite(asked, found, next_step="find out where they come from, or replace them: value.nan_to_num()")


def _check_width(model: Model, asked: str, tensor: Tensor, site: Site) -> None:
    width = model.table.size(site.name.kind, "feature") if not site.name.is_module else None
    if width is not None and tensor.dim() and tensor.shape[-1] not in (1, width):
        raise GateShape(
            asked, f"its value has shape {tuple(tensor.shape)}, the site's last axis has length {width}",
            next_step=f"give a value whose last axis has length {width}",
        )  # fmt: skip
