"""The report: one HTML file that makes no request and that no text of a record can turn into a script."""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from optrode.errors import BadOption
from optrode.records import write_text
from optrode.reports.blocks import text
from optrode.reports.circuits import attention_section, circuit_section
from optrode.reports.edges.circuit import edge_circuit_section
from optrode.reports.edges.methods import method_sections
from optrode.reports.edges.proof import edge_proof_section
from optrode.reports.edges.scores import edge_scores_section
from optrode.reports.lead import lead_html, lead_of, title_of
from optrode.reports.maps import grids_section, scores_section, views_section
from optrode.reports.parts import Part, Parts, sort_parts
from optrode.reports.proofs import proof_section
from optrode.reports.section import Section
from optrode.reports.sources import provenance_section
from optrode.reports.steering import lead_of_control, steering_sections, title_of_control
from optrode.reports.steering_gates import gate_sections
from optrode.reports.studies import study_lead, study_sections, study_title
from optrode.reports.tasking import task_section
from optrode.reports.training import training_lead, training_sections, training_title
from optrode.reports.words import headline

FRAME_HEIGHT: Final = 640


@dataclass(frozen=True)
class Page:
    """A finished page.

    Attributes:
        title: of the window.
        lead: HTML above the sections: heading, headline, key figures.
        sections: in reading order.
        is_bare: a figure for a notebook, without headline and contents.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    is_bare: bool = False

    def html(self) -> str:
        """The whole page as text; the same records give the same text."""
        figures = {key: figure for section in self.sections for key, figure in section.figures.items()}
        data = {"figures": figures} | {key: value for section in self.sections for key, value in section.data.items()}
        more = [_asset("edges.js")] if "edges" in data else []
        more += [_asset("slides.js")] if {"slides", "forming", "steps"} & data.keys() else []
        scripts = [*([_plotly()] if figures else []), _asset("dom.js"), _asset("page.js"), *more]
        kind = ' class="bare"' if self.is_bare else ""
        code = "".join(f"<script>{script}</script>" for script in scripts)
        return (
            f'<!doctype html>\n<html lang="en"{kind}><head><meta charset="utf-8">{_policy(scripts)}'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="referrer" content="no-referrer">'
            f'<title>{text(self.title)}</title><link rel="icon" href="data:,"><style>{_asset("page.css")}</style></head>'
            f'<body>{self._body()}<script type="application/json" id="data">{_json(data)}</script>{code}</body></html>\n'
        )

    def _body(self) -> str:
        sections = "".join(section.html() for section in self.sections)
        if self.is_bare:
            return f"<main>{sections}</main>"
        links = "".join(f'<li><a href="#{section.key}">{text(section.short)}</a></li>' for section in self.sections)
        nav = f'<nav aria-label="Contents"><ul>{links}</ul></nav>'
        script = '<noscript><p class="warn">Figures need JavaScript; tables and text do not.</p></noscript>'
        foot = f"<footer><p>Optrode {text(_version())}. This file is complete: it loads nothing.</p></footer>"
        skip = '<a class="skip" href="#content">Skip to content</a>'
        return f'{skip}{self.lead}{nav}<main id="content">{script}{sections}</main>{foot}'

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all, and return where it is.

        Raises:
            BadOption: the path is a folder.
        """
        target = Path(path)
        if target.is_dir():
            raise BadOption(
                f"save the report as {target}", "this is a folder", next_step=f"save it as {target / 'report.html'}"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, self.html())
        return target

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that a notebook's style and its own do not mix."""
        frame = f'style="width:100%;height:{FRAME_HEIGHT}px;border:0" title="{text(self.title)}"'
        return f'<iframe {frame} srcdoc="{escape(self.html(), quote=True)}"></iframe>'


def report(*parts: Part, title: str = "") -> Page:
    """One page from the records of an investigation, a study or training runs, in any order; what is missing is left out.

    Args:
        parts: any of Task, Grid (several), Scores, Circuit, Proof, HeadScores, EdgeScores, EdgeCircuit, EdgeProof,
            MethodTable; StudyRun, Figures; TrainingRun, Emergence (several, which are overlaid); Evaluation, GateQuality.
        title: by default the task and the model, the study's paper, or the runs.

    Raises:
        BadOption: no record, two of a kind that a page shows one of, a proof of another circuit, or a figure whose numbers
            do not fit each other.
    """
    sorted_parts = sort_parts(parts)
    name = title or _title(sorted_parts)
    return Page(name, _lead(sorted_parts, name), _sections(sorted_parts))


def show(record: Part) -> Page:
    """One record's figures alone, for a notebook."""
    parts = sort_parts((record,))
    left_out = {"provenance"} | ({"scores"} if parts.circuit else {"edge-scores"} if parts.edge_circuit else set())
    sections = [section for section in _sections(parts) if section.key not in left_out]
    return Page(_title(parts), "", tuple(sections), is_bare=True)


def figure_html(record: Part) -> str:
    """One record's figures as a frame to be put into a notebook or another page."""
    return show(record)._repr_html_()


def _title(parts: Parts) -> str:
    if parts.study:
        return study_title(parts.study)
    if parts.is_training:
        return training_title(parts)
    if parts.is_control:
        return title_of_control(parts.evaluation, parts.gate_quality)
    return title_of(parts) or "Figures"


def _lead(parts: Parts, title: str) -> str:
    if parts.study:
        return study_lead(parts.study, title)
    if parts.is_training:
        return training_lead(parts, title)
    if parts.is_control:
        return lead_of_control(parts.evaluation, parts.gate_quality, title)
    return lead_html(parts, lead_of(parts), title)


def _sections(parts: Parts) -> tuple[Section, ...]:
    found: Sequence[Section | None] = (
        *study_sections(parts),
        *training_sections(parts),
        *steering_sections(parts.evaluation),
        *gate_sections(parts.gate_quality),
        task_section(parts.task) if parts.task else None,
        grids_section(parts),
        views_section(parts),
        scores_section(parts),
        circuit_section(parts),
        attention_section(parts.circuit),
        proof_section(parts, headline(parts)) if parts.proof else None,
        edge_scores_section(parts),
        edge_circuit_section(parts),
        edge_proof_section(parts),
        *method_sections(parts.methods),
        provenance_section(parts),
    )
    return tuple(section for section in found if section is not None)


def _policy(scripts: Sequence[str]) -> str:
    """A policy under which nothing is loaded and only the page's own scripts run, each known by its hash."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    rules = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"
    content = f"{rules}; base-uri 'none'; form-action 'none'"
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def _json(data: Any) -> str:
    """JSON that cannot end its script element: every "<" is escaped."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").replace("\r\n", "\n")


@cache
def _plotly() -> str:
    """Plotly's script, from the installed package. Imported late: only pages with such figures pay for it."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def _version() -> str:
    try:
        return version("optrode")
    except PackageNotFoundError:
        return ""
