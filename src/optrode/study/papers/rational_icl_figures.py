"""The figures of in-context learning strategies."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan
from statistics import fmean, median

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.study import Outcome


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    charts = (_course(outcomes), _agreement(outcomes), _switch(outcomes), _others(outcomes))
    return Figures(charts, (_plane(outcomes, "relative"), _plane(outcomes, "predicted")))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    found = [getattr(one.measured[key], part) for one in outcomes if key in one.measured]
    known = [value for value in found if value is not None and isfinite(value)]
    return median(known) if known else nan


def _sets(outcomes: Sequence[Outcome]) -> list[int]:
    """Numbers of urns that networks were trained on."""
    found = {key.partition(".")[2] for one in outcomes for key in one.lines if key.startswith("relative.")}
    return sorted(int(name) for name in found)


def _all(outcomes: Sequence[Outcome], key: str) -> tuple[Line, ...]:
    return tuple(one.lines[key] for one in outcomes if key in one.lines)


def _course(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Where a network is between its two strategies is predicted to {_middle(outcomes, 'W1b'):.2f} by three parameters "
        f"that were fitted on other numbers of urns (a constant: {_middle(outcomes, 'W1b', 'control'):.2f})"
    )
    caption = (
        "Relative distance over training: 1 is the memorising predictor, which knows the set of urns, 0 the generalising "
        "one, which counts. Full lines: networks, one for each number of urns and random seed. Dashed: the posterior's "
        "weight, from the checkpoint on at which the network is near any mixture of the two, for the first random seed."
    )
    lines = [line for n in _sets(outcomes) for line in _all(outcomes, f"relative.{n}")]
    lines += [replace(line, name=f"{line.name}, predicted") for n in _sets(outcomes)
              for line in _all(outcomes[:1], f"predicted.{n}")]  # fmt: skip
    seen = tuple(_from_first(line) for line in lines)
    return Chart(title, "training steps", "weight of memorising", seen, log_x=True, levels={"even": 0.5}, caption=caption)


def _from_first(line: Line) -> Line:
    """A line without step 0, which a logarithmic axis has no place for."""
    kept = [(x, y) for x, y in zip(line.x, line.y, strict=True) if x > 0]
    return replace(line, x=tuple(x for x, _ in kept), y=tuple(y for _, y in kept))


def _agreement(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Predicted and measured weights correlate at {_middle(outcomes, 'W1a'):.3f}; given to the wrong sets, predictions "
        f"correlate at {_middle(outcomes, 'W1a', 'control'):.2f}"
    )
    caption = (
        "Each point is a network at a checkpoint. Across: the weight of the memorising predictor that is computed from the "
        "number of steps and the two strategies' losses and complexities, with parameters fitted on the other numbers of "
        "urns. Up: where the network is. On the dashed line they are the same."
    )
    lines = [line for n in _sets(outcomes) for line in _all(outcomes, f"pairs.{n}")]
    same = Line("the same", (0.0, 1.0), (0.0, 1.0), dashed=True)
    return Chart(title, "predicted weight", "relative distance", (*lines, same), kind="points", caption=caption)


def _switch(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"The switch to memorising comes later with more urns, with exponent {_middle(outcomes, 'W2a'):.2f} as computed and "
        f"{_middle(outcomes, 'W2b'):.2f} in training; from complexity alone {_middle(outcomes, 'W2a', 'control'):.2f}"
    )
    caption = (
        "Training step at which both strategies weigh the same, against the number of urns. Loss and complexity: computed "
        "for rows of 128 draws at the published initial guesses of the parameters; dashed, with the loss that memorising "
        "saves held at its value for 16 urns. Networks: where relative distance passes one half in our runs (32 draws, a "
        "faster optimiser: only slopes compare); dashed, where a network is first near any mixture of the two."
    )
    names = ("computed", "alone", "switched", "formed")
    lines = tuple(line for name in names for line in _all(outcomes, name))
    return Chart(title, "urns", "training steps", lines, log_x=True, log_y=True, caption=caption)


def _others(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Trained on 16 urns, a network loses {_middle(outcomes, 'W2c'):.0%} of the predictors' difference on others again; "
        f"with fresh urns {_middle(outcomes, 'W2c', 'control'):.0%}"
    )
    caption = (
        "Divergence from the truth on urns that were not trained on, over training. It falls while the network learns to "
        "count and rises as it comes to know its urns, the earlier the fewer they are; lines of one name are random seeds. "
        "Levels: the two predictors for 16 urns, first random seed."
    )
    lines = [line for n in [*_sets(outcomes), "fresh"] for line in _all(outcomes, f"others.{n}")]
    levels: Mapping[str, float] = {}
    if outcomes and "levels" in outcomes[0].lines:
        memory, law = outcomes[0].lines["levels"].y
        levels = {"memorising": memory, "generalising": law}
    shown = tuple(_from_first(line) for line in lines)
    return Chart(title, "training steps", "divergence, nats", shown, log_x=True, levels=levels, caption=caption)


def _plane(outcomes: Sequence[Outcome], kind: str) -> Map:
    """Mean weight over seeds, by number of urns and step."""
    sets = _sets(outcomes)
    steps = sorted({x for n in sets for line in _all(outcomes, f"relative.{n}") for x in line.x if x > 0})
    cells = tuple(tuple(_mean(outcomes, f"{kind}.{n}", step) for step in steps) for n in sets)
    title = {
        "relative": "Networks memorise few urns early, and many late or not at all",
        "predicted": "The posterior has the same border between generalising and memorising",
    }[kind]
    caption = {
        "relative": "Relative distance of networks, mean over random seeds: 1 memorises, 0 generalises.",
        "predicted": "Weight of memorising by the parameters fitted on the other rows, mean over random seeds.",
    }[kind]
    columns = tuple(f"{step:.0f}" for step in steps)
    return Map(title, "urns", "training steps", tuple(map(str, sets)), columns, cells, caption=caption)


def _mean(outcomes: Sequence[Outcome], key: str, step: float) -> float | None:
    found = [y for line in _all(outcomes, key) for x, y in zip(line.x, line.y, strict=True) if x == step]
    return fmean(found) if found else None
