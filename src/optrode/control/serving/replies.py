"""Answers in the shapes of OpenAI's API, with what was held and how open it was beside them."""

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from jaxtyping import Float
from torch import Tensor

from optrode.control.generate import Request, Written
from optrode.control.serving.call import Call
from optrode.control.serving.shelf import Picked

DONE: Final = b"data: [DONE]\n\n"
_DECIMALS: Final = 4


def sse(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, allow_nan=False).encode() + b"\n\n"


@final
@dataclass(frozen=True, eq=False)
class Reply:
    """Writes the answer to one request, whole or in chunks.

    Attributes:
        call: what was asked.
        model_name: by which the model is served.
        picked: gate sets that were held.
        request: what the engine ran.
        stem: id and date, the same in every chunk.
    """

    call: Call
    model_name: str
    picked: tuple[Picked, ...]
    request: Request
    stem: Mapping[str, Any] = field(default_factory=lambda: {"id": uuid.uuid4().hex, "created": int(time.time())})

    def whole(self, written: Written) -> dict[str, Any]:
        """The answer in one object."""
        said: dict[str, Any] = {"text": written.text}
        if self.call.is_chat:
            said = {"message": {"role": "assistant", "content": written.text, "refusal": None}}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": written.finish}
        return self._head(is_chunk=False) | {
            "choices": [choice], "usage": usage(written), "optrode": self._held(written),
        }  # fmt: skip

    def opening(self) -> tuple[bytes, ...]:
        """Chunks before any text."""
        return (self._chunk({"role": "assistant", "content": ""}, None),) if self.call.is_chat else ()

    def piece(self, text: str) -> bytes:
        """A chunk of text."""
        return self._chunk({"content": text}, None)

    def ending(self, written: Written) -> tuple[bytes, ...]:
        """Chunks after all text: why it ended, what was held, and counts if they were asked for."""
        last = self._chunk({}, written.finish, {"optrode": self._held(written)})
        if not self.call.has_usage:
            return last, DONE
        return last, sse(self._head(is_chunk=True) | {"choices": [], "usage": usage(written)}), DONE

    def _chunk(self, delta: Mapping[str, Any], finish: str | None, more: Mapping[str, Any] | None = None) -> bytes:
        said: dict[str, Any] = {"delta": delta} if self.call.is_chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        counts = {"usage": None} if self.call.has_usage else {}
        return sse(self._head(is_chunk=True) | {"choices": [choice]} | counts | dict(more or {}))

    def _head(self, *, is_chunk: bool) -> dict[str, Any]:
        kind, prefix = ("chat.completion", "chatcmpl-") if self.call.is_chat else ("text_completion", "cmpl-")
        kind += ".chunk" if is_chunk and self.call.is_chat else ""
        return {"id": prefix + self.stem["id"], "object": kind, "created": self.stem["created"], "model": self.model_name}

    def _held(self, written: Written) -> dict[str, Any]:
        held: dict[str, Any] = {"gates": [one.shown() for one in self.picked]}
        return held | {"trace": traced(self.picked, written)} if self.call.has_trace else held


def usage(written: Written) -> dict[str, int]:
    """Counts of tokens."""
    n_new = len(written.token_ids)
    return {"prompt_tokens": written.n_prompt, "completion_tokens": n_new, "total_tokens": written.n_prompt + n_new}


def traced(picked: Sequence[Picked], written: Written) -> list[dict[str, Any]]:
    """How open each gate was at each new token: at the position that wrote the token, which is the one before it.

    The first token is written at the last position of the prompt, where gates for generated tokens do nothing.
    """
    values = {} if written.trace is None else written.trace.values
    found, ix = [], 0
    for one in picked:
        for gate in one.gates:
            openness = _within(gate.scope, _by_token(values.get(ix), written))
            found.append({"gate": one.entry.name, "site": str(gate.site), "scope": gate.scope, "openness": openness})
            ix += 1
    return found


def _by_token(values: Float[Tensor, "1 pos"] | None, written: Written) -> list[float]:
    n_new, first = len(written.token_ids), written.n_prompt - 1
    if values is None:
        return [0.0] * n_new  # its site never came by
    known = [round(float(value), _DECIMALS) for value in values[0, first : first + n_new].tolist()]
    return known + [0.0] * (n_new - len(known))


def _within(scope: str, openness: list[float]) -> list[float]:
    if scope == "generated":
        return [0.0 if ix == 0 else value for ix, value in enumerate(openness)]
    return [value if ix == 0 else 0.0 for ix, value in enumerate(openness)] if scope == "prompt" else openness
