"""The figures of massive activations."""

from collections.abc import Iterable, Sequence
from math import isfinite, nan
from statistics import median

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.study import Outcome


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    kinds = dict.fromkeys(line.name for _, line in _lines(outcomes, "sink/"))
    charts = (*(_growth(outcomes, kind) for kind in kinds), _beside(outcomes), _peaks(outcomes), *_sinks(outcomes))
    return Figures(charts, (_r2(outcomes),))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    found = [getattr(one.measured[key], part) for one in outcomes if key in one.measured]
    known = [value for value in found if value is not None and isfinite(value)]
    return median(known) if known else nan


def _lines(outcomes: Sequence[Outcome], start: str) -> list[tuple[str, Line]]:
    """(rest of the key, line) of all seeds."""
    return [(key[len(start) :], line) for one in outcomes for key, line in one.lines.items() if key.startswith(start)]


def _growth(outcomes: Sequence[Outcome], kind: str) -> Chart:
    fits = [line.y[0] for name, line in _lines(outcomes, f"fit/{kind}")]
    title = (
        f"{kind}: the largest activations grow to {_end(outcomes, kind):.0f} times the median, and one law of five "
        f"parameters fits their growth with R2 of {median(fits):.2f}"
    )
    shown = [line for start in ("ratio", "law") for _, line in _lines(outcomes[:1], f"{start}/{kind}")]
    caption = (
        "Largest over median size of the residual stream after each block, mean over 40 rows of unseen text, at every 40 "
        "steps of training, for the first random seed. Dashed, in the same colour: the law A e^(-lambda x) ln x + K, "
        "x = gamma t + t0, fitted to it. Activations are called massive from 1000 times the median."
    )
    return Chart(title, "training steps", "largest over median activation", tuple(shown), caption=caption)


def _sorted(names: Iterable[str]) -> list[str]:
    """Layers of Pythia's kind first, as in the paper."""
    return sorted(set(names), key=lambda name: (name.startswith("Llama"), name))


def _short(names: Sequence[str]) -> tuple[str, ...]:
    """Names of layers: "Pythia 0"."""
    return tuple(name.replace("'s kind, layer", "") for name in names)


def _end(outcomes: Sequence[Outcome], kind: str) -> float:
    return median(line.y[-1] for _, line in _lines(outcomes, f"ratio/{kind}"))


def _beside(outcomes: Sequence[Outcome]) -> Chart:
    found = _lines(outcomes, "fit/")
    names = _sorted(name for name, _ in found)
    by_name = {name: [line for other, line in found if other == name] for name in names}
    places = tuple(float(ix) for ix in range(len(names)))
    bars = tuple(
        Line(label, places, tuple(median(line.y[at] for line in by_name[name]) for name in names))
        for label, at in (("over step responses", 1), ("over a line and a logarithm", 2))
    )
    title = (
        f"By Akaike's criterion the law is {_middle(outcomes, 'M1b'):.1f} better than step responses, and "
        f"{_middle(outcomes, 'M1c'):.1f} better than a line or a logarithm"
    )
    caption = (
        "How far Akaike's criterion of the law lies below that of the better of two step responses, and of the better of a "
        "straight line and a logarithm without decay; median over random seeds. Above 0 the law is better; below 2 there is "
        f"little between them. Curves that the step response would have made give {_middle(outcomes, 'M1b', 'control'):.1f}."
    )
    axes = "layer", "difference of Akaike's criterion"
    return Chart(title, *axes, bars, kind="bars", labels=_short(names), caption=caption)


def _peaks(outcomes: Sequence[Outcome]) -> Chart:
    points = tuple(line for _, line in _lines(outcomes, "turn/"))
    last = max((max(*line.x, *line.y) for line in points), default=1.0)
    title = (
        f"{len(points)} of {len(_lines(outcomes, 'ratio/'))} fitted laws turn within the run, "
        f"{_middle(outcomes, 'M1e'):.2f} of its length from where the measured ratio does"
    )
    caption = (
        "Each point is a layer of one network and random seed whose fitted law peaks, or upside down is least, before the "
        "last step. Across: that step by the formula (e^W(1/lambda) - t0) / gamma. Up: the step at which the running median "
        "of five looks is largest, or least: looks are 40 steps apart. On the diagonal they are the same. "
        "Where all points are at the lower left, the ratio falls a little at first, and no law peaks."
    )
    diagonal = tuple(last * part / 20 for part in range(21))
    same = Line("the same", diagonal, diagonal)
    axes = "turn of the law (step)", "turn of the ratio (step)"
    return Chart(title, *axes, (*points, same), kind="points", caption=caption)


def _sinks(outcomes: Sequence[Outcome]) -> tuple[Chart, Chart]:
    first = Chart(
        f"The largest activation sits at the first token in {_middle(outcomes, 'M5'):.0%} of rows in the end",
        "training steps", "share of rows and layers", tuple(line for _, line in _lines(outcomes, "first/")),
        caption="Share of rows and layers in which the largest activation of the residual stream is at the first token, "
        "which is the same in all rows; one line for each random seed.",
    )  # fmt: skip
    sink = Chart(
        f"No strong attention sink forms: {_middle(outcomes, 'M6'):.2f} of the attention of the head that looks there most"
        if _middle(outcomes, "M6") < 0.5 else f"An attention sink forms, of {_middle(outcomes, 'M6'):.2f}",
        "training steps", "attention to the first token",
        tuple(line for _, line in _lines(outcomes, "sink/")), levels={"a sink": 0.5},
        caption="Mean attention to the first token from all later ones, of the head of the network that looks there most.",
    )  # fmt: skip
    return first, sink


def _r2(outcomes: Sequence[Outcome]) -> Map:
    found = [dict(_lines([one], "fit/")) for one in outcomes]
    names = _sorted(found[0])
    cells = tuple(tuple(by[name].y[0] for by in found) for name in names)
    return Map(
        f"The law fits with R2 of {_middle(outcomes, 'M1a'):.3f} on average (0.984 in the paper)", "layer", "random seed",
        _short(names), tuple(str(one.random_seed) for one in outcomes), cells, "R2",
        caption="R2 of the law for each layer and random seed. With steps shuffled, or without training, it is at most "
        f"{_middle(outcomes, 'M1a', 'control'):.2f} on average.",
    )  # fmt: skip
