"""What the command line shows: progress bars and tables. The only module that writes to the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from optrode.circuit.circuit import Circuit, Proof
    from optrode.circuit.edge.records import EdgeCircuit, EdgeProof, MethodTable
    from optrode.claims import StudyRun
    from optrode.control.records import Evaluation
    from optrode.control.steering import Fitted
    from optrode.gate.check import Check
    from optrode.model.model import Model
    from optrode.site.recording import Recording
    from optrode.store.listing import Run
    from optrode.train.records import TrainingRun
    from optrode.trial.grid import Grid

_SHOWN = 12
_RUN_WIDTHS = {"run": 9, "holds": 11, "task": 5, "model": 7, "trials": 6, "state": 11, "date": 10, "size": 8}
_NAME_WIDTH = 24  # a head's whole name, also in a terminal of 80 columns
out = Console()


@contextmanager
def showing(*, quiet: bool = False) -> "Iterator[Callable[[str, int, int], None]]":
    """A progress callback that shows one bar per stage, with the time left, on standard error."""
    columns = (
        TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )  # fmt: skip
    err = Console(stderr=True)
    with Progress(*columns, console=err, disable=quiet) as bars:
        stages: dict[str, TaskID] = {}

        def step(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                _finish(bars, stages)
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done, total=total)

        try:
            yield step
        except BaseException:
            bars.live.transient = True  # what went wrong is then all that is left to read
            err.quiet = not err.is_terminal
            raise
        _finish(bars, stages)


def _finish(bars: Progress, stages: Mapping[str, TaskID]) -> None:
    """Stages that ended early (a search that found its answer) are complete all the same."""
    for task in bars.tasks:
        if task.id in stages.values() and not task.finished:
            bars.update(task.id, total=task.completed or 1, completed=task.completed or 1)


def found_table(circuit: "Circuit | EdgeCircuit", proof: "Proof | EdgeProof", page: Path) -> None:
    """What was found, by the level it was found at."""
    from optrode.circuit.circuit import Circuit, Proof
    from optrode.circuit.edge.records import EdgeCircuit, EdgeProof

    if isinstance(circuit, Circuit) and isinstance(proof, Proof):
        circuit_table(circuit, proof, page)
    if isinstance(circuit, EdgeCircuit) and isinstance(proof, EdgeProof):
        edge_table(circuit, proof, page)


def circuit_table(circuit: "Circuit", proof: "Proof", page: Path) -> None:
    """The circuit's strongest nodes, its proof in a sentence, and where the page is."""
    title = f"{circuit.task}: strongest nodes, effect of ablating them in {proof.unit}"
    table = Table(Column("node", min_width=_NAME_WIDTH), "role", "effect", "faithfulness lost", title=title)
    roles = {head.node: head.role for head in circuit.heads}
    effects = {node.node: node.effect for node in circuit.scores.nodes}
    lost = {m.node: m.lost for m in proof.minimality}
    for node in circuit.nodes[:_SHOWN]:
        table.add_row(escape(node), roles.get(node, ""), f"{effects[node]:+.2f}", f"{lost[node]:+.3f}")
    out.print(table)
    best = max(proof.random, default=float("nan"))
    print_lines([
        f"{circuit.size} of {circuit.n_all} nodes keep {proof.faithfulness:.2f} "
        f"[{proof.interval.low:.2f}, {proof.interval.high:.2f}] of the behaviour on {proof.n_prompts} other prompts; "
        f"the best of {len(proof.random)} random circuits of that size keeps {best:.2f}; "
        f"without the circuit {round(proof.completeness, 2) + 0.0:.2f} is left."
    ])  # fmt: skip
    print_lines([f"Report: {page}"])


def edge_table(circuit: "EdgeCircuit", proof: "EdgeProof", page: Path) -> None:
    """The circuit's strongest edges, its proof in two sentences, and where the page is."""
    title = f"{circuit.task}: strongest edges by {circuit.scores.method}, effect of ablating them in {proof.unit}"
    table = Table(Column("edge", min_width=_NAME_WIDTH), "effect", "faithfulness lost", title=title)
    lost = {row.edge: f"{row.lost:+.3f}" for row in proof.minimality}
    for edge in circuit.edges[:_SHOWN]:
        effect = circuit.scores.values[circuit.graph.edge(edge)]
        table.add_row(escape(edge), f"{effect:+.3f}", lost.get(edge, ""))
    out.print(table)
    best = max(proof.random, default=float("nan"))
    areas = ", ".join(
        f"CPR {c.cpr:.2f} (signed)" if c.selection == "signed" else f"CMD {c.cmd:.3f} ({c.selection})" for c in proof.curves
    )
    print_lines([
        f"{circuit.size:,} of {circuit.n_all:,} edges keep {proof.faithfulness:.2f} "
        f"[{proof.interval.low:.2f}, {proof.interval.high:.2f}] of the behaviour on {proof.n_prompts} other prompts; "
        f"the best of {len(proof.random)} random circuits of that size keeps {best:.2f}; "
        f"without the circuit {round(proof.without, 2) + 0.0:.2f} is left.",
        f"{areas}; circuits of resampled prompts overlap by {proof.jaccard:.2f}.",
    ])  # fmt: skip
    for note in circuit.scores.notes:
        print_lines([f"Note: {note}"])
    if circuit.scores.check and not circuit.scores.check.agrees:
        missed = "".join(f", missed {edge}" for edge in circuit.scores.check.missed[:3])
        print_lines([f"Note: scores and exact spot checks disagree (r = {circuit.scores.check.correlation:.2f}{missed})."])
    print_lines([f"Report: {page}"])


def method_table(found: "MethodTable", page: Path) -> None:
    """One row per method, the most faithful first."""
    title = f"{found.task}: methods for edge circuits, judged on {found.n_prompts} other prompts"
    table = Table("method", "CMD", "CPR", "passes", "seconds", title=title)
    for row in sorted(found.rows, key=lambda row: row.cmd):
        table.add_row(row.method, f"{row.cmd:.3f}", f"{row.cpr:.2f}", str(row.n_passes), f"{row.time_s:.1f}")
    out.print(table)
    print_lines([f"Note on {row.method}: {note}" for row in found.rows for note in row.notes])
    print_lines([f"Report: {page}"])


def grid_table(grid: "Grid", folder: Path | None) -> None:
    """The grid's strongest cells."""
    title = escape(f"{grid.title} on {grid.task}: strongest cells")
    table = Table(Column("site", min_width=_NAME_WIDTH), f"effect ({grid.unit})", "share", title=title)
    effects, shares = grid.effects(), grid.shares()
    for ix in sorted(range(len(effects)), key=lambda i: -abs(effects[i]))[:_SHOWN]:
        table.add_row(escape(grid.sites[ix]), f"{effects[ix]:+.3f}", f"{shares[ix]:+.2f}")
    out.print(table)
    out.print(f"{len(effects)} cells in {grid.provenance.time_s:.1f} s; {grid.work}")
    out.print(f"memory: {grid.work.memory_gib:.2g} GiB at most, by estimate")
    for reason, n in (grid.work.plainly or {}).items():
        out.print(f"{n} cells were not packed: {reason}")
    if folder:
        print_lines([f"Report: {folder / 'report.html'}"])


def site_table(model: "Model", proof: "Check | None") -> None:
    """One row per kind of site."""
    table = Table("site", "shape (one prompt)", "verified at load", title=escape(repr(model)))
    rows = {kind.kind: kind for kind in proof.kinds} if proof else {}
    for kind in sorted({str(name.kind): name for name in model.site_names()}, key=_order(model)):
        name = f"blocks.{{0..{model.table.n_layers - 1}}}.{kind}" if model.table.in_block(kind) else kind
        row = rows.get(kind)
        table.add_row(name, "×".join(map(str, row.shape)) if row else "", row.how if row else "not checked")
    for kind, reason in model.table.absent.items():
        table.add_row(kind, "absent", reason)
    out.print(table)


def _order(model: "Model") -> "Callable[[str], int]":
    kinds = list(dict.fromkeys(name.kind for name in model.site_names()))
    return kinds.index


def recording_table(found: "Recording", path: Path) -> None:
    """What was recorded, and where it is."""
    table = Table("site", "shape", title=f"recorded into {path}")
    for name, value in list(found.items())[:_SHOWN]:
        table.add_row(escape(name), "×".join(map(str, value.shape)))
    if len(found) > _SHOWN:
        table.add_row(f"... and {len(found) - _SHOWN} more", "")
    out.print(table)


def run_table(runs: "Iterable[Run]") -> None:
    """One row per run folder."""
    kept = ("state", "date", "size")
    columns = (Column(n, overflow="fold", no_wrap=n in kept, min_width=width) for n, width in _RUN_WIDTHS.items())
    table = Table(*columns, box=None, padding=(0, 1, 0, 0))  # borders would cost 80 columns too much
    for run in runs:
        holds = " + ".join(run.holds) or run.title
        of = "" if run.n_trials is None else f" of {run.n_trials}"
        trials = "" if run.n_done is None else f"{run.n_done}{of}"
        state = run.state if run.pid is None else f"{run.state}\n(pid {run.pid})"
        shown = (run.name, holds, run.task, Path(run.model).name, trials, state, run.date[:10], decimal(run.n_bytes))
        table.add_row(*map(escape, shown))
    out.print(table)


def name_table(what: str, described: Mapping[str, str]) -> None:
    """Names with a sentence each."""
    table = Table(what, "")
    for name, text in described.items():
        table.add_row(name, text)
    out.print(table)


def print_lines(lines: Iterable[str]) -> None:
    """One line each, unwrapped."""
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False, markup=False)


def training_table(runs: "Sequence[TrainingRun]", page: Path) -> None:
    """Each run's last loss and measures, and where the page is."""
    table = Table("run", "steps", "last loss", "measures", "seconds", title="trained")
    for run in runs:
        last = ", ".join(f"{name} {series.values[-1]:.3g}" for name, series in run.measures.items() if series.values)
        loss = f"{run.loss.values[-1]:.4g}" if run.loss.values else ""
        steps = f"{run.n_steps}, stopped early" if run.is_stopped else str(run.n_steps)
        table.add_row(escape(run.name), steps, loss, escape(last), f"{run.provenance.time_s:.1f}")
    out.print(table)
    out.print(f"page: {page}", soft_wrap=True, markup=False)


def study_list(names: "Sequence[str]", ledger: "Mapping[str, StudyRun]") -> None:
    """Every study, and how many of its claims got which verdict."""
    from optrode.claims import VERDICTS
    from optrode.study.ledger import counts

    table = Table(Column("study", no_wrap=True), "paper", *VERDICTS, title="studies")
    for name in names:
        run = ledger.get(name)
        cells = [str(n or "") for n in counts(run).values()] if run else ["" for _ in VERDICTS[1:]] + ["all"]
        table.add_row(name, escape(run.paper.title) if run else "", *cells)
    out.print(table)


def study_table(run: "StudyRun", page: Path | None) -> None:
    """Every claim of a study with its numbers and verdict."""
    table = Table("", "claim", "expected", "median [range]", "control", "verdict", title=f"{run.slug}, {run.profile}")
    for claim, finding in zip(run.claims, run.findings, strict=True):
        value = _spread(finding.median, finding.low, finding.high)
        control = _spread(finding.control_median, finding.control_low, finding.control_high)
        table.add_row(claim.key, escape(claim.says), str(claim.expected), value, control, finding.verdict)
    out.print(table)
    if page is not None:
        out.print(f"page: {page}", soft_wrap=True, markup=False)


def _spread(middle: float | None, low: float | None, high: float | None) -> str:
    return "" if middle is None or low is None or high is None else f"{middle:.3g} \\[{low:.3g}, {high:.3g}]"


def fitted_table(found: "Fitted", path: Path) -> None:
    """Every layer and dose that was tried, which was chosen, and where the artefact is."""
    card = found.card
    if found.choice is not None:
        plain, best = found.choice.plain, found.choice.best
        table = Table(
            "site", "dose", "score", "cost (nats/token)", "repeats", "", title=f"{card.name}: chosen on validation prompts"
        )
        for one in (plain, *found.choice.table):
            mark = "chosen" if one == best else "" if one.is_allowed else "costs too much"
            row = (f"{one.dose:g}", f"{one.score:.3f}", f"{one.d_nll:+.2f}", f"{one.repeated:.2f}", mark)
            table.add_row(escape(one.name), *row)
        out.print(table)
    print_lines([str(card), f"artefact: {path}"])


def tried_table(name: str, prompt: str, rows: "Sequence[tuple[float, str]]") -> None:
    """What was written, without gates and at each dose."""
    table = Table("dose", "written", title=escape(f"{name}: {prompt}"))
    for dose, text in rows:
        table.add_row("plain" if dose == 0 else f"{dose:+g}", escape(text.strip()))
    out.print(table)


def evaluation_table(found: "Evaluation", page: Path) -> None:
    """Every dose and control: concept by each judge, its cost, and the harmonic mean."""
    title = f"{found.behaviour}: {found.n_prompts} test prompts; judges: "
    title += "; ".join(f"{judge.name} ({'validated' if judge.is_validated else 'unvalidated'})" for judge in found.judges)
    table = Table(
        "condition",
        "dose",
        *(judge.name for judge in found.judges),
        "cost (nats/token)",
        "repeats",
        "harmonic",
        title=escape(title),
    )
    for one in found.conditions:
        cells = [f"{judged.mean:.2f}" for judged in one.concept]
        row = (*cells, f"{one.d_nll.mean:+.2f}", f"{one.rep2.mean:.2f}", f"{one.harmonic.mean:.2f}")
        table.add_row(escape(one.name), f"{one.dose:+g}" if one.dose else "", *row)
    out.print(table)
    above = {True: "above all controls", False: "not above all controls", None: "without controls"}[found.is_above_controls]
    print_lines([f"At dose {found.control_dose:g} the effect is {above}.", f"page: {page}"])
