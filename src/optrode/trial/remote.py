"""Chunks on Ray: tasks over actors that hold the model, on this machine or a cluster (extra `ray`).

A chunk gives the same numbers wherever it runs with the same number of threads. An actor that dies is started again, and
its chunk with it; whatever has come back is already kept.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.trial.metric import Metric
from optrode.trial.plan import Chunk
from optrode.trial.prompts import Task
from optrode.trial.trial import Trial
from optrode.trial.work import Work

if TYPE_CHECKING:
    from optrode.trial.run import Bench, Executor, Values


def on_ray(n_workers: int = 2, *, address: str | None = None, n_threads: int | None = None) -> "Executor":
    """An executor for `Bench` and `sweep` that runs chunks on Ray actors.

    Args:
        n_workers: actors, each with a copy of the model.
        address: a running cluster ("auto" for one started with `ray start --head`); by default one is started in this
            process and stopped at the end.
        n_threads: of each actor; by default this machine's cores shared out evenly.

    Raises:
        BadOption: no worker, no cluster at the address, or Ray is not installed.
    """
    if n_workers < 1:
        raise BadOption(f"n_workers={n_workers}", "there has to be at least one", next_step="on_ray(n_workers=2)")
    ray = _ray()
    threads = n_threads or max(1, (os.cpu_count() or 1) // n_workers)

    def execute(
        bench: "Bench", trials: Sequence[Trial], chunks: Sequence[Chunk]
    ) -> "Iterator[tuple[Chunk, Sequence[Values]]]":
        if not chunks:
            return
        is_ours = _connect(ray, address, n_workers * threads)
        try:
            yield from _executed(ray, bench, trials, chunks, n_workers, threads)
        finally:
            if is_ours:
                ray.shutdown()

    return execute


def _executed(
    ray: Any, bench: "Bench", trials: Sequence[Trial], chunks: Sequence[Chunk], n_workers: int, n_threads: int
) -> "Iterator[tuple[Chunk, Sequence[Values]]]":
    from ray.util.actor_pool import ActorPool

    make = ray.remote(num_cpus=n_threads, max_restarts=-1, max_task_retries=-1)(_Worker)
    shared = ray.put((bench.model, bench.task, bench.metric, list(trials), bench.skip_null, n_threads))
    actors = [make.remote(shared) for _ in range(min(n_workers, len(chunks)))]
    for chunk, values, work in ActorPool(actors).map_unordered(_send, chunks):
        bench.tally.take(work)
        yield chunk, values


def _send(actor: Any, chunk: Chunk) -> Any:
    return actor.run.remote(chunk)


class _Worker:
    """An actor: a bench of its own, made again from the same parts if the process dies."""

    def __init__(self, shared: tuple[Model, Task, Metric, list[Trial], bool, int]) -> None:
        from optrode.trial.run import Bench

        model, task, metric, self.trials, skip_null, n_threads = shared
        torch.set_num_threads(n_threads)
        self.bench = Bench(model, task, metric, skip_null=skip_null)
        self.bench.prepare(self.trials)

    def run(self, chunk: Chunk) -> "tuple[Chunk, list[Values], Work]":
        """A chunk with its trials' values, and what they took."""
        before = self.bench.work
        values = self.bench.run_chunk(chunk, [self.trials[ix] for ix in chunk.trials])
        return chunk, values, self.bench.tally.since(before)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise BadOption("executor ray", "the package ray is not installed", next_step="pip install 'optrode[ray]'") from None
    return ray


def _connect(ray: Any, address: str | None, n_cpus: int) -> bool:
    """Whether a cluster was started or joined here, to be left at the end."""
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"address": address} if address else {"num_cpus": n_cpus, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="error", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        step = "`ray start --head` starts a cluster"
        raise BadOption(f"Ray at {address or 'this machine'}", str(error).splitlines()[0], next_step=step) from None
    return True
