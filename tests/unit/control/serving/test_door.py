"""Who may ask: tokens, names, addresses."""

import socket

import httpx
import openai
import pytest

from optrode.control.serving.door import is_loopback
from optrode.control.serving.server import Server
from optrode.errors import BadOption
from tests.unit.control.serving.samples import chatty

TOKEN = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _no_token(monkeypatch):
    monkeypatch.delenv("OPTRODE_TOKEN", raising=False)


def status(server, headers=None, path="/v1/models"):
    return httpx.get(server.url + path, headers=headers or {})


def test_other_machines_need_a_token_and_without_one_nothing_starts():
    with pytest.raises(BadOption, match="other machines can reach it, and there is no token.*OPTRODE_TOKEN"):
        Server(chatty(), host="0.0.0.0", port=0)
    with pytest.raises(BadOption, match="can be guessed"):
        Server(chatty(), host="0.0.0.0", port=0, token="short")


def test_an_empty_token_is_none(monkeypatch):
    monkeypatch.setenv("OPTRODE_TOKEN", "")
    with pytest.raises(BadOption, match="there is no token"):
        Server(chatty(), host="0.0.0.0", port=0)


@pytest.mark.parametrize("token", ["two words", "käse", "new\nline"])
def test_a_token_has_to_stand_in_a_header(token):
    with pytest.raises(BadOption, match="cannot stand in a header"):
        Server(chatty(), port=0, token=token)


@pytest.mark.parametrize("is_given", [True, False])
def test_with_a_token_only_those_who_bring_it_are_answered(is_given, monkeypatch):
    if not is_given:
        monkeypatch.setenv("OPTRODE_TOKEN", TOKEN)
    with Server(chatty(), host="0.0.0.0", port=0, token=TOKEN if is_given else None) as server:
        for sent in (None, "Bearer wrong", "Bearer", TOKEN, f"Basic {TOKEN}"):
            answer = status(server, {"Authorization": sent} if sent else {})
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error"
            assert TOKEN not in answer.text
        assert status(server, {"Authorization": f"bearer {TOKEN}"}).status_code == 200
        assert status(server, {"Authorization": f"Bearer {TOKEN}", "Host": "any.example"}).status_code == 200
        assert status(server, path="/health").status_code == 200
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as api:
            assert len(list(api.models.list())) == 1
        api = openai.OpenAI(base_url=f"{server.url}/v1", api_key="no", max_retries=0)
        with api, pytest.raises(openai.AuthenticationError, match="not the server's"):
            api.models.list()


def test_on_loopback_names_of_other_sites_are_refused(server):
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "", "[::2]:80"):
        answer = status(server, {"Host": host}, path="/health")
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_host", host
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9", "[::1]:80"):
        assert status(server, {"Host": host}).status_code == 200, host


def test_which_names_are_loopback():
    assert all(map(is_loopback, ("localhost", "localhost.", "127.0.0.1", "127.9.9.9", "::1", "[::1]")))
    others = ("0.0.0.0", "::", "", "example.org", "192.168.0.1", "127.0.0.1.example", "localhost.example")
    assert not any(map(is_loopback, others))


def test_a_port_that_is_taken_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadOption, match=f"127.0.0.1:{port}.*Address already in use.*another port"):
            Server(chatty(), port=port)
    with pytest.raises(BadOption, match="0 to 65535"):
        Server(chatty(), port=70000)


def test_an_address_that_is_not_there_is_said_at_once():
    with pytest.raises(BadOption, match="there is no such address|it cannot be had"):
        Server(chatty(), host="203.0.113.7", port=0, token=TOKEN)
