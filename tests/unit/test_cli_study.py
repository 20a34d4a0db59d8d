"""`optrode train` and `optrode study` as a user runs them."""

import json

import pytest

from optrode.claims import Figures, StudyRun
from optrode.cli import main
from optrode.reports.folder import read_run
from optrode.study import ledger
from optrode.study.study import NAMES
from optrode.train.records import Emergence, TrainingRun
from tests.unit.study.sample import STUDY

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")

SPEC = """
import torch
import optrode as op
from optrode.nn.transformer import Spec, as_model, build

def make(seed):
    return as_model(build(Spec(n_layers=1, n_heads=2, d_model=8, vocab=5, n_ctx=4), seed))

def batch(number, generator):
    return torch.randint(0, 5, (2, 4), generator=generator)

def loss(model, tokens):
    return model.module(tokens).logits.square().mean()

FREE = op.train.Plan("free", make, batch, loss, 4, measures={"one": op.train.Measure(lambda model: 1.0)},
                     measure_at=(0, 4), keep_at=(0, 4))
PLANS = (FREE, FREE.but(name="head 1 silent", gates=(op.zero("blocks.0.attn.z[head=1]"),)))
PROMPTS = (op.train.Prompt([1, 2, 3]),)
"""


@pytest.fixture
def run(capsys, monkeypatch):
    def ran(*words):
        monkeypatch.setattr("sys.argv", ["optrode", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return ran


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.py"
    path.write_text(SPEC)
    return path


def test_train_writes_runs_checkpoints_and_the_page(run, spec, tmp_path):
    code, out, _ = run("train", spec, "--out", tmp_path / "out")
    assert code == 0 and "head 1 silent" in out and (tmp_path / "out" / "report.html").stat().st_size > 10_000
    for name in ("free", "head-1-silent"):
        held = read_run(tmp_path / "out" / name)
        assert isinstance(held["training"], TrainingRun) and isinstance(held["emergence"], Emergence)
        assert [one.step for one in held["training"].checkpoints] == [0, 4]


def test_train_goes_on_where_it_was_with_more_steps(run, spec, tmp_path):
    run("train", spec, "--out", tmp_path / "out", "--json")
    code, out, _ = run("train", spec, "--out", tmp_path / "out", "--steps", 6, "--json")
    runs = json.loads(out)["runs"]
    assert code == 0 and [one["n_steps"] for one in runs] == [6, 6]
    assert [one["step"] for one in runs[0]["checkpoints"]] == [0, 4]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "it defines no plan"),
        ("PLAN = 3", "it defines no plan"),
        ("PLAN = 1 / 0", "ZeroDivisionError: division by zero (line 1)"),
        (SPEC + "PLANS = (FREE, FREE)", "two of its plans are called 'free'"),
        (SPEC + "PROMPTS = ([1, 2],)", "one of its PROMPTS is no op.train.Prompt"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_in_a_line(run, tmp_path, text, found):
    path = tmp_path / "spec.py"
    path.write_text(text)
    code, out, err = run("train", path, "--out", tmp_path / "out")
    assert code == 2 and out == "" and found in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_spec_that_is_not_there_is_answered_with_the_nearest(run, spec):
    code, _, err = run("train", spec.with_name("spek.py"))
    assert code == 2 and "Nearest: spec.py" in err


def test_study_run_writes_its_page_and_enters_the_ledger(run, tmp_path, monkeypatch):
    monkeypatch.setattr("optrode.study.study.load", lambda slug: STUDY)
    monkeypatch.setattr(ledger, "results_folder", lambda: tmp_path / "ledger")
    code, out, _ = run("study", "run", "induction-formation", "--out", tmp_path / "out", "--enter")
    assert code == 0 and "holds" in out
    held = read_run(tmp_path / "out")
    assert isinstance(held["study"], StudyRun) and isinstance(held["figures"], Figures)
    assert (tmp_path / "out" / "report.html").exists()
    code, out, _ = run("study", "show", "induction-formation")
    assert code == 0 and "S2" in out and "0.7" in out
    code, out, _ = run("study", "list", "--json")
    assert json.loads(out) == dict.fromkeys(NAMES) | {
        "induction-formation": {"holds": 1, "holds in part": 0, "not at this size": 0, "not measured": 1}
    }


def test_studies_that_are_unknown_or_not_measured_are_answered_with_what_to_do(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "results_folder", lambda: tmp_path)
    code, _, err = run("study", "run", "rnn-hm")
    assert code == 2 and "Nearest: rnn-hmm" in err
    code, _, err = run("study", "show", "rnn-hmm")
    assert code == 2 and "Next: optrode study run rnn-hmm --enter" in err
    code, _, err = run("study", "run", "rnn-hmm", "--profile", "fast", "--out", tmp_path / "out")
    assert code == 2 and "no such profile" in err
    code, out, _ = run("study", "list")
    assert code == 0 and all(name in out for name in NAMES)
