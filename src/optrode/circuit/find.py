"""From scores to a circuit: the fewest strongest nodes that reach a target faithfulness."""

import time
from collections.abc import Sequence

from optrode.circuit.circuit import TARGET, Circuit, Scores
from optrode.circuit.interval import ratio
from optrode.circuit.judge import SIZES, metric_of
from optrode.circuit.look import look_at_heads
from optrode.circuit.nodes import all_nodes
from optrode.circuit.score import score
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress


def find_nodes(
    model: Model, task: Task, *, method: str = "ig", ablation: str = "resample", size: int | None = None,
    target: float = TARGET, progress: Progress = no_progress, bench: Bench | None = None,
) -> Circuit:  # fmt: skip
    """Score every node and take the strongest.

    Args:
        method, ablation: see `score`.
        size: number of nodes; by default the smallest of a fixed ladder of sizes from which faithfulness on these
            prompts stays at `target` or above.
        target: faithfulness to reach. A little above what is wanted: other prompts will show less.

    Raises:
        BadOption: a size or target out of range, no such method or ablation.
    """
    if size is not None and size < 1 or not 0 < target <= 1:
        found = "a size is at least 1, a target between 0 and 1"
        raise BadOption(f"size={size}, target={target}", found, next_step="leave them out for defaults")
    n_all = len(all_nodes(model))
    if size is not None and size > n_all:
        raise BadOption(f"size={size}", f"{model.name} has {n_all} nodes", nearest=(f"size={n_all}",))
    started = time.monotonic()
    bench = bench or Bench(model, task)
    scores = score(model, task, method=method, ablation=ablation, progress=progress, bench=bench)
    ranked = [node.node for node in scores.ranked()]
    chosen = scores.ranked()[: size or _smallest(bench, ranked, scores, target, progress)]
    return Circuit(
        task=task.name, nodes=tuple(node.node for node in chosen), n_all=len(ranked),
        target=0.0 if size else target, scores=scores,
        heads=look_at_heads(bench, chosen), tokens=task.pairs[0].clean_tokens,
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes,
        ),
    )  # fmt: skip


def _smallest(bench: Bench, ranked: Sequence[str], scores: Scores, target: float, progress: Progress) -> int:
    """The smallest size of the ladder from which on two sizes in a row reach the target."""
    every = all_nodes(bench.model)
    full = bench.base("clean")
    empty = metric_of(bench, (), every, scores.ablation)
    ladder = [size for size in SIZES if size < len(ranked)]
    reached: int | None = None
    for ix, size in enumerate(ladder):
        kept = metric_of(bench, ranked[:size], every, scores.ablation)
        progress("circuit size", ix + 1, len(ladder))
        if ratio(kept, empty, full) < target:
            reached = None
        elif reached is not None:
            return reached
        else:
            reached = size
    return reached or len(ranked)
