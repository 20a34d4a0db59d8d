"""RNNs that emulate hidden Markov models turn around an orbit, kicked on by a few units (Torre et al. 2025)."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

import optrode as op
from optrode.claims import Line, Map, Measured
from optrode.model.model import Model
from optrode.nn.recurrent import as_model, build
from optrode.study.kit import fixed_points as fp
from optrode.study.kit import orbits
from optrode.study.kit.hmm import LINEAR_2, count_transitions, emission_transitions, sample_memoryless
from optrode.study.papers import rnn_hmm_training as task
from optrode.study.papers.rnn_hmm_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.rnn_hmm_figures import figures
from optrode.study.papers.rnn_hmm_training import Size
from optrode.study.study import Outcome, Setting, Study

HIDDEN: Final = "module:cells.0.hidden.out"
Kicks = tuple[list[int], list[int]]
"""Units that push away from either side."""


@final
@dataclass(frozen=True, eq=False)
class Look:
    """A trained network, run under noise, and some of its states looked at closely.

    Attributes:
        run: under noise.
        states: [state, unit], a random choice of the run's.
        own: [state] the choice there.
        stay: [state] residency, in steps.
        zone: [state] in each of the three zones.
        noise: fresh, for the runs with gates.
    """

    model: Model
    run: orbits.Run
    states: Tensor
    own: Tensor
    stay: Tensor
    zone: dict[str, Tensor]
    noise: Tensor


@torch.no_grad()
def look(model: Model, size: Size, generator: torch.Generator) -> Look:
    """What the measurements start from."""
    noise = torch.randn(2, size.runs, size.time, task.SPEC.d_in, generator=generator)
    run = orbits.drive(model, noise[0], skip=size.skip)
    flat = run.states.flatten(0, 1)
    states = flat[torch.randperm(len(flat), generator=generator)[: 3 * size.states]]
    surety, own = orbits.network(model).readout(states).softmax(-1).max(-1)
    stay = orbits.residency(model, states, generator)
    return Look(model, run, states, own, stay, orbits.zones(stay, surety), noise[1])


def emissions(seen: Look, size: Size, generator: torch.Generator) -> dict[str, Measured]:
    """H1, H2: the statistics of what it emits."""
    levels = torch.tensor([task.levels_of(size, generator) for _ in range(3)]).mean(0)
    untrained = as_model(build(task.SPEC, generator.initial_seed(), init="he"))
    with torch.no_grad():
        batches = [task.make_batch(size, 0, generator) for _ in range(3)]
        found = [torch.stack([task.loss(model, batch) for batch in batches]).mean() for model in (seen.model, untrained)]
        symbols = [task.emit(seen.model, batch).view(size.rows, size.length, -1).argmax(-1) for batch in batches]
    share = [float((value - levels[0]) / (levels[1] - levels[0])) for value in found]
    memoryless = sample_memoryless(LINEAR_2, 3 * size.rows, size.length, generator)
    exact = emission_transitions(LINEAR_2)[list(task.SIDES)]
    counted = [count_transitions(one, task.N_SYMBOLS)[list(task.SIDES)] for one in (torch.cat(symbols), memoryless)]
    errors = [float((one - exact).abs().mean()) for one in counted]
    return {"H1": Measured(*share), "H2": Measured(*errors)}


def attractors(seen: Look) -> Measured:
    """H3: fixed points without noise; the control is a bistable network, planted: the same search must find both."""
    weight = orbits.recurrent_weight(seen.model)
    starts = seen.states[:40]
    found = fp.find_fixed_points(lambda h: torch.relu(h @ weight.T), starts)
    axis = torch.zeros(task.SPEC.d_hidden).index_fill(0, torch.tensor(0), 1.0)
    planted = fp.find_fixed_points(lambda h: torch.tanh(2 * h) * axis, starts - starts.mean(0))
    return Measured(float(len(found.points) + found.n_lost), float(len(planted.points)))


def orbit(seen: Look) -> tuple[dict[str, Measured], Tensor]:
    """H4, H5: turns for each two switches, and the growth of the radius with the noise; the points in the plane."""
    turned, points = turns_a_cycle(seen.run)
    fresh = as_model(build(task.SPEC, 0, init="he"))
    other, _ = turns_a_cycle(orbits.drive(fresh, seen.noise))
    bias = op.add("module:cells.0.pre.out", torch.full((task.SPEC.d_hidden,), 1.0))
    grown = [abs(exponent(radii(seen, gate)) - 1) for gate in (None, bias)]
    return {"H4": Measured(turned, other), "H5": Measured(*grown)}, points


def turns_a_cycle(run: orbits.Run) -> tuple[float, Tensor]:
    """Net turns of the states for each two switches, in the plane in which they vary most; and the points there."""
    mean, plane = orbits.plane(run.states)
    points = (run.states - mean) @ plane.T
    cycles = run.switch_rate * (points.shape[1] - 1) / 2
    return float(orbits.turns(points).mean().abs()) / max(cycles, 1e-9), points


NOISES: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Standard deviations of the input."""


def radii(seen: Look, gate: Any = None) -> list[float]:
    """Root mean square distance of the states from their mean at each size of the noise."""
    with op.gates(seen.model, gate) if gate is not None else nullcontext():
        runs = [orbits.drive(seen.model, size * seen.noise, skip=seen.noise.shape[1] // 4).states for size in NOISES]
    return [float((states - states.mean((0, 1))).square().sum(-1).mean().sqrt()) for states in runs]


def exponent(values: Sequence[float]) -> float:
    """Slope of log radius over log noise."""
    x, y = torch.tensor(NOISES).log(), torch.tensor(values).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def contrast(seen: Look, has_it: Tensor, generator: torch.Generator) -> Measured:
    """Share of states outside clusters that have something, minus that of clusters; and the same with zones shuffled."""
    order = torch.randperm(len(has_it), generator=generator)
    cluster, kick = (seen.zone[name][: len(has_it)] for name in ("cluster", "kick"))
    value, control = (
        float(one[kick].double().mean() - one[cluster].double().mean()) for one in (has_it, has_it[order])
    )  # fmt: skip
    return Measured(value, control)


def kick_units(seen: Look, n_each: int = 3) -> tuple[list[int], list[int]]:
    """For either side, the units that push most from its kick zone to the other side."""
    found: list[list[int]] = []
    for side, other in (task.SIDES, task.SIDES[::-1]):
        here = leaving(seen, side)
        own = seen.own[here]
        push = orbits.pushes(seen.model, seen.states[here], own, torch.full_like(own, other)).sum(0)
        push[[unit for units in found for unit in units]] = -math.inf
        found.append(push.argsort(descending=True)[:n_each].tolist())
    return found[0], found[1]


def leaving(seen: Look, side: int) -> Tensor:
    """Which states are in a side's kick zone; all of that side, or all, where none is."""
    options = (seen.zone["kick"] & (seen.own == side), seen.own == side, seen.own >= 0)
    return next(option for option in options if bool(option.any()))


def site(units: Sequence[int], steps: str = "") -> str:
    """The hidden units, at some steps or all."""
    return f"{HIDDEN}[{steps}feature={'|'.join(map(str, units))}]"


def random_units(kicks: Kicks, size: Size, generator: torch.Generator) -> list[Kicks]:
    """Pairs of sets of as many other units."""
    rest = torch.tensor([unit for unit in range(task.SPEC.d_hidden) if unit not in (*kicks[0], *kicks[1])])
    order = [rest[torch.randperm(len(rest), generator=generator)].tolist() for _ in range(size.n_random)]
    n = len(kicks[0])
    return [(units[:n], units[n : 2 * n]) for units in order]


def crossing_rate(seen: Look, size: Size, *gates: Any) -> float:
    """Crossings between sides a step, with gates held throughout."""
    with op.gates(seen.model, *gates):
        return orbits.drive(seen.model, seen.noise, skip=size.skip).crossing_rate()


def peak(seen: Look, side: int, *gates: Any, n_steps: int = 20) -> Tensor:
    """[state] greatest size of the state within some steps from a side's kick zone."""
    states = seen.states[leaving(seen, side)].repeat(8, 1)
    noise = seen.noise.flatten(0, 1)[: n_steps * len(states)].unflatten(0, (len(states), n_steps))
    with op.gates(seen.model, *gates):
        run = orbits.drive(seen.model, noise, states)
    found: Tensor = run.states.norm(dim=-1).amax(1)
    return found


def gated(seen: Look, kicks: Kicks, others: Sequence[Kicks], size: Size) -> tuple[dict[str, Measured], list[float]]:
    """H8, H9: either side's units silenced throughout, or doubled for four steps; crossings in 100 steps."""
    free = crossing_rate(seen, size)
    plain = [peak(seen, side) for side in task.SIDES]
    silent, grown = [], []
    for pair in (kicks, *others):
        silent.append(sum(crossing_rate(seen, size, op.zero(site(units))) for units in pair) / 2)
        doubled = [peak(seen, side, op.scale(site(units, "pos=0:4, "), 2.0))
                   for side, units in zip(task.SIDES, pair, strict=True)]  # fmt: skip
        grown.append(sum(float((high / low).median()) for high, low in zip(doubled, plain, strict=True)) / 2)
    calm, still = middle(silent[1:]), middle(grown[1:])
    share = [rate / free if free else math.nan for rate in (silent[0], calm)]
    return {"H8": Measured(*share), "H9": Measured(grown[0], still)}, [100 * rate for rate in (free, silent[0], calm)]


def wiring(model: Model, kicks: Kicks, others: Sequence[Kicks]) -> Measured:
    """H10: mean weight within the two groups minus between them, in standard deviations of all recurrent weights."""
    weight = orbits.recurrent_weight(model)
    values = []
    for first, second in (kicks, *others):
        units, group = [*first, *second], torch.tensor([0] * len(first) + [1] * len(second))
        part = weight[units][:, units] / weight.std()
        same = (group[:, None] == group) & ~torch.eye(len(units), dtype=torch.bool)
        values.append(float(part[same].mean() - part[group[:, None] != group].mean()))
    return Measured(values[0], middle(values[1:]))


def middle(values: Sequence[float]) -> float:
    """Their median."""
    return float(torch.tensor(values).median())


def onset(run: op.train.TrainingRun, untrained: float, levels: tuple[float, float]) -> Measured:
    """H11: step at which a tenth of the states is unstable over that of the second loss drop; control: of the first drop."""
    steps, values = run.loss.steps, torch.tensor(run.loss.values)
    smooth = values.unfold(0, 3, 1).mean(1) if len(values) > 3 else values
    middle = (untrained + levels[1]) / 2, (levels[1] + levels[0]) / 2
    known = op.train.Series(steps[: len(smooth)], tuple(smooth.tolist()))
    first, second = (known.first_below(bound) for bound in middle)
    growing = run.measures["seen.unstable"].first_above(0.1)
    return Measured(*(math.nan if step is None or not second else step / second for step in (growing, first)))


def lines_of(seen: Look, points: Tensor, trained: op.train.Trained, levels: tuple[float, float]) -> dict[str, Line]:
    """What the figures are drawn from."""
    run = trained.run
    unstable_share = run.measures["seen.unstable"]
    fastest = fp.rates(task.eigenvalues(seen.model, seen.states[:200])).real.amax(1)
    still = orbits.drive(seen.model, torch.zeros_like(seen.noise[:1, :120]), seen.run.states[:1, 0])
    mean, plane = orbits.plane(seen.run.states)
    fall = ((still.states - mean) @ plane.T)[0]
    return {
        "loss": Line("loss", *_xy(run.loss.steps[:-1:5], run.loss.values[:-1:5])),
        "unstable": Line("share of states", *_xy(unstable_share.steps, unstable_share.values)),
        "levels": Line("the model itself, memoryless", (0.0, 1.0), levels),
        "noisy": Line("noise on", *_xy(points[0, :150, 0].tolist(), points[0, :150, 1].tolist())),
        "still": Line("noise off", *_xy(fall[:, 0].tolist(), fall[:, 1].tolist()), dashed=True),
        "radius": Line("trained", NOISES, tuple(radii(seen))),
        **{f"zone.{name}": Line(name, *_xy(seen.stay[:200][chosen[:200]].tolist(), fastest[chosen[:200]].tolist()))
           for name, chosen in seen.zone.items()},
    }  # fmt: skip


def _xy(x: Sequence[float | int], y: Sequence[float | int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(map(float, x)), tuple(round(float(value), 4) for value in y)


def wiring_map(model: Model, kicks: Kicks) -> Map:
    """Recurrent weights among the kick units."""
    units = [*kicks[0], *kicks[1]]
    weight = orbits.recurrent_weight(model)[units][:, units]
    names = tuple(f"{side}: unit {unit}" for side, part in zip("AC", kicks, strict=True) for unit in part)
    cells = tuple(tuple(round(float(value), 3) for value in row) for row in weight)
    return Map("", "to", "from", names, names, cells, "weight", is_signed=True)


def run(setting: Setting) -> Outcome:
    """All measurements from one random seed."""
    size = task.QUICK if setting.profile == "quick" else Size()
    generator = torch.Generator().manual_seed(setting.random_seed + 1)
    trained = task.train(setting, size)
    levels = task.levels_of(size, generator)
    seen = look(trained.model, size, generator)
    kicks = kick_units(seen)
    turning, points = orbit(seen)
    others = random_units(kicks, size, generator)
    held, rates = gated(seen, kicks, others, size)
    near = seen.states[: size.states]
    measured = emissions(seen, size, generator) | turning | held | {
        "H3": attractors(seen),
        "H6": contrast(seen, orbits.leaves_alone(seen.model, seen.states), generator),
        "H7": contrast(seen, fp.n_unstable(task.eigenvalues(seen.model, near)) > 0, generator),
        "H10": wiring(seen.model, kicks, others),
        "H11": onset(trained.run, trained.run.loss.values[0], levels),
    }  # fmt: skip
    lines = lines_of(seen, points, trained, levels) | {"rates": Line("crossings", (0.0, 1.0, 2.0), tuple(rates))}
    return Outcome(measured, lines, {"wiring": wiring_map(seen.model, kicks)})


STUDY: Final = Study("rnn-hmm", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
