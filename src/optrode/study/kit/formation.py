"""Training an induction circuit under clamps: the experiments, each of which notes what claims and figures need.

Singh et al., arXiv 2404.07129. Experiments share one `Lab` per random seed and write to one `Found`. What is measured of a
network that has been trained is in `formed`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, final

from optrode.claims import Line, Map, Measured, Slides
from optrode.gate.gate import Gate
from optrode.gate.kinds import other_model, patch
from optrode.model.model import Model
from optrode.study.kit import clamps, icl, rank_one
from optrode.study.kit.curves import falls_below, line, stays_within
from optrode.study.kit.icl_training import N_BATCH, Bench, bench, under
from optrode.study.study import Setting
from optrode.train.loop import Trained, fit

LN_2: Final = math.log(2)
THRESHOLD: Final = 0.4 * LN_2
"""A loss well below that of guessing between the labels in context, ln 2."""
PLATEAU: Final = (0.62, 0.80)
"""Nats around ln 2 that count as the plateau."""
ORDER: Final = ("match", "copy", "layer 1", "previous token", "free")
"""Clamps from the one that leaves least to be learnt, as the paper has them."""
PERTURBED: Final = ("match", "copy", "layer 1")
"""Clamps that are also held at evaluation alone."""
GROWN: Final = (50, 100, 200), (5, 10, 15)
"""Numbers of classes, and of labels."""


@final
@dataclass
class Found:
    """What the experiments of one random seed add up to."""

    measured: dict[str, Measured] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)
    slides: dict[str, Slides] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def claim(self, key: str, value: float | int, control: float | int) -> None:
        """Note a claim's measurement."""
        self.measured[key] = Measured(float(value), float(control))

    def curve(self, key: str, name: str, ran: Trained, measure: str = "seen", *, dashed: bool = False) -> None:
        """Note a curve over sequences."""
        self.lines[key] = line(name, ran.run.measures[measure], N_BATCH, dashed=dashed)


@final
@dataclass(frozen=True, eq=False)
class Lab:
    """One random seed's bench and the profile.

    Attributes:
        bench: 50 classes to train on and further ones; 5 labels.
    """

    setting: Setting
    bench: Bench

    @property
    def head(self) -> int:
        """The head of layer 2 that is left where there is one (3 of 8, as in the paper)."""
        return self.bench.n_heads // 2 - 1

    @property
    def writers(self) -> tuple[int, int]:
        """Two heads of layer 1 that are clamped in turn (2 and 6 of 8)."""
        return self.bench.n_heads // 4, 3 * self.bench.n_heads // 4

    def alone(self, *held: Gate, head: int | None = None) -> tuple[Gate, ...]:
        """Gates, and only one head of layer 2."""
        return *held, *clamps.only(self.head if head is None else head, 1, self.bench.n_heads)

    def fit(self, name: str, held: Sequence[Gate], n_steps: int, below: float | None = 0.2, **options: Any) -> Trained:
        """A run that stops soon after the threshold; `options` as `Bench.plan`, and `on` for another bench."""
        used: Bench = options.pop("on", self.bench)
        chosen: dict[str, Any] = {"every": 10, **options}
        if self.setting.profile == "quick":
            chosen |= {"every": 1, "keep_at": tuple(min(step, 2) for step in chosen.get("keep_at", ()))}
        return fit(used.plan(name, held, self.setting.pick(n_steps, 2), below=below, **chosen))


def lab_of(setting: Setting) -> Lab:
    """The lab of a random seed: Gaussian classes, 50 to train on and 50 new ones (quick: 8 and 8, and 2 heads)."""
    n, n_heads = setting.pick(50, 8), setting.pick(8, 2)
    features = icl.gaussian(2 * n, setting.pick(512, 16), random_seed=setting.random_seed)
    n_rows = setting.pick(256, 8)
    return Lab(setting, bench(features, setting.random_seed, n_classes=n, n_rows=n_rows, n_heads=n_heads))


def passes(ran: Trained) -> float:
    """Sequences until the loss is below .4 ln 2; NaN for never."""
    return falls_below(ran.run.measures["seen"], THRESHOLD) * N_BATCH


def at_least(ran: Trained) -> float:
    """The same, or the length of the run if it never was."""
    passed = passes(ran)
    return float(ran.run.n_steps * N_BATCH) if math.isnan(passed) else passed


def single_heads(lab: Lab, found: Found) -> Trained:
    """A network for each head of layer 2, with that head alone; and one with none. Returns the run of the lab's own head."""
    none = lab.fit("no head", clamps.only(None, 1, lab.bench.n_heads), 600, None, every=50)
    found.curve("none", "no head of layer 2", none, dashed=True)
    perturbed = {name: under(lab.alone(*held_in(lab)[name]), lab.bench.rows) for name in PERTURBED}
    runs = {}
    for head in range(lab.bench.n_heads):
        measures = perturbed if head == lab.head else {}
        below = 0.2 if head == lab.head else 0.26
        runs[head] = lab.fit(f"head {head} alone", lab.alone(head=head), 1200, below, measures=measures)
        found.curve(f"alone {head}", f"head {head} alone", runs[head])
    found.claim("S7", sum(not math.isnan(passes(run)) for run in runs.values()), none.run.measures["seen"].values[-1])
    return runs[lab.head]


def held_in(lab: Lab) -> dict[str, tuple[Gate, ...]]:
    """The clamps of Fig. 5b, without the silence of other heads."""
    return {
        "previous token": clamps.previous_token(lab.writers[0]), "layer 1": clamps.layer_one(),
        "match": clamps.match(lab.head, lab.bench.words), "copy": clamps.copy(lab.head),
        "layer 1 + copy": clamps.layer_one_copy(lab.head),
    }  # fmt: skip


def clamped(lab: Lab, found: Found, free: Trained) -> None:
    """One head of layer 2, and parts of the circuit held at what they are to become (Fig. 5b and Fig. 10)."""
    runs = {name: lab.fit(name, lab.alone(*held), 900) for name, held in held_in(lab).items()} | {"free": free}
    for name, run in runs.items():
        found.curve(f"clamp {name}", name, run)
    level = {name: stays_within(run.run.measures["seen"], *PLATEAU) * N_BATCH for name, run in runs.items()}
    found.claim("S9", min(level["free"], level["previous token"]), max(v for k, v in level.items() if k not in ORDER[3:]))
    _progress(found, free, runs["match"])
    _alternatives(lab, found, runs)


def _progress(found: Found, free: Trained, clamp: Trained) -> None:
    """The same perturbation throughout training, and of the free network at evaluation alone."""
    for name in PERTURBED:
        found.curve(f"progress {name}", f"{name}, at evaluation alone", free, name, dashed=True)
    step = falls_below(clamp.run.measures["seen"], THRESHOLD)
    found.claim("S11", _at(free, "match", step), _at(clamp, "seen", step))


def _at(ran: Trained, measure: str, step: float) -> float:
    """A measure at the first measurement from a step on."""
    series = ran.run.measures[measure]
    return next((v for s, v in zip(series.steps, series.values, strict=True) if s >= step), math.nan)


def _alternatives(lab: Lab, found: Found, runs: dict[str, Trained]) -> None:
    """Other heads of layer 1 held at the previous-token pattern, and a pattern that is no part of the circuit (Fig. 8)."""
    one, other = lab.writers
    every = range(lab.bench.n_heads)
    for name, held in {
        "another head": clamps.previous_token(other), "all heads": clamps.previous_token(every),
        "two tokens back": clamps.previous_token(one, back=2),
    }.items():  # fmt: skip
        runs[name] = lab.fit(name, lab.alone(*held), 1200)
        found.curve(f"clamp {name}", name, runs[name], dashed=name == "two tokens back")
    times = {name: at_least(run) for name, run in runs.items()}
    found.claim("S8", agreement([times[name] for name in ORDER]), times["two tokens back"] / times["free"])
    found.claim("S10", times["all heads"] / times["previous token"], times["another head"] / times["previous token"])


def agreement(values: Sequence[float]) -> float:
    """Kendall's tau of values with ascending order: 1 for ascending, -1 for descending; a tie counts 0."""
    pairs = [(a, b) for ix, a in enumerate(values) for b in values[ix + 1 :]]
    return sum((b > a) - (b < a) for a, b in pairs) / len(pairs)


def anti_induction(lab: Lab, found: Found) -> None:
    """The one head's strength is held at -1, which always attends to the wrong label, or at 1 (Fig. 15)."""
    words, ends = lab.bench.words, {}
    for name, strength in (("anti-induction head", -1.0), ("induction head", 1.0)):
        held = lab.alone(*clamps.induction_strength(lab.head, strength, words))
        run = lab.fit(name, held, 1000, 0.03)
        found.curve(f"{name} seen", f"{name}: label pairs of training", run)
        found.curve(f"{name} unseen", f"{name}: label pairs left out", run, "unseen", dashed=True)
        is_learnt = run.run.measures["seen"].values[-1] < 0.03 or lab.setting.profile == "quick"
        ends[name] = run.run.measures["unseen"].values[-1] if is_learnt else math.nan
    found.claim("S12", ends["anti-induction head"], ends["induction head"])


def data_dependence(lab: Lab, found: Found) -> None:
    """More classes, or more labels, where only subcircuit B or only C is left to be learnt (Fig. 6)."""
    classes, labels = GROWN
    if lab.setting.profile == "quick":
        classes, labels = (8, 9, 10), (5, 6, 7)
    times = {(k, n): _left(lab, k, n) for k, n in {*((k, labels[0]) for k in classes), *((classes[0], n) for n in labels)}}
    for ix, part in enumerate("BC"):
        by_classes, by_labels = [times[k, labels[0]][ix] for k in classes], [times[classes[0], n][ix] for n in labels]
        found.lines[f"{part} classes"] = Line(part, tuple(map(float, classes)), tuple(by_classes))
        found.lines[f"{part} labels"] = Line(part, tuple(map(float, labels)), tuple(by_labels))
    growth = {name: one.y[-1] / one.y[0] for name, one in found.lines.items() if name[0] in "BC" and name[1] == " "}
    value = min(growth["B classes"], growth["C labels"])
    found.claim("S13", value, max(growth["C classes"], growth["B labels"]))


def _left(lab: Lab, n_classes: int, n_labels: int) -> tuple[float, float]:
    """Sequences until the threshold where only B, and where only C is left to be learnt."""
    b, seed = lab.bench, lab.setting.random_seed
    features = icl.gaussian(n_classes, b.words.features.shape[1], random_seed=seed)
    on = bench(features, seed, n_labels=n_labels, n_rows=len(b.rows.ids), n_heads=b.n_heads)
    only_b = lab.fit("B", lab.alone(*clamps.layer_one_copy(lab.head)), 600, on=on, every=4)
    only_c = lab.fit("C", lab.alone(*clamps.match(lab.head, on.words)), 600, on=on, every=4)
    return at_least(only_b), at_least(only_c)


def grafted(lab: Lab, found: Found, whole: Trained) -> None:
    """A fresh layer 2 over the layer 1, frozen, of networks that are trained or not (Fig. 7)."""
    b = lab.bench
    donor = lab.fit("donor", (), 900, 0.05, every=25, random_seed=b.random_seed + 500)
    times = {}
    for name, model in {
        "its own seed's": whole.model, "another seed's": donor.model, "an untrained": b.make(b.random_seed + 900)
    }.items():  # fmt: skip
        run = lab.fit(f"graft {name}", (_graft(model),), 700)
        found.curve(f"graft {name}", f"{name} layer 1", run, dashed=name == "an untrained")
        times[name] = at_least(run) / at_least(whole)
    found.claim("S17", times["another seed's"], times["an untrained"])


def _graft(donor: Model) -> Gate:
    """The stream after layer 1 is a donor's."""
    return patch("blocks.0.resid_post", other_model(donor))


def toy(lab: Lab, found: Found) -> None:
    """Three vectors that depend on each other, with none, one or two held at the truth (Fig. 5a)."""
    n_draws, n_steps = lab.setting.pick(5, 1), lab.setting.pick(1000, 3)
    ratios, left = [], []
    for ix in range(n_draws):
        draw = rank_one.draw(100 * lab.setting.random_seed + ix)
        held = {"none": (), "c": draw.held("c"), "b and c": draw.held("bc"), "b and c, wrong": draw.held("bc", at="other")}
        runs = {name: fit(draw.plan(name, gates, n_steps)) for name, gates in held.items()}
        first = draw.first_loss()
        steps = {name: falls_below(run.run.loss, 0.05 * first) for name, run in runs.items()}
        ratios.append((n_steps if math.isnan(steps["none"]) else steps["none"]) / steps["b and c"])
        left.append(runs["b and c, wrong"].run.loss.values[-1] / runs["b and c, wrong"].run.loss.values[0])
        for name, run in runs.items() if ix == 0 else ():
            found.lines[f"toy {name}"] = _relative(name, run)
    found.claim("S14", median(ratios), median(left))


def _relative(name: str, run: Trained) -> Line:
    """The loss over its first value, every 2nd step of the first 300."""
    loss = run.run.loss
    kept = range(0, min(300, len(loss.steps)), 2)
    shares = tuple(loss.values[ix] / loss.values[0] for ix in kept)
    return Line(name, tuple(map(float, kept)), shares, dashed="wrong" in name)
