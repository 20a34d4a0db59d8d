"""The section about edge scores: what they are, what their method warns of, and approximate effects against exact ones."""

from typing import Any, Final

from optrode.circuit.edge.records import EdgeCheck, EdgeScores
from optrode.reports.blocks import code, fold, heading, paragraph, plot, table, text
from optrode.reports.edges.drawn import edge_rows, with_intervals
from optrode.reports.edges.words import edge_words, method_words
from optrode.reports.figures import against
from optrode.reports.parts import Parts
from optrode.reports.section import Section
from optrode.reports.words import count, number, short, task_words, whole

TOP: Final = 15
REST: Final = 60


def edge_scores_section(parts: Parts) -> Section | None:
    """The strongest edges of the whole model, and the spot check."""
    scores = parts.edge_effects
    if scores is None or not scores.graph.n_edges:
        return None
    figures: dict[str, Any] = {}
    if scores.check:
        figures["edge-spot"] = against(_points(scores.check), "edges", scores.unit)
    notes = "".join(paragraph(note, "warn") for note in scores.notes)
    blocks = _strongest(scores) + _spot_block(scores)
    body = paragraph(_definition(scores)) + notes + f'<div class="row">{blocks}</div>'
    return Section("edge-scores", "Edges", "Effect of every edge", body, figures)


def _definition(scores: EdgeScores) -> str:
    metric = f"{scores.metric.replace('_', ' ')} on {task_words(scores.task)}"
    how = "exact" if scores.method == "exact" else f"approximated by {method_words(scores.method)}"
    settings = ", ".join(f"{name} {value}" for name, value in sorted(scores.settings.items()))
    return (
        f"The effect of an edge is the change of {metric} when the receiver, and nobody else, gets the sender's ablated "
        f"output ({scores.ablation}) in the clean run: negative when the edge helps. Effects here are {how}"
        f"{f' ({settings})' if settings else ''}, of {whole(scores.graph.n_edges)} edges; intervals are 95 %, by bootstrap "
        f"over {count(len(scores.per_prompt), 'prompt')}."
    )


def _strongest(scores: EdgeScores) -> str:
    found = with_intervals(scores, scores.ranked()[:REST])
    rows = [(code(name), effect, bounds) for name, effect, bounds in edge_rows(found, scores.graph)]
    columns = ("edge", f"effect ({scores.unit})" if scores.unit else "effect", "95 % interval")
    shown = table(columns, rows[:TOP], f"Strongest {len(rows[:TOP])} of {count(scores.graph.n_edges, 'edge')}", "numbers")
    if len(rows) > TOP:
        more = f"The next {len(rows) - TOP}"
        shown += fold(more, table(columns, rows[TOP:], more, "numbers"))
    return f'<div class="cell">{heading("The strongest edges")}{shown}</div>'


def _points(check: EdgeCheck) -> list[tuple[str, bool, float, float]]:
    names = [edge_words(name) for name in check.edges]
    return list(zip(names, check.is_top, check.approximate, check.exact, strict=True))


def _spot_block(scores: EdgeScores) -> str:
    check = scores.check
    if check is None:
        if scores.method == "exact":
            return ""
        words = "These effects are approximate and were not measured again exactly."
        return f'<div class="cell">{heading("Spot check")}{paragraph(words, "warn")}</div>'
    n, r = count(len(check.edges), "edge"), number(check.correlation)
    caption = f"{n} measured again exactly: Pearson's r = {r}. On the dashed line both agree."
    figure = plot("edge-spot", f"Approximate against exact effects of {n}, r = {r}", caption=caption, height=420)
    rows = [
        (code(name), short(approximate), short(exact), "strongest" if is_top else "random")
        for name, is_top, approximate, exact in _points(check)
    ]
    inner = table(("edge", "approximate", "exact", "drawn as"), rows, "Approximate and exact effects", "numbers")
    title = heading("Spot check: approximate against exact")
    return f'<div class="cell">{title}{_warnings(check)}{figure}{fold("The numbers", inner)}</div>'


def _warnings(check: EdgeCheck) -> str:
    found = ""
    if not check.agrees:
        words = "Approximate and exact effects disagree: do not trust the ranking without measuring it exactly."
        found += paragraph(words, "warn")
    if check.missed:
        names = ", ".join(code(edge_words(name)) for name in check.missed)
        n = count(len(check.missed), "random edge")
        verb = "has" if len(check.missed) == 1 else "have"
        words = f"{n} {verb} a large exact effect but a small score, so others may be missed too:"
        found += f'<p class="warn">{text(words)} {names}.</p>'
    return found
