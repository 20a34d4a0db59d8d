"""Records of made-up edge circuits: one of SmolLM2's size with a few hundred edges, and one as small as tracr's programs."""

import math
import random
from functools import cache

import numpy as np
import samples

from optrode.circuit.circuit import Interval
from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.records import (
    EdgeCheck,
    EdgeCircuit,
    EdgeCurve,
    EdgeLoss,
    EdgeProof,
    EdgeScores,
    MethodRow,
    MethodTable,
    Redundancy,
    SharePoint,
)

BIG, TINY = Graph(30, 9, 3), Graph(2, 1, 1)
SIZE, N_PROMPTS = 412, 16
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NOTE = "Integrated gradients did not converge: their sum differs from the change of the metric by 7 %."
BUSY = ("embed", "m0", "a2.h5", "a4.h7", "a8.h2", "a9.h0", "a12.h3", "a13.h8", "a15.h4", "m17", "a18.h6", "a21.h4", "a26.h7")
BUSY_ENDS = tuple(
    f"a{layer}.{end}"
    for layer, ends in {
        2: ("h5.q", "g1.k", "g1.v"), 4: ("h7.q", "g2.v"), 8: ("h2.q", "g0.k", "g0.v"), 9: ("h0.q", "g0.k"),
        12: ("h3.q", "g1.v"), 13: ("h8.q", "g2.v"), 15: ("h4.q",), 18: ("h6.q", "g2.k", "g2.v"), 21: ("h4.q", "g1.v"),
        26: ("h7.q",),
    }.items()
    for end in ends
) + ("m0", "m17", "m22", "logits")  # fmt: skip


@cache
def scores(method: str = "eap-ig") -> EdgeScores:
    """A few strong routes among ten thousands of edges that do nearly nothing."""
    draw = np.random.default_rng(3)
    strong = np.array([0.5 if name in BUSY else 0.0 for name in BIG.senders])
    wanted = np.array([1.0 if name in BUSY_ENDS else 0.0 for name in BIG.receivers])
    size = 0.0006 * draw.exponential(size=BIG.is_edge.shape) ** 2
    size += 0.4 * strong * wanted[:, None] * draw.exponential(size=BIG.is_edge.shape)
    size += 0.012 * (strong + wanted[:, None]) * draw.exponential(size=BIG.is_edge.shape)
    sign = np.where(draw.random(BIG.is_edge.shape) < 0.72, -1.0, 1.0)
    mean = (sign * size)[BIG.is_edge]
    per_prompt = mean * (1 + 0.25 * draw.standard_normal((N_PROMPTS, BIG.n_edges)))
    found = EdgeScores("ioi", "logit_gap", "logits", method, "resample", BIG, per_prompt, samples.provenance(6.1, 11))
    return EdgeScores(
        **{name: getattr(found, name) for name in ("task", "metric", "unit", "method", "ablation", "graph", "per_prompt")},
        provenance=found.provenance, check=check(found), notes=(NOTE,), settings={"steps": "5"},
    )  # fmt: skip


def check(found: EdgeScores, *, agrees: bool = True) -> EdgeCheck:
    rng, ranked = random.Random(5), found.ranked()
    picked = [*ranked[:16], *rng.sample(list(ranked[200:]), 12)]
    approximate = [float(found.values[ix]) for ix in picked]
    noise = 0.15 if agrees else 0.9
    exact = [value * rng.gauss(0.95, noise) + rng.gauss(0, 0.005) for value in approximate]
    exact[-1] -= 0.0 if agrees else 0.4
    names = tuple(found.graph.name(int(ix)) for ix in picked)
    r = float(np.corrcoef(approximate, exact)[0, 1])
    missed = () if agrees else (names[-1],)
    return EdgeCheck(names, (True,) * 16 + (False,) * 12, tuple(approximate), tuple(exact), r, agrees, missed)


@cache
def circuit(size: int = SIZE, target: float = 0.85) -> EdgeCircuit:
    found = scores()
    chosen = np.zeros(BIG.n_edges, dtype=bool)
    chosen[found.ranked()[:size]] = True
    tokens = samples.task().pairs[0].clean_tokens
    return EdgeCircuit("ioi", chosen, "absolute", target, found, tokens, samples.provenance(7.0, 40))


def around(value: float, half: float = 0.045) -> Interval:
    return Interval(value - half, value + half)


def curve(selection: str, scale: float, most: float = 1.0) -> EdgeCurve:
    points = []
    for share in SHARES:
        value = 1.0 if share == 1 else most * (1 - math.exp(-share / scale)) * (1.35 if selection == "signed" else 1.0)
        points.append(SharePoint(share, round(share * BIG.n_edges), value, around(value, 0.0 if share == 1 else 0.05)))
    area, cmd = (trapezoid([(p.share, f(p.faithfulness)) for p in points]) for f in (float, lambda v: abs(1 - v)))
    return EdgeCurve(selection, tuple(points), area, cmd)


def trapezoid(points: list[tuple[float, float]]) -> float:
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False))


def proof(faithfulness: float = 0.91, best_random: float = 0.03, of: EdgeCircuit | None = None) -> EdgeProof:
    rng, found = random.Random(6), of or circuit()
    controls = (*(min(rng.gauss(0, 0.015), best_random - 0.005) for _ in range(19)), best_random)
    worth = tuple(
        EdgeLoss(edge, lost, around(lost, 0.02))
        for ix, edge in enumerate(found.edges[:20])
        for lost in [0.2 * math.exp(-ix / 4) + rng.gauss(0.005, 0.01)]
    )
    redundant = (
        Redundancy("logits", 2.9, 2.7, 1.07, False), Redundancy("a18.h6.q", 1.31, 0.52, 2.52, True),
        Redundancy("a12.g1.v", 0.7, 0.66, 1.06, False), Redundancy("m17", 0.31, 0.33, 0.94, False),
    )  # fmt: skip
    return EdgeProof(
        task=found.task, metric="logit_gap", unit="logits", ablation="resample", size=found.size, n_all=found.n_all,
        full=samples.FULL, empty=samples.EMPTY, faithfulness=faithfulness,
        interval=Interval(faithfulness - 0.05, faithfulness + 0.04),
        curves=(curve("absolute", 0.004), curve("signed", 0.003)), random=controls,
        without=0.04, without_interval=Interval(0.01, 0.08), completeness=tuple(0.02 + 0.01 * ix for ix in range(10)),
        minimality=worth, redundancy=redundant, jaccard=0.71, n_prompts=N_PROMPTS, n_bootstrap=1000,
        provenance=samples.provenance(61.0, 3100),
    )  # fmt: skip


def tiny_circuit() -> EdgeCircuit:
    """A circuit of a program: seven edges of two layers, exact effects, a given size."""
    chosen = TINY.edges(
        ["embed -> a0.h0.q", "embed -> a0.h0.k", "embed -> a0.h0.v", "a0.h0 -> m0", "m0 -> a1.h0.k", "embed -> a1.h0.v",
         "a1.h0 -> logits"]
    )  # fmt: skip
    per_prompt = np.where(chosen, -1.0, 0.0) * np.linspace(0.5, 1.5, 4)[:, None]
    found = EdgeScores("reverse", "accuracy", "", "exact", "zero", TINY, per_prompt, samples.provenance(0.2, 77))
    return EdgeCircuit("reverse", chosen, "absolute", 0.0, found, ("BOS", "a", "b"), samples.provenance(0.2, 77))


METHODS = {
    "exact": (0.0021, 1.0, 70652), "eap-ig": (0.004, 0.97, 11), "eap-ig-activations": (0.0045, 0.96, 305),
    "eap": (0.011, 0.82, 3), "clean-corrupted": (0.008, 0.84, 4), "edge-pruning": (0.006, 0.7, 900),
    "information-flow": (0.09, 0.41, 1), "random": (0.6, 0.0, 0),
}  # fmt: skip


def method_table() -> MethodTable:
    rows = []
    for ix, (method, (scale, r, passes)) in enumerate(METHODS.items()):
        most = 0.3 + 0.68 * r
        plain, signed = curve("absolute", scale, most), curve("signed", scale * 1.1, most)
        pairs, more = ([(p.share, p.faithfulness) for p in each.points] for each in (plain, signed))
        note = (NOTE,) if method == "eap-ig" else ()
        row = MethodRow(
            method, signed.cpr, plain.cmd, passes, 0.4 * passes + 0.1, tuple(pairs), tuple(more),
            auroc=1 - scale if ix % 2 == 0 else None, auroc_floored=1 - scale / 2 if ix % 2 == 0 else None,
            correlation=None if method == "exact" else r, notes=note,
        )  # fmt: skip
        rows.append(row)
    n = len(rows)
    overlap = tuple(tuple(1.0 if a == b else 0.8 / (1 + 0.4 * abs(a - b)) for b in range(n)) for a in range(n))
    return MethodTable("ioi", "logit_gap", "resample", tuple(rows), overlap, 707, BIG.n_edges, 16, samples.provenance())
