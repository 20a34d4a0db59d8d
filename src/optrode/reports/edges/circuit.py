"""The edge circuit as an interactive graph with a panel of details, and its strongest edges as a table."""

from collections.abc import Mapping
from typing import Final

from optrode.circuit.edge.records import EdgeCircuit, EdgeLoss
from optrode.reports.blocks import code, fold, paragraph, table, text
from optrode.reports.edges.drawn import MOST_DRAWN, MOST_LISTED, drawn, edge_rows, listed
from optrode.reports.edges.words import edge_members, method_words
from optrode.reports.figures import rounded
from optrode.reports.parts import Parts
from optrode.reports.section import Section
from optrode.reports.words import count, interval, number, short, whole

SHOWN: Final = 40
HOW: Final = (
    "Click a node or an edge for its numbers. By keyboard: Tab to the graph, arrow keys from node to node, Enter to choose, "
    "Escape to let go."
)
HONEST: Final = (
    "The computation runs upwards, from the embedding to the logits. An edge stands for one sender's output as one receiver "
    "reads it. Its effect is measured or approximated for that edge alone; two edges in a row are no proof that what the "
    "first brings is what the second carries on."
)
PANEL: Final = (
    '<aside class="panel" id="edge-details" aria-live="polite" aria-label="Details of the selected node or edge">'
    '<p class="muted">Choose a node or an edge to see its numbers.</p></aside>'
)


def edge_circuit_section(parts: Parts) -> Section | None:
    """The graph with its slider, the panel that a click fills, and the strongest edges as a table."""
    circuit = parts.edge_circuit
    if circuit is None:
        return None
    lost = {row.edge: row for row in parts.edge_proof.minimality} if parts.edge_proof else {}
    words = (
        f"{whole(circuit.size)} of {whole(circuit.n_all)} edges, between {edge_members(circuit)}; chosen by "
        f"{method_words(circuit.scores.method)}, {circuit.selection} selection. {HOW}"
    )
    body = paragraph(words) + (_graph(circuit) if circuit.size else "") + _table(circuit, lost)
    data = {"edges": rounded(drawn(circuit, lost))} if circuit.size else {}
    return Section("edges", "Edge circuit", "The circuit, edge by edge", body, data=data)


def _graph(circuit: EdgeCircuit) -> str:
    most = min(MOST_DRAWN, circuit.size)
    slider = (
        '<div class="drawn"><label for="n-edges">Strongest edges</label>'
        f'<input type="range" id="n-edges" min="1" max="{most}" step="1" value="{most}">'
        '<output for="n-edges"></output></div>'
    )
    note = paragraph(_left_out(circuit), "muted fine") if circuit.size > MOST_DRAWN else ""
    region = 'class="scroller graph" id="edge-graph" role="region" aria-label="Graph of the edge circuit"'
    figure = f"<figure>{slider}{_legend(circuit)}<div {region}></div><figcaption>{text(HONEST)}</figcaption></figure>"
    return f'<div class="split edges">{figure}{PANEL}</div>{note}'


def _left_out(circuit: EdgeCircuit) -> str:
    words = f"Of {whole(circuit.size)} edges, the {MOST_DRAWN} strongest can be drawn"
    if circuit.size > MOST_LISTED:
        return f"{words} and the {whole(MOST_LISTED)} strongest are listed in the panel; the others are only counted."
    return f"{words}; all are listed in the panel of their node."


def _legend(circuit: EdgeCircuit) -> str:
    """What colour, width and ports stand for."""
    most = float(abs(circuit.scores.values[circuit.is_in]).max())
    ports = "q, k, v at the foot of a head: the input that an edge goes into"
    if circuit.graph.n_kv != circuit.graph.n_heads:
        ports += "; heads that share k and v stand on one bar"
    keys = (
        ("helps", "ablating it lowers the metric"), ("hinders", "ablating it raises the metric"),
    )  # fmt: skip
    lines = "".join(f'<span class="line"><i class="stroke {kind}"></i>{text(words)}</span>' for kind, words in keys)
    width = f"width: size of the effect, widest {short(most)} {circuit.scores.unit}".rstrip()
    return f'<div class="legend">{lines}<span>{text(width)}</span><span>{text(ports)}</span></div>'


def _table(circuit: EdgeCircuit, lost: Mapping[str, EdgeLoss]) -> str:
    found = listed(circuit, SHOWN)
    rows = []
    for ix, (shown, effect, bounds) in zip(found.edges, edge_rows(found, circuit.graph), strict=True):
        loss = lost.get(circuit.graph.name(int(ix)))
        worth = (number(loss.lost, 3), interval(loss.interval, 3)) if loss else ("", "")
        rows.append((code(shown), effect, bounds, *worth))
    unit = f" ({circuit.scores.unit})" if circuit.scores.unit else ""
    columns = ("edge", f"effect{unit}", "95 % interval", "faithfulness lost", "95 % interval of loss")
    caption = f"Strongest {len(rows)} of {count(circuit.size, 'edge')}"
    return fold(caption, table(columns, rows, caption, "numbers"))
