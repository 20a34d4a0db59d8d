"""Heat maps: sweeps, effects of all nodes, and where heads look beside what ablating them does."""

from typing import Any, Final

from optrode.circuit.circuit import HeadScores, Scores
from optrode.reports.blocks import code, fold, heading, legend, paragraph, plot, table, text
from optrode.reports.circuits import effect_legend
from optrode.reports.figures import flat_axes, grid_heat, head_heat, heat_height, is_wordy, limit_of, node_heat, spot_check
from optrode.reports.nodes import node_name
from optrode.reports.parts import Parts
from optrode.reports.section import Section
from optrode.reports.words import capital, count, interval, method_words, number, short, task_words
from optrode.trial.grid import Axis, Grid

TOP: Final = 10
CELL_PX: Final = 19
WORDY_CELL_PX: Final = 50
NUMBER_CELL_PX: Final = 26


def grids_section(parts: Parts) -> Section | None:
    """Every sweep that is not shown beside attention scores."""
    grids = [grid for grid in parts.grids if grid not in parts.views]
    if not grids:
        return None
    words = "Each cell is the model with that gate held. Hover over a cell for its site and values."
    blocks, figures = zip(*(_grid_block(grid, f"grid-{ix}") for ix, grid in enumerate(grids)), strict=True)
    drawn = {key: figure for part in figures for key, figure in part.items()}
    return Section("grids", "Sweeps", "Sweeps over the model", paragraph(words) + _side_by_side(grids, blocks), drawn)


def views_section(parts: Parts) -> Section | None:
    """Where heads look, and what ablating them does, one under or beside the other."""
    heads = parts.heads
    if heads is None:
        return None
    limit = limit_of([row for kind in heads.values for row in kind])
    figures: dict[str, Any] = {}
    blocks = []
    for ix in range(len(heads.kinds)):
        figures[f"heads-{ix}"] = head_heat(heads, ix, limit)
        blocks.append(_head_block(heads, ix, f"heads-{ix}", limit))
    agreement = ""
    for ix, grid in enumerate(parts.views):
        block, drawn = _grid_block(grid, f"view-{ix}")
        blocks.append(block)
        figures |= drawn
        agreement += "".join(f"<li>{_agreement(heads, kind, grid)}</li>" for kind in range(len(heads.kinds)))
    words = "Attention shows where a head looks; only ablation shows whether that matters to the task."
    title = "Where heads look, and what ablating them does" if parts.views else "Where heads look"
    body = paragraph(words if parts.views else "Attention shows where a head looks, not whether that matters.")
    body += _row(blocks, max((len(row) for kind in heads.values for row in kind), default=0)) + (
        f'<ul class="plain">{agreement}</ul>' if agreement else ""
    )
    return Section("heads", "Heads", title, body, figures)


def scores_section(parts: Parts) -> Section | None:
    """The effect of every node, and the check of approximate effects against exact ones."""
    scores = parts.effects
    if scores is None or not scores.nodes:
        return None
    figures: dict[str, Any] = {"effects": node_heat(scores)}
    n_layers = 1 + max((node_name(score.node).layer or 0 for score in scores.nodes), default=0)
    how = "exact" if scores.method == "exact" else f"approximated by {method_words(scores.method)}"
    metric = f"{scores.metric.replace('_', ' ')} on {task_words(scores.task)}"
    words = (
        f"The effect of a node is the change of {metric} when the node is ablated "
        f"({scores.ablation}) in the clean run: negative when the node helps. Effects here are {how}."
    )
    bar = effect_legend(scores)
    size = heat_height(Axis("layer", ("",) * n_layers), Axis("head", ()))
    label = f"Effect of ablating each of {len(scores.nodes)} nodes, layer by head"
    figure = plot("effects", label, height=size, above=bar)
    left = f'<div class="cell">{heading("Every node")}{figure}{_strongest(scores)}</div>'
    right = _spot_block(scores)
    if scores.spot_check:
        figures["spot"] = spot_check(scores.spot_check, scores.unit)
    return Section(
        "scores", "Nodes", "Effect of every node", paragraph(words) + f'<div class="row">{left}{right}</div>', figures
    )


def _side_by_side(grids: list[Grid], blocks: tuple[str, ...]) -> str:
    """Each grid as wide as its columns need; those that fit stand beside each other."""
    cells = "".join(
        f'<div style="flex:1 1 {_width(grid)}px;max-width:{_width(grid) * 5 // 4}px">{block}</div>'
        for grid, block in zip(grids, blocks, strict=True)
    )
    return f'<div class="sweeps">{cells}</div>'


def _width(grid: Grid) -> int:
    across = flat_axes(grid)[1]
    return max((WORDY_CELL_PX if is_wordy(across) else NUMBER_CELL_PX) * len(across.labels) + 60, 300)


def _row(blocks: list[str], n_columns: int) -> str:
    """Blocks beside each other, each at least as wide as its columns need."""
    least = max(236, 16 * n_columns + 60)
    return f'<div class="row maps" style="--least:{least}px">{"".join(blocks)}</div>'


def _grid_block(grid: Grid, key: str) -> tuple[str, dict[str, Any]]:
    limit = limit_of([grid.shares()])
    down, across = flat_axes(grid)
    base = sum(grid.base) / len(grid.base)
    metric = grid.metric.replace("_", " ")
    if grid.source is not None:
        source = sum(grid.source) / len(grid.source)
        what = "share of the distance"
        words = (
            f"0 is the run without the gate ({metric} {short(base)} {grid.unit}), 1 the run patched from ({short(source)})."
        )
    else:
        what = "change as a share"
        words = f"Change as a share of the value without the gate ({metric} {short(base)} {grid.unit}); −1 takes all of it."
    caption = f"{capital(task_words(grid.task))}, {count(len(grid.base), 'prompt')}. {words}{_spared(grid)}"
    label = f"Heat map of {grid.title}: {' by '.join(axis.name for axis in grid.axes)}. {_peak(grid)}"
    bar = legend(what, limit, has_null=any(grid.is_null))
    figure = plot(
        key,
        label,
        caption=caption,
        height=heat_height(down, across),
        least_width=CELL_PX * len(across.labels) + 60,
        above=bar,
    )
    title = f"<h3>{code(grid.title)}</h3>"
    return f'<div class="cell">{title}{figure}{_top_cells(grid)}</div>', {key: grid_heat(grid, limit)}


def _spared(grid: Grid) -> str:
    """How much less was computed than by running every cell in full."""
    if grid.work.token_layers == 0 or grid.work.ratio < 2:
        return ""
    null = f"; {sum(grid.is_null)} of {len(grid.is_null)} cells change nothing" if any(grid.is_null) else ""
    return f" Every cell exactly, with {short(grid.work.ratio)} times less computed than cell by cell{null}."


def _peak(grid: Grid) -> str:
    shares = grid.shares()
    best = max(range(len(shares)), key=lambda ix: abs(shares[ix]))
    return f"Strongest: {grid.sites[best]}, share {number(shares[best])}"


def _top_cells(grid: Grid) -> str:
    shares, effects = grid.shares(), grid.effects()
    order = sorted(range(len(shares)), key=lambda ix: -abs(shares[ix]))[:TOP]
    rows = [(code(grid.sites[ix]), short(effects[ix]), number(shares[ix], 3)) for ix in order]
    caption = f"Strongest {len(rows)} of {len(shares)} cells"
    return fold(caption, table(("site", f"effect ({grid.unit})", "share"), rows, caption, "numbers"))


def _head_block(heads: HeadScores, kind: int, key: str, limit: float) -> str:
    rows = len(heads.values[kind])
    ranked = _ranked(heads, kind)
    best = f"Highest: head {ranked[0][1]}.{ranked[0][2]}, {number(ranked[0][0])}" if ranked else ""
    label = f"Heat map of {heads.kinds[kind]} scores, layer by head. {best}"
    bar = legend("attention", limit, is_sequential=True)
    height = heat_height(Axis("layer", ("",) * rows), Axis("head", ()))
    title = heading(capital(heads.kinds[kind]))
    return f'<div class="cell">{title}{plot(key, label, caption=best + ".", height=height, above=bar)}</div>'


def _ranked(heads: HeadScores, kind: int) -> list[tuple[float, int, int]]:
    cells = [(value, layer, head) for layer, row in enumerate(heads.values[kind]) for head, value in enumerate(row)]
    return sorted(cells, reverse=True)


def _agreement(heads: HeadScores, kind: int, grid: Grid) -> str:
    """How many of the heads that look that way are among those whose ablation matters most."""
    lookers = [f"{layer}.{head}" for _, layer, head in _ranked(heads, kind)[:5]]
    labels = [f"{layer}.{head}" for layer in grid.axes[0].labels for head in grid.axes[1].labels]
    shares = grid.shares()
    strongest = {labels[ix] for ix in sorted(range(len(shares)), key=lambda ix: -abs(shares[ix]))[:TOP]}
    shared = [name for name in lookers if name in strongest]
    named = f": {', '.join(shared)}" if shared else ""
    verb = "is" if len(shared) == 1 else "are"
    start = (
        f"Of the {len(lookers)} heads with the highest {heads.kinds[kind]} score, {len(shared)} {verb} among the {TOP} that "
    )
    return f"{text(start)}{code(grid.title)} moves most{text(named)}."


def _strongest(scores: Scores) -> str:
    ranked = scores.ranked()[:TOP]
    rows = [(code(score.node), short(score.effect), interval(score.interval)) for score in ranked]
    caption = f"Strongest {len(rows)} of {len(scores.nodes)} nodes"
    return fold(caption, table(("node", f"effect ({scores.unit})", "95 % interval"), rows, caption, "numbers"))


def _spot_block(scores: Scores) -> str:
    check = scores.spot_check
    if check is None:
        if scores.method == "exact":
            return ""
        words = "These effects are approximate and were not measured again exactly."
        return f'<div class="cell">{heading("Spot check")}{paragraph(words, "warn")}</div>'
    n, r = len(check.nodes), number(check.correlation)
    caption = f"{count(n, 'node')} measured again exactly: Pearson's r = {r}. On the dashed line both agree."
    figure = plot("spot", f"Approximate against exact effects of {count(n, 'node')}, r = {r}", caption=caption, height=420)
    caption = "Approximate and exact effects of the checked nodes"
    rows = [
        (code(node), short(approximate), short(exact), "strongest" if is_top else "random")
        for node, approximate, exact, is_top in zip(check.nodes, check.approximate, check.exact, check.is_top, strict=True)
    ]
    inner = table(("node", "approximate", "exact", "drawn as"), rows, caption, "numbers")
    return f'<div class="cell">{heading("Spot check: approximate against exact")}{figure}{fold("The numbers", inner)}</div>'
