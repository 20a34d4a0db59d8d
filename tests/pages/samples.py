"""Records of one made-up investigation, shaped like a real one: 30 layers, 9 heads, 14 tokens, 16 prompt pairs."""

import math
import random
import re
from dataclasses import replace

from optrode.circuit.circuit import (
    Circuit,
    CurvePoint,
    HeadScores,
    HeadView,
    Interval,
    Minimality,
    NodeScore,
    Proof,
    Scores,
    SpotCheck,
)
from optrode.provenance import Provenance
from optrode.trial.grid import Axis, Grid
from optrode.trial.prompts import Ability, Dropped, Pair, Task

N_LAYERS, N_HEADS, N_PROMPTS = 30, 9, 16
NAMES = ("Mary", "John", "Alice", "Tom", "Emma", "Peter", "Laura", "Simon")
THINGS, PLACES = ("drink", "book", "key", "ring"), ("store", "park", "school", "office")
MARKS = {"io": 1, "s1": 3, "s2": 9, "end": 13}
FULL, EMPTY = 3.42, -0.31

HEADS = {
    (2, 5): ("duplicate token", "s2 -> s1"),
    (3, 1): ("duplicate token", "s2 -> s1"),
    (4, 7): ("previous token", "s1+1 -> s1"),
    (8, 2): ("induction", "s2 -> s1+1"),
    (9, 0): ("induction", "s2 -> s1+1"),
    (12, 3): ("S-inhibition", "end -> s2"),
    (13, 8): ("S-inhibition", "end -> s2"),
    (15, 4): ("S-inhibition", "end -> s2"),
    (18, 6): ("name mover", "end -> io"),
    (18, 1): ("name mover", "end -> io"),
    (18, 3): ("", ""),
    (21, 4): ("name mover", "end -> io"),
    (24, 2): ("backup name mover", "end -> io"),
    (26, 7): ("negative name mover", "end -> io"),
}
MLPS = (0, 1, 4, 11, 17, 22)
PLACE = {"io": 1, "s1": 3, "s1+1": 4, "s2": 9, "end": 13}


def head(layer: int, ix: int) -> str:
    return f"blocks.{layer}.attn.z[head={ix}]"


def mlp(layer: int) -> str:
    return f"blocks.{layer}.mlp_out"


CIRCUIT = (
    head(18, 6),
    head(12, 3),
    mlp(0),
    head(21, 4),
    *(head(*at) for at in HEADS if at not in ((18, 6), (12, 3), (21, 4))),
) + tuple(mlp(layer) for layer in MLPS if layer)


def provenance(seconds: float = 12.4, passes: int = 5280) -> Provenance:
    versions = {"optrode": "0.1.0", "python": "3.11.2", "torch": "2.8.0", "transformers": "5.1.0", "numpy": "2.3.1"}
    command = "optrode find --model smollm2 --task ioi --n 16 --out runs/ioi"
    return Provenance(
        "smollm2",
        "5af571cbf074e6d2" * 4,
        0,
        versions,
        "x86_64, 2 cores",
        command,
        "2025-11-22T03:00:00+00:00",
        seconds,
        passes,
    )


def pair(rng: random.Random) -> Pair:
    io, subject = rng.sample(NAMES, 2)
    thing, place = rng.choice(THINGS), rng.choice(PLACES)
    words = ("When", io, "and", subject, "went", "to", "the", place, ",", subject, "gave", "a", thing, "to")
    clean = tuple(word if ix == 0 or word == "," else f" {word}" for ix, word in enumerate(words))
    corrupt = (*clean[:9], f" {io}", *clean[10:])
    ids = {token: 100 + sum(token.encode()) for token in clean + corrupt}
    return Pair(
        tuple(ids[t] for t in clean),
        tuple(ids[t] for t in corrupt),
        (ids[f" {io}"],),
        (ids[f" {subject}"],),
        clean,
        corrupt,
        marks=MARKS,
    )


def task() -> Task:
    rng = random.Random(4)
    first = pair(random.Random(1))
    tokens = tuple(re.findall(" ?[^ ]+?(?=[ ,]|$)|,", "When Mary and John went to the store, John gave a drink to"))
    corrupt = (*tokens[:9], " Mary", *tokens[10:])
    ids = {token: 100 + sum(token.encode()) for token in tokens}
    first = replace(
        first,
        clean=tuple(ids[t] for t in tokens),
        corrupt=tuple(ids[t] for t in corrupt),
        clean_tokens=tokens,
        corrupt_tokens=corrupt,
        right=(ids[" Mary"],),
        wrong=(ids[" John"],),
    )
    pairs = (first, *(pair(rng) for _ in range(N_PROMPTS - 1)))
    return Task(
        "ioi",
        "Indirect object identification: complete the sentence with the name that is not repeated.",
        "logit_gap",
        pairs,
        0,
        (Dropped("a name is not one token", 3), Dropped("the model is wrong on it", 2)),
        Ability(0.94, FULL, -1.87),
    )


def spread(mean: float, rng: random.Random, noise: float = 0.2) -> tuple[float, ...]:
    return tuple(mean + rng.gauss(0, noise) for _ in range(N_PROMPTS))


def residual_grid() -> Grid:
    rng, tokens = random.Random(11), task().pairs[0].clean_tokens
    axes = (Axis("layer", tuple(map(str, range(N_LAYERS)))), Axis("pos", tuple(f"{ix} {tokens[ix]}" for ix in range(14))))
    base, source = spread(-1.87, rng), spread(FULL, rng)
    values, nulls, sites = [], [], []
    for layer in range(N_LAYERS):
        for pos in range(14):
            early, late = 1 / (1 + math.exp(layer - 14)), 1 / (1 + math.exp(16 - layer))
            share = {9: early, 13: late, 10: 0.12 * early * (layer > 3), 12: -0.08 * late}.get(pos, rng.gauss(0, 0.01))
            is_null = pos < 9 or (layer == 0 and pos != 9)
            values.append(base if is_null else tuple(b + share * (s - b) for b, s in zip(base, source, strict=True)))
            nulls.append(is_null)
            sites.append(f"blocks.{layer}.resid_pre[pos={pos}]")
    return Grid(
        "patch(clean) at blocks.*.resid_pre, each=layer×pos",
        "ioi",
        "logit_gap",
        "logits",
        axes,
        tuple(sites),
        tuple(values),
        base,
        source,
        tuple(nulls),
        provenance(5.4, 212),
    )


def head_grid(title: str = "zero at blocks.*.attn.z, each=layer×head", is_patch: bool = False) -> Grid:
    rng = random.Random(12 + is_patch)
    axes = (Axis("layer", tuple(map(str, range(N_LAYERS)))), Axis("head", tuple(map(str, range(N_HEADS)))))
    base, source = spread(-1.87 if is_patch else FULL, rng), spread(FULL, rng)
    values = []
    for layer in range(N_LAYERS):
        for ix in range(N_HEADS):
            effect = effect_of(layer, ix, rng) * (-1 if is_patch else 1)
            values.append(tuple(b + effect + rng.gauss(0, 0.05) for b in base))
    sites = tuple(head(layer, ix) for layer in range(N_LAYERS) for ix in range(N_HEADS))
    return Grid(
        title,
        "ioi",
        "logit_gap",
        "logits",
        axes,
        sites,
        tuple(values),
        base,
        source if is_patch else None,
        (False,) * len(values),
        provenance(9.1, 270),
    )


def effect_of(layer: int, ix: int, rng: random.Random) -> float:
    if (layer, ix) not in HEADS:
        return rng.gauss(0, 0.03)
    return 0.42 if (layer, ix) == (26, 7) else -rng.uniform(0.25, 0.9) * (2.0 if (layer, ix) == (18, 6) else 1)


def node_score(node: str, effect: float, rng: random.Random) -> NodeScore:
    per_prompt = spread(effect, rng, 0.05 + abs(effect) / 6)
    mean, half = sum(per_prompt) / N_PROMPTS, 0.03 + abs(effect) / 10
    shares = [abs(rng.gauss(0, 0.05)) for _ in range(14)]
    shares[13 if "z" in node else 9] += 0.6
    total = sum(shares)
    return NodeScore(node, mean, Interval(mean - half, mean + half), per_prompt, tuple(share / total for share in shares))


def scores() -> Scores:
    rng = random.Random(13)
    nodes = []
    for layer in range(N_LAYERS):
        nodes += [node_score(head(layer, ix), effect_of(layer, ix, rng), rng) for ix in range(N_HEADS)]
        nodes.append(
            node_score(
                mlp(layer), -3.1 if layer == 0 else -rng.uniform(0.2, 0.6) if layer in MLPS else rng.gauss(0, 0.04), rng
            )
        )
    ranked = sorted(nodes, key=lambda node: -abs(node.effect))
    picked = ranked[:20] + rng.sample(ranked[20:], 10)
    exact = tuple(node.effect * rng.uniform(0.8, 1.15) + rng.gauss(0, 0.03) for node in picked)
    check = SpotCheck(
        tuple(n.node for n in picked), (True,) * 20 + (False,) * 10, tuple(n.effect for n in picked), exact, 0.981
    )
    return Scores("ioi", "logit_gap", "logits", "attribution", "resample", tuple(nodes), check, provenance(3.2, 160))


def pattern(reads: int, writes: int, strength: float, rng: random.Random) -> tuple[tuple[float, ...], ...]:
    rows = []
    for row in range(14):
        raw = [
            rng.random() * 0.2 + (1.2 if source == 0 else 0) + (0.5 if source == row - 1 else 0) for source in range(row + 1)
        ]
        if row == writes:
            raw = [value * (1 - strength) / (sum(raw) or 1) for value in raw]
            raw[reads] += strength
        total = sum(raw)
        rows.append(tuple(value / total for value in raw) + (0.0,) * (13 - row))
    return tuple(rows)


def head_views() -> tuple[HeadView, ...]:
    rng = random.Random(14)
    views = []
    for (layer, ix), (role, route) in HEADS.items():
        writes, reads = (PLACE[name] for name in route.split(" -> ")) if route else (13, 12)
        attention = rng.uniform(0.35, 0.85) if route else 0.11
        routes = {
            name: round(rng.uniform(0, 0.15), 3)
            for name in ("end -> io", "end -> s1", "end -> s2", "s2 -> s1", "s2 -> s1+1")
        }
        routes |= {route: attention} if route else {}
        views.append(
            HeadView(head(layer, ix), role, route, attention, reads, writes, pattern(reads, writes, attention, rng), routes)
        )
    return tuple(views)


def circuit(target: float = 0.85) -> Circuit:
    tokens = task().pairs[0].clean_tokens
    return Circuit("ioi", CIRCUIT, N_LAYERS * (N_HEADS + 1), target, scores(), head_views(), tokens, provenance(3.9, 200))


def proof(faithfulness: float = 0.86, best_random: float = 0.05) -> Proof:
    rng = random.Random(15)
    sizes = (1, 2, 5, 10, 15, 20, 30, 50, 80, 120, 200, 300)
    points = []
    for size in sizes:
        value = (
            1.0
            if size == 300
            else faithfulness
            if size == 20
            else (1.08 if size > 40 else 1) * (1 - math.exp(-size / 10)) * faithfulness / 0.865
        )
        half = 0.0 if size == 300 else 0.045 * (1.2 - value / 2)
        points.append(CurvePoint(size, value, Interval(value - half, value + half)))
    others = tuple(sorted(rng.gauss(-0.02, 0.03) for _ in range(19)))
    controls = (*(min(value, best_random - 0.01) for value in others), best_random)
    worth = []
    for ix, node in enumerate(CIRCUIT):
        lost = 0.31 * math.exp(-ix / 5) + rng.gauss(0.01, 0.01)
        worth.append(Minimality(node, lost, Interval(lost - 0.025, lost + 0.03)))
    return Proof(
        "ioi",
        "logit_gap",
        "logits",
        "resample",
        len(CIRCUIT),
        FULL,
        EMPTY,
        faithfulness,
        Interval(faithfulness - 0.05, faithfulness + 0.04),
        tuple(points),
        controls,
        0.12,
        Interval(0.07, 0.18),
        tuple(worth),
        N_PROMPTS,
        1000,
        provenance(48.7, 2900),
    )


def head_scores() -> HeadScores:
    rng = random.Random(16)
    kinds = ("induction", "previous token", "duplicate token")
    layers = []
    for kind in kinds:
        strong = {at for at, (role, _) in HEADS.items() if role == kind}
        layers.append(
            tuple(
                tuple(rng.uniform(0.5, 0.9) if (layer, ix) in strong else abs(rng.gauss(0, 0.06)) for ix in range(N_HEADS))
                for layer in range(N_LAYERS)
            )
        )
    return HeadScores("ioi", kinds, tuple(layers), provenance(1.1, 16))


def everything() -> tuple[object, ...]:
    patch = head_grid("patch(clean) at blocks.*.attn.z, each=layer×head", is_patch=True)
    return (task(), residual_grid(), patch, head_grid(), head_scores(), circuit(), proof())
