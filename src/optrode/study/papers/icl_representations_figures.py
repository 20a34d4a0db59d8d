"""The figures of learning with representations in context."""

from collections.abc import Sequence
from math import isfinite, nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line
from optrode.study.study import Outcome

_NOTHING: Final = {"nothing predicted": 1.0}


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    return Figures((_risk(outcomes), _depth(outcomes), _pasted(outcomes), _by_point(outcomes), _learnt(outcomes)))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    found = [getattr(one.measured[key], part) for one in outcomes if key in one.measured]
    known = [value for value in found if value is not None and isfinite(value)]
    return median(known) if known else nan


def _all(outcomes: Sequence[Outcome], *names: str) -> tuple[Line, ...]:
    return tuple(one.lines[name] for name in names for one in outcomes if name in one.lines)


def _risk(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The network misses {_middle(outcomes, 'I1'):.0%} of what ridge regression on Phi(x) predicts, the best linear "
        f"regression on x {_middle(outcomes, 'I1', 'control'):.0%}"
    )
    caption = (
        "Squared error of the next label against the number of examples before it, mean over 600 rows, one line per "
        "random seed, each with a representation Phi of its own. Dashed: what regression with and without the "
        "representation reaches. The shares are those of the later half of the points."
    )
    lines = _all(outcomes, "risk.network", "risk.phi", "risk.x")
    return Chart(title, "examples before", "mean squared error (variance of y: 1)", lines, log_y=True, caption=caption)


def _depth(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The representation can be read first (R^2 {_middle(outcomes, 'I2'):.2f}), the regression's prediction "
        f"{_middle(outcomes, 'I4'):.1f} blocks later"
    )
    caption = (
        "Share of variance that a linear probe explains, on rows that it was not fitted on, after the embedding (0) and "
        "after each block, one line per random seed. Phi(x) at y: the features of the point before, copied to its label's "
        "token. Dashed: controls."
    )
    shown = ("Phi(x) at x", "Phi(x) at y", "x at y", "ridge prediction at x")
    controls = ("Phi(x) at x, untrained", "fixed readout of Phi(x) at x", "next Phi(x) at y")
    lines = _all(outcomes, *(f"probe.{name}" for name in shown))
    dashed = tuple(Line(one.name, one.x, one.y, dashed=True) for one in _all(outcomes, *(f"probe.{n}" for n in controls)))
    return Chart(title, "blocks", "R^2 of a linear probe", (*lines, *dashed), caption=caption)


WINDOWS: Final = ("blocks 1 to 3", "blocks 2 to 4", "blocks 3 to 5")
ARMS: Final = (*WINDOWS, "random", "other random")


def _pasted(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"On plain linear regression, the upper three blocks miss {_middle(outcomes, 'I5'):.0%}, the lower three "
        f"{_middle(outcomes, 'I6'):.1f} times as much, random ones {_middle(outcomes, 'I5', 'control'):.0%}"
    )
    caption = (
        "Share of the predictable variance at later points that is missed by three frozen blocks between a new linear "
        "embedding and a new readout, both trained on linear regression; by which blocks of the network they are (0: the "
        "first three, 2: the last three), one line per random seed. Dashed: blocks of an untrained network."
    )
    lines = _all(outcomes, "windows", "windows.random")
    return Chart(title, "blocks left out below", "share missed", lines, levels=_NOTHING, caption=caption)


def _by_point(outcomes: Sequence[Outcome]) -> Chart:
    title = f"Pasted upper blocks come to within {_middle(outcomes, 'I5'):.0%} of ridge regression as examples come in"
    caption = (
        "Squared error of the next label of plain linear regression against the number of examples before, one line per "
        "random seed and window of pasted blocks."
    )
    lines = _all(outcomes, *(f"pasted.{name}" for name in (WINDOWS[0], WINDOWS[-1], "random", "ridge")))
    return Chart(title, "examples before", "mean squared error (variance of y: 1)", lines, log_y=True, caption=caption)


def _learnt(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Around upper blocks linear regression is learnt {_middle(outcomes, 'I7'):.1f} times sooner than around random "
        f"ones; random ones differ by {_middle(outcomes, 'I7', 'control'):.1f} times"
    )
    caption = (
        "Share of the predictable variance at later points that is missed, over training; one line per random seed. The "
        "network learns regression on Phi(x) from scratch; around pasted blocks only embedding and readout learn, on plain "
        "linear regression."
    )
    lines = _all(outcomes, "missed.free", *(f"missed.{name}" for name in ARMS))
    return Chart(title, "training steps", "share missed", lines, levels=_NOTHING, caption=caption)
