"""The command line as a user runs it, on a tiny saved model."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import pytest
import torch

import optrode as op
from optrode.circuit.circuit import Circuit, Proof
from optrode.circuit.edge.records import EdgeCircuit, EdgeProof
from optrode.cli import main
from optrode.model.zoo import FAMILY_OF
from optrode.reports.folder import read_run
from optrode.site.saved import load_recording
from optrode.tasks import NAMES
from optrode.trial.grid import Grid
from optrode.trial.prompts import Task
from tests.words import save_worded

# The command line reads sys.argv here too, which its library takes for a mistake in a test.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def json(self):
        assert self.code == 0 and self.err == "", self.err
        return json.loads(self.out)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return str(save_worded(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Eight pairs, all of 14 tokens."""
    path = tmp_path_factory.mktemp("pairs") / "mine.jsonl"
    rows = []
    for io, s in list(permutations(("Mary", "Anna", "John", "James"), 2))[:8]:
        text = f"When {io} and {s} went to the store, {{}} gave a drink to"
        rows.append({"clean": text.format(s), "corrupt": text.format(io), "answer": f" {io}", "wrong": f" {s}"})
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process."""

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["optrode", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return Ran(left.value.code or 0, out, err)

    return command


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


# Without torch


def test_importing_the_package_loads_no_torch():
    ran = python("import sys, optrode; optrode.OptrodeError; print(sorted({'torch', 'transformers'} & set(sys.modules)))")
    assert ran.stdout == "[]\n" and ran.stderr == ""


@pytest.mark.parametrize("words", [["--help"], ["find", "--help"], ["--version"]])
def test_help_loads_no_torch(words):
    ran = python(
        f"import atexit, sys; sys.argv = ['optrode', *{words!r}]\n"
        "atexit.register(lambda: print('LOADED', sorted({'torch', 'transformers', 'plotly'} & set(sys.modules))))\n"
        "from optrode.cli import main; main()"
    )
    assert ran.returncode == 0 and ran.stderr == "" and "LOADED []" in ran.stdout
    assert "--version" in words or "Usage: optrode" in ran.stdout


def test_every_command_explains_itself(run):
    for command in ("find", "sweep", "train", "study", "sites", "record", "report", "runs", "export", "tasks", "models"):
        ran = run(command, "--help")
        assert ran.code == 0 and f"Usage: optrode {command}" in ran.out


# Looking at models and tasks


def test_sites(run, folder):
    ran = run("sites", folder)
    assert ran.code == 0 and ran.err == ""
    assert "blocks.{0..2}.attn.z" in ran.out and "1×4×6×8" in ran.out and "bit-equal" in ran.out


def test_sites_without_the_check(run, folder):
    assert "not checked" in run("sites", folder, "--no-check").out


def test_sites_as_json(run, folder):
    found = run("sites", folder, "--json").json()
    assert found["sites"] == [str(name) for name in op.load(folder).site_names()]
    kinds = {kind["kind"]: kind for kind in found["check"]["kinds"]}
    assert kinds["attn.z"]["shape"] == [1, 4, 6, 8] and kinds["attn.z"]["moved"] > 0


def test_module_paths(run, folder):
    lines = run("sites", folder, "--modules").out.splitlines()
    assert lines == [name for name, _ in op.load(folder).module.named_modules() if name]
    assert run("sites", folder, "--modules", "--json").json() == lines


def test_tasks_and_models(run):
    assert list(run("tasks", "--json").json()) == list(NAMES)
    known = run("models", "--json").json()
    assert set(FAMILY_OF) < set(known) and "smollm2" in known
    for command, word in (("tasks", "greater_than"), ("models", "gpt_neox")):
        ran = run(command)
        assert ran.code == 0 and word in ran.out


# Recording


def test_record(run, folder, tmp_path):
    texts, out = ["When Mary", "When Mary and John"], tmp_path / "new" / "held.safetensors"
    (tmp_path / "more.txt").write_text(texts[1] + "\n\n")
    words = ["record", texts[0], "--model", folder, "--prompts-file", tmp_path / "more.txt", "--out", out]
    ran = run(*words, "--sites", "blocks.*.attn.z", "--sites", "blocks.1.resid_post[pos=-1]", "--json")
    assert ran.json()["sites"]["blocks.1.resid_post[pos=-1]"] == [2, 1, 48]
    held = load_recording(out)
    direct = op.record(op.load(folder), texts, ["blocks.*.attn.z", "blocks.1.resid_post[pos=-1]"])
    assert held.lengths == (2, 4) and list(held) == sorted(direct)
    assert all(torch.equal(held[name], direct[name]) for name in direct)
    assert "recorded into" in run(*words).out and [path.name for path in out.parent.iterdir()] == [out.name]


def test_record_in_another_number_format(run, folder, tmp_path):
    out = tmp_path / "held.safetensors"
    run("record", "When Mary", "-m", folder, "-s", "embed", "--dtype", "float16", "--out", out, "--json").json()
    assert load_recording(out)["embed"].dtype == torch.float16


# Sweeps, circuits, reports


def test_sweep(run, folder, pairs, tmp_path):
    words = ["sweep", "-m", folder, "--pairs", pairs, "--require-accuracy", "0", "--each", "layer", "--each", "pos"]
    ran = run(*words, "--out", tmp_path / "run")
    assert ran.code == 0 and "strongest cells" in ran.out and "Report:" in ran.out
    written = read_run(tmp_path / "run")
    grid = written["grid"]
    assert isinstance(grid, Grid) and isinstance(written["task"], Task) and grid.shape == (3, 14)
    names = [".lock", "grid.json", "report.html", "task.json", "tensors", "trials.sqlite"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
    printed = run(*words, "--json").json()
    assert printed["values"] == [list(cell) for cell in grid.values]


def test_sweep_of_heads(run, folder, pairs):
    words = ["sweep", "-m", folder, "--pairs", pairs, "--require-accuracy", "0", "--site", "blocks.*.attn.z"]
    grid = run(*words, "--gate", "zero", "--each", "layer", "--each", "head", "--metric", "prob_gap", "--json").json()
    assert grid["metric"] == "prob_gap" and len(grid["values"]) == 18 and grid["source"] is None


@pytest.fixture(scope="session")
def found(folder, pairs, tmp_path_factory):
    """The folder of one `optrode find`."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    words = ["--pairs", pairs, "--require-accuracy", "0", "--no-grid", "--size", "5", "--out", str(out)]
    command = [sys.executable, "-m", "optrode.cli", "find", "--model", folder, *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return out, ran


def test_find_writes_records_and_page(found):
    out, ran = found
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "circuit.json", "proof.json", "report.html", "task.json", "tensors", "trials.sqlite"
    ]  # fmt: skip
    written = read_run(out)
    circuit, proof = written["circuit"], written["proof"]
    assert isinstance(circuit, Circuit) and isinstance(proof, Proof) and circuit.size == proof.size == 5
    assert len(written["task"]) == 4 and proof.n_prompts == 4  # found on one half of the file, proven on the other
    assert "5 of 21 nodes keep" in " ".join(ran.stdout.split()) and "strongest nodes" in ran.stdout
    assert "Traceback" not in ran.stderr and (out / "report.html").read_text().startswith("<!doctype html>")


def test_the_page_is_made_again_without_torch(found, tmp_path):
    out, _ = found
    ran = python(
        f"import atexit, sys; sys.argv = ['optrode', 'report', {str(out)!r}, '--out', {str(tmp_path / 'again.html')!r}]\n"
        "atexit.register(lambda: print('LOADED', sorted({'torch', 'transformers'} & set(sys.modules))))\n"
        "from optrode.cli import main; main()"
    )
    assert ran.returncode == 0 and ran.stderr == ""
    assert ran.stdout == f"{tmp_path / 'again.html'}\nLOADED []\n"
    again, first = ((tmp_path / "again.html").read_text(), (out / "report.html").read_text())
    assert len(again) == len(first) and again.startswith("<!doctype html>")


def test_the_page_is_made_again_as_it_was(run, found, tmp_path):
    out, _ = found
    run("report", out, "--out", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (out / "report.html").read_bytes()


def test_find_of_a_named_task_as_json(run, folder, tmp_path):
    words = ["find", "-m", folder, "-t", "pronoun", "--n", "4", "--require-accuracy", "0", "--size", "2", "--no-grid"]
    printed = run(*words, "--method", "exact", "--ablation", "zero", "--out", tmp_path / "p", "--json").json()
    assert printed["report"] == str(tmp_path / "p" / "report.html") and Path(printed["report"]).is_file()
    assert len(printed["circuit"]["nodes"]) == 2 and printed["proof"]["ablation"] == "zero"


# Edges


def edge_words(folder, *words):
    return ["find", "-m", folder, "-t", "pronoun", "--n", "4", "--require-accuracy", "0", "--no-grid", *words]


def test_find_edges_writes_records_and_page(run, folder, tmp_path):
    ran = run(*edge_words(folder, "--level", "edge", "--size", "20", "--out", tmp_path / "e"))
    assert ran.code == 0, ran.err
    held = read_run(tmp_path / "e")
    circuit, proof = held["circuit"], held["proof"]
    assert isinstance(circuit, EdgeCircuit) and isinstance(proof, EdgeProof) and circuit.size == proof.size == 20
    assert circuit.scores.method == "eap-ig" and proof.n_prompts == 4 and len(proof.random) == 20
    printed = " ".join(ran.out.split())
    assert f"20 of {circuit.n_all} edges keep" in printed and "(absolute), CPR" in printed and circuit.edges[0] in printed
    again = run("report", tmp_path / "e", "--out", tmp_path / "again.html")
    assert again.code == 0 and (tmp_path / "again.html").read_bytes() == (tmp_path / "e" / "report.html").read_bytes()


def test_a_method_of_edges_needs_no_level(run, folder, tmp_path):
    words = edge_words(folder, "--method", "acdc", "--candidates", "200", "--tau", "1e-4", "--out", tmp_path / "e", "--json")
    printed = run(*words).json()
    assert printed["circuit"]["selection"] == "acdc" and 0 < len(printed["circuit"]["edges"]) <= 200
    assert all(" -> " in edge for edge in printed["circuit"]["edges"]) and printed["proof"]["curves"]


def test_methods_compare_on_one_task(run, folder, tmp_path):
    words = ["compare", "-m", folder, "-t", "pronoun", "--n", "4", "--require-accuracy", "0", "--out", tmp_path / "c"]
    ran = run(*words, "--methods", "eap", "--methods", "eap-ig")
    assert ran.code == 0, ran.err
    table = read_run(tmp_path / "c")["methods"]
    assert [row.method for row in table.rows] == ["eap", "eap-ig"] and [row.n_passes for row in table.rows] == [2, 6]
    assert "eap-ig" in ran.out and (tmp_path / "c" / "report.html").read_text().startswith("<!doctype html>")


# Wrong inputs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sites", "/nowhere/at-all"], "[unknown-model] model '/nowhere/at-all'"),
        (["sites", "smolm2"], "[unknown-model] model 'smolm2'"),
        (["record", "--model", "FOLDER"], "[bad-option] record: no prompt was given"),
        (["record", "Mary", "-m", "FOLDER", "-s", "blocks.0.attn.y"], "[unknown-site] site blocks.0.attn.y"),
        (["record", "Mary", "-m", "FOLDER", "-s", "blocks.9.attn.z"], "[unknown-site] site blocks.9.attn.z"),
        (["record", "Mary", "-m", "FOLDER", "--dtype", "float31"], "[bad-option] dtype 'float31'"),
        (["record", "-m", "FOLDER", "--prompts-file", "nothing.txt"], "[bad-option] prompts from nothing.txt: no such file"),
        (["sweep", "-m", "FOLDER", "--gate", "ablate"], "[bad-option] gate 'ablate'"),
        (["sweep", "-m", "FOLDER", "--task", "iio"], "[unknown-task] task 'iio'"),
        (["sweep", "-m", "FOLDER", "--pairs", "nothing.jsonl"], "[bad-file] pairs from nothing.jsonl: no such file"),
        (["sweep", "-m", "FOLDER", "--require-accuracy", "1"], "[task-too-hard] task ioi with"),
        (["sweep", "-m", "FOLDER", "--require-accuracy", "0", "--each", "layers"], "[bad-gate] each='layers'"),
        (["sweep", "-m", "FOLDER", "--require-accuracy", "0", "--metric", "gap"], "[bad-option] metric 'gap'"),
        (["sweep", "-m", "FOLDER", "--executor", "rya"], "[bad-option] executor 'rya'"),
        (["sweep", "-m", "FOLDER", "--executor", "ray", "--workers", "0"], "[bad-option] "),
        (["sweep", "-m", "FOLDER", "--require-accuracy", "0", "--memory-gib", "1e-6"], "[bad-option] 1e-06 GiB of memory"),
        (["runs", "/nowhere/at-all"], "[bad-file] "),
        (["export", "/nowhere/at-all", "--to", "x.csv"], "[bad-file] "),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--method", "magic"], "[bad-option] method 'magic'"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--ablation", "zeros"], "[bad-option] ablation 'zeros'"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--size", "0"], "[bad-option] size=0"),
        (["find", "-m", "FOLDER", "--n", "0"], "[bad-option] task ioi with n=0"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--level", "edgy"], "[bad-option] level 'edgy'"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--level", "edge", "--method", "eapig"], "[bad-option] method"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--level", "node", "--method", "eap"], "[bad-option] method"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--selection", "signed"], "[bad-option] option selection"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--method", "eap", "--steps", "7"], "[bad-option] n_steps=7"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--method", "eap", "--tau", "1"], "[bad-option] tau=1.0"),
        (["find", "-m", "FOLDER", "--require-accuracy", "0", "--method", "acdc", "--tau", "-1"], "[bad-option] tau=-1"),
        (["compare", "-m", "FOLDER", "--require-accuracy", "0", "--methods", "magic"], "[bad-option] method 'magic'"),
        (["report", "/nowhere/at-all"], "[bad-file] run folder /nowhere/at-all: no such folder"),
    ],
)
def test_wrong_inputs_are_one_line_and_exit_2(run, folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    ran = run(*(folder if word == "FOLDER" else word for word in words))
    lines = ran.err.splitlines()
    assert ran.code == 2 and ran.out == "" and len(lines) == 1 and lines[0].startswith(f"optrode: {message}"), ran.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["find", "--modle", "x"], "Unknown option: --modle. Did you mean --model?"),
        (["fnid"], "Unknown command"),
        (["find", "--n", "many"], 'unable to convert "many" into int'),
    ],
)
def test_wrong_usage_exits_2_without_a_traceback(run, words, message):
    ran = run(*words)
    assert ran.code == 2 and ran.out == "" and "Traceback" not in ran.err
    assert message in " ".join(ran.err.replace("│", " ").split())


def test_a_wrong_input_in_a_process_of_its_own():
    command = [sys.executable, "-m", "optrode.cli", "report", "/nowhere/at-all"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.startswith("optrode: [bad-file]") and ran.stderr.count("\n") == 1


# Ctrl-C


def test_ctrl_c_in_a_process_of_its_own(tmp_path):
    code = (
        "import signal, sys, time, optrode.loading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may start its jobs without one
        "def load(*args, **options):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "optrode.loading.load = load\n"
        f"sys.argv = ['optrode', 'find', '--out', {str(tmp_path / 'run')!r}]\n"
        "from optrode.cli import main; main()"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_no_file_and_no_hook(run, folder, pairs, tmp_path, monkeypatch):
    held = []

    def interrupted(bench, *args):
        held.append(bench.model.module)
        raise KeyboardInterrupt

    monkeypatch.setattr("optrode.trial.run.Bench.plan", interrupted)
    ran = run("sweep", "-m", folder, "--pairs", pairs, "--require-accuracy", "0", "--out", tmp_path / "run")
    assert ran.code == 130 and "Traceback" not in ran.err
    assert held and not any(m._forward_hooks or m._forward_pre_hooks for m in held[0].modules())
    assert not list(tmp_path.iterdir())
