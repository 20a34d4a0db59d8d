"""The figures of the study of RNNs that emulate hidden Markov models, rebuilt."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.study import Outcome


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """Training, the orbit, the radius, zones, gates and wiring."""
    first = outcomes[0]
    charts = (_loss(outcomes), _onset(outcomes), _orbit(first), _radius(outcomes), _zones(outcomes), _gates(outcomes))
    return Figures(charts, (_wiring(first),))


def _all(outcomes: Sequence[Outcome], key: str) -> tuple[Line, ...]:
    return tuple(one.lines[key] for one in outcomes)


def _value(outcomes: Sequence[Outcome], claim: str) -> float:
    """Median over random seeds; NaN where it could not be measured."""
    known = [value for one in outcomes if (value := one.measured[claim].value) is not None and math.isfinite(value)]
    return median(known) if known else math.nan


def _loss(outcomes: Sequence[Outcome]) -> Chart:
    own, memoryless = (median(one.lines["levels"].y[ix] for one in outcomes) for ix in (0, 1))
    has_learnt = median(one.lines["loss"].y[-1] for one in outcomes) < (own + memoryless) / 2
    end = "then to the model itself" if has_learnt else "and stays there"
    return Chart(
        f"The loss falls to the best that a generator without memory can do, {end}.",
        "training step", "Sinkhorn divergence (squared distance / 2)", _all(outcomes, "loss"), log_x=True,
        levels={"the model itself": own, "memoryless": memoryless},
        caption="Each line is one random seed. Levels: the same divergence for sequences drawn from the hidden Markov "
        "model, and for symbols drawn one by one with its frequencies.",
    )  # fmt: skip


def _onset(outcomes: Sequence[Outcome]) -> Chart:
    ratio = _value(outcomes, "H11")
    return Chart(
        f"Unstable directions appear at {ratio:.2g} times the step of the second drop.",
        "training step", "share of states with an eigenvalue above 1", _all(outcomes, "unstable"), log_x=True,
        caption="Share of the states of the noise-driven network at which some difference grows. Compare with the loss.",
    )  # fmt: skip


def _orbit(first: Outcome) -> Chart:
    turned = _value((first,), "H4")
    return Chart(
        f"With noise the state goes round ({turned:.2g} turns for each two switches); without, it falls to one point.",
        "first principal component of the states", "second principal component",
        (first.lines["noisy"], first.lines["still"]),
        caption="The network of the first random seed, 150 steps with noise and 120 without, in the plane in which its "
        "states vary most.",
    )  # fmt: skip


def _radius(outcomes: Sequence[Outcome]) -> Chart:
    return Chart(
        f"The orbit's radius is proportional to the noise (exponent within {_value(outcomes, 'H5'):.1g} of 1).",
        "standard deviation of the input", "radius (root mean square)", _all(outcomes, "radius"), log_x=True, log_y=True,
        caption="A slope of 1 in both logarithms. It follows from homogeneity alone and says nothing of what was learnt.",
    )  # fmt: skip


def _zones(outcomes: Sequence[Outcome]) -> Chart:
    names = ("cluster", "kick", "transition")
    lines = tuple(replace(line, name=name) for name in names for line in _all(outcomes, f"zone.{name}"))
    gap = _value(outcomes, "H7")
    return Chart(
        f"Unstable directions are {_size(gap)} in kick zones than in clusters (shares differ by {gap:.2f}).",
        "residency (mean steps until the choice changes)", "largest real rate (l - 1) / (l + 1)", lines, "points",
        levels={"unstable above": 0.0},
        caption="One point a state, of all random seeds; l: eigenvalues of the Jacobian there. Above 0 a difference grows.",
    )  # fmt: skip


def _size(gap: float) -> str:
    return "much more common" if gap >= 0.5 else "somewhat more common" if gap >= 0.15 else "hardly more common"


def _gates(outcomes: Sequence[Outcome]) -> Chart:
    held = _value(outcomes, "H8")
    return Chart(
        f"With three kick units of a side silenced the network makes {held:.0%} of its crossings.",
        "gate held on the hidden state", "crossings between sides in 100 steps", _all(outcomes, "rates"), "bars",
        labels=("free", "kick units at 0", "three others at 0"),
        caption="Bars of one colour are random seeds. The others: the median of ten random sets. Kick units are chosen by "
        "what they add to the noise-free push, without looking at any silencing.",
    )  # fmt: skip


def _wiring(first: Outcome) -> Map:
    value = _value((first,), "H10")
    title = f"Weights within the two groups of kick units exceed those between them by {value:.2g} standard deviations."
    caption = "Recurrent weights among kick units of the first random seed: A push from the first side to the other, C back."
    return replace(first.maps["wiring"], title=title, caption=caption)
