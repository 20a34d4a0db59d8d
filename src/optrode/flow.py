"""The whole investigation in one screen: load, task, sweep, find, prove, report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from optrode.circuit.circuit import TARGET, Circuit, HeadScores, Proof
from optrode.circuit.edge.records import EdgeCircuit, EdgeProof
from optrode.circuit.look import head_scores
from optrode.circuit.verbs import find, prove
from optrode.gate.kinds import patch, zero
from optrode.model.model import Model
from optrode.reports.folder import write_run
from optrode.reports.page import Page, report
from optrode.trial.grid import Grid
from optrode.trial.kept import keeping
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.sweep import sweep

MakeTask = Callable[[Model, int], Task]
"""(model, random seed) -> task. Called twice: the circuit is proven on prompts that it was not found on."""


@dataclass(frozen=True)
class Options:
    """Choices of an investigation.

    Attributes:
        level, method, ablation, size, target: of the circuit, see `find`.
        more: further options of `find_edges`, such as selection.
        with_grid: also patch the residual stream over layer and position.
        n_grid: prompts for grids, which cost one run per cell.
        random_seed: of the prompts the circuit is found on; the next seed gives those it is proven on.
    """

    method: str = ""
    ablation: str = "resample"
    size: int | None = None
    target: float = TARGET
    with_grid: bool = True
    n_grid: int = 8
    random_seed: int = 0
    level: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """What an investigation found: the records of its report."""

    task: Task
    circuit: Circuit | EdgeCircuit
    proof: Proof | EdgeProof
    grid: Grid | None = None
    head_grid: Grid | None = None
    head_scores: HeadScores | None = None

    @property
    def page(self) -> Page:
        """The report."""
        held = (getattr(self, field.name) for field in fields(self))
        return report(*(record for record in held if record is not None))

    def save(self, folder: str | Path) -> Path:
        """Write every record and the report into a folder; returns the path of the page."""
        folder = Path(folder)
        write_run(folder, {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None})
        return self.page.save(folder / "report.html")


def investigate(
    model: Model, make_task: MakeTask, options: Options | None = None, progress: Progress = no_progress,
    out: str | Path | None = None, **bench_options: Any,
) -> Findings:  # fmt: skip
    """Find the circuit of a task, prove it on other prompts, and look at what its heads do.

    Args:
        out: a run folder that keeps every finished trial, so that the same call goes on where it was broken off.
        bench_options: of every `Bench`: memory_gib, executor.

    Raises:
        NoPairs, TaskTooHard: the model does not do the task.
        RunBusy, BadStore, StoreFull: from the run folder.
    """
    o = options or Options()
    with keeping(out, model, title="circuit") as store:
        return _investigate(model, make_task, o, progress, bench_options | {"store": store})


def _investigate(model: Model, make_task: MakeTask, o: Options, progress: Progress, options: dict[str, Any]) -> Findings:
    progress("test the model on the task", 0, 1)
    task, others = make_task(model, o.random_seed), make_task(model, o.random_seed + 1)
    bench, bench_of_others = Bench(model, task, **options), Bench(model, others, **options)
    circuit: Circuit | EdgeCircuit = find(
        model, task, level=o.level, method=o.method, ablation=o.ablation, size=o.size, target=o.target, progress=progress,
        bench=bench, **o.more,
    )  # fmt: skip
    proof = prove(model, others, circuit, progress=progress, bench=bench_of_others)
    few = task.take(o.n_grid)
    of_few = Bench(model, few, **options)
    grid = head_grid = scores = None
    if o.with_grid and "repeat" in task.pairs[0].marks:
        head_grid = sweep(model, few, zero("blocks.*.attn.z", each=("layer", "head")), progress=progress, bench=of_few)
        scores = head_scores(model, task, bench=bench)
    elif o.with_grid and task.length:
        grid = sweep(model, few, patch("blocks.*.resid_pre", each=("layer", "pos")), progress=progress, bench=of_few)
    return Findings(task, circuit, proof, grid, head_grid, scores)
