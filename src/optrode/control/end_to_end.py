"""LinEAS: maps of all sites learned together, through the frozen model (Rodriguez et al., arXiv 2503.10679, Algorithm 1).

Each site has h -> w h + b, feature by feature. With Z the source's activations under all maps and V the target's without,

    minimise  C(w, b) / C(1, 0)  +  l1 * sum |w - 1| + |b| / u  +  group * sum over sites sqrt(n_site) |(w - 1, b / u)_site|,
    C = sum over sites and features of W2^2(Z, V),

u the standard deviation of a feature over both sides, by proximal gradient steps: the smooth part by Adam's step, the
norms by soft thresholds in the same metric (for a diagonal metric D, x -> soft(x - D g, D l1); Yun et al., arXiv
2007.07804), whose fixed points are the minimisers' own: features and sites that are not worth their cost end exactly at the
identity. The numbers of a group share the mean of their rates, so that with `group` the fixed points are those of a slightly
different metric. C is divided by its value without maps and biases are counted in units of u, where the paper does neither,
so that costs and learning rate mean the same for every model.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.control.reading import (
    Rows,
    Samples,
    Sampling,
    check_precision,
    chosen_sites,
    frozen,
    in_order,
    read,
    read_all,
    rows_of,
    sampling,
)
from optrode.control.transport import Map, Maps, acting_at
from optrode.control.wasserstein import wasserstein
from optrode.errors import BadOption, LossNotFinite
from optrode.gate.gate import Gate
from optrode.gate.maps import Rescale
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.site.recording import Inputs, Patterns
from optrode.site.site import Site
from optrode.trial.run import Progress, no_progress

DECAYS: Final = (0.9, 0.99)
"""Of the running means of gradients and of their squares."""
LAST_RATE: Final = 0.02
"""Share of the learning rate that is left at the end; it falls as half a cosine."""


def lineas(
    model: Model, source: Inputs, target: Inputs, sites: Patterns, *, l1: float | int = 0.0, group: float | int = 0.0,
    n_steps: int = 300, lr: float = 0.03, start: Maps | None = None, random_seed: int = 0, progress: Progress = no_progress,
    **reading: Any,
) -> Maps:  # fmt: skip
    """Maps at all sites, learned together so that the distributions under them match the target's at every site.

    The module is left as it was: no weight, gradient, mode or flag of it changes.

    Args:
        source, target: texts (or inputs of any form that `op.record` takes), unpaired; 32 of each are enough for much.
        sites: names or patterns of whole sites that are given maps.
        l1, group: costs of features and of sites that are not left as they are, in units of the loss without maps.
        n_steps: proximal gradient steps.
        lr: of the first steps; weights are of order 1.
        start: maps of the same sites to start from, such as those of `linear_act`; the identity when None.
        random_seed: of the batches.
        reading: how activations become samples: pool="mean" over a text's tokens, "all" tokens or the "last";
            skip_first=True neither reads nor maps each text's first token; batch_size= texts of the source that each step
            draws, all of them when it is left out.

    Raises:
        BadOption: fewer than two texts on a side, sites that have no map, a target that does not differ from the source, a
            model in half precision, a cost, rate or number that is out of range, or no such option.
        LossNotFinite: the loss became NaN or infinite.
    """
    rows, wanted_rows = rows_of(model, source, "source texts"), rows_of(model, target, "target texts")
    check_precision(model, "maps")
    _check_costs(l1, group, n_steps, lr)
    chosen, how = chosen_sites(model, sites), sampling(**reading)
    with frozen(model), torch.enable_grad():
        wanted = read_all(model, wanted_rows, chosen, how)
        fit = _Fit(model, rows, in_order(chosen, wanted), how, wanted)
        found = read_all(model, rows, chosen, how)
        first = float(fit.sum(found))
        _check_differs(model, first)
        learner = _Learner(_starts(fit, found, start))
        draws, losses = torch.Generator().manual_seed(random_seed), []
        with gates(model, *learner.gates()):
            for step in range(n_steps):
                progress("LinEAS", step, n_steps)
                loss = fit.loss(draws) / first
                losses.append(_finite(loss, step))
                rate = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / n_steps)) / 2
                learner.step(loss, lr * rate, l1, group)
            losses.append(_finite(fit.sum(read_all(model, rows, chosen, how)) / first, n_steps))
    progress("LinEAS", n_steps, n_steps)
    return Maps(learner.maps(), "LinEAS", how.pool, tuple(losses))


@final
@dataclass(frozen=True, eq=False)
class _Fit:
    """What is to be made small: the sum over sites and features of W2^2 to the target."""

    model: Model
    rows: Rows
    sites: tuple[Site, ...]
    how: Sampling
    wanted: Samples

    def loss(self, draws: torch.Generator) -> Float[Tensor, ""]:
        """Of a batch of the source's rows, with gradients."""
        size = self.how.batch_size
        if size is None or size >= len(self.rows):
            return self.sum(read(self.model, self.rows, self.sites, self.how))
        drawn = torch.randperm(len(self.rows), generator=draws)[:size]
        return self.sum(read(self.model, self.rows.take(drawn), self.sites, self.how))

    def sum(self, found: Samples) -> Float[Tensor, ""]:
        """Of what was read."""
        each = [wasserstein(found.values[name], values).sum() for name, values in self.wanted.values.items()]
        return torch.stack(each).sum()


@final
@dataclass(frozen=True, eq=False)
class _Start:
    """One site's map before the first step, and the unit of its biases."""

    map: Map
    unit: Tensor


def _starts(fit: _Fit, found: Samples, start: Maps | None) -> tuple[_Start, ...]:
    """The identity, or given maps of the same sites."""
    given = None if start is None else {one.site.whole: one for one in start.maps}
    names = [site.name for site in fit.sites]
    if given is not None and set(given) != set(names):
        there = f"they are of {', '.join(map(str, given))}"
        raise BadOption("maps to start from", there, next_step="fit them at the same sites")
    starts = []
    for name in names:
        like = found.values[name][0]
        one = Map(name, torch.ones_like(like), torch.zeros_like(like)) if given is None else given[name]
        at = acting_at(name, fit.wanted, fit.how.skip_first)
        fresh = Map(at, one.weight.detach().clone(), one.bias.detach().clone())
        starts.append(_Start(fresh, _unit(torch.cat([found.values[name], fit.wanted.values[name]]))))
    return tuple(starts)


def _unit(samples: Float[Tensor, "sample *feature"]) -> Float[Tensor, "*feature"]:
    """Standard deviation of each feature; a feature that hardly varies gets a thousandth of the others'."""
    spread = samples.std(0)
    return spread.clamp(min=max(1e-3 * float(spread.mean()), 1e-12))


@final
class _Part:
    """Weights or biases of one site, and the running means of their gradients.

    Attributes:
        value: [*feature], changed in place: gates hold it.
        centre: the value of the identity.
        unit: in which steps and costs are counted.
        pace: [*feature] of the last step: its rate in terms of units.
    """

    def __init__(self, value: Tensor, centre: float, unit: Tensor) -> None:
        self.value, self.centre, self.unit = value.requires_grad_(), centre, unit
        self.mean, self.square, self.pace = (torch.zeros_like(unit) for _ in range(3))

    def descend(self, gradient: Tensor, lr: float, n_steps: int) -> None:
        """Adam's step."""
        keep, keep_square = DECAYS
        self.mean.mul_(keep).add_(gradient, alpha=1 - keep)
        self.square.mul_(keep_square).addcmul_(gradient, gradient, value=1 - keep_square)
        size = (self.square / (1 - keep_square**n_steps)).sqrt() + 1e-20
        self.value.sub_(lr * self.unit * self.mean / (1 - keep**n_steps) / size)
        self.pace = lr / (self.unit * size)

    def off(self) -> Tensor:
        """How far it is from the identity, in units."""
        return (self.value - self.centre) / self.unit

    def put(self, off: Tensor) -> None:
        """Set it so far from the identity: exactly there, where it is 0."""
        self.value.copy_(self.centre + self.unit * off)


@final
class _Learner:
    """Weights and biases of all sites, and their proximal steps."""

    def __init__(self, starts: tuple[_Start, ...]) -> None:
        self.at = [one.map.site for one in starts]
        self.pairs = [
            (_Part(one.map.weight, 1.0, torch.ones_like(one.unit)), _Part(one.map.bias, 0.0, one.unit)) for one in starts
        ]  # fmt: skip
        self.n_steps = 0

    def gates(self) -> tuple[Gate, ...]:
        """Gates that gradients flow through."""
        return tuple(Gate(at, Rescale(w.value, b.value)) for at, (w, b) in zip(self.at, self.pairs, strict=True))

    def maps(self) -> tuple[Map, ...]:
        """What was learned."""
        return tuple(
            Map(at, w.value.detach(), b.value.detach()) for at, (w, b) in zip(self.at, self.pairs, strict=True)
        )  # fmt: skip

    def step(self, loss: Tensor, lr: float, l1: float | int, group: float | int) -> None:
        """One proximal step of all maps."""
        parts = [part for pair in self.pairs for part in pair]
        gradients = torch.autograd.grad(loss, [part.value for part in parts])
        self.n_steps += 1
        with torch.no_grad():
            for part, gradient in zip(parts, gradients, strict=True):
                part.descend(gradient, lr, self.n_steps)
            for pair in self.pairs:
                _shrink(pair, l1, group)


def _shrink(pair: tuple[_Part, _Part], l1: float | int, group: float | int) -> None:
    """Soft thresholds towards the identity, of each number and of a site's whole map."""
    for part in pair if l1 else ():
        off = part.off()
        part.put(off.sign() * (off.abs() - part.pace * l1).clamp(min=0))
    if group:
        offs = [part.off() for part in pair]
        size = torch.stack([off.square().sum() for off in offs]).sum().sqrt()
        pace = torch.cat([part.pace.flatten() for part in pair])
        threshold = pace.mean() * group * math.sqrt(len(pace))
        share = (1 - threshold / size.clamp(min=1e-30)).clamp(min=0)
        for part, off in zip(pair, offs, strict=True):
            part.put(off * share)


def _check_costs(l1: float | int, group: float | int, n_steps: int, lr: float) -> None:
    for name, value in {"l1": l1, "group": group, "lr": lr}.items():
        if not (math.isfinite(value) and value >= 0) or name == "lr" and not value:
            found = "it is no finite number above 0" if name == "lr" else "it is no finite cost of 0 or more"
            raise BadOption(f"{name}={value}", found, next_step=f"try {name}=0.03")
    if n_steps < 1:
        raise BadOption(f"n_steps={n_steps}", "learning takes at least one step", next_step="try n_steps=300")


def _check_differs(model: Model, loss: float) -> None:
    if not loss > 0:
        found = "source and target have the same activations there"
        raise BadOption(f"maps of {model.name}", found, next_step="give texts that differ in what is to be steered")


def _finite(loss: Tensor, step: int) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise LossNotFinite(f"LinEAS at step {step}", f"the loss is {value}", next_step="lower lr, or the number of sites")
    return value
