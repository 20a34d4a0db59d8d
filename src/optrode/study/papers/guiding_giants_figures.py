"""The figures of guiding giants."""

from collections.abc import Sequence
from math import nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line
from optrode.study.study import Outcome

ARMS: Final = ("controller", "one weight", "probe", "probe, tuned", "always on", "at random", "published")


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    return Figures((_effect(outcomes), _objective(outcomes), _weights(outcomes), _opening(outcomes)))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    known = [found for one in outcomes if (found := getattr(one.measured[key], part)) is not None]
    return median(known) if known else nan


def _all(outcomes: Sequence[Outcome], *keys: str) -> tuple[Line, ...]:
    return tuple(one.lines[key] for key in keys for one in outcomes)


def _effect(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The controller keeps {_middle(outcomes, 'W4'):.0%} of the effect of steering always, at a harm of "
        f"{_middle(outcomes, 'W3'):.3f} nats instead of {_middle(outcomes, 'W3', 'control'):.2f}"
    )
    caption = (
        "Requests with the trigger that are refused, over the divergence from the plain network after requests without it; "
        "one point per random seed. All at one dose. One weight: a controller that steers every layer alike. At random: "
        "gates as far open as the controller's, in other rows. Published: the recipe of the paper's code."
    )
    points = _all(outcomes, *(f"arm.{name}" for name in ARMS))
    return Chart(title, "KL after other requests, nats", "refused", points, "points", caption=caption)


def _objective(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"One weight for all layers changes the objective by {_middle(outcomes, 'W5'):+.0%}, a probe in place of the "
        f"controller by {_middle(outcomes, 'W10'):+.0%}"
    )
    caption = (
        "Cross-entropy of refusing triggers, plus harm, plus a tenth of how open gates are, nats; medians over random "
        "seeds. Two of four directions are random. The tuned probe opens each layer as far as the controller does on the "
        "average trigger."
    )
    values = tuple(median(one.lines[f"total.{name}"].y[0] for one in outcomes) for name in ARMS)
    bars = Line("objective", tuple(float(ix) for ix in range(len(ARMS))), values)
    return Chart(title, "", "objective, nats", (bars,), "bars", ARMS, caption=caption)


def _weights(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Learned weights of layers with the right direction are {_middle(outcomes, 'W6'):+.2f} above those with a random "
        f"one; by the published loss {_middle(outcomes, 'W6', 'control'):+.2f}"
    )
    caption = "Mean weight over requests with the trigger; one line per random seed. Dashed: 1 where the direction is right."
    lines = _all(outcomes, "weights.ours", "weights.published", "weights.right")
    return Chart(title, "layer", "weight", lines, caption=caption)


def _opening(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The controller is {_middle(outcomes, 'W2'):.2f} open where the trigger is, and "
        f"{_middle(outcomes, 'W2', 'control'):.2f} where not"
    )
    caption = "Mean amount s on held-out requests over epochs of training; one line per random seed."
    return Chart(title, "epoch", "amount s", _all(outcomes, "open.trigger", "open.others"), caption=caption)
