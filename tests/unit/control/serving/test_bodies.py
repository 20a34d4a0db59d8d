"""Whatever a body holds, it is a call or refused with a reason that can be sent back."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optrode.control.serving.call import Call, chat_call, text_call
from optrode.control.serving.refusal import Refused, error_body

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
FIELDS = (
    "model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream",
    "stream_options", "gates", "trace", "n", "logit_bias", "tools", "response_format", "logprobs", "echo", "user",
)  # fmt: skip
GOOD = {"prompt": "So", "messages": [{"role": "user", "content": "So"}]}


def read(parse, body):
    try:
        return parse(json.dumps(body).encode(), "tiny")
    except Refused as refused:
        assert 400 <= refused.status < 500
        message = error_body(refused)["error"]["message"]
        assert json.dumps(error_body(refused), ensure_ascii=False).encode() and "\n" not in message and message.endswith(".")
        return refused


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(st.characters()), ANYTHING, max_size=3))
@example({"gates": {"\ud800": 1}})
@example({"gates": ["\ud800"]})
@example({"\ud800": 1})
@example({"messages": [{"role": "user", "content": [{"type": ["text"]}]}]})
def test_any_body(body):
    assert isinstance(read(text_call, body), Call | Refused)
    assert isinstance(read(chat_call, body), Call | Refused)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), ANYTHING)
def test_any_value_in_a_good_body(field, value):
    name, parse = ("prompt", text_call) if field in ("echo", "prompt") else ("messages", chat_call)
    assert isinstance(read(parse, {name: GOOD[name], field: value}), Call | Refused)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_gates_are_read_the_same_in_both_forms(doses):
    as_map = read(text_call, {"prompt": "So", "gates": doses})
    as_list = read(text_call, {"prompt": "So", "gates": [{"name": name, "dose": dose} for name, dose in doses.items()]})
    assert as_map == as_list and {one.name: one.dose for one in as_map.gates} == doses


@pytest.mark.parametrize("body", [b"\xff", b"", b"null", b'"a"', b"[" * 5000 + b"]" * 5000, b"9" * 5000, b'{"a":1}x'])
def test_what_is_no_object(body):
    with pytest.raises(Refused):
        text_call(body, "tiny")
