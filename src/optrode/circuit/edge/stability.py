"""Whether other prompts would have given the same circuit: overlap of circuits from resampled prompts. No model, no torch.

Scores are kept for every prompt, and effects are means over prompts, so that resampling costs no pass of the model.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float

from optrode.circuit.circuit import Interval
from optrode.circuit.edge.records import EdgeScores
from optrode.circuit.edge.select import select_values
from optrode.circuit.interval import draws
from optrode.errors import BadOption

N_BOOTSTRAP: Final = 100
BAR: Final = 0.8
"""The mean overlap over at least 100 resamples that Meloux et al. (arXiv 2510.00845) ask of a circuit."""

_CHUNK: Final = 1 << 23  # values in flight: 64 MB of float64


@dataclass(frozen=True, eq=False)
class Stability:
    """Overlap of circuits of one size from different prompts, |A and B| / |A or B| (Jaccard).

    Attributes:
        mean: over pairs of circuits.
        interval: 2.5 and 97.5 percentiles over pairs of circuits: their spread, not an error of the mean.
        by_chance: the overlap that random circuits of this size have, about: it grows with the size.
        n_circuits: resamples, or halves.
        n_edges: of each circuit.
        n_prompts: that were resampled, or halved.
        selection: how edges were chosen.
        frequency: [edge] share of the circuits that hold it.
    """

    mean: float
    interval: Interval
    by_chance: float
    n_circuits: int
    n_edges: int
    n_prompts: int
    selection: str
    frequency: Float[np.ndarray, " edge"]


def bootstrap_jaccard(
    scores: EdgeScores, n_edges: int, how: str = "absolute", *, n_bootstrap: int = N_BOOTSTRAP, random_seed: int = 0
) -> Stability:
    """Overlap of the circuits of prompts drawn with replacement, over all pairs of resamples.

    Args:
        n_edges: of each circuit, at least 1.
        how: see `select`.

    Raises:
        BadOption: fewer than 2 prompts or resamples, or as `select`.
    """
    _check(scores, n_edges, "n_bootstrap", n_bootstrap, at_least=2)
    drawn = draws(len(scores.per_prompt), random_seed, n_bootstrap)
    weights = np.stack([np.bincount(row, minlength=len(scores.per_prompt)) for row in drawn]) / drawn.shape[1]
    chosen = _circuits(scores, weights, n_edges, how)
    overlap = overlaps(chosen)[np.triu_indices(n_bootstrap, k=1)]
    return _stability(scores, n_edges, how, chosen, overlap)


def split_jaccard(
    scores: EdgeScores, n_edges: int, how: str = "absolute", *, n_splits: int = N_BOOTSTRAP, random_seed: int = 0
) -> Stability:
    """Overlap of the circuits of the two halves of the prompts, over random splits.

    Halves share no prompt, as resamples do, and each sees half as many: a harder test. Of an odd number of prompts, each
    split leaves out one.

    Args:
        n_edges: of each circuit, at least 1.
        how: see `select`.

    Raises:
        BadOption: fewer than 2 prompts or 1 split, or as `select`.
    """
    _check(scores, n_edges, "n_splits", n_splits, at_least=1)
    n_prompts = len(scores.per_prompt)
    rng, half = np.random.default_rng(random_seed), n_prompts // 2
    weights = np.zeros((2 * n_splits, n_prompts))
    for split in range(n_splits):
        order = rng.permutation(n_prompts)
        weights[split, order[:half]] = weights[n_splits + split, order[half : 2 * half]] = 1 / half
    chosen = _circuits(scores, weights, n_edges, how)
    overlap = np.array([jaccard(a, b) for a, b in zip(chosen[:n_splits], chosen[n_splits:], strict=True)])
    return _stability(scores, n_edges, how, chosen, overlap)


def _check(scores: EdgeScores, n_edges: int, what: str, n: int, at_least: int) -> None:
    if len(scores.per_prompt) < 2:
        found = f"the scores are of {len(scores.per_prompt)} prompts; resampling needs 2"
        raise BadOption("stability of a circuit", found, next_step="score more prompts")
    if n < at_least:
        found = f"overlap is that of pairs; {at_least} is the least"
        raise BadOption(f"{what}={n}", found, nearest=(f"{what}={N_BOOTSTRAP}",))
    if n_edges < 1:
        raise BadOption(f"n_edges={n_edges}", "circuits without edges have no overlap", nearest=("n_edges=1",))


def _circuits(
    scores: EdgeScores, weights: Float[np.ndarray, "circuit prompt"], n_edges: int, how: str
) -> Bool[np.ndarray, "circuit edge"]:
    """The circuit of each weighting of the prompts. The means of a few weightings are in memory at a time."""
    per_prompt = np.square(scores.per_prompt) if how == "rms" else scores.per_prompt
    weights = weights.astype(np.result_type(per_prompt, np.float32))  # else single-precision scores would all be copied
    at_once = max(1, _CHUNK // per_prompt.shape[1])
    chosen = np.zeros((len(weights), per_prompt.shape[1]), dtype=bool)
    for at in range(0, len(weights), at_once):
        for ix, values in enumerate(weights[at : at + at_once] @ per_prompt):
            chosen[at + ix] = select_values(values, scores.graph, n_edges, how)
    return chosen


def overlaps(chosen: Bool[np.ndarray, "circuit edge"]) -> Float[np.ndarray, "circuit circuit"]:
    """Jaccard of every pair; 1 where both are empty."""
    n_circuits, n_all = chosen.shape
    shared = np.zeros((n_circuits, n_circuits))
    at_once = max(1, _CHUNK // n_circuits)
    for at in range(0, n_all, at_once):
        part = chosen[:, at : at + at_once].astype(np.float32)  # counts below 2 ** 24 are exact
        shared += part @ part.T
    sizes = shared.diagonal()
    either = sizes[:, None] + sizes - shared
    return np.where(either, shared / np.maximum(either, 1), 1.0)


def jaccard(a: Bool[np.ndarray, " edge"], b: Bool[np.ndarray, " edge"]) -> float:
    """|A and B| / |A or B|; 1 where both are empty."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 1.0


def _stability(
    scores: EdgeScores, n_edges: int, how: str, chosen: Bool[np.ndarray, "circuit edge"], overlap: Float[np.ndarray, " pair"]
) -> Stability:
    low, high = np.percentile(overlap, [2.5, 97.5])
    return Stability(
        mean=float(overlap.mean()), interval=Interval(float(low), float(high)),
        by_chance=n_edges / (2 * chosen.shape[1] - n_edges),
        n_circuits=len(chosen), n_edges=n_edges, n_prompts=len(scores.per_prompt), selection=how,
        frequency=chosen.mean(0),
    )  # fmt: skip
