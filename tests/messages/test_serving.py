"""What a user is told about a server that cannot start."""

import pytest
import torch

import optrode as op
from optrode.control.artefact import save_artefact
from optrode.control.card import card_of
from optrode.control.serving.server import Server, serve
from optrode.control.serving.shelf import shelf_of
from optrode.errors import BadFile, BadGate, BadOption, GateShape, UnknownSite
from optrode.model.tiny import tiny
from tests.messages.conftest import refused
from tests.words import worded

RESID = "blocks.1.resid_post"


def steer(dose):
    return (op.add(RESID, torch.ones(48), strength=dose),)


@pytest.fixture(autouse=True)
def _no_token(monkeypatch):
    monkeypatch.delenv("OPTRODE_TOKEN", raising=False)


def artefact(path, model, name="joy"):
    gates = steer(1.0)
    return save_artefact(path, gates, card_of(model, gates, name=name, behaviour="More joy."))


def test_an_address_that_others_can_reach_without_a_token(model):
    with refused(BadOption, "serve on 0.0.0.0", "no token", "OPTRODE_TOKEN", "127.0.0.1", by=model):
        serve(model, host="0.0.0.0", port=0)


def test_tokens_that_cannot_be(model):
    with refused(BadOption, "token of the server", "5 characters, which can be guessed", "16 or more", "secrets", by=model):
        Server(model, host="0.0.0.0", port=0, token="12345")
    with refused(BadOption, "token of the server", "blanks", by=model):
        Server(model, port=0, token="a b")


def test_numbers_that_cannot_be(model):
    with refused(BadOption, "max_batch=0", "room for one request", by=model):
        Server(model, port=0, max_batch=0)
    with refused(BadOption, "max_queue=0", by=model):
        Server(model, port=0, max_queue=0)
    with refused(BadOption, "max_body=0", "no request would fit", by=model):
        Server(model, port=0, max_body=0)
    with refused(BadOption, "port 70000", "0 to 65535", by=model):
        Server(model, port=70000)


def test_models_that_cannot_be_served():
    with refused(BadOption, "without a tokenizer", "tokenizer="):
        Server(op.load(tiny("llama")), port=0)
    with refused(BadOption, "no generate", "causal language model"):
        Server(op.load(tiny("vit"), tokenizer=worded().tokenizer), port=0)


def test_a_server_that_is_started_twice(model):
    with Server(model, port=0) as server, refused(BadOption, "started before", "make another one"):
        server.start()


def test_folders_without_artefacts(model, tmp_path):
    with refused(BadFile, "nowhere", "there is none", "op.control.save_artefact", by=model):
        shelf_of(model, tmp_path / "nowhere")
    with refused(BadFile, "there is no artefact in it", by=model):
        shelf_of(model, tmp_path)
    (tmp_path / "torn.json").write_text("{")
    with refused(BadFile, "torn.json", "not JSON, or torn", by=model):
        shelf_of(model, tmp_path)
    (tmp_path / "torn.json").unlink()
    artefact(tmp_path / "joy", model).with_suffix(".safetensors").unlink()
    with refused(BadFile, "joy", by=model):
        Server(model, tmp_path, port=0)


def test_artefacts_of_one_name_or_of_another_model(model, tmp_path):
    artefact(tmp_path / "a", model)
    artefact(tmp_path / "b", model)
    with refused(BadOption, "'joy'", "two of that name", "their cards", by=model):
        shelf_of(model, tmp_path)
    other = worded(random_seed=1)
    with refused(BadGate, "joy", "weights", "allow_other=True", by=other):
        shelf_of(other, tmp_path)


@pytest.mark.parametrize(
    ("make", "kind", "parts"),
    [
        (lambda dose: None, BadOption, ("gate 'mine' at dose 1", "returned NoneType", "tuple of gates")),
        (lambda dose: steer(dose)[0], BadOption, ("returned Gate", "tuple of gates")),
        (lambda dose: (op.add(RESID, torch.ones(48), rows=0),), BadOption, ("rows=", "single request")),
        (lambda dose: (op.add(RESID, torch.ones(48), when=op.when(until=3)),), BadOption, ("when=",)),
        (lambda dose: (op.zero("blocks.*.attn.z", each="head"),), BadOption, ("each=",)),
        (lambda dose: (op.add(RESID, torch.ones(7)),), GateShape, ("(7,)", "48")),
        (lambda dose: (op.add("blocks.9.resid_post", torch.ones(48)),), UnknownSite, ("blocks.9",)),
    ],
)  # fmt: skip
def test_functions_that_make_no_gates_for_this_model(model, make, kind, parts):
    with refused(kind, *parts, by=model):
        Server(model, {"mine": make}, port=0)
