"""Papers, what they claim, what was measured of it here, and the figures: plain records that pages and tables are made of.

A claim is one number with bounds, and a control with bounds of its own: what should not show the effect. Its verdict follows
from the medians over random seeds, never from a choice made afterwards.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from optrode.provenance import Provenance

Verdict = Literal["holds", "holds in part", "not at this size", "not measured"]
VERDICTS: Final[tuple[Verdict, ...]] = ("holds", "holds in part", "not at this size", "not measured")
LEAST_SEEDS: Final = 3

Source = Literal["code", "paper", "abstract", "third party", "recalled", "pilot", "own"]
"""Where an expected value is from: the paper's code or text, somebody's account of it, memory, a pilot, or ourselves."""


@final
@dataclass(frozen=True)
class Paper:
    """A published paper.

    Attributes:
        title, authors, year: as cited; authors like "Singh et al.".
        link: arXiv id or DOI, like "arXiv 2404.07129".
    """

    title: str
    authors: str
    year: int
    link: str


@final
@dataclass(frozen=True)
class Bounds:
    """Between which a value must lie, inclusive; None leaves a side open."""

    low: float | int | None = None
    high: float | int | None = None

    def __post_init__(self) -> None:
        for side in ("low", "high"):
            end = getattr(self, side)
            object.__setattr__(self, side, None if end is None else float(end))

    def holds(self, value: float | int) -> bool:
        """Whether a finite value lies within."""
        inside = (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        return math.isfinite(value) and inside

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return "any" if self.high is None else f"at most {self.high:g}"


@final
@dataclass(frozen=True)
class Claim:
    """One measurable sentence of a paper.

    Attributes:
        key: short and stable, "S1".
        place: in the paper, "Fig. 5b".
        says: the sentence, in our words.
        measures: what is measured here, with its unit.
        expected: what the value must be for the claim to hold.
        control: what is measured beside it, that must not show the effect.
        control_expected: what the control's value must be.
        source: where the expected value is from.
        in_part: a wider range, in which the claim holds in part; None for none.
    """

    key: str
    place: str
    says: str
    measures: str
    expected: Bounds
    control: str
    control_expected: Bounds
    source: Source
    in_part: Bounds | None = None


@final
@dataclass(frozen=True)
class Measured:
    """A claim's value, and its control's, of one random seed. NaN or None where it could not be measured."""

    value: float | int | None
    control: float | int | None


@final
@dataclass(frozen=True)
class Finding:
    """A claim's measurements over random seeds, and its verdict.

    Attributes:
        claim: key of the claim.
        values, controls: by seed; a value that could not be measured is None.
        median, low, high: of the values: the middle one, and the range.
        control_median, control_low, control_high: of the controls.
        verdict: see `judge`.
    """

    claim: str
    values: tuple[float | None, ...]
    controls: tuple[float | None, ...]
    median: float | None
    low: float | None
    high: float | None
    control_median: float | None
    control_low: float | None
    control_high: float | None
    verdict: Verdict


def find(claim: Claim, measured: Sequence[Measured]) -> Finding:
    """What came of a claim over random seeds."""
    values, controls = [_finite(one.value) for one in measured], [_finite(one.control) for one in measured]
    return Finding(
        claim.key, tuple(values), tuple(controls), *_spread(values), *_spread(controls), judge(claim, values, controls)
    )  # fmt: skip


def judge(claim: Claim, values: Sequence[float | None], controls: Sequence[float | None]) -> Verdict:
    """The verdict on a claim.

    *Holds*: the medians of value and control over at least three seeds lie within their bounds. *Holds in part*: the value's
    median does and the control's does not, or the value's lies within the wider bounds and the control's holds.
    *Not measured*: fewer than three seeds gave a value. Else *not at this size*.
    """
    known = [(v, c) for v, c in zip(values, controls, strict=True) if v is not None]
    if len(known) < LEAST_SEEDS:
        return "not measured"
    value = statistics.median(v for v, _ in known)
    control = _spread([c for _, c in known])[0]
    has_control = control is not None and claim.control_expected.holds(control)
    if claim.expected.holds(value):
        return "holds" if has_control else "holds in part"
    is_near = claim.in_part is not None and claim.in_part.holds(value)
    return "holds in part" if is_near and has_control else "not at this size"


def _finite(value: float | int | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _spread(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Median, least, greatest."""
    known = [value for value in values if value is not None]
    return (statistics.median(known), min(known), max(known)) if known else (None, None, None)


@final
@dataclass(frozen=True)
class Line:
    """One line of a chart: values over x, by random seed or not, with an optional band.

    Attributes:
        name: in the legend; lines of one name in one chart have one colour, seeds of a condition, say.
        x, y: points.
        low, high: a band around y; empty for none.
        dashed: drawn dashed: a prediction, or a control.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    dashed: bool = False


@final
@dataclass(frozen=True)
class Chart:
    """A figure of lines, points or bars.

    Attributes:
        title: what it shows, as a sentence: the outcome first.
        x, y: axis titles with units.
        lines: see `Line`.
        kind: "line", "points", or "bars" (x of a bar is its place among `labels`).
        labels: of the bars.
        log_x, log_y: logarithmic axes.
        marks: vertical lines: label -> x.
        levels: horizontal lines: label -> y.
        caption: how to read it, and what it is of.
    """

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    kind: Literal["line", "points", "bars"] = "line"
    labels: tuple[str, ...] = ()
    log_x: bool = False
    log_y: bool = False
    marks: Mapping[str, float] | None = None
    levels: Mapping[str, float] | None = None
    caption: str = ""


@final
@dataclass(frozen=True)
class Map:
    """A figure of cells.

    Attributes:
        title: what it shows, as a sentence.
        down, across: axis titles.
        rows, columns: labels.
        cells: [row][column] values; None where there is none.
        unit: of the values.
        is_signed: zero is the middle of the colours.
        caption: how to read it.
    """

    title: str
    down: str
    across: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    unit: str = ""
    is_signed: bool = False
    caption: str = ""


@final
@dataclass(frozen=True)
class Slides:
    """Maps of the same cells at several steps, with a slider between them: attention patterns at checkpoints, say."""

    title: str
    slider: str
    steps: tuple[str, ...]
    maps: tuple[Map, ...]
    caption: str = ""


@final
@dataclass(frozen=True)
class StudyRun:
    """A study, measured: what its page and the ledger are made of.

    Attributes:
        slug: of the study.
        paper: that it rebuilds.
        question: the paper's central one, in a sentence.
        profile: "measured", or "quick" for a trial of the machinery, whose verdicts mean nothing.
        claims, findings: in the same order.
        differences: from the paper, known beforehand.
        notes: said by the runs.
        random_seeds: of the runs.
        time_s: processor seconds of all runs together.
        commit: of the code, or "unknown".
        provenance: versions, machine, command, date.
    """

    slug: str
    paper: Paper
    question: str
    profile: str
    claims: tuple[Claim, ...]
    findings: tuple[Finding, ...]
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    random_seeds: tuple[int, ...]
    time_s: float
    commit: str
    provenance: Provenance


@final
@dataclass(frozen=True)
class Figures:
    """The figures of a study run, in the order of its page."""

    charts: tuple[Chart, ...] = ()
    maps: tuple[Map, ...] = ()
    slides: tuple[Slides, ...] = ()
