"""Attention patterns at every checkpoint, under one slider: small maps, one per head, of each run and prompt."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Int

from optrode.reports.blocks import chip, fold, legend, paragraph, table, text
from optrode.reports.section import Section
from optrode.reports.slides import slider_html
from optrode.reports.words import count, number, whole
from optrode.train.records import Emergence, Watched

MOST_HEADS: Final = 96
MOST_BYTES: Final = 3_000_000
LEVELS: Final = 255
WORDS: Final = (
    "Rows are the positions that attend, top to bottom; columns the positions attended to. The slider moves through the "
    "checkpoints of every run at once, by mouse, touch or arrow keys; a run shows its latest checkpoint up to that step, "
    "and a line in the charts above stands at it. Hover to read a cell, to the nearest 1/255."
)


def patterns_section(emergences: Sequence[Emergence]) -> Section | None:
    """The slider, and small maps of all heads."""
    watched = [(seen, prompt) for seen in emergences for prompt in seen.prompts if seen.steps]
    if not watched:
        return None
    budget = MOST_BYTES // len(watched)
    blocks = [_block(seen, prompt, ix, budget) for ix, (seen, prompt) in enumerate(watched)]
    steps = sorted({step for _, data in blocks for step in data["steps"]})
    slider = slider_html("slider-forming", "Training step", tuple(whole(step) for step in steps), "data-forming")
    body = paragraph(WORDS) + legend("attention", 1.0, is_sequential=True)
    body += f'<div class="under">{slider}</div>' + "".join(html for html, _ in blocks)
    data = {"forming": {"steps": steps, "blocks": [data for _, data in blocks]}, "steps": True}
    return Section("patterns", "Attention", "Where heads look as they form", body, data=data)


def kept_steps(n_steps: int, n_bytes: int, budget: int) -> Int[np.ndarray, " kept"]:
    """Indices of the checkpoints that are shown: all, or as many as the page can carry, evenly, with both ends."""
    most = max(2, budget // max(n_bytes, 1))
    if n_steps <= most:
        return np.arange(n_steps)
    return np.unique(np.linspace(0, n_steps - 1, most).round().astype(np.int64))


def _block(seen: Emergence, prompt: Watched, ix: int, budget: int) -> tuple[str, dict[str, Any]]:
    """HTML of one prompt in one run, and its patterns: one byte per cell, checkpoint after checkpoint."""
    n_layers, n_heads, n_pos = prompt.patterns.shape[1:4]
    layers = seen.layers[: max(1, MOST_HEADS // max(n_heads, 1))]
    kept = kept_steps(len(seen.steps), len(layers) * n_heads * n_pos**2, budget)
    cells = np.clip(np.nan_to_num(prompt.patterns[kept][:, : len(layers)]), 0, 1)
    coded = b64encode((cells * LEVELS).round().astype(np.uint8).tobytes()).decode()
    rows = "".join(_layer(ix, at, layer, n_heads) for at, layer in enumerate(layers))
    held = f" <small>{text(', '.join(seen.gates))} held</small>" if seen.gates else ""
    head = f'<h3>{text(seen.run)} <output class="at-step" data-at="{ix}"></output>{held}</h3>'
    tokens = f'<p class="key of-prompt">{"".join(chip(token) for token in prompt.tokens)}</p>'
    notes = _left_out(len(kept), len(seen.steps), len(layers), n_layers)
    data = {
        "steps": [seen.steps[at] for at in kept], "tokens": list(prompt.tokens), "n": n_pos, "heads": n_heads,
        "layers": len(layers), "cells": coded,
    }  # fmt: skip
    return f'<div class="forming">{head}{tokens}{rows}{notes}{_numbers(seen, prompt)}</div>', data


def _layer(block: int, at: int, layer: int, n_heads: int) -> str:
    cards = "".join(_card(block, at, layer, head) for head in range(n_heads))
    return f'<div class="layer"><p class="muted">layer {layer}</p><div class="cards small">{cards}</div></div>'


def _card(block: int, at: int, layer: int, head: int) -> str:
    label = f"Attention pattern of head {layer}.{head} at the chosen step"
    where = f'data-block="{block}" data-layer="{at}" data-head="{head}"'
    canvas = f'<canvas {where} role="img" aria-label="{text(label)}"></canvas>'
    caption = f"<figcaption><strong>{layer}.{head}</strong><output></output></figcaption>"
    return f'<figure class="card">{canvas}{caption}</figure>'


def _left_out(n_kept: int, n_steps: int, n_drawn: int, n_layers: int) -> str:
    words = []
    if n_kept < n_steps:
        words.append(f"{n_kept} of {count(n_steps, 'checkpoint')} are on this page")
    if n_drawn < n_layers:
        words.append(f"the first {n_drawn} of {count(n_layers, 'layer')} are drawn")
    return paragraph(f"To keep the page small, {' and '.join(words)}; all are in the record.", "muted") if words else ""


def _numbers(seen: Emergence, prompt: Watched) -> str:
    """Of each head, the cell whose attention changes most, at the first and last checkpoint."""
    first, last = prompt.patterns[0], prompt.patterns[-1]
    rows = []
    for at, layer in enumerate(seen.layers):
        for head in range(first.shape[1]):
            moved = last[at, head] - first[at, head]
            row, column = np.unravel_index(int(np.nanargmax(np.abs(moved))) if moved.size else 0, moved.shape)
            route = f"{_token(prompt, int(row))} → {_token(prompt, int(column))}"
            values = (number(float(cells[at, head, row, column])) for cells in (first, last))
            rows.append((f"{layer}.{head}", text(route), *values))
    columns = ("head", "route that changes most", f"at step {whole(seen.steps[0])}", f"at step {whole(seen.steps[-1])}")
    return fold("The numbers", table(columns, rows, f"Attention in {seen.run}, first and last checkpoint", "numbers"))


def _token(prompt: Watched, pos: int) -> str:
    return f"{prompt.tokens[pos].strip() or '␣'} ({pos})"
