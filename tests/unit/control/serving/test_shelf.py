"""The shelf: artefacts and functions by name, checked before anything is served."""

from pathlib import Path

import httpx
import openai
import pytest

import optrode as op
from optrode.control.artefact import load_artefact, save_artefact
from optrode.control.card import card_of
from optrode.control.generate import Request, generate
from optrode.control.serving import app, call, door, prompting, server
from optrode.control.serving.call import Asked
from optrode.control.serving.server import Server
from optrode.control.serving.shelf import shelf_of
from optrode.errors import OtherModel
from optrode.model.tiny import tiny
from tests.unit.control.serving.samples import PROMPT, chatty, late, steer


def save(path, name, make, **said):
    gates = make(1.0)
    return save_artefact(path, gates, card_of(chatty(), gates, name=name, behaviour=f"Does {name}.", **said))


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "joy", "joy", steer, dose=0.5, dose_range=(-1.0, 1.0), evaluation={"effect": 0.25})
    inner = tmp_path / "brief-one"
    inner.mkdir()
    save(inner, "brief", late)
    (tmp_path / "notes.json").write_text('{"kind": "Grid"}')
    return tmp_path


def test_artefacts_go_by_the_names_on_their_cards_and_at_their_recommended_doses(folder):
    shelf = shelf_of(chatty(), folder)
    assert list(shelf.entries) == ["joy", "brief"]
    (picked,) = shelf.pick([Asked("joy")])
    assert picked.dose == 0.5 and [gate.strength for gate in picked.gates] == [1.5]
    assert picked.shown() == {"name": "joy", "dose": 0.5}


def test_gates_of_the_shelf_are_those_of_the_artefact_at_that_dose(folder):
    shelf, artefact = shelf_of(chatty(), folder), load_artefact(folder / "joy")
    for dose in (-1.0, 0.0, 0.25):
        (picked,) = shelf.pick([Asked("joy", dose)])
        mine, its = (
            generate(chatty(), [Request(PROMPT, gates=gates, max_new_tokens=8)])[0].text
            for gates in (picked.gates, artefact.gates(chatty(), dose))
        )
        assert mine == its


def test_a_dose_outside_of_the_recommended_range_is_held_and_noted(folder):
    (picked,) = shelf_of(chatty(), folder).pick([Asked("joy", 3.0)])
    assert picked.shown()["note"] == "outside of the recommended range -1 to 1"
    assert "note" not in shelf_of(chatty(), folder).pick([Asked("brief", 0.0)])[0].shown()


def test_a_folder_is_served_with_its_cards(folder):
    with Server(chatty(), folder, port=0, name="tiny") as running:
        listed = httpx.get(f"{running.url}/v1/gates").json()["data"]
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as api:
            found = api.completions.create(model="tiny", prompt=PROMPT, max_tokens=8, extra_body={"gates": ["joy"]})
    assert [one["name"] for one in listed] == ["joy", "brief"]
    assert listed[0]["dose_range"] == [-1.0, 1.0] and listed[0]["card"]["evaluation"] == {"effect": 0.25}
    assert listed[0]["card"]["fingerprint"] == load_artefact(folder / "joy").fingerprint
    (alone,) = generate(chatty(), [Request(PROMPT, gates=steer(0.5), max_new_tokens=8)])
    assert found.choices[0].text == alone.text


def test_artefacts_of_another_model_can_be_allowed(folder):
    other = op.load(tiny("llama", random_seed=1), tokenizer=chatty().tokenizer)
    with pytest.warns(OtherModel):
        assert list(shelf_of(other, folder, allow_other=True).entries) == ["joy", "brief"]


def test_folders_and_functions_go_together(folder):
    assert list(shelf_of(chatty(), folder, {"mine": steer}).entries) == ["joy", "brief", "mine"]


def test_the_page_on_serving_says_what_the_server_does():
    page = (Path(__file__).parents[4] / "docs" / "serving.md").read_text()
    assert all(path in page for path in (*app.READ, *app.WRITE))
    assert f"within {app.BODY_S:g} s" in page and f"`stop` ({call.MAX_STOPS} at most)" in page
    assert f"token of {door.SHORTEST} characters" in page and door.TOKEN_VARIABLE in page
    assert f"`max_tokens` is {prompting.DEFAULT_TOKENS} unless given" in page
    assert server.MAX_BODY == 1 << 20 and "`max_body` (1 MiB)" in page and f"{server.GRACE_S:g} seconds" in page
