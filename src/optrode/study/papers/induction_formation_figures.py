"""The figures of the formation of induction circuits: the paper's main ones, rebuilt."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan, log, nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line, Map, Slides
from optrode.study.study import Outcome

SEEN: Final = "sequences seen in training"
LOSS: Final = "loss at the query, nats"
LEVELS: Final[Mapping[str, float]] = {"ln 2": log(2), ".4 ln 2": 0.4 * log(2)}
CLAMPS: Final = ("free", "previous token", "layer 1", "copy", "match", "layer 1 + copy")
PATHS: Final = ("PT, patterns", "PT, values", "rest, patterns", "rest, values")
N_HEADS: Final = 8


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    charts = (
        _clamps(outcomes), _free(outcomes), _strengths(outcomes), _progress(outcomes), _ladder(outcomes), _single(outcomes),
        _paths(outcomes), _alternatives(outcomes), _data(outcomes, "classes"), _data(outcomes, "labels"), _anti(outcomes),
        _grafts(outcomes), _toy(outcomes),
    )  # fmt: skip
    return Figures((*charts, *_characters(outcomes)), _wiring(outcomes), _patterns(outcomes))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    """Median over seeds of a claim's value or control."""
    found = [getattr(one.measured[key], part) for one in outcomes if key in one.measured]
    known = [value for value in found if value is not None and not isnan(value)]
    return median(known) if known else nan


def _all(outcomes: Sequence[Outcome], names: Mapping[str, str]) -> tuple[Line, ...]:
    """Lines of these keys, of all seeds, under these names."""
    return tuple(replace(one.lines[key], name=name) for key, name in names.items() for one in outcomes if key in one.lines)


def _first(outcomes: Sequence[Outcome]) -> str:
    return f"Random seed {outcomes[0].random_seed}."


def _ends(outcomes: Sequence[Outcome], key: str) -> float:
    """Median over seeds of the last x of a curve that ended at the threshold."""
    known = [one.lines[key].x[-1] for one in outcomes if key in one.lines]
    return median(known) if known else nan


def _clamps(outcomes: Sequence[Outcome]) -> Chart:
    free, match = _ends(outcomes, "clamp free"), _ends(outcomes, "clamp match")
    title = (
        f"Clamped parts let the rest form sooner: with matching held the loss is down after {match:,.0f} sequences, with "
        f"nothing held after {free:,.0f}"
    )
    caption = (
        "One head of layer 2, one line per random seed, each until its loss is below 0.2. Held throughout training: the "
        "previous-token pattern of one head (step 1), layer 1 (A), matching (A and B), copying (C), layer 1 and copying (A "
        "and C). The free run and the first of these wait longest near ln 2, the loss of guessing between the labels."
    )
    names = {f"clamp {name}": name for name in CLAMPS}
    return Chart(title, SEEN, LOSS, _all(outcomes, names), log_x=True, levels=LEVELS, caption=caption)


def _free(outcomes: Sequence[Outcome]) -> Chart:
    at, unseen = _middle(outcomes, "S1"), _middle(outcomes, "S2")
    title = f"In-context learning appears at {at:,.0f} sequences; on label pairs left out the loss ends at {unseen:.2g}"
    caption = (
        "All heads of layer 2, nothing held; one line per random seed. Pairs left out never stand together in training."
    )
    names = {"free seen": "label pairs of training", "free unseen": "label pairs left out"}
    marks = {} if isnan(at) else {"below .4 ln 2": at}
    return Chart(title, SEEN, LOSS, _all(outcomes, names), levels=LEVELS, marks=marks, caption=caption)


def _strengths(outcomes: Sequence[Outcome]) -> Chart:
    n = _middle(outcomes, "S3")
    title = f"Induction strengths rise together: {n:.0f} of 8 heads of layer 2, in the middle seed"
    names = {f"strength {head}": f"head {head}" for head in range(N_HEADS)}
    caption = f"{_first(outcomes)} Attention from the query to the right label minus that to the wrong one."
    return Chart(title, SEEN, "induction strength", _all(outcomes[:1], names), caption=caption)


def _progress(outcomes: Sequence[Outcome]) -> Chart:
    value, control = _middle(outcomes, "S11"), _middle(outcomes, "S11", "control")
    title = (
        f"A clamp is not a progress measure: when matching held in training has brought the loss to {control:.2f}, the free "
        f"network with matching held at evaluation is at {value:.2f}"
    )
    names = {f"{when} {part}": part for part in ("match", "copy", "layer 1") for when in ("clamp", "progress")}
    caption = (
        "Full lines: networks that train with the clamp. Dashed: the free network, measured with the same clamp put on for "
        "the measurement. What a network would do with a perfect part says little of how soon it learns the rest with it."
    )
    return Chart(title, SEEN, LOSS, _all(outcomes, names), log_x=True, levels=LEVELS, caption=caption)


def _ladder(outcomes: Sequence[Outcome]) -> Chart:
    cost = _middle(outcomes, "S4")
    title = f"Heads of layer 2 add up, and no single one is needed: the largest loss of accuracy is {100 * cost:.1f} points"
    names = {"ladder": "with layer 1", "ladder silent": "layer 1 silent"}
    caption = (
        "Heads join in the order of their induction strength, one line per random seed. Dashed: the same without layer 1."
    )
    return Chart(title, "heads of layer 2 that are not silent", LOSS, _all(outcomes, names), log_y=True, caption=caption)


def _single(outcomes: Sequence[Outcome]) -> Chart:
    n = _middle(outcomes, "S7")
    title = f"{n:.0f} of 8 heads of layer 2 learn the task alone, each in its own time"
    names = {f"alone {head}": f"head {head}" for head in range(N_HEADS)} | {"none": "no head"}
    caption = f"{_first(outcomes)} The other heads of layer 2 are silent throughout; dashed, all are."
    return Chart(title, SEEN, LOSS, _all(outcomes[:1], names), levels=LEVELS, caption=caption)


def _paths(outcomes: Sequence[Outcome]) -> Chart:
    value = _middle(outcomes, "S5")
    title = f"Previous-token heads act through keys, the others through values: {100 * value:.0f} points of accuracy apart"
    lines = tuple(replace(one.lines["paths"], name=f"seed {one.random_seed}") for one in outcomes if "paths" in one.lines)
    caption = (
        "Table 1 of the paper: accuracy with these heads of layer 1 silent. Patterns kept: what silence does through the "
        "values of layer 2; values kept: through its queries and keys. PT, previous-token heads, are those that give the "
        "item before more than half of a label's attention."
    )
    x = "silent in layer 1, and what layer 2 keeps"
    return Chart(title, x, "accuracy", lines, kind="bars", labels=PATHS, caption=caption)


def _alternatives(outcomes: Sequence[Outcome]) -> Chart:
    every, other = _middle(outcomes, "S10"), _middle(outcomes, "S10", "control")
    wrong = _middle(outcomes, "S8", "control")
    title = (
        f"Previous-token patterns held in all heads take {every:.2f} times as long as in one, in another head {other:.2f}; "
        f"a wrong pattern takes {wrong:.2f} times as long as none"
    )
    names = {"clamp free": "none", "clamp previous token": "one head", "clamp another head": "another head"}
    names |= {"clamp all heads": "all heads", "clamp two tokens back": "one head, two tokens back"}
    caption = "Heads of layer 1 held at the previous-token pattern; one head of layer 2, one line per random seed."
    return Chart(title, SEEN, LOSS, _all(outcomes, names), levels=LEVELS, caption=caption)


def _data(outcomes: Sequence[Outcome], what: str) -> Chart:
    slow, fast = ("B (matching)", "C") if what == "classes" else ("C (copying)", "B")
    slower, same = _growth(outcomes, slow[0], what), _growth(outcomes, fast, what)
    title = f"More {what} slow {slow} by {slower:.1f} times, and {fast} by {same:.1f}"
    names = {f"B {what}": "B left: layer 1 and copying held", f"C {what}": "C left: matching held"}
    caption = "Sequences until the loss is below .4 ln 2; one line per random seed."
    return Chart(title, what, "sequences", _all(outcomes, names), log_y=True, caption=caption)


def _growth(outcomes: Sequence[Outcome], part: str, what: str) -> float:
    """Sequences at the most classes or labels over those at the fewest, median over seeds."""
    lines = [one.lines[f"{part} {what}"] for one in outcomes if f"{part} {what}" in one.lines]
    return median(line.y[-1] / line.y[0] for line in lines) if lines else nan


def _anti(outcomes: Sequence[Outcome]) -> Chart:
    value, control = _middle(outcomes, "S12"), _middle(outcomes, "S12", "control")
    title = (
        f"A head that attends to the wrong label fits pairs of training; on others its loss is {value:.2f} nats, that of "
        f"one that attends to the right label {control:.2f}"
    )
    names = {f"{name} {part}": name for name in ("anti-induction head", "induction head") for part in ("seen", "unseen")}
    caption = (
        "Attention of the one head of layer 2 held at the wrong label, or at the right one; one line per random seed. Full "
        "lines: label pairs of training; dashed: pairs left out."
    )
    return Chart(title, SEEN, LOSS, _all(outcomes, names), levels=LEVELS, caption=caption)


def _grafts(outcomes: Sequence[Outcome]) -> Chart:
    value, control = _middle(outcomes, "S17"), _middle(outcomes, "S17", "control")
    title = (
        f"A trained layer 1 of another seed lets layer 2 learn in {value:.2f} of the time of a free network, an untrained "
        f"one in {control:.2f} or more"
    )
    names = {f"graft {name}": name for name in ("its own seed's", "another seed's", "an untrained")}
    caption = "Layer 1, frozen, is grafted below a fresh layer 2 with all its heads; one line per random seed."
    return Chart(title, SEEN, LOSS, _all(outcomes, names), log_x=True, levels=LEVELS, caption=caption)


def _toy(outcomes: Sequence[Outcome]) -> Chart:
    ratio = _middle(outcomes, "S14")
    title = f"Three factors wait for each other: with two held at the truth the third learns {ratio:.1f} times as fast"
    names = {f"toy {name}": name for name in ("none", "c", "b and c", "b and c, wrong")}
    caption = "Outer product of three vectors, gradient descent; which factors are held. The first draw of each random seed."
    return Chart(title, "steps", "loss, share of the first", _all(outcomes, names), caption=caption)


def _characters(outcomes: Sequence[Outcome]) -> tuple[Chart, ...]:
    lines = _all(outcomes, {"characters": "handwritten characters"}) + _all(outcomes, {"free seen": "random directions"})
    if not any(line.name == "handwritten characters" for line in lines):
        return ()
    right = _middle(outcomes, "S19")
    title = f"On handwritten characters the same phase change comes, and new ones are looked up ({right:.2f} right)"
    return (Chart(title, SEEN, LOSS, lines, levels=LEVELS, caption="Nothing held; one line per random seed."),)


def _wiring(outcomes: Sequence[Outcome]) -> tuple[Map, ...]:
    """Which heads of layer 1 serve which of layer 2, of the first seed."""
    n, found = _middle(outcomes, "S6"), []
    for path, other in (("key", "values"), ("value", "queries and keys")):
        if f"wiring {path}" in outcomes[0].maps:
            how = "many to many" if n > 1 else "not many to many"
            title = f"Heads of layer 1 are wired to heads of layer 2 {how} through {path}s"
            caption = (
                f"{_first(outcomes)} Accuracy with one head of layer 2 and one of layer 1, while {other} of layer 2 are as "
                "with all of layer 1. Guessing between the labels in context gives .5."
            )
            found.append(replace(outcomes[0].maps[f"wiring {path}"], title=title, caption=caption))
    return tuple(found)


def _patterns(outcomes: Sequence[Outcome]) -> tuple[Slides, ...]:
    shown = outcomes[0].slides.get("patterns")
    if shown is None:
        return ()
    caption = (
        f"{_first(outcomes)} Each small map is a head, four to a row: from a token down, to a token across. Mean over "
        "sequences whose query is of the first class, so that an induction head of L2 looks from q to l1. Previous-token "
        "heads of L1 look from a label to the item before it."
    )
    title = "Attention of all heads while the circuit forms: step through the phase change"
    return (replace(shown, title=title, caption=caption),)
