"""What a client asks for: the body of a request to /v1/chat/completions or /v1/completions, checked field by field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from optrode.control.serving.fields import (
    check_keys,
    check_neutral,
    flag,
    is_number,
    kind,
    number,
    read_json,
    shown,
    text,
    whole,
)
from optrode.control.serving.refusal import Refused, bad
from optrode.errors import nearest

ROLES: Final = ("system", "developer", "user", "assistant")
MAX_STOPS: Final = 4
_LARGEST: Final = 2**31 - 1

_COMMON: Final = (
    "model", "max_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options", "user", "gates", "trace",
)  # fmt: skip
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "n": (None, 1), "logit_bias": (None, {}), "frequency_penalty": (None, 0, 0.0), "presence_penalty": (None, 0, 0.0),
}  # fmt: skip
"""Fields of the API that are not supported, with the values that ask for nothing."""
_CHAT: Final = _NEUTRAL | {
    "tools": (None, []), "tool_choice": (None, "none", "auto"), "parallel_tool_calls": (None, True, False),
    "functions": (None, []), "function_call": (None, "none", "auto"), "response_format": (None, {"type": "text"}),
    "logprobs": (None, False), "top_logprobs": (None, 0), "modalities": (None, ["text"]), "audio": (None,),
    "prediction": (None,), "reasoning_effort": (None,), "verbosity": (None,), "web_search_options": (None,),
    "store": (None, False), "metadata": (None, {}), "service_tier": (None, "auto", "default"),
}  # fmt: skip
_TEXT: Final = _NEUTRAL | {
    "best_of": (None, 1), "echo": (None, False), "suffix": (None, ""), "logprobs": (None,),
}  # fmt: skip


@final
@dataclass(frozen=True)
class Asked:
    """A gate set that a request names; without a dose, the one that its card recommends."""

    name: str
    dose: float | None = None


@final
@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@final
@dataclass(frozen=True)
class Call:
    """A checked request.

    Attributes:
        prompt: text, token ids, or the turns of a conversation.
        gates: to be held for this request alone, in their order.
        max_tokens: new tokens at most; None for as many as the server gives by default.
        temperature: 0 for the most likely token at each step.
        top_p: share of the probability that is sampled from.
        seed: of the sampling; the same request gives the same text.
        stop: texts before which the answer ends.
        is_stream: the answer is sent as it is written.
        has_usage: a stream ends with the counts of tokens.
        has_trace: how open each gate was is part of the answer.
    """

    prompt: str | tuple[int, ...] | tuple[Message, ...]
    gates: tuple[Asked, ...] = ()
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    is_stream: bool = False
    has_usage: bool = False
    has_trace: bool = False

    @property
    def is_chat(self) -> bool:
        """Whether it is a conversation."""
        return isinstance(self.prompt, tuple) and isinstance(self.prompt[0], Message)


def chat_call(raw: bytes, model_name: str) -> Call:
    """The body of a request to /v1/chat/completions.

    Raises:
        Refused: something in it is unknown, unsupported, or not what it should be; the message names it.
    """
    data = read_json(raw)
    check_keys(data, (*_COMMON, *_CHAT, "messages", "max_completion_tokens"), "the request")
    check_neutral(data, _CHAT)
    old, new = (whole(data, key, 1, _LARGEST) for key in ("max_tokens", "max_completion_tokens"))
    if old is not None and new is not None and old != new:
        found = f"max_tokens is {old}, max_completion_tokens {new}"
        raise bad("max_completion_tokens", "length of the answer", found, next_step="give one of them")
    return _call(data, model_name, _messages(data.get("messages")), old if new is None else new)


def text_call(raw: bytes, model_name: str) -> Call:
    """The body of a request to /v1/completions.

    Raises:
        Refused: something in it is unknown, unsupported, or not what it should be; the message names it.
    """
    data = read_json(raw)
    check_keys(data, (*_COMMON, *_TEXT, "prompt"), "the request")
    check_neutral(data, _TEXT)
    return _call(data, model_name, _prompt(data.get("prompt")), whole(data, "max_tokens", 1, _LARGEST))


def _call(
    data: Mapping[str, Any], model_name: str, prompt: str | tuple[int, ...] | tuple[Message, ...], max_tokens: int | None
) -> Call:
    _check_model(data.get("model"), model_name)
    is_stream = flag(data, "stream")
    top_p = number(data, "top_p", 1.0, 0.0, 1.0)
    if top_p == 0:
        raise bad("top_p", "top_p=0", "it leaves no token to choose", next_step="for the most likely token: temperature=0")
    return Call(
        prompt, _gates(data.get("gates")), max_tokens, number(data, "temperature", 0.0, 0.0, 2.0), top_p,
        whole(data, "seed", 0, 2**63 - 1) or 0, _stop(data.get("stop")), is_stream,
        _has_usage(data.get("stream_options"), is_stream), flag(data, "trace"),
    )  # fmt: skip


def _check_model(asked: object, served: str) -> None:
    if asked is None:
        return
    if text(asked, "model") != served:
        found, step = "this server serves another one", "GET /v1/models lists it"
        name = f"model {shown(asked)}"
        raise Refused(404, "model_not_found", name, found, param="model", nearest=[served], next_step=step)


def _prompt(value: object) -> str | tuple[int, ...]:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (str, list)):
        value = value[0]  # clients wrap a single prompt
    if isinstance(value, list):
        if any(isinstance(part, (str, list)) for part in value):
            raise bad("prompt", f"{len(value)} prompts", "a request has one", next_step="send one request for each")
        if not value or not all(isinstance(part, int) and not isinstance(part, bool) for part in value):
            raise bad("prompt", "prompt", "an array that is no array of token ids", next_step="give a string")
        return tuple(value)
    if value is None or value == "":
        raise bad("prompt", "prompt", "there is none", next_step='give one, like "prompt": "Once upon a time"')
    return text(value, "prompt")


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        found = "there is none" if value in (None, []) else f"it is {kind(value)}"
        raise bad("messages", "messages", found, next_step='give an array, like [{"role": "user", "content": "Hello"}]')
    return tuple(_message(one, f"messages[{ix}]") for ix, one in enumerate(value))


def _message(value: object, where: str) -> Message:
    if not isinstance(value, dict):
        raise bad("messages", where, f"it is {kind(value)}", next_step='give {"role": ..., "content": ...}')
    said = {key: part for key, part in value.items() if part not in (None, [])}  # as replies are sent back: "refusal": null
    check_keys(said, ("role", "content"), where, "messages")
    role = said.get("role")
    if role not in ROLES:
        near = nearest(role, ROLES) if isinstance(role, str) else ()
        raise bad("messages", f"{where}.role={shown(role)}", "there is no such role", nearest=near or ROLES)
    return Message("system" if role == "developer" else role, _content(value.get("content"), f"{where}.content"))


def _content(value: object, where: str) -> str:
    if not isinstance(value, list):
        return text(value, where)
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            found = shown(part.get("type")) if isinstance(part, dict) else kind(part)
            raise bad("messages", where, f"a part of it is of type {found}, not text", next_step="send text only")
        check_keys(part, ("type", "text"), where, "messages")
    return "".join(text(part.get("text"), where) for part in value)


def _gates(value: object) -> tuple[Asked, ...]:
    if value is None:
        return ()
    if isinstance(value, dict):
        return tuple(Asked(name, _dose(name, dose)) for name, dose in value.items())
    if not isinstance(value, list):
        step = 'give {"NAME": DOSE} or [{"name": NAME, "dose": DOSE}]'
        raise bad("gates", "gates", f"it is {kind(value)}", next_step=step)
    found = tuple(_gate(one, f"gates[{ix}]") for ix, one in enumerate(value))
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            step = "name it once, with the sum of the doses"
            raise bad("gates", f"gate {shown(name)}", "it is named twice", next_step=step)
    return found


def _gate(value: object, where: str) -> Asked:
    if isinstance(value, str):
        return Asked(value)
    if not isinstance(value, dict):
        raise bad("gates", where, f"it is {kind(value)}", next_step='give {"name": NAME, "dose": DOSE}')
    check_keys(value, ("name", "dose"), where, "gates")
    if "name" not in value:
        raise bad("gates", where, "it has no name", next_step='give {"name": NAME, "dose": DOSE}; see GET /v1/gates')
    return Asked(text(value["name"], "gates"), _dose(value["name"], value.get("dose")))


def _dose(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or not is_number(value):
        found = f"it is {kind(value)}, not a finite number"
        raise bad("gates", f"dose of gate {shown(name)}", found, next_step="give one, like 0.5")
    return float(value)


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = value if isinstance(value, list) else [value]
    if len(stops) > MAX_STOPS:
        raise bad("stop", f"{len(stops)} stops", f"a request has {MAX_STOPS} at most", next_step="leave some out")
    found = tuple(text(one, "stop") for one in stops)
    if "" in found:
        raise bad("stop", "stop", "one of them is empty", next_step="leave it out")
    return found


def _has_usage(options: object, is_stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise bad("stream_options", "stream_options", f"it is {kind(options)}", next_step='give {"include_usage": true}')
    if not is_stream:
        raise bad("stream_options", "stream_options", "the answer is not a stream", next_step='say "stream": true')
    check_keys(options, ("include_usage",), "stream_options", "stream_options")
    return flag(options, "include_usage")
