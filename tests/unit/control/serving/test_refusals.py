"""What a client is told, as it reads it: status, type, the field, a sentence with the next step."""

import json

import httpx
import pytest

import optrode as op
from optrode.control.serving.server import Server
from tests.unit.control.serving.samples import PROMPT, chatty, steer

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
HELLO = [{"role": "user", "content": "So"}]


def told(client, path, body, status=400):
    answer = client.post(path, json=body) if isinstance(body, dict) else client.post(
        path, content=body, headers={"Content-Type": "application/json"}
    )  # fmt: skip
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def nan_body(number):
    return f'{{"prompt": "{PROMPT}", "gates": {{"steer": {number}}}}}'


@pytest.mark.parametrize(
    ("body", "param", "code", "parts"),
    [
        ({"gates": {"stear": 1}}, "gates", "unknown_gate", ('"stear"', "Nearest: steer", "GET /v1/gates")),
        ({"gates": [{"name": "steer", "dosis": 1}]}, "gates", "unknown_field", ('"dosis" in gates[0]', "Nearest: dose")),
        ({"gates": [{"dose": 1}]}, "gates", "invalid_value", ("gates[0]: it has no name",)),
        ({"gates": [{"name": "steer"}, {"name": "steer"}]}, "gates", "invalid_value", ('"steer"', "named twice")),
        ({"gates": {"steer": "much"}}, "gates", "invalid_value", ('dose of gate "steer"', "a string, not a finite number")),
        ({"gates": {"steer": True}}, "gates", "invalid_value", ("true or false",)),
        ({"gates": 3}, "gates", "invalid_value", ("gates: it is the number 3", '"dose": DOSE')),
        ({"gates": [3]}, "gates", "invalid_value", ("gates[0]",)),
        ({"temprature": 0}, "temprature", "unknown_field", ("Nearest: temperature",)),
        ({"temperature": 3}, "temperature", "invalid_value", ("from 0 to 2",)),
        ({"temperature": "hot"}, "temperature", "invalid_value", ('temperature="hot": it is a string',)),
        ({"top_p": 0}, "top_p", "invalid_value", ("temperature=0",)),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", ("whole number from 1",)),
        ({"max_tokens": 2.5}, "max_tokens", "invalid_value", ("the number 2.5",)),
        ({"max_tokens": 200}, "max_tokens", "context_length_exceeded", ("room for 128 tokens", "ask for 117 tokens")),
        ({"seed": -1}, "seed", "invalid_value", ("from 0 to",)),
        ({"stop": ["a", ""]}, "stop", "invalid_value", ("empty",)),
        ({"stop": list("abcde")}, "stop", "invalid_value", ("5 stops", "4 at most")),
        ({"stream": 1}, "stream", "invalid_value", ("true or false",)),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value", ('"stream": true',)),
        ({"stream": True, "stream_options": {"usage": 1}}, "stream_options", "unknown_field", ("include_usage",)),
        ({"n": 2}, "n", "unsupported_field", ("n=2", "does not support", "leave it out")),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_field", ("logit_bias=",)),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_field", ("presence_penalty=0.5",)),
        ({"logprobs": 1}, "logprobs", "unsupported_field", ("logprobs=1",)),
        ({"echo": True}, "echo", "unsupported_field", ("echo=true",)),
        ({"prompt": ["a", "b"]}, "prompt", "invalid_value", ("2 prompts", "one request for each")),
        ({"prompt": ""}, "prompt", "invalid_value", ("there is none",)),
        ({"prompt": 5}, "prompt", "invalid_value", ("the number 5",)),
        ({"prompt": [1, 2.5]}, "prompt", "invalid_value", ("no array of token ids",)),
        ({"prompt": [99999]}, "prompt", "bad-option", ("token id 99999",)),
        ({"prompt": "So " * 200}, "prompt", "context_length_exceeded", ("shorten the prompt",)),
    ],
)  # fmt: skip
def test_fields_that_cannot_be(client, body, param, code, parts):
    error = told(client, TEXT, {"prompt": PROMPT} | body)
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error"), error
    assert [part for part in parts if part not in error["message"]] == [], error["message"]


@pytest.mark.parametrize(
    ("body", "param", "parts"),
    [
        ({}, "messages", ("messages: there is none", '"role": "user"')),
        ({"messages": "So"}, "messages", ("a string",)),
        ({"messages": [{"role": "usr", "content": "So"}]}, "messages", ('messages[0].role="usr"', "Nearest: user")),
        ({"messages": [{"role": "user"}]}, "messages[0].content", ("it is null",)),
        ({"messages": [*HELLO, {"role": "user", "contents": "So"}]}, "messages", ('"contents" in messages[1]',)),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", ('"image_url", not text',)),
        ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools", ("tools=",)),
        ({"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format", ("does not support",)),
        ({"messages": HELLO, "max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens", ("give one of them",)),
    ],
)  # fmt: skip
def test_conversations_that_cannot_be(client, body, param, parts):
    error = told(client, CHAT, body)
    assert error["param"] == param and not [part for part in parts if part not in error["message"]], error


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400, "9" * 4000])
def test_doses_that_are_no_finite_numbers(client, number):  # the last two do not fit a float
    error = told(client, TEXT, nan_body(number))
    assert 'dose of gate "steer"' in error["message"] and "not a finite number" in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"", "it is not JSON"), (b"[1]", "it is an array"), (b"{", "it is not JSON"), (b"\xff{}", "it is not JSON"),
        (b'{"prompt": "a", "prompt": "b"}', "'prompt' is given twice"), (b"[" * 100_000, "it is not JSON"),
        (b'{"prompt": "\\ud800"}', "half a character"),
    ],
)  # fmt: skip
def test_bodies_that_are_no_requests(client, raw, part):
    assert part in told(client, TEXT, raw)["message"]


def test_another_model_is_404(client):
    error = told(client, TEXT, {"prompt": PROMPT, "model": "gpt-4"}, 404)
    assert error["code"] == "model_not_found" and "Nearest: tiny" in error["message"]
    assert client.get("/v1/models/gpt-4").status_code == 404


def test_paths_and_methods_that_are_not_there(client):
    missing = client.post("/v1/chat/completion", json={})
    assert missing.status_code == 404 and "Nearest: /v1/chat/completions" in missing.json()["error"]["message"]
    wrong = client.get(TEXT)
    assert wrong.status_code == 405 and "this path takes POST" in wrong.json()["error"]["message"]


def test_a_body_that_does_not_say_it_is_json_is_415_as_forms_of_other_sites_send_it(client):
    answer = client.post(TEXT, content=json.dumps({"prompt": PROMPT}), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415 and "Content-Type: application/json" in answer.json()["error"]["message"]


def test_no_answer_allows_other_origins(client):
    answer = client.options(TEXT, headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 405
    answer = client.post(TEXT, json={"prompt": PROMPT, "max_tokens": 1}, headers={"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_body_that_is_too_large_is_413_whether_or_not_it_says_so():
    def parts():
        for _ in range(50):
            yield b" " * 100

    with Server(chatty(), port=0, max_body=1000) as server, httpx.Client(base_url=server.url) as client:
        kind = {"Content-Type": "application/json"}
        for content in (b" " * 1001, parts()):
            answer = client.post(TEXT, content=content, headers=kind)
            assert answer.status_code == 413
            assert "larger than the 1,000 bytes" in answer.json()["error"]["message"]
        assert client.post(TEXT, content=b" " * 999, headers=kind).status_code == 400


def test_a_model_without_a_chat_template_says_so():
    from tests.words import worded

    with Server(worded(), port=0) as server, httpx.Client(base_url=server.url) as client:
        error = told(client, CHAT, {"messages": HELLO})
    assert error["code"] == "no_chat_template" and "/v1/completions" in error["message"]


def test_a_function_that_fails_at_a_dose_is_told_apart_from_one_that_refuses(caplog):
    def picky(dose):
        if dose > 2:
            raise op.errors.BadOption(f"dose {dose:g}", "it is too much", next_step="stay below 2")
        if dose < 0:
            raise ZeroDivisionError("no such dose")
        return steer(dose)

    with Server(chatty(), {"picky": picky}, port=0) as server, httpx.Client(base_url=server.url) as client:
        error = told(client, TEXT, {"prompt": PROMPT, "gates": {"picky": 3}})
        assert (error["param"], error["code"]) == ("gates", "bad-option") and "stay below 2" in error["message"]
        error = told(client, TEXT, {"prompt": PROMPT, "gates": {"picky": -1}}, 500)
        assert error["type"] == "server_error" and "ZeroDivisionError: no such dose" in error["message"]
    assert "no such dose" in caplog.text
