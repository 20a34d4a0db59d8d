"""Judge a circuit by intervention: run the model with everything outside it ablated."""

import random
import time
from collections.abc import Sequence
from typing import Final

from optrode.circuit.circuit import Circuit, CurvePoint, Interval, Minimality, Proof
from optrode.circuit.interval import N_BOOTSTRAP, Draws, draws, ratio, ratio_interval
from optrode.circuit.nodes import ablate, all_nodes, is_head
from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.trial import Trial

Values = tuple[float, ...]

SIZES: Final = (1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 700, 1000)
"""Circuit sizes at which the curve is measured, up to the number of nodes."""


def metric_of(bench: Bench, nodes: Sequence[str], outside: Sequence[str], ablation: str) -> Values:
    """[prompt] metric in the clean run with every one of `outside` that is not among `nodes` ablated."""
    return bench.run(_trial(bench, nodes, outside, ablation))


def _trial(bench: Bench, nodes: Sequence[str], outside: Sequence[str], ablation: str) -> Trial:
    kept = set(nodes)
    return Trial(ablate([node for node in outside if node not in kept], ablation), "clean", bench.metric.name)


def prove_nodes(
    model: Model, task: Task, circuit: Circuit, *, n_random: int = 20, n_minimality: int = 40,
    n_bootstrap: int = N_BOOTSTRAP, progress: Progress = no_progress, bench: Bench | None = None,
) -> Proof:  # fmt: skip
    """Measure a circuit's faithfulness, completeness and minimality, with random circuits as the control.

    The ablation is the one that the circuit was found with. For an honest proof give other prompts than those the
    circuit was found on (the same generator with another random seed).

    Args:
        n_random: random circuits with as many heads and as many MLPs.
        n_minimality: how many of the circuit's strongest nodes are also taken out one by one.
        n_bootstrap: resamples of the prompts behind every interval.

    Raises:
        BadOption: the circuit is of another model, or ablating every node changes nothing, so that faithfulness has
            no meaning.
    """
    started = time.monotonic()
    _check_nodes(model, circuit)
    bench = bench or Bench(model, task)
    court = _Court(bench, circuit, draws(len(task), task.random_seed, n_bootstrap), progress,
                   n_random + min(n_minimality, circuit.size))  # fmt: skip
    curve = court.curve()
    inside = court.measure(circuit.nodes)
    without = court.measure([node for node in court.all_nodes if node not in set(circuit.nodes)])
    return Proof(
        task=task.name, metric=bench.metric.name, unit=bench.metric.unit, ablation=court.ablation, size=circuit.size,
        full=_mean(court.full), empty=_mean(court.empty),
        faithfulness=court.share(inside), interval=court.interval(inside), curve=curve,
        random=court.random_circuits(n_random), completeness=court.share(without),
        completeness_interval=court.interval(without), minimality=court.minimality(inside, n_minimality),
        n_prompts=len(task), n_bootstrap=n_bootstrap,
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes,
        ),
    )  # fmt: skip


def _check_nodes(model: Model, circuit: Circuit) -> None:
    unknown = sorted({score.node for score in circuit.scores.nodes} ^ set(all_nodes(model)))
    if unknown:
        raise BadOption(
            f"proof of a circuit for {circuit.task} in {model.name}",
            f"the circuit was found in another model ({circuit.provenance.model}): {unknown[0]} is in only one of them",
            next_step="prove it with the model that it was found in",
        )  # fmt: skip


class _Court:
    """One proof under way: the bench, the two reference values, and the count of steps."""

    def __init__(self, bench: Bench, circuit: Circuit, drawn: Draws, progress: Progress, n_more: int) -> None:
        self.bench, self.circuit, self.drawn, self.progress = bench, circuit, drawn, progress
        self.ablation = circuit.scores.ablation
        self.all_nodes = all_nodes(bench.model)
        self.ranked = [s.node for s in circuit.scores.ranked()]
        self.sizes = sorted({s for s in SIZES if s < len(self.ranked)} | {circuit.size, len(self.ranked)})
        self.n_steps = len(self.sizes) + n_more + 3  # and: nothing, the circuit, the rest
        self.step = 0
        self.full = bench.base("clean")
        self.empty = self.measure(())
        if abs(_mean(self.full) - _mean(self.empty)) < 1e-6:
            raise BadOption(
                f"proof of a circuit for {bench.task.name}", "ablating every node leaves the metric as it is",
                next_step="choose another ablation or metric",
            )  # fmt: skip

    def measure(self, nodes: Sequence[str]) -> Values:
        return self.measure_all([nodes])[0]

    def measure_all(self, circuits: Sequence[Sequence[str]]) -> list[Values]:
        trials = [_trial(self.bench, nodes, self.all_nodes, self.ablation) for nodes in circuits]
        before, self.step = self.step, self.step + len(trials)

        def step(stage: str, done: int, total: int) -> None:
            self.progress("proof", min(before + done, self.n_steps), self.n_steps)

        return self.bench.run_many(trials, step)

    def share(self, values: Values) -> float:
        return ratio(values, self.empty, self.full)

    def interval(self, values: Values) -> Interval:
        return ratio_interval(values, self.empty, self.full, self.drawn)

    def curve(self) -> tuple[CurvePoint, ...]:
        measured = self.measure_all([self.ranked[:size] for size in self.sizes])
        return tuple(
            CurvePoint(size, self.share(values), self.interval(values))
            for size, values in zip(self.sizes, measured, strict=True)
        )

    def random_circuits(self, n: int) -> tuple[float, ...]:
        rng = random.Random(self.bench.task.random_seed)
        heads = [node for node in self.all_nodes if is_head(node)]
        mlps = [node for node in self.all_nodes if not is_head(node)]
        n_heads = sum(map(is_head, self.circuit.nodes))
        n_mlps = self.circuit.size - n_heads
        drawn = [rng.sample(heads, n_heads) + rng.sample(mlps, n_mlps) for _ in range(n)]
        return tuple(map(self.share, self.measure_all(drawn)))

    def minimality(self, inside: Values, n: int) -> tuple[Minimality, ...]:
        found, nodes = [], self.circuit.nodes
        missing = self.measure_all([[other for other in nodes if other != node] for node in nodes[:n]])
        for node, without in zip(nodes[:n], missing, strict=True):
            lost = tuple(i - w for i, w in zip(inside, without, strict=True))
            above_empty = tuple(drop + e for drop, e in zip(lost, self.empty, strict=True))
            found.append(Minimality(node, self.share(above_empty), self.interval(above_empty)))
        return tuple(found)


def _mean(values: Values) -> float:
    return sum(values) / len(values)
