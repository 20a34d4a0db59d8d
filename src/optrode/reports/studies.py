"""A study's page: what was asked and what came of it, every claim with its numbers, the figures, and what differs."""

from collections import Counter
from typing import Any, Final

from optrode.claims import VERDICTS, Bounds, Chart, Claim, Figures, Finding, StudyRun, Verdict
from optrode.reports.blocks import code, facts, heading, paragraph, plot, text
from optrode.reports.charts import HEIGHT, chart_figure, chart_numbers
from optrode.reports.figures import Figure
from optrode.reports.parts import Parts
from optrode.reports.section import Section
from optrode.reports.slides import Drawn, map_block, slides_block
from optrode.reports.strips import strip
from optrode.reports.words import capital, count, short

LOOKS: Final[dict[Verdict, tuple[str, str]]] = {
    "holds": ("holds", "✓"), "holds in part": ("part", "◐"), "not at this size": ("fails", "✕"),
    "not measured": ("open", "–"),
}  # fmt: skip
"""Verdict -> class of its colour, and its sign."""

SHORT_WORDS: Final[dict[Verdict, str]] = {
    "holds": "hold", "holds in part": "in part", "not at this size": "not at this size", "not measured": "not measured",
}  # fmt: skip
SOURCES: Final = {
    "own": "expected by us", "recalled": "recalled", "pilot": "from a pilot", "third party": "from a third party's account",
}  # fmt: skip
FEW_SEEDS: Final = 6
COLUMNS: Final = ("claim", "the paper says", "measured here", "expected", "median over seeds", "control", "verdict")
QUICK: Final = "Quick profile: a trial of the machinery at a few steps. Its numbers and verdicts mean nothing."
HOW: Final = (
    "A claim holds when the median over at least three random seeds lies in the expected range, and the control's in its "
    "own. In the drawings, filled dots are the values of the seeds, hollow dots those of the control, and bands the ranges."
)


def study_title(study: StudyRun) -> str:
    """The paper's title."""
    return study.paper.title


def outcome(study: StudyRun) -> str:
    """What came of the claims, in one sentence: "5 of 8 claims hold, 2 in part, 1 not at this size."."""
    n = len(study.claims)
    if not n:
        return "The study makes no claim."
    found = Counter(finding.verdict for finding in study.findings)
    held = found["holds"]
    start = f"{held or 'None'} of {count(n, 'claim')} {'holds' if held < 2 else 'hold'}"
    rest = [f"{found[verdict]} {SHORT_WORDS[verdict]}" for verdict in VERDICTS[1:] if found[verdict]]
    return ", ".join([start, *rest]) + "."


def study_lead(study: StudyRun, title: str) -> str:
    """Heading, paper, question, outcome, and key figures."""
    paper = study.paper
    own = "" if title == paper.title else f"{paper.title}. "
    cited = f"{own}{paper.authors}, {paper.year}, {paper.link}"
    is_trial = study.profile != "measured"
    warning = paragraph(QUICK, "warn") if is_trial else ""
    trial = f"A trial of {count(len(study.claims), 'claim')}: nothing is concluded from it."
    sentence = trial if is_trial else outcome(study)
    return (
        f'<header><p class="eyebrow">Optrode study · {text(study.slug)}</p><h1>{text(title)}</h1>'
        f'<p class="cited">{text(cited)}</p><p class="lede">{text(study.question)}</p>{warning}'
        f'<p class="headline">{text(sentence)}</p>{facts(_key_figures(study))}</header>'
    )


def _key_figures(study: StudyRun) -> list[tuple[str, str, str]]:
    found = Counter(finding.verdict for finding in study.findings)
    total = f"of {len(study.claims)}"
    shown = VERDICTS if study.profile == "measured" else ()
    counted = [(capital(SHORT_WORDS[verdict]), str(found[verdict]), total) for verdict in shown if found[verdict]]
    seeds = ", ".join(map(str, study.random_seeds))
    n_seeds = len(study.random_seeds)
    time = ("Processor time", duration(study.time_s), "all seeds together")
    return [*counted, ("Random seeds", str(n_seeds), seeds if n_seeds <= FEW_SEEDS else "listed below"), time]


def duration(seconds: float) -> str:
    """Seconds as they are said: "42 s", "5 min 12 s", "1 h 03 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{short(seconds)} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def study_sections(parts: Parts) -> tuple[Section, ...]:
    """Claims, figures, differences and notes; without a study, the figures alone."""
    found = [_claims(parts.study) if parts.study else None, _figures(parts.figures), _notes(parts.study)]
    return tuple(section for section in found if section is not None)


def _claims(study: StudyRun) -> Section | None:
    if not study.claims:
        return None
    head = "".join(f'<th scope="col" role="columnheader">{text(column)}</th>' for column in COLUMNS)
    is_trial = study.profile != "measured"
    rows = "".join(
        _row(claim, finding, is_trial) for claim, finding in zip(study.claims, study.findings, strict=True)
    )  # fmt: skip
    warning = paragraph(QUICK, "warn") if is_trial else ""
    inner = (
        '<table class="claims" role="table"><caption>Claims in the order of the study</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>'
    )
    region = 'class="scroller" tabindex="0" role="region" aria-label="Claims"'
    return Section("claims", "Claims", "Claims", f"{warning}{paragraph(HOW)}<div {region}>{inner}</div>")


def _row(claim: Claim, finding: Finding, is_trial: bool) -> str:
    low, high = finding.control_low, finding.control_high
    control = f"{text(claim.control)}<small>{_number(finding.control_median, low, high, finding.controls)}</small>"
    cells = (
        text(claim.says), text(claim.measures), f"{_bounds(claim.expected)}{_in_part(claim)}<small>{_source(claim)}</small>",
        f"{_median(finding)}{strip(claim, finding)}", f"{control}<small>expected: {_bounds(claim.control_expected)}</small>",
        verdict_html(finding.verdict, is_trial),
    )  # fmt: skip
    first = f'<th scope="row" role="rowheader">{text(claim.key)}<small>{text(claim.place)}</small></th>'
    rest = "".join(
        f'<td role="cell" data-column="{text(column)}">{cell}</td>' for column, cell in zip(COLUMNS[1:], cells, strict=True)
    )
    return f'<tr role="row">{first}{rest}</tr>'


def verdict_html(verdict: Verdict, is_trial: bool = False) -> str:
    """The verdict as a word with a sign and a colour; colourless where it means nothing."""
    kind, sign = LOOKS[verdict]
    look = "open" if is_trial else kind
    return f'<span class="verdict {look}"><span aria-hidden="true">{sign}</span> {text(verdict)}</span>'


def _bounds(bounds: Bounds) -> str:
    return text(str(bounds)).replace("-", "−")


def _in_part(claim: Claim) -> str:
    return f"<small>in part: {_bounds(claim.in_part)}</small>" if claim.in_part else ""


def _source(claim: Claim) -> str:
    return text(SOURCES.get(claim.source, f"from the {claim.source}"))


def _median(finding: Finding) -> str:
    if finding.median is None:
        return '<span class="muted">not measured</span>'
    spread = _number(None, finding.low, finding.high, finding.values)
    return f"<strong>{text(short(finding.median))}</strong><small>{spread}</small>"


def _number(
    median: float | None, low: float | None, high: float | None, values: tuple[float | None, ...]
) -> str:  # fmt: skip
    """A median, where one is given, with the range over seeds."""
    n = sum(value is not None for value in values)
    if low is None or high is None or not n:
        return "not measured"
    middle = "" if median is None else f"{short(median)}, "
    spread = f"{short(low)} to {short(high)}, " if n > 1 else ""
    seeds = count(n, "seed") if n == len(values) else f"{n} of {len(values)} seeds"
    return text(f"{middle}{spread}{seeds}")


def _figures(figures: Figures | None) -> Section | None:
    if figures is None or not (figures.charts or figures.maps or figures.slides):
        return None
    charts = [_chart(chart, f"chart-{ix}") for ix, chart in enumerate(figures.charts)]
    maps = [map_block(shown, f"map-{ix}") for ix, shown in enumerate(figures.maps)]
    slides = [slides_block(shown, f"slides-{ix}") for ix, shown in enumerate(figures.slides)]
    body = f'<div class="row charts">{_bodies(charts)}</div>' if charts else ""
    body += f'<div class="sweeps maps-of-study">{_bodies([*maps, *slides])}</div>' if maps or slides else ""
    drawn: dict[str, Figure] = {}
    moving: dict[str, Any] = {}
    for _, shown_figures, data in (*charts, *maps, *slides):
        drawn |= shown_figures
        moving |= data
    return Section("figures", "Figures", "Figures", body, drawn, {"slides": moving} if moving else {})


def _bodies(blocks: list[Drawn]) -> str:
    return "".join(body for body, _, _ in blocks)


def _chart(chart: Chart, key: str) -> Drawn:
    names = ", ".join(dict.fromkeys(line.name for line in chart.lines if line.name))
    label = f"{chart.title}. {chart.y} over {chart.x}" + (f" of {names}" if names else "")
    figure = plot(key, label, caption=chart.caption, height=HEIGHT)
    return f'<div class="cell">{heading(chart.title)}{figure}{chart_numbers(chart)}</div>', {key: chart_figure(chart)}, {}


def _notes(study: StudyRun | None) -> Section | None:
    if study is None or not (study.differences or study.notes):
        return None
    body = ""
    for title, lines in (("Differences from the paper", study.differences), ("Said by the runs", study.notes)):
        if lines:
            body += heading(title) + f'<ul class="said">{"".join(f"<li>{text(line)}</li>" for line in lines)}</ul>'
    return Section("notes", "Differences", "Differences and notes", body)


def study_source(study: StudyRun) -> str:
    """Seeds, commit, profile and time of a study, for the section on where numbers came from."""
    seeds = ", ".join(map(str, study.random_seeds))
    rows = (
        ("Random seeds", text(seeds)), ("Commit", code(study.commit)), ("Profile", text(study.profile)),
        ("Processor time", text(duration(study.time_s))), ("Machine", text(study.provenance.machine)),
        ("Date (UTC)", text(study.provenance.date.replace("T", " ").removesuffix("+00:00"))),
        ("Command", code(study.provenance.command)),
    )  # fmt: skip
    pairs = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<dl class="source-of-study">{pairs}</dl>'
