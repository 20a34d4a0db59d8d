"""The circuit as a drawing: where each head reads and writes, in which layer. Positions first, then SVG.

Heads stand at the position that they write to, with an arrow from the position that they read. Two heads of a layer share
a line only when neither their arrows nor their labels touch, so nothing is ever drawn over something else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from optrode.circuit.circuit import Circuit, HeadView
from optrode.reports.blocks import text
from optrode.reports.figures import effect_limit
from optrode.reports.nodes import NodeName, node_name, token_label
from optrode.reports.words import short

AXIS: Final = 40.0
SIDE: Final = 66.0
PILL: Final = 38.0
TALL: Final = 18.0
LINE: Final = 24.0
GAP: Final = 10.0
LETTER: Final = 6.4
WIDE: Final = 776.0
NARROWEST: Final = 30.0
WIDEST: Final = 46.0


@dataclass(frozen=True, slots=True)
class Columns:
    """One column per position: its labels, and the width of each."""

    labels: tuple[str, ...]
    width: float

    def x(self, pos: int) -> float:
        """The middle of a position's column."""
        return AXIS + SIDE + self.width * (pos + 0.5)

    @property
    def below(self) -> float:
        """Height of the slanted labels."""
        return 26 + 0.7 * LETTER * max((len(label) for label in self.labels), default=0)


@dataclass(frozen=True, slots=True)
class Placed:
    """One node of the drawing.

    Attributes:
        ix: its place in `Circuit.nodes`.
        x, y: centre of its pill.
        reads_x: where its arrow starts; None without a route.
        role: printed beside it.
        attention: along its route, 0 to 1.
        tone: colour step, -4 to 4.
        effect: for its label.
    """

    ix: int
    name: NodeName
    x: float
    y: float
    reads_x: float | None
    role: str
    attention: float
    tone: int
    effect: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node looks like wherever it stands across."""

    name: NodeName
    y: float
    tone: int
    effect: float


@dataclass(frozen=True, slots=True)
class Band:
    """One occupied layer: its top edge and height."""

    layer: int | None
    y: float
    height: float


@dataclass(frozen=True)
class Drawing:
    """Everything that the SVG shows."""

    nodes: tuple[Placed, ...]
    bands: tuple[Band, ...]
    columns: Columns
    width: float
    height: float


def tones(circuit: Circuit) -> dict[str, int]:
    """Each node's colour step by its effect, on the scale that all effects of the page share."""
    limit = effect_limit(circuit.scores)
    effects = {score.node: score.effect for score in circuit.scores.nodes}
    return {node: _step(effects.get(node, 0.0) / limit) for node in circuit.nodes}


def _step(share: float) -> int:
    return max(-4, min(4, round(4 * share))) if math.isfinite(share) else 0


def place(circuit: Circuit, marks: Mapping[int, str]) -> Drawing:
    """Lay the circuit out, last layer on top. `marks` names positions."""
    views = {view.node: view for view in circuit.heads}
    effects = {score.node: score.effect for score in circuit.scores.nodes}
    columns, steps = _columns(circuit, marks), tones(circuit)
    nodes: list[Placed] = []
    bands: list[Band] = []
    for layer, members in _by_layer(circuit.nodes):
        top = _next_top(bands, layer)
        lines = _lines(members, circuit.nodes, views, columns)
        bands.append(Band(layer, top, LINE * (1 + max(lines.values()))))
        for ix, line in lines.items():
            node, y = circuit.nodes[ix], top + LINE * (line + 0.5)
            nodes.append(
                _placed(ix, views.get(node), columns, Seen(node_name(node), y, steps[node], effects.get(node, 0.0)))
            )
    right = max((node.x + PILL / 2 + 6 + len(node.role) * LETTER for node in nodes), default=0.0)
    height = (bands[-1].y + bands[-1].height if bands else 0.0) + columns.below
    width = max(right, columns.x(len(columns.labels) - 1) + columns.width / 2) + 6
    return Drawing(tuple(sorted(nodes, key=lambda node: node.ix)), tuple(bands), columns, width, height)


def _by_layer(nodes: Sequence[str]) -> list[tuple[int | None, list[int]]]:
    """Occupied layers, last first, with the indices of their nodes; sites outside the layers come at the end."""
    members: dict[int | None, list[int]] = {}
    for ix, node in enumerate(nodes):
        members.setdefault(node_name(node).layer, []).append(ix)
    return sorted(members.items(), key=lambda item: -1 if item[0] is None else item[0], reverse=True)


def _next_top(bands: Sequence[Band], layer: int | None) -> float:
    """Where the next layer begins: further away when layers between them are left out."""
    if not bands:
        return 4.0
    above = bands[-1]
    is_apart = above.layer is not None and layer is not None and above.layer - layer > 1
    return above.y + above.height + 3 + (GAP if is_apart else 0)


def _columns(circuit: Circuit, marks: Mapping[int, str]) -> Columns:
    """As wide as the page allows, so that nothing has to be scrolled when it can be avoided."""
    ends = [value for view in circuit.heads for value in (view.reads, view.writes, len(view.pattern) - 1)]
    n_pos = max([len(circuit.tokens), *(end + 1 for end in ends)])
    roles = [len(view.role) for view in circuit.heads if view.writes >= n_pos - 3]
    free = WIDE - AXIS - SIDE - LETTER * max(roles, default=0) - 6
    labels = tuple(_label(pos, circuit.tokens, marks) for pos in range(n_pos))
    return Columns(labels, min(max(free / max(n_pos, 1), NARROWEST), WIDEST))


def _lines(indices: Sequence[int], nodes: Sequence[str], views: Mapping[str, HeadView], columns: Columns) -> dict[int, int]:
    """Node -> line within its layer: the first line on which its arrow, pill and label touch nothing."""
    taken: list[list[tuple[float, float]]] = []
    lines: dict[int, int] = {}
    for ix in indices:
        left, right = _extent(views.get(nodes[ix]), columns)
        free = (n for n, spans in enumerate(taken) if all(right < start or end < left for start, end in spans))
        line = next(free, len(taken))
        if line == len(taken):
            taken.append([])
        taken[line].append((left, right))
        lines[ix] = line
    return lines


def _extent(view: HeadView | None, columns: Columns) -> tuple[float, float]:
    if view is None:
        return AXIS, AXIS + SIDE - 4
    reads, writes = columns.x(view.reads), columns.x(view.writes)
    return min(reads - 6, writes - PILL / 2), max(reads + 6, writes + PILL / 2 + 6 + len(view.role) * LETTER)


def _placed(ix: int, view: HeadView | None, columns: Columns, seen: Seen) -> Placed:
    if view is None:
        return Placed(ix, seen.name, AXIS + SIDE / 2 - 4, seen.y, None, "", 0.0, seen.tone, seen.effect)
    x, reads_x = columns.x(view.writes), columns.x(view.reads)
    return Placed(ix, seen.name, x, seen.y, reads_x, view.role, view.attention, seen.tone, seen.effect)


def _label(pos: int, tokens: Sequence[str], marks: Mapping[int, str]) -> str:
    token = token_label(tokens[pos], 12) if pos < len(tokens) else str(pos)
    return f"{token} ({marks[pos]})" if pos in marks else token


def svg(drawing: Drawing) -> str:
    """The drawing as SVG; each node is a button for mouse and keyboard."""
    floor = drawing.height - drawing.columns.below
    parts = [_band(band, drawing.width) for band in drawing.bands]
    parts += [_guide(drawing.columns.x(pos), label, floor) for pos, label in enumerate(drawing.columns.labels)]
    parts += [f'<text class="tick" x="{AXIS + SIDE / 2 - 4:g}" y="{floor + 14:g}" text-anchor="middle">MLPs</text>']
    parts += [_node(node) for node in drawing.nodes]
    box = f"0 0 {drawing.width:.0f} {drawing.height:.0f}"
    size = f'width="{drawing.width:.0f}" height="{drawing.height:.0f}"'
    return (
        f'<svg class="circuit" viewBox="{box}" {size} role="group" aria-label="The circuit: nodes by position and layer">'
        + ("".join(parts) + "</svg>")
    )


def _band(band: Band, width: float) -> str:
    label = "" if band.layer is None else f"L{band.layer}"
    size, middle = f'width="{width - AXIS + 4:g}" height="{band.height:g}"', band.y + band.height / 2 + 4
    back = f'<rect class="band" x="{AXIS - 6:g}" y="{band.y:g}" {size} rx="4"/>'
    return f'{back}<text class="tick" x="{AXIS - 12:g}" y="{middle:g}" text-anchor="end">{label}</text>'


def _guide(x: float, label: str, floor: float) -> str:
    line = f'<line class="guide" x1="{x:g}" x2="{x:g}" y1="4" y2="{floor:g}"/>'
    turn = f'transform="rotate(-42 {x + 4:g} {floor + 12:g})"'
    return f'{line}<text class="tick" x="{x + 4:g}" y="{floor + 12:g}" text-anchor="end" {turn}>{text(label)}</text>'


def _node(node: Placed) -> str:
    wide = PILL if node.reads_x is not None else PILL + 14
    left = node.x - wide / 2
    effect = f"effect {short(node.effect)}"
    label = ", ".join(word for word in (node.name.label, node.name.kind, node.role, effect) if word)
    tone = f"{'n' if node.tone < 0 else 'p'}{abs(node.tone)}" if node.tone else "z"
    role = (
        f'<text class="role" x="{node.x + PILL / 2 + 5:g}" y="{node.y + 3.5:g}">{text(node.role)}</text>'
        if node.role
        else ""
    )
    pill = f'<rect class="pill" x="{left:g}" y="{node.y - TALL / 2:g}" width="{wide:g}" height="{TALL:g}" rx="9"/>'
    name = f'<text class="name" x="{node.x:g}" y="{node.y + 4:g}" text-anchor="middle">{text(node.name.label)}</text>'
    button = f'class="node tone-{tone}" tabindex="0" role="button" aria-pressed="false" data-node="{node.ix}"'
    return f'<g {button} aria-label="{text(label)}">{_arrow(node)}{pill}{name}{role}</g>'


def _arrow(node: Placed) -> str:
    """From the position read to the pill; a loop when a head reads where it writes."""
    if node.reads_x is None:
        return ""
    width, edge = 1 + 2 * min(max(node.attention, 0.0), 1.0), PILL / 2
    if node.reads_x == node.x:
        path = f"M{node.x - 9:g} {node.y - 8:g}c0 -6 18 -6 18 0"
        return f'<path class="arrow" d="{path}" stroke-width="{width:.2g}"/>'
    side = -1 if node.reads_x < node.x else 1
    tip = node.x + side * (edge + 1)
    line = f'<path class="arrow" d="M{node.reads_x:g} {node.y:g}H{tip + side * 4:g}" stroke-width="{width:.2g}"/>'
    head = f'<path class="tip" d="M{tip:g} {node.y:g}l{side * 6} -4v8z"/>'
    return f'<circle class="source" cx="{node.reads_x:g}" cy="{node.y:g}" r="3.2"/>{line}{head}'
