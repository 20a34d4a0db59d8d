"""Methods compared on one task: a table, their curves over one another, and how far their circuits overlap."""

from typing import Any, Final

from optrode.circuit.edge.records import MethodRow, MethodTable
from optrode.reports.blocks import heading, legend, paragraph, plot, table, text
from optrode.reports.edges.figures import method_curves, overlap, percent
from optrode.reports.edges.words import by_cmd, cmd_of_nothing
from optrode.reports.section import Section
from optrode.reports.words import count, number, short, task_words, whole

COLUMNS: Final = (
    "method", "CMD", "CPR", "r with exact", "AUROC", "AUROC, floored", "passes", "seconds", "notes",
)  # fmt: skip


def method_sections(found: MethodTable | None) -> tuple[Section, ...]:
    """The table, the curves, and the overlap of circuits where two methods or more were compared."""
    if found is None or not found.rows:
        return ()
    sections = (_table_section(found), _curves_section(found))
    return (*sections, _overlap_section(found)) if len(found.rows) > 1 else sections


def _table_section(found: MethodTable) -> Section:
    rows = by_cmd(found)
    best = {"cmd": min(row.cmd for row in rows), "cpr": max(row.cpr for row in rows)}
    nothing = number(cmd_of_nothing(rows[0].points))
    words = (
        f"{task_words(found.task)}, {found.ablation} ablation, {count(found.n_prompts, 'prompt')}, "
        f"{whole(found.n_all)} edges. CMD is the area between a method's faithfulness and 1 over the share of edges, by "
        f"absolute selection: 0 is best, {nothing} is a circuit that keeps nothing. CPR is the area under faithfulness, by "
        f"signed selection: higher is better, and it may exceed 1 where edges that hinder are left out (MIB, arXiv "
        f"2504.13151)."
    )
    body = paragraph(words[:1].upper() + words[1:]) + table(
        COLUMNS, [_row(row, best) for row in rows], "Methods, lowest CMD first", "methods"
    )  # fmt: skip
    return Section("methods", "Methods", "Methods compared", body)


def _row(row: MethodRow, best: dict[str, float]) -> tuple[str, ...]:
    cmd, cpr = (_marked(value, best[name]) for name, value in (("cmd", row.cmd), ("cpr", row.cpr)))
    same = "itself" if row.method == "exact" and row.correlation is None else _known(row.correlation)
    known = (same, *(_known(value) for value in (row.auroc, row.auroc_floored)))
    notes = text("; ".join(row.notes)) or '<span class="muted">none</span>'
    return (text(row.method), cmd, cpr, *known, whole(row.n_passes), short(row.time_s), notes)


def _marked(value: float, best: float) -> str:
    shown = text(number(value, 3))
    return f"<strong>{shown}</strong>" if value == best else shown


def _known(value: float | None) -> str:
    return '<span class="muted">not measured</span>' if value is None else text(number(value, 3))


def _curves_section(found: MethodTable) -> Section:
    rows = by_cmd(found)
    figures: dict[str, Any] = {"method-curves": method_curves(rows, is_signed=False)}
    names = ", ".join(row.method for row in rows)
    caption = "Edges by size of their score; CMD is the area between a line and 1, over the linear share."
    label = f"Faithfulness over the share of edges of {names}"
    blocks = _cell("By absolute score", plot("method-curves", label, caption=caption, height=460))
    if any(row.points_signed for row in rows):
        figures["method-curves-signed"] = method_curves(rows, is_signed=True)
        caption = "Edges that help most first; CPR is the area under a line, over the linear share."
        label = f"{label}, signed selection"
        blocks += _cell("By signed score", plot("method-curves-signed", label, caption=caption, height=460))
    body = f'<div class="row">{blocks}</div>'
    return Section("curves", "Curves", "Faithfulness over size", body, figures)


def _overlap_section(found: MethodTable) -> Section:
    share = percent(found.size / found.n_all) if found.n_all else ""
    words = (
        f"Jaccard index of the circuits of {whole(found.size)} edges ({share}): edges in both circuits over edges in "
        "either. Circuits of equal faithfulness can share few edges."
    )
    n = len(found.rows)
    label = f"Overlap of the circuits of {count(n, 'method')}, in the order of the table"
    bar = legend("Jaccard index", 1.0, is_sequential=True)
    figure = plot("method-overlap", label, height=34 * n + 130, least_width=46 * n + 150, above=bar)
    body = paragraph(words) + f'<div class="overlap" style="max-width:{64 * n + 220}px">{figure}</div>'
    return Section("overlap", "Overlap", "How far their circuits agree", body, {"method-overlap": overlap(found)})


def _cell(title: str, figure: str) -> str:
    return f'<div class="cell">{heading(title)}{figure}</div>'
