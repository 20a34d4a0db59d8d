"""The figures of data dependence and abrupt learning."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan, nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line, Slides
from optrode.study.study import Outcome

MEASURES: Final[Mapping[str, str]] = {
    "accuracy": "accuracy, new classes", "cla": "CLA: labels in context", "ila1": "ILA1: label to own item",
    "tila2": "TILA2: query to right label",
}  # fmt: skip
ARMS: Final = ("free", "layer 1 held: own item", "layer 1 held: wrong item", "layer 1 silenced")
CLASSES: Final = (32, 128, 256, 512)
LAWS: Final = (
    "K=512", "K=512, no bursts", "K=512, idle bursts", "K=256", "K=256, noise 0.4", "K=32", "K=32, noise 0.4",
    "K=32, no bursts",
)  # fmt: skip
HALF: Final = 0.625
"""Half-way between 1/N and 1."""
CHANCE: Final[Mapping[str, float]] = {"1/N": 0.25, "1/L": 0.0625}


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    charts = (_abrupt(outcomes), _held(outcomes), _classes(outcomes), _laws(outcomes), _nested(outcomes), _starts(outcomes))
    return Figures(charts, (), _slides(outcomes))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    found = [getattr(one.measured[key], part) for one in outcomes if key in one.measured]
    known = [value for value in found if value is not None]
    return median(known) if known else nan


def _all(outcomes: Sequence[Outcome], names: Mapping[str, str]) -> tuple[Line, ...]:
    """Lines of these keys, of all seeds, under these names."""
    return tuple(replace(one.lines[key], name=name) for key, name in names.items() for one in outcomes if key in one.lines)


def _abrupt(outcomes: Sequence[Outcome]) -> Chart:
    jump, ratio = _middle(outcomes, "R1a"), _middle(outcomes, "R1c")
    title = (
        f"Accuracy with new classes passes {HALF:g} at {jump:.0f} updates; attention patterns form {ratio:.1f} times as "
        "late as the labels in context gain their mass"
    )
    names = {f"free.{key}": name for key, name in MEASURES.items()}
    caption = (
        "One line per random seed. First the classifier learns to put its probability on labels that are in the context at "
        "all (CLA), and accuracy stays near 1/N, that of a random one of them; then attention from labels to their items "
        "(layer 1) and from the query to the right label (layer 2) form together."
    )
    return Chart(
        title, "updates", "share", _all(outcomes, names), levels=CHANCE,
        marks={} if isnan(jump) else {"half of the jump": jump}, caption=caption,
    )


def _held(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"With layer 1 held at its final pattern, the slow phase lasts {_middle(outcomes, 'R4'):.0%} of the free run's; "
        f"held at a wrong one, accuracy comes to {_middle(outcomes, 'R4', 'control'):.2f}"
    )
    caption = (
        "Accuracy with new classes while layer 1 is held during training: at the pattern that it ends with (each label "
        "looks at its own item), at one as sharp that looks at the item before, or silenced. The free run waits at 1/N."
    )
    lines = _all(outcomes, {f"{arm}.accuracy": arm for arm in ARMS})
    return Chart(title, "updates", "accuracy, new classes", lines, levels=CHANCE, caption=caption)


def _classes(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"From 32 to 512 classes the balance moves by {_middle(outcomes, 'R2a'):+.2f} from the weights to the context; "
        f"without bursts by {_middle(outcomes, 'R2a', 'control'):+.2f}"
    )
    caption = (
        "Accuracy at the end of training against the number of classes K, one line per random seed: IC with new classes, "
        "IWL with trained classes that are not in the context, IC2 with trained classes whose labels are exchanged."
    )
    shown = {"IC": "in context (IC)", "IWL": "in the weights (IWL)", "IC2": "against the weights (IC2)"}
    lines = tuple(_over_classes(one, test, name) for test, name in shown.items() for one in outcomes)
    return Chart(title, "classes K", "accuracy", lines, log_x=True, levels={"1/N": 0.25}, caption=caption)


def _over_classes(one: Outcome, test: str, name: str) -> Line:
    ends = {k: one.lines[f"K={k}.{test}"].y[-1] for k in CLASSES if f"K={k}.{test}" in one.lines}
    return Line(name, tuple(float(k) for k in ends), tuple(ends.values()))


def _laws(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Bursts move the balance by {_middle(outcomes, 'R2b'):+.2f}, bursts that say nothing by "
        f"{_middle(outcomes, 'R2b', 'control'):+.2f}; noise by {_middle(outcomes, 'R2c'):+.2f}"
    )
    caption = (
        "Accuracy at the end of training, median over seeds, for networks trained with other laws of the data. The balance "
        "is in context (IC) less in the weights (IWL). Idle bursts: classes come in pairs, but the query is of any class."
    )
    lines = tuple(
        Line(name, tuple(float(ix) for ix in range(len(LAWS))), tuple(_end(outcomes, f"{law}.{test}") for law in LAWS))
        for test, name in (("IC", "in context (IC)"), ("IWL", "in the weights (IWL)"))
    )
    labels = tuple(law.removeprefix("K=") for law in LAWS)
    return Chart(title, "classes K, and law of the data", "accuracy", lines, kind="bars", labels=labels, caption=caption)


def _end(outcomes: Sequence[Outcome], key: str) -> float:
    return median(one.lines[key].y[-1] for one in outcomes if key in one.lines)


def _nested(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Nested logits learn in {_middle(outcomes, 'R3a'):.0f} updates for L = 32 and take {_middle(outcomes, 'R3b'):.1f} "
        f"times that for L = 9; for L = N the loss is {_middle(outcomes, 'R3a', 'control'):.2f} after all 6,000"
    )
    caption = (
        "Loss of the three nested logits (a reconstruction in the spirit of the paper), N = 8, by gradient descent with "
        "steps of 0.5 from gains of 0; dashed: L = N with the classifier's gain at 0.5."
    )
    names = ("L = 32", "L = 16", "L = 9", "L = 8", "L = 8, xi = 0.5")
    shown = _all(outcomes[:1], {f"nested.{name}": name for name in names})
    lines = tuple(_cut(one, 600, "xi" in one.name) for one in shown)
    return Chart(title, "updates", "loss, nats", lines, levels={"ln 8": 2.0794}, caption=caption)


def _cut(line: Line, until: float | int, dashed: bool) -> Line:
    kept = [(x, y) for x, y in zip(line.x, line.y, strict=True) if x <= until]
    return Line(line.name, tuple(x for x, _ in kept), tuple(y for _, y in kept), dashed=dashed)


def _starts(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"When nested logits learn depends on where they start for L = N (spread {_middle(outcomes, 'R3c'):.1f}), "
        f"not for L = 32 ({_middle(outcomes, 'R3c', 'control'):.1f})"
    )
    caption = (
        "Share of 64 random starts (gains of deviation 0.1) whose loss is below 0.2 nats, over updates; one line per seed. "
        "Spread: 90th percentile of the updates over the 10th."
    )
    lines = _all(outcomes, {"starts.L = 8": "L = N = 8", "starts.L = 32": "L = 32"})
    return Chart(title, "updates", "share of starts", lines, log_x=True, caption=caption)


def _slides(outcomes: Sequence[Outcome]) -> tuple[Slides, ...]:
    """Patterns of the first seed."""
    titles = {
        "layer 1": "Labels come to look at their own items in layer 1 (l1 at x1, l2 at x2, ...)",
        "layer 2": "The query comes to look at the right label in layer 2 (here always l2)",
    }
    caption = (
        "Mean attention over rows whose query is of the second item's class, at checkpoints of the free run of the first "
        "random seed: from each position (down) to those before it (across)."
    )
    kept = outcomes[0].slides if outcomes else {}
    return tuple(replace(kept[key], title=title, caption=caption) for key, title in titles.items() if key in kept)
