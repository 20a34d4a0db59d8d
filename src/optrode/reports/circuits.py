"""The circuit as a graph with a panel of details, and the attention patterns of its heads."""

from collections.abc import Mapping
from typing import Any, Final

from optrode.circuit.circuit import Circuit, HeadView, Minimality, NodeScore, Scores
from optrode.reports.blocks import code, fold, legend, paragraph, table, text
from optrode.reports.figures import effect_limit, rounded
from optrode.reports.graph import WIDE, place, svg
from optrode.reports.nodes import node_name, token_label
from optrode.reports.parts import Parts
from optrode.reports.section import Section
from optrode.reports.tasking import marks_of
from optrode.reports.words import count, interval, members, number, short

SHOWN: Final = 24
HONEST: Final = (
    "Each head stands at the position that it writes to, in its layer, with an arrow from the position that it reads. "
    "Arrows show where a head reads and writes by its strongest attention route; a thicker one means more attention. "
    "MLPs stand at the side, for they act at all positions. Edges between nodes are not claimed: that two nodes are in the "
    "circuit does not show that one feeds the other. Layers without a node are left out."
)
PANEL: Final = (
    '<aside class="panel" id="node-details" aria-live="polite" aria-label="Details of the selected node">'
    '<p class="muted">Choose a node to see its role, effect and attention.</p></aside>'
)


def circuit_section(parts: Parts) -> Section | None:
    """The graph, the panel that a click fills, and the same nodes as a table."""
    circuit = parts.circuit
    if circuit is None:
        return None
    marks = marks_of(parts.task, circuit.tokens)
    lost = {row.node: row for row in parts.proof.minimality} if parts.proof else {}
    words = f"{circuit.size} of {circuit.n_all} nodes: {members(circuit)}. Click a node, or reach it by Tab and press Enter."
    bar = effect_legend(circuit.scores)
    region = 'class="scroller graph" tabindex="0" role="region" aria-label="Graph of the circuit"'
    drawing = place(circuit, marks)
    graph = f"<figure>{bar}<div {region}>{svg(drawing)}</div><figcaption>{text(HONEST)}</figcaption></figure>"
    kind = "split" if drawing.width <= WIDE + 8 else "stacked"
    body = (
        paragraph(words) + f'<div class="{kind}">{graph}{PANEL}</div>' + fold("The nodes as a table", _table(circuit, lost))
    )
    return Section("circuit", "Circuit", "The circuit", body, data={"circuit": rounded(_data(circuit, lost, marks))})


def effect_legend(scores: Scores) -> str:
    """The colours of effects; a few nodes may lie beyond their end."""
    limit, most = effect_limit(scores), max((abs(score.effect) for score in scores.nodes), default=0.0)
    note = f"stronger nodes, up to {short(most)}, have the end colour" if most > limit * 1.005 else ""
    return legend(f"effect of ablating ({scores.unit})", limit, note=note)


def attention_section(circuit: Circuit | None) -> Section | None:
    """Small attention maps of the circuit's heads, strongest first."""
    if circuit is None or not any(view.pattern for view in circuit.heads):
        return None
    order = {node: ix for ix, node in enumerate(circuit.nodes)}
    views = sorted((view for view in circuit.heads if view.pattern), key=lambda view: order.get(view.node, len(order)))
    cards = [_card(view, order[view.node]) for view in views if view.node in order]
    words = (
        "Rows are the positions that attend, top to bottom; columns the positions attended to. Mean over the prompts of the "
        "commonest length. Hover to read a cell."
    )
    body = (
        paragraph(words)
        + legend("attention", 1.0, is_sequential=True)
        + f'<div class="cards">{"".join(cards[:SHOWN])}</div>'
    )
    if len(cards) > SHOWN:
        more = f'<div class="cards">{"".join(cards[SHOWN:])}</div>'
        body += fold(f"{count(len(cards) - SHOWN, 'more head')}", more)
    return Section("attention", "Attention", "Where its heads look", body)


def _card(view: HeadView, ix: int) -> str:
    name = node_name(view.node)
    label = f"Attention pattern of head {name.label}" + (f", {view.role}" if view.role else "")
    route = f"{text(view.route.replace('->', '→'))} {number(view.attention)}" if view.route else "no named route"
    canvas = f'<canvas data-pattern="{ix}" role="img" aria-label="{text(label)}"></canvas>'
    head = f"<strong>{text(name.label)}</strong> {text(view.role)}".strip()
    return f'<figure class="card">{canvas}<figcaption>{head}<small>{route}</small><output></output></figcaption></figure>'


def _table(circuit: Circuit, lost: Mapping[str, Minimality]) -> str:
    views = {view.node: view for view in circuit.heads}
    effects = {score.node: score for score in circuit.scores.nodes}
    unit = circuit.scores.unit
    columns = (
        "node",
        "role",
        "route",
        "attention",
        f"effect ({unit})",
        "95 % interval",
        "faithfulness lost",
        "95 % interval of loss",
    )
    rows = [_row(node, views.get(node), effects.get(node), lost.get(node)) for node in circuit.nodes]
    return table(columns, rows, "Nodes of the circuit, strongest first", "numbers")


def _row(node: str, view: HeadView | None, score: NodeScore | None, lost: Minimality | None) -> tuple[str, ...]:
    looks = (text(view.role), text(view.route.replace("->", "→")), number(view.attention)) if view else ("", "", "")
    effect = (short(score.effect), interval(score.interval)) if score else ("", "")
    loss = (number(lost.lost, 3), interval(lost.interval, 3)) if lost else ("", "")
    return (code(node), *looks, *effect, *loss)


def _data(circuit: Circuit, lost: Mapping[str, Minimality], marks: Mapping[int, str]) -> dict[str, Any]:
    """What the panel shows of every node; numbers are written here, so that the script formats nothing."""
    views = {view.node: view for view in circuit.heads}
    effects = {score.node: score for score in circuit.scores.nodes}
    nodes = [
        _details(node, views.get(node), effects.get(node), lost.get(node), circuit.scores.unit) for node in circuit.nodes
    ]
    return {
        "nodes": nodes, "marks": {str(pos): name for pos, name in marks.items()},
        "tokens": [token_label(token, 12) for token in circuit.tokens],
    }  # fmt: skip


def _details(
    node: str, view: HeadView | None, score: NodeScore | None, lost: Minimality | None, unit: str
) -> dict[str, Any]:
    name = node_name(node)
    rows: list[tuple[str, str]] = []
    if view:
        route = f"{view.route.replace('->', '→')}, mean attention {number(view.attention)}" if view.route else "none named"
        rows += [("Role", view.role or "none named"), ("Route", route)]
    if score:
        rows.append(("Effect of ablating it", f"{short(score.effect)} {interval(score.interval)} {unit}"))
    rows.append(
        ("Faithfulness lost without it", f"{number(lost.lost, 3)} {interval(lost.interval, 3)}" if lost else "not measured")
    )
    found: dict[str, Any] = {"name": name.label, "site": node, "kind": name.kind, "rows": rows}
    if view:
        found["pattern"] = [[round(value, 3) for value in row] for row in view.pattern]
        found |= {"reads": view.reads, "writes": view.writes}
        found["routes"] = [[route.replace("->", "→"), round(value, 3)] for route, value in view.routes.items()]
    if score and score.per_pos:
        found["shares"] = list(score.per_pos)
    return found
