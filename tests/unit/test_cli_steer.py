"""`optrode steer` as a user runs it, on a tiny model in a folder."""

import json

import pytest

import optrode as op
from optrode.cli import main
from optrode.control.artefact import load_artefact
from optrode.control.records import Evaluation
from optrode.reports.folder import read_run
from tests.words import save_worded

WORDS = (
    "Mary",
    "John",
    "dog",
    "city",
    "year",
    "friend",
    "cat",
    "man",
    "Tom",
    "Anna",
    "sun",
    "bird",
    "house",
    "boat",
    "tree",
    "king",
)
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_worded(tmp_path_factory.mktemp("model"), max_position_embeddings=512)


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
def texts(tmp_path):
    files = {
        "positive": [f"The {word} is good and kind" for word in WORDS],
        "negative": [f"The {word} is close to the city" for word in WORDS],
        "prompts": ["When Mary", "The capital of", "So he was"],
    }  # fmt: skip
    for name, lines in files.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return [word for name in files for word in (f"--{name}", tmp_path / f"{name}.txt")]


@pytest.fixture
def artefact(run, folder, texts, tmp_path):
    path = tmp_path / "kind"
    code, out, err = run(
        "steer", "fit", "kindness", "--model", folder, *texts, "--kl", "0.05", "--site", "blocks.1.resid_post", "--out", path
    )
    assert (code, err.count("Traceback")) == (0, 0), err
    assert "kindness" in out and "p95 KL" in out and "artefact:" in out
    return path.with_suffix(".json")


def test_fit_writes_an_artefact_with_its_card(artefact):
    card = load_artefact(artefact).card
    assert card.name == "kindness" and card.provenance is not None
    assert abs(card.evaluation["p95 KL (nats)"] - 0.05) < 0.0026
    assert card.dose_range[0] < card.dose < card.dose_range[1]


def test_try_shows_plain_and_steered_side_by_side(run, folder, artefact):
    code, out, _ = run("steer", "try", artefact, "When Mary went", "--model", folder, "--tokens", "4", "--plain-text")
    assert code == 0 and "plain" in out
    words = ["steer", "try", artefact, "When Mary went", "--model", folder, "--tokens", "4", "--plain-text", "--json"]
    code, out, _ = run(*words, "--dose", "0.5")
    said = json.loads(out)["written"]
    assert [one["dose"] for one in said] == [0.0, 0.5]
    model = op.load(folder)
    assert said[0]["text"] == op.generate(model, op.Request("When Mary went", max_new_tokens=4))[0].text


def test_export_as_control_vector_and_merged_refusal(run, folder, artefact, tmp_path):
    code, out, err = run("steer", "export", artefact, tmp_path / "kind.gguf", "--model", folder)
    assert code == 0 and (tmp_path / "kind.gguf").is_file(), err
    code, _, err = run("steer", "export", artefact, tmp_path / "kind", "--as", "gguff", "--model", folder)
    assert code == 2 and "Nearest: gguf" in err


def test_eval_writes_the_page_of_a_demonstration(run, folder, tmp_path, artefact):
    words = ["steer", "eval", artefact, "--behaviour", "verbosity", "--model", folder, "--tokens", "3", "--prompts", "2"]
    code, out, err = run(*words, "--dose", "0.2", "--out", tmp_path / "eval")
    assert code == 0, err
    assert isinstance(read_run(tmp_path / "eval")["evaluation"], Evaluation)
    assert "random" in out and "unvalidated" in out and (tmp_path / "eval" / "report.html").is_file()


class TestWrongInput:
    def test_no_behaviour(self, run, folder):
        code, _, err = run("steer", "fit", "--model", folder)
        assert code == 2 and "no behaviour is named" in err and "sentiment" in err

    def test_an_unknown_one(self, run, folder):
        code, _, err = run("steer", "fit", "sentimant", "--model", folder)
        assert code == 2 and "Nearest: sentiment" in err

    def test_half_of_the_texts(self, run, folder, texts):
        code, _, err = run("steer", "fit", "mine", "--model", folder, *texts[:4])
        assert code == 2 and "--prompts is missing" in err

    def test_no_artefact(self, run, folder, tmp_path):
        code, _, err = run("steer", "try", tmp_path / "none", "Hi", "--model", folder)
        assert code == 2 and "no such file" in err

    def test_an_unknown_trigger_before_anything_is_measured(self, run, folder, artefact, tmp_path):
        words = ["steer", "eval", artefact, "--behaviour", "verbosity", "--model", folder, "--when", "coking"]
        code, _, err = run(*words, "--out", tmp_path / "none")
        assert code == 2 and "Nearest: cooking" in err and not (tmp_path / "none").exists()

    def test_another_model(self, run, artefact, tmp_path):
        other = save_worded(tmp_path / "other", random_seed=3)
        code, _, err = run("steer", "try", artefact, "Hi", "--model", other, "--plain-text")
        assert code == 2 and "weights" in err
