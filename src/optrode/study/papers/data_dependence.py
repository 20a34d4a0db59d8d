"""Data dependence and abrupt learning: what is learnt in context, what in the weights, and what the wait is for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import quantiles
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.claims import Line, Map, Measured, Slides
from optrode.gate.gate import Gate
from optrode.gate.kinds import clamp, zero
from optrode.model.model import Model
from optrode.site.recording import recording
from optrode.study.kit import bursty, nested
from optrode.study.kit.bursty import Batch, Bursty, World
from optrode.study.kit.curves import line
from optrode.study.papers.data_dependence_claims import CLAIMS, DIFFERENCES, N_NESTED, PAPER, QUESTION
from optrode.study.papers.data_dependence_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.checkpoints import at_step
from optrode.train.loop import Trained, fit
from optrode.train.plan import Measure, Plan, adam, evenly, sgd
from optrode.train.records import Series

TASK: Final = Bursty(n_classes=512, n_labels=16, n_pairs=4, d_item=31, n_places=17)
NOVEL: Final = replace(TASK, p_novel=1.0)
HALF: Final = (1 + 1 / TASK.n_pairs) / 2
"""Half-way between picking any label in context and picking the right one."""
N_BATCH: Final = 128
LOSS: Final = 0.2
SHOWN: Final = 1
"""The pair in context that the query asks for, in the pictures of patterns."""


@final
@dataclass
class _Found:
    """What the experiments of one random seed add up to."""

    measured: dict[str, Measured] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    slides: dict[str, Slides] = field(default_factory=dict)

    def claim(self, key: str, value: float, control: float) -> None:
        """Note a claim's measurement."""
        self.measured[key] = Measured(float(value), float(control))


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's runs."""

    setting: Setting

    def fit(
        self, name: str, task: Bursty, n_steps: int, look: Any, *held: Gate, every: int = 25, keep_at: Sequence[int] = ()
    ) -> Trained:  # fmt: skip
        """Train a network on rows of a task, and look meanwhile."""
        seed, n_steps, every = self.setting.random_seed, self.setting.pick(n_steps, 2), self.setting.pick(every, 1)
        world, n_rows = task.world(seed), self.setting.pick(N_BATCH, 8)
        return fit(Plan(
            name, lambda s: bursty.network(task, s), lambda _, generator: task.draw(world, n_rows, generator), bursty.loss,
            n_steps, adam(1e-3), held, {"test": Measure(look)}, evenly(n_steps, every), random_seed=seed,
            keep_at=tuple(step for step in keep_at if step <= n_steps),
        ))  # fmt: skip

    def rows(self, task: Bursty, world: World | None = None) -> Batch:
        """Rows to test with."""
        generator = torch.Generator().manual_seed(self.setting.random_seed + 1_000_003)
        return task.draw(world or task.world(self.setting.random_seed), self.setting.pick(512, 16), generator)

    def learns(self, name: str, n_steps: int, **law: Any) -> dict[str, Series]:
        """IC, IWL and IC2 while a network learns from rows of another law."""
        task = replace(TASK, **law)
        tests = {"IC": task.in_context(), "IWL": task.in_weights(), "IC2": task.swapped()}
        rows = {test: self.rows(one) for test, one in tests.items()}
        look = lambda model: {test: bursty.accuracy(model, one) for test, one in rows.items()}  # noqa: E731
        return curves(self.fit(name, task, n_steps, look, every=100))


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab, found = _Lab(setting), _Found()
    _abrupt(lab, found)
    _data(lab, found)
    _nested(lab, found)
    return Outcome(found.measured, found.lines, slides=found.slides)


def _abrupt(lab: _Lab, found: _Found) -> None:
    """R1 and R4: the free run, and runs whose layer 1 is silenced or held."""
    rows = lab.rows(NOVEL)
    look = lambda model: bursty.progress(model, rows)  # noqa: E731
    steps = (0, 200, 400, 500, 600, 700, 800, 1000) if lab.setting.profile == "measured" else (0, 2)
    free = lab.fit("free", NOVEL, 1000, look, keep_at=steps)
    silent = lab.fit("layer 1 silenced", NOVEL, 800, look, zero("blocks.0.attn.z"))
    pattern = "blocks.0.attn.pattern"
    right = lab.fit("layer 1 held: own item", NOVEL, 600, look, clamp(pattern, looking(TASK, 0)))
    wrong = lab.fit("layer 1 held: wrong item", NOVEL, 600, look, clamp(pattern, looking(TASK, 1)))
    for ran in (free, silent, right, wrong):
        found.lines |= {f"{ran.run.name}.{name}": line(ran.run.name, one) for name, one in curves(ran).items()}
    _note_abrupt(found, *map(curves, (free, silent, right, wrong)))
    found.slides |= _patterns(free, steps, rows)


def _note_abrupt(
    found: _Found, free: Mapping[str, Series], silent: Mapping[str, Series], right: Mapping[str, Series],
    wrong: Mapping[str, Series],
) -> None:  # fmt: skip
    jump, mass = passes(free["accuracy"], HALF), passes(free["cla"], HALF)
    found.claim("R1a", jump, silent["accuracy"].values[-1])
    found.claim("R1b", at(free["preference"], mass), free["preference"].values[-1])
    rise = {name: half_rise(free[name]) for name in ("cla", "ila1", "tila2")}
    found.claim("R1c", ratio(min(rise["ila1"], rise["tila2"]), rise["cla"]), ratio(rise["ila1"], rise["tila2"]))
    wait = passes(right["accuracy"], HALF) - passes(right["cla"], HALF)
    found.claim("R4", ratio(wait, jump - mass), wrong["accuracy"].values[-1])


def _data(lab: _Lab, found: _Found) -> None:
    """R2: what each law of the data favours."""
    runs = {
        "K=32": lab.learns("K=32", 300, n_classes=32),
        "K=128": lab.learns("K=128", 600, n_classes=128),
        "K=512": lab.learns("K=512", 1000),
        "K=32, no bursts": lab.learns("K=32, no bursts", 300, n_classes=32, p_bursty=0.0),
        "K=512, no bursts": lab.learns("K=512, no bursts", 1000, p_bursty=0.0),
        "K=512, idle bursts": lab.learns("K=512, idle bursts", 1000, burst=2, asks_context=False),
        "K=256": lab.learns("K=256", 1200, n_classes=256),
        "K=256, noise 0.4": lab.learns("K=256, noise 0.4", 1200, n_classes=256, noise=0.4),
        "K=32, noise 0.4": lab.learns("K=32, noise 0.4", 300, n_classes=32, noise=0.4),
    }
    found.lines |= {f"{name}.{test}": line(name, one) for name, tests in runs.items() for test, one in tests.items()}
    end = {name: {test: one.values[-1] for test, one in tests.items()} for name, tests in runs.items()}
    balance = {name: tests["IC"] - tests["IWL"] for name, tests in end.items()}
    bare = balance["K=512, no bursts"]
    found.claim("R2a", balance["K=512"] - balance["K=32"], bare - balance["K=32, no bursts"])
    found.claim("R2b", balance["K=512"] - bare, balance["K=512, idle bursts"] - bare)
    found.claim("R2c", balance["K=256, noise 0.4"] - balance["K=256"], balance["K=32, noise 0.4"] - balance["K=32"])
    found.claim("R2d", end["K=512"]["IC2"], end["K=32"]["IC2"])


def _nested(lab: _Lab, found: _Found) -> None:
    """R3: the nested logits, from nothing, with attention in place, and from random gains."""
    n, setting = N_NESTED, lab.setting
    labels = (32, 16, 9, 8)
    ready = torch.tensor([[0.0, 0, 0], [8.0, 8, 0]]).repeat_interleave(len(labels), 0)
    tipped = torch.tensor([[0.0, 0, 0.5]])
    losses = _descend([*[(n, wide) for wide in labels] * 2, (n, n)], torch.cat([ready, tipped]), setting.pick(6000, 3))
    names = [f"L = {wide}" for wide in labels] + [f"L = {wide}, attention there" for wide in labels] + ["L = 8, xi = 0.5"]
    found.lines |= {f"nested.{name}": line(name, one) for name, one in zip(names, losses, strict=True)}
    took = [passes(one, LOSS, falling=True) for one in losses]
    learnt = losses[0].first_below(LOSS)
    found.claim("R3a", math.nan if learnt is None else learnt, losses[3].values[-1])
    found.claim("R3b", ratio(took[2], took[0]), ratio(took[6], took[4]))
    generator = torch.Generator().manual_seed(setting.random_seed)
    starts = 0.1 * torch.randn(2 * setting.pick(64, 2), 3, generator=generator)
    half = len(starts) // 2
    drawn = _descend([(n, n)] * half + [(n, 32)] * half, starts, setting.pick(4000, 3), every=5)
    took = [passes(one, LOSS, falling=True) for one in drawn]
    found.claim("R3c", _spread(took[:half]), _spread(took[half:]))
    for name, part in (("L = 8", took[:half]), ("L = 32", took[half:])):
        found.lines[f"starts.{name}"] = _ranked(name, part)


def _descend(sizes: Sequence[tuple[int, int]], start: Float[Tensor, "run 3"], n_steps: int, every: int = 1) -> list[Series]:
    """The loss of each nested model by gradient descent: at every step while it can move, then every 50."""
    look = lambda model: {str(ix): float(one) for ix, one in enumerate(model())}  # noqa: E731
    steps = tuple(sorted({*evenly(min(n_steps, 600), every), *evenly(n_steps, 50)}))
    plan = Plan(
        "nested logits", lambda _: nested.nested(sizes, start, N_NESTED), lambda *_: None, nested.summed, n_steps, sgd(0.5),
        measures={"loss of run": Measure(look)}, measure_at=steps,
    )  # fmt: skip
    return list(curves(fit(plan)).values())


def looking(task: Bursty, shift: int) -> Float[Tensor, "pos src"]:
    """A pattern of layer 1: label i looks at item i - shift, where there is one; all others at themselves."""
    pattern = torch.eye(task.length)
    for pair in range(task.n_pairs):
        if pair >= shift:
            pattern[2 * pair + 1] = torch.eye(task.length)[2 * (pair - shift)]
    return pattern


def curves(ran: Trained) -> dict[str, Series]:
    """What a run measured, by the names that its one measure gives."""
    return {name.partition(".")[2]: one for name, one in ran.run.measures.items()}


def ratio(above: float, below: float) -> float:
    """One over the other; NaN where there is none."""
    return above / below if below else math.nan


def passes(series: Series, bound: float, *, falling: bool = False) -> float:
    """The first step at which a curve is beyond a bound, between two measurements as a line goes; NaN for never."""
    sign = -1.0 if falling else 1.0
    before: tuple[int, float] | None = None
    for step, value in zip(series.steps, series.values, strict=True):
        if sign * (value - bound) > 0:
            if before is None:
                return float(step)
            return before[0] + (step - before[0]) * (bound - before[1]) / (value - before[1])
        before = step, value
    return math.nan


def half_rise(series: Series) -> float:
    """The step at which a curve is half-way between its first and its last value."""
    return passes(series, (series.values[0] + series.values[-1]) / 2)


def at(series: Series, step: float) -> float:
    """A curve's value at the measurement nearest to a step; NaN where there is no step."""
    if math.isnan(step):
        return math.nan
    return min(zip(series.steps, series.values, strict=True), key=lambda pair: abs(pair[0] - step))[1]


def _spread(took: Sequence[float]) -> float:
    """90th percentile over 10th; NaN if any never got there."""
    if any(math.isnan(one) for one in took):
        return math.nan
    tenths = quantiles(took, n=10, method="inclusive")
    return ratio(tenths[-1], tenths[0])


def _ranked(name: str, took: Sequence[float]) -> Line:
    """Share of starts that got there, over updates."""
    known = sorted(one for one in took if not math.isnan(one))
    return Line(name, tuple(known), tuple((rank + 1) / len(took) for rank in range(len(known))))


def _patterns(ran: Trained, steps: Sequence[int], rows: Batch) -> dict[str, Slides]:
    """Mean attention of both layers at checkpoints, over rows that ask for the same pair."""
    shown = [f"{kind}{pair + 1}" for pair in range(TASK.n_pairs) for kind in ("x", "l")] + ["query"]
    maps: dict[int, list[Map]] = {0: [], 1: []}
    for step in steps:
        for layer, mean in enumerate(_mean_patterns(at_step(ran, step), rows)):
            cells = tuple(tuple(float(cell) for cell in row) for row in mean)
            title = f"Layer {layer + 1} after {step} updates"
            maps[layer].append(Map(title, "from", "to", tuple(shown), tuple(shown), cells, "attention"))
    names = tuple(str(step) for step in steps)
    return {f"layer {layer + 1}": Slides("", "updates", names, tuple(one)) for layer, one in maps.items()}


@torch.no_grad()
def _mean_patterns(model: Model, rows: Batch) -> list[Float[Tensor, "pos src"]]:
    with recording(model, ["blocks.*.attn.pattern"]) as seen:
        bursty.read(model, rows)
    chosen = rows.is_own[:, SHOWN] == 1
    return [seen[f"blocks.{layer}.attn.pattern"][chosen, 0].mean(0) for layer in (0, 1)]


STUDY: Final = Study("data-dependence", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
