"""What there is to see in an induction circuit that has formed: strengths, redundancy, paths and wiring of heads.

Singh et al., arXiv 2404.07129, section 3, of one network with all its heads; see `formation` for the rest.
"""

from random import Random
from statistics import median
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.claims import Line, Map, Slides
from optrode.model.model import Model
from optrode.study.kit import clamps, heads, icl, omniglot
from optrode.study.kit.formation import Found, Lab, at_least
from optrode.study.kit.icl_training import N_BATCH, Bench, bench
from optrode.train.checkpoints import at_step
from optrode.train.loop import Trained

KEPT: Final = (0, 100, 200, 250, 300, 350, 400, 450, 500, 600, 800, 1500)
"""Steps whose attention is shown."""
N_SPLITS: Final = 30
WIRED: Final = 0.55
"""Accuracy, better than by guessing between the labels in context, with which two heads count as wired."""
TOKENS: Final = ("x1", "l1", "x2", "l2", "q")
GAP: Final = "\u00a0"
"""Label of empty cells between maps."""


def whole(lab: Lab, found: Found) -> Trained:
    """The network with all heads, free."""
    b = lab.bench

    def strengths(model: Model) -> dict[str, float]:
        return {f"{head}": float(v) for head, v in enumerate(heads.strengths(model, b.rows))}

    run = lab.fit("free", (), KEPT[-1], None, every=25, measures={"strength": strengths}, keep_at=KEPT)
    found.curve("free seen", "label pairs of training", run)
    found.curve("free unseen", "label pairs left out", run, "unseen")
    found.claim("S1", at_least(run), _half_way(run))
    nowhere = heads.loss(run.model, icl.absent(b.words, b.unseen_rows))
    found.claim("S2", run.run.measures["unseen"].values[-1], nowhere)
    _rise(lab, found, run)
    _redundancy(lab, found, run.model)
    _paths(lab, found, run.model)
    _wiring(lab, found, run)
    found.slides["patterns"] = _slides(lab, run)
    return run


def _half_way(run: Trained) -> float:
    """The loss at half the sequences to the threshold."""
    series, step = run.run.measures["seen"], at_least(run) / N_BATCH / 2
    return next(v for s, v in zip(series.steps, series.values, strict=True) if s >= step)


def _rise(lab: Lab, found: Found, run: Trained) -> None:
    """Whether strengths of all heads rise together, and end positive."""
    series = [run.run.measures[f"strength.{head}"] for head in range(lab.bench.n_heads)]
    for head in range(lab.bench.n_heads):
        found.curve(f"strength {head}", f"head {head}", run, f"strength.{head}")
    halves = [one.first_above(one.values[-1] / 2) or 0 for one in series]
    middle = median(halves)
    before = max(ix for ix, step in enumerate(series[0].steps) if step <= middle / 2)
    is_near = [abs(half - middle) <= 0.25 * middle for half in halves]
    together = sum(one.values[-1] > 0.05 and near for one, near in zip(series, is_near, strict=True))
    found.claim("S3", together, sum(one.values[before] > 0.2 * one.values[-1] > 0 for one in series))


def _redundancy(lab: Lab, found: Found, model: Model) -> None:
    """Ablating one head, and adding heads in the order of their strength."""
    rows, n = lab.bench.rows, lab.bench.n_heads
    whole, none = heads.accuracy(model, rows), heads.accuracy(model, rows, *clamps.only(None, 1, n))
    found.claim("S4", max(heads.costs(model, rows)), whole - none)
    order = heads.strengths(model, rows).argsort(descending=True).tolist()
    steps = heads.ladder(model, rows, order)
    silent = [heads.loss(model, rows, *clamps.only(None, 0, n), *clamps.ablated(order[k:], 1)) for k in range(n + 1)]
    found.claim("S15", max(b / a for a, b in zip(steps, steps[1:], strict=False)), min(silent[1:]) / silent[0])
    found.lines["ladder"] = Line("with layer 1", tuple(map(float, range(n + 1))), tuple(steps))
    found.lines["ladder silent"] = Line("layer 1 silent", tuple(map(float, range(n + 1))), tuple(silent), dashed=True)


def _paths(lab: Lab, found: Found, model: Model) -> None:
    """Table 1: previous-token heads act through keys, the others through values; none goes to the logits by itself."""
    rows, n = lab.bench.rows, lab.bench.n_heads
    silent = clamps.only(None, 0, n)
    direct = heads.accuracy(model, rows, *clamps.keeping_patterns(*clamps.keeping_values(*silent)))
    found.claim("S16", direct, heads.accuracy(model, rows, *silent))
    group = [head for head, score in enumerate(heads.previous_scores(model, rows)) if score > 0.5]
    kept = heads.dissociation(model, rows, group)
    value, draws = heads.double_dissociation(kept), Random(lab.setting.random_seed)
    others = [draws.sample(range(n), len(group)) for _ in range(lab.setting.pick(N_SPLITS, 2))]
    split = [heads.double_dissociation(heads.dissociation(model, rows, other)) for other in others]
    found.claim("S5", value, sum(s >= value for s in split) / len(split))
    found.lines["paths"] = Line("previous-token heads and the rest", (0.0, 1.0, 2.0, 3.0), tuple(kept.values()))
    found.notes.append(f"Seed {lab.setting.random_seed}: previous-token heads of layer 1 are {group}.")


def _wiring(lab: Lab, found: Found, run: Trained) -> None:
    """Fig. 11, and whether composition scores foretell it."""
    rows, fans, lone = lab.bench.rows, [], []
    at_start, at_end = at_step(run, run.run.checkpoints[0].step), run.model
    rho: dict[str, list[float]] = {"start": [], "end": []}
    for path in heads.PATHS:
        wired = heads.wiring(at_end, rows, path)
        found.maps[f"wiring {path}"] = _map_of(wired, path)
        fans.append(heads.fan(wired > WIRED))
        lone.append(int((heads.without_writers(at_end, rows, path) > WIRED).sum()))
        for when, model in (("start", at_start), ("end", at_end)):
            rho[when].append(heads.rank_correlation(heads.composes(model, path[0]), wired))
    found.claim("S6", min(fans), max(lone))
    found.claim("S18", sum(rho["start"]) / 2, sum(rho["end"]) / 2)


def _map_of(wired: Float[Tensor, "reader writer"], path: str) -> Map:
    n = len(wired)
    cells = tuple(tuple(float(v) for v in row) for row in wired)
    return Map(
        f"through {path}s", "the one head of layer 2", "the one head of layer 1", tuple(f"L2 h{ix}" for ix in range(n)),
        tuple(f"L1 h{ix}" for ix in range(n)), cells, "accuracy",
    )  # fmt: skip


def _slides(lab: Lab, run: Trained) -> Slides:
    """Attention patterns at checkpoints, mean over rows whose query is of the first class."""
    first = lab.bench.rows.right == 1
    rows = icl.Sequences(lab.bench.rows.ids[first], lab.bench.rows.wanted[first], lab.bench.rows.right[first])
    steps = [one.step for one in run.run.checkpoints]
    names = tuple(f"{step * N_BATCH:,}" for step in steps)
    means = [heads.patterns(at_step(run, step), rows).mean(1) for step in steps]
    maps = tuple(pattern_map(mean, f"{name} sequences") for mean, name in zip(means, names, strict=True))
    return Slides("patterns", "sequences seen", names, maps)


def pattern_map(pattern: Float[Tensor, "layer head pos src"], title: str, per_row: int = 4) -> Map:
    """All heads' patterns as small maps, so many side by side, with empty cells between."""
    n_layers, n_heads, n_pos, _ = pattern.shape
    rows: list[str] = []
    cells: list[tuple[float | None, ...]] = []
    for layer in range(n_layers):
        for first in range(0, n_heads, per_row):
            group = pattern[layer, first : first + per_row]
            rows += [GAP, *(f"L{layer + 1} h{first}-{first + len(group) - 1} {token}" for token in TOKENS)]
            cells += [(), *(_row_of(group[:, pos], pos) for pos in range(n_pos))]
    columns = ([*TOKENS, GAP] * min(per_row, n_heads))[:-1]
    cells = [row + (None,) * (len(columns) - len(row)) for row in cells]
    return Map(title, "from", "to", tuple(rows[1:]), tuple(columns), tuple(cells[1:]), "attention")


def _row_of(row: Float[Tensor, "head src"], pos: int) -> tuple[float | None, ...]:
    """One position's attention of several heads; later positions are empty."""
    cells: list[float | None] = []
    for head in row.tolist():
        cells += [*(value if src <= pos else None for src, value in enumerate(head)), None]
    return tuple(cells[:-1])


def characters(lab: Lab, found: Found, gaussian: Trained) -> None:
    """New classes: of handwritten characters where the data is at hand, and of random directions as the control."""
    archives = omniglot.find(lab.setting.data)
    if not archives:
        found.notes.append("Handwritten characters (S19) are left out: no folder with omniglot/*.zip was given.")
        return
    n, seed = lab.setting.pick(50, 8), lab.setting.random_seed
    features = omniglot.read(archives, size=lab.setting.pick(28, 4), random_seed=seed)
    on = bench(features, seed, n_classes=n, n_rows=len(lab.bench.rows.ids), n_heads=lab.bench.n_heads)
    run = lab.fit("characters", (), 750, None, every=25, on=on)
    found.curve("characters", "handwritten characters", run)
    found.claim("S19", _on_new(on, run), _on_new(lab.bench, gaussian))


def _on_new(on: Bench, run: Trained) -> float:
    """Accuracy on classes that were not trained on."""
    new = on.seen.but(classes=range(len(on.seen.classes), on.words.n_classes))
    rows = icl.draw(on.words, new, len(on.rows.ids), torch.Generator().manual_seed(on.random_seed))
    return icl.accuracy(run.model, rows)
