"""The inference circuit of in-context learning, its steps cut one by one: encode, merge, retrieve and copy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optrode.claims import Line, Map, Measured, Slides
from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.site.recording import recording
from optrode.study.kit import masks
from optrode.study.kit.curves import line
from optrode.study.kit.demos import Demos, Rows
from optrode.study.papers.icl_inference_circuit_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.icl_inference_circuit_figures import ARMS, STEPS, figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import Trained, fit
from optrode.train.measures import induction_correctness, kernel_alignment
from optrode.train.plan import Measure, Plan, Stop, adam, evenly

TASK: Final = Demos()
N_LAYERS: Final = 3
LAYERS: Final = tuple(range(N_LAYERS))
N_BATCH: Final = 32
LEARNT: Final = 0.95
"""Accuracy at which a run stops."""
LEAST: Final = 0.75
"""Accuracy below which there is no circuit to be cut."""
CHANCE: Final = 1 / TASK.n_demos
NEAREST: Final = 15
CIRCUIT: Final = (*STEPS[:4], "x>y")
"""What is kept: the four steps and the bypass."""


@final
@dataclass
class _Found:
    """What the experiments of one random seed add up to."""

    measured: dict[str, Measured] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)
    slides: dict[str, Slides] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@final
@dataclass(frozen=True, eq=False)
class Bench:
    """A trained network under test.

    Attributes:
        held: gates that it was trained with, which stay.
        base: accuracy with nothing cut.
    """

    model: Model
    rows: Rows
    held: tuple[Gate, ...]
    setting: Setting
    base: float

    def accuracy(self, *cuts: Gate) -> float:
        """With gates held besides."""
        with gates(self.model, *self.held, *cuts):
            return TASK.accuracy(self.model, self.rows)

    def left(self, accuracy: float) -> float:
        """The share of accuracy above chance that this is; NaN where nothing was learnt."""
        return (accuracy - CHANCE) / (self.base - CHANCE) if self.base >= LEAST else math.nan

    def random(self, mask: Bool[Tensor, "pos src"], keep: bool = False) -> float:
        """Mean accuracy with as many other arrows cut, or kept alone."""
        generator = torch.Generator().manual_seed(self.setting.random_seed)
        found = []
        for _ in range(self.setting.pick(20, 1)):
            drawn = masks.as_many(mask, generator)
            found.append(self.accuracy(*(masks.keep_only(drawn, LAYERS) if keep else masks.cut(drawn, LAYERS))))
        return sum(found) / len(found)


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    found = _Found()
    rows = TASK.draw(TASK.words(setting.random_seed), setting.pick(512, 32), torch.Generator().manual_seed(1_000_003))
    bypass = masks.cut(steps("x>y"), LAYERS)
    free = _trained(setting, found, rows, ARMS[0], 1400, ())
    closed = _trained(setting, found, rows, ARMS[1], 2200, bypass)
    _free(found, free)
    _closed(found, closed)
    _kept(found, free)
    before = TASK.network(setting.random_seed, N_LAYERS)
    _alignment(found, free, before)
    _induction(found, free, before)
    for name, bench in zip(ARMS, (free, closed), strict=True):
        found.maps[name] = _by_layer(bench)
    found.slides["patterns"] = _patterns(free)
    return Outcome(found.measured, found.lines, found.maps, found.slides, tuple(found.notes))


def steps(*names: str) -> Bool[Tensor, "pos src"]:
    """The mask of steps of the circuit."""
    return masks.arrows(TASK.length, [pair for name in names for pair in TASK.arrows(name)])


def _trained(setting: Setting, found: _Found, rows: Rows, name: str, n_steps: int, held: tuple[Gate, ...]) -> Bench:
    words, n_steps = TASK.words(setting.random_seed), setting.pick(n_steps, 3)
    batch = lambda _, generator: TASK.draw(words, N_BATCH, generator)  # noqa: E731
    ran: Trained = fit(Plan(
        name, lambda seed: TASK.network(seed, N_LAYERS), batch, TASK.loss, n_steps, adam(1e-3), held,
        {"accuracy": Measure(lambda model: TASK.accuracy(model, rows))},
        evenly(n_steps, setting.pick(50, 1)), stop=Stop("accuracy", above=LEARNT), random_seed=setting.random_seed,
    ))  # fmt: skip
    found.lines[f"training.{name}"] = line(name, ran.run.measures["accuracy"])
    with gates(ran.model, *held):
        base = TASK.accuracy(ran.model, rows)
    if base < LEAST:
        found.notes.append(f"random seed {setting.random_seed}, {name}: accuracy is only {base:.2f}; nothing was cut")
    return Bench(ran.model, rows, held, setting, base)


def _cuts(found: _Found, bench: Bench, arm: str) -> dict[str, tuple[float, float]]:
    """Step -> accuracy without it, and without as many other arrows."""
    accuracy = {}
    for step in STEPS:
        mask = steps(step)
        accuracy[step] = bench.accuracy(*masks.cut(mask, LAYERS)), bench.random(mask)
    for ix, name in enumerate(("cut", "random")):
        y = tuple(accuracy[step][ix] for step in STEPS)
        found.lines[f"{name}.{arm}"] = Line(name, tuple(float(at) for at in range(len(STEPS))), y)
    return accuracy


def _free(found: _Found, bench: Bench) -> None:
    """I1 to I5."""
    accuracy = _cuts(found, bench, ARMS[0])
    for key, step in zip(("I1", "I2", "I3", "I4"), STEPS[:4], strict=True):
        found.measured[key] = Measured(*(bench.left(one) for one in accuracy[step]))
    both = bench.accuracy(*masks.cut(steps("s>y", "x>y"), LAYERS))
    found.lines["both"] = Line("s>y and x>y", (0.0,), (both,))
    found.measured["I5"] = Measured(bench.left(both), bench.left(accuracy["s>y"][0]))


def _closed(found: _Found, bench: Bench) -> None:
    """I6."""
    accuracy = _cuts(found, bench, ARMS[1])
    largest = max(STEPS[:4], key=lambda step: int(steps(step).sum()))
    value = max(bench.left(accuracy[step][0]) for step in STEPS[:4])
    found.measured["I6"] = Measured(value, bench.left(accuracy[largest][1]))


def _kept(found: _Found, bench: Bench) -> None:
    """I7."""
    mask = steps(*CIRCUIT)
    value = bench.accuracy(*masks.keep_only(mask, LAYERS))
    found.measured["I7"] = Measured(bench.left(value), bench.left(bench.random(mask, keep=True)))


def _streams(model: Model, rows: Rows) -> list[Float[Tensor, "row pos d_model"]]:
    """The residual stream before the first layer and after each."""
    with recording(model, ["blocks.0.resid_pre", "blocks.*.resid_post"]) as seen, torch.no_grad():
        model(inputs_embeds=rows.vectors)
    return [seen["blocks.0.resid_pre"], *(seen[f"blocks.{layer}.resid_post"] for layer in LAYERS)]


def _alignment(found: _Found, bench: Bench, before: Model) -> None:
    """I8, at the query's forerunner token and at the labels."""
    rows, k = bench.rows, min(NEAREST, len(bench.rows.right) - 1)
    words = TASK.words(bench.setting.random_seed)
    places = {"forerunner of the query": (TASK.separators[-1], -1), "label of the last demonstration":
              (TASK.separators[-2] + 1, -2)}  # fmt: skip
    found_at: dict[str, list[float]] = {}
    for when, model in (("", bench.model), (", before training", before)):
        streams = _streams(model, rows)
        for place, (pos, item) in places.items():
            meant = words.classes[rows.classes[:, item]]
            found_at[place + when] = [kernel_alignment(one[:, pos], meant, k) for one in streams]
    for name, values in found_at.items():
        depth = tuple(float(ix) for ix in range(len(values)))
        found.lines[f"alignment.{name}"] = Line(name, depth, tuple(values), dashed="before" in name)
    query = [name for name in found_at if name.startswith("forerunner")]
    found.measured["I8"] = Measured(*(max(found_at[name]) for name in query))


def _induction(found: _Found, bench: Bench, before: Model) -> None:
    """I9, head by head."""
    now, then = (_correctness(model, bench.rows) for model in (bench.model, before))
    found.measured["I9"] = Measured(float(now.max()), float(then.max()))
    cells = tuple(tuple(float(cell) for cell in layer) for layer in now)
    heads = tuple(str(head) for head in range(now.shape[1]))
    found.maps["induction"] = Map("", "layer", "head", tuple(str(layer + 1) for layer in LAYERS), heads, cells, "", True)


@torch.no_grad()
def _correctness(model: Model, rows: Rows) -> Float[Tensor, "layer head"]:
    labels = torch.tensor(TASK.separators[:-1])[None].expand(len(rows.right), -1) + 1
    is_same = torch.arange(TASK.n_demos)[None] == rows.right[:, None]
    with recording(model, ["blocks.*.attn.pattern"]) as seen:
        model(inputs_embeds=rows.vectors)
    return torch.stack([induction_correctness(one, labels, is_same) for one in seen.stack("attn.pattern")])


def _by_layer(bench: Bench) -> Map:
    """Accuracy with a step cut in one layer, or in all."""
    ranges: Sequence[tuple[int, ...]] = (*((layer,) for layer in LAYERS), LAYERS)
    cells = tuple(tuple(bench.accuracy(*masks.cut(steps(step), layers)) for layers in ranges) for step in STEPS)
    names = (*(f"layer {layer + 1}" for layer in LAYERS), "all")
    return Map("", "step cut", "in", STEPS, names, cells, "accuracy")


def _patterns(bench: Bench) -> Slides:
    """Mean attention over heads and rows whose right demonstration is the last, layer by layer."""
    with recording(bench.model, ["blocks.*.attn.pattern"]) as seen, torch.no_grad():
        bench.model(inputs_embeds=bench.rows.vectors)
    words = [f"x{word + 1}" for word in range(TASK.n_words)]
    shown = [f"{name} of {item}" for item in ("1", "2") for name in (*words, "s", "y")][: TASK.length]
    shown += [f"{name} of query" for name in (*words, "s")]
    chosen = bench.rows.right == TASK.n_demos - 1
    maps = []
    for layer in LAYERS:
        mean = seen[f"blocks.{layer}.attn.pattern"][chosen].mean((0, 1))
        cells = tuple(tuple(float(cell) for cell in row) for row in mean)
        maps.append(Map(f"Layer {layer + 1}", "from", "to", tuple(shown), tuple(shown), cells, "attention"))
    return Slides("", "layer", tuple(str(layer + 1) for layer in LAYERS), tuple(maps))


STUDY: Final = Study("icl-inference-circuit", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
