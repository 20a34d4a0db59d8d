"""Composition scores: how much of what a head writes a later head's query, key or value reads, from weights alone.

    CS(W, R) = ||W R||_F / (||W||_F ||R||_F)

W is the writer's OV matrix, R the reader's matrix on its side "q" (W_Q W_Kᵀ), "k" (W_K W_Qᵀ) or "v" (OV) (Elhage et al., "A
mathematical framework for transformer circuits", 2021). Taken apart into singular components, CS of one rank-1 part
s_i u_iᵀ v_i of W is ||v_i R|| / ||R||, and of one of R it is ||W u_jᵀ|| / ||W||: single channels stand out where the score
of whole heads is weak (Merullo et al., arXiv 2406.09519, section 3). Only products of d_head x d_model with d_model x d_head
are ever made.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.wiring import Wiring, wiring_of
from optrode.circuit.heads import Factors, Singular, factors_of, singular
from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.provenance import Provenance, provenance
from optrode.trial.run import Progress, no_progress

SIDES: Final = ("q", "k", "v")
BYS: Final = ("head", "writer", "reader")
N_DRAWS: Final = 32
_NOTHING: Final = 1e-6


@dataclass(frozen=True, eq=False)
class Composition:
    """Composition scores of all pairs of heads of different layers.

    Attributes:
        kinds: sides of the reader: any of "q", "k", "v".
        heads: names of the readers and of the writers, "a0.h0" and on.
        scores: [kind, reader, writer]; nan where the writer is not before the reader.
        by: whose singular components are told apart in `components`: "writer", "reader", or "head" for nobody's.
        components: [kind, reader, writer, component] scores of one side's rank-1 parts, largest singular value first; nan
            where a singular value is 0.
        baseline: the mean score of random matrices of the same shapes, and `component_baseline` of their rank-1 parts.
        is_subtracted: scores and components are what is above the baselines.
        is_folded: the gains of norms are part of the matrices.
    """

    kinds: tuple[str, ...]
    heads: tuple[str, ...]
    scores: Float[np.ndarray, "kind head head"]
    by: str
    components: Float[np.ndarray, "kind head head component"] | None
    baseline: float
    component_baseline: float
    is_subtracted: bool
    is_folded: bool
    provenance: Provenance

    def table(self, n: int = 20) -> list[tuple[str, str, float]]:
        """The pairs that compose most: (writer, reader with its side, score), by their strongest component if told apart."""
        found = self.scores if self.components is None else _strongest(self.components)
        order = np.argsort(-np.nan_to_num(found, nan=-np.inf), axis=None, kind="stable")[:n]
        rows = [np.unravel_index(ix, found.shape) for ix in order]
        named = [(self.heads[w], f"{self.heads[r]}.{self.kinds[kind]}", float(found[kind, r, w])) for kind, r, w in rows]
        return [row for row in named if not np.isnan(row[2])]


def composition(
    model: Model, kinds: Sequence[str] = SIDES, *, by: str = "head", fold_norm: bool = True, subtract_baseline: bool = False,
    random_seed: int = 0, progress: Progress = no_progress,
) -> Composition:  # fmt: skip
    """Composition scores of every head with every head of the layers before it. No pass of the model is made.

    Args:
        kinds: sides of the reader.
        by: also the scores of each singular component of the "writer" or of the "reader".
        fold_norm: fold the gain (and centring) of norms into the weights; their size is left out.
        subtract_baseline: take off the mean score of random matrices of the same shapes.
        random_seed: of those matrices.

    Raises:
        BadOption: no such kind or `by`, or norms that cannot be folded.
        SiteUnavailable: the model has no heads, or weights that cannot be taken apart by head.
    """
    _check(kinds, by)
    started = time.monotonic()
    wiring = wiring_of(model)
    heads = tuple(f"a{end.layer}.h{end.head}" for end in wiring.graph.sender_ends if end.kind == "head")
    per_head, per_part = _all_pairs(wiring, tuple(kinds), by, fold_norm, progress)
    baseline = _random_score(wiring, by, random_seed)
    return Composition(
        kinds=tuple(kinds), heads=heads, scores=per_head - (baseline[0] if subtract_baseline else 0.0),
        by=by, components=None if per_part is None else per_part - (baseline[1] if subtract_baseline else 0.0),
        baseline=baseline[0], component_baseline=baseline[1], is_subtracted=subtract_baseline, is_folded=fold_norm,
        provenance=provenance(model.name, model.weights_hash, random_seed, time_s=time.monotonic() - started),
    )  # fmt: skip


def _check(kinds: Sequence[str], by: str) -> None:
    odd = next((kind for kind in kinds if kind not in SIDES), None)
    if odd is not None or not kinds or len(set(kinds)) < len(kinds):
        asked = f"kind {odd!r}" if odd is not None else f"kinds={tuple(kinds)}"
        raise BadOption(asked, "a reader has the sides q, k and v, each named once", nearest=SIDES)
    if by not in BYS:
        raise BadOption(f"by={by!r}", "not whose components to tell apart", nearest=nearest(by, BYS) or BYS)


def _all_pairs(
    wiring: Wiring, kinds: tuple[str, ...], by: str, fold_norm: bool, progress: Progress
) -> tuple[Float[np.ndarray, "kind head head"], Float[np.ndarray, "kind head head component"] | None]:  # fmt: skip
    """Scores of all pairs, layer by layer."""
    graph, n = wiring.graph, wiring.graph.n_layers * wiring.graph.n_heads
    rank = min(wiring.model.table.d_head, wiring.model.table.d_model)
    scores = np.full((len(kinds), n, n), np.nan)
    parts = None if by == "head" else np.full((len(kinds), n, n, rank), np.nan)
    writers: list[Singular] = []
    for layer in range(graph.n_layers):
        readers = readers_of(wiring, layer, fold_norm)
        at = slice(layer * graph.n_heads, (layer + 1) * graph.n_heads)
        for before, writer in enumerate(writers):
            of = slice(before * graph.n_heads, (before + 1) * graph.n_heads)
            for ix, kind in enumerate(kinds):
                whole, each = pair_scores(writer, readers[kind], by)
                scores[ix, at, of] = whole.double().cpu().numpy()
                if parts is not None:
                    parts[ix, at, of] = each.double().cpu().numpy()
        writers.append(singular(factors_of(wiring, layer, "ov", fold_norm=fold_norm)))
        progress("composition", layer + 1, graph.n_layers)
    return scores, parts


def readers_of(wiring: Wiring, layer: int, fold_norm: bool) -> dict[str, Singular]:
    """What each side of a layer's heads reads, as singular vectors of its matrix."""
    qk = singular(factors_of(wiring, layer, "qk", fold_norm=fold_norm))
    ov = singular(factors_of(wiring, layer, "ov", fold_norm=fold_norm))
    return {"q": qk, "k": Singular(qk.s, qk.v, qk.u), "v": ov}


def pair_scores(
    writer: Singular, reader: Singular, by: str
) -> tuple[Float[Tensor, "reader writer"], Float[Tensor, "reader writer component"]]:  # fmt: skip
    """CS of every reader with every writer, and of the components of one of them (of neither: those of the writer)."""
    cosines = torch.einsum("wid,rjd->rwij", writer.v, reader.u).square()
    sizes_w, sizes_r = writer.s.square(), reader.s.square()
    share_w, share_r = sizes_w / sizes_w.sum(-1, keepdim=True), sizes_r / sizes_r.sum(-1, keepdim=True)
    of_writer = torch.einsum("rwij,rj->rwi", cosines, share_r)
    whole = torch.einsum("rwi,wi->rw", of_writer, share_w).sqrt()
    if by != "reader":
        return whole, _where_any(of_writer.sqrt(), writer.s[None])
    of_reader = torch.einsum("rwij,wi->rwj", cosines, share_w)
    return whole, _where_any(of_reader.sqrt(), reader.s[:, None])


def _where_any(scores: Tensor, sizes: Tensor) -> Tensor:
    """Scores of components with a singular value; nan of those without."""
    has_any = sizes > _NOTHING * sizes.amax(-1, keepdim=True)
    return torch.where(has_any, scores, torch.full_like(scores, float("nan")))


def _random_score(wiring: Wiring, by: str, random_seed: int) -> tuple[float, float]:
    """Mean score of heads, and of their components, with normally distributed weights of the model's shapes."""
    table = wiring.model.table
    draw = torch.Generator().manual_seed(random_seed)
    shape = (2, N_DRAWS, table.d_model, table.d_head)
    left, right = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(2))
    writer, reader = (singular(Factors(left[ix], right[ix].transpose(-1, -2))) for ix in range(2))
    whole, parts = pair_scores(writer, reader, by)
    return float(whole.mean()), float(parts.mean())


def _strongest(components: Float[np.ndarray, "kind head head component"]) -> Float[np.ndarray, "kind head head"]:
    filled = np.nan_to_num(components, nan=-np.inf).max(-1)
    return np.where(np.isinf(filled), np.nan, filled)
