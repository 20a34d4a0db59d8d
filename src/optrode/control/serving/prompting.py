"""From a checked call to what the engine runs: tokens of the prompt, length of the answer, gates."""

from collections.abc import Sequence
from typing import Any, Final, cast

from optrode.control.generate import Request
from optrode.control.serving.call import Call, Message
from optrode.control.serving.refusal import Refused, refusal_of
from optrode.control.serving.shelf import Picked
from optrode.errors import BadOption, OptrodeError
from optrode.gate.gate import Gate
from optrode.model.model import Model

DEFAULT_TOKENS: Final = 256
"""New tokens at most, where a request does not say; fewer where the model has no room for them."""


def check_servable(model: Model) -> None:
    """Check that a model can be served.

    Raises:
        BadOption: it has no tokenizer, or does not generate.
    """
    if model.tokenizer is None:
        step = "load it with one: op.load(module, tokenizer=...)"
        raise BadOption(f"serve {model.name}", "it was loaded without a tokenizer", next_step=step)
    if not hasattr(model.module, "generate"):
        found = f"{type(model.module).__name__} has no generate"
        raise BadOption(f"serve {model.name}", found, next_step="load a causal language model")


def request_of(model: Model, call: Call, picked: Sequence[Picked]) -> Request:
    """What the engine is to run.

    Raises:
        Refused: the prompt has no token, or the model has no room for it and the answer; there is no chat template, or it
            does not take these messages.
    """
    ids = _token_ids(model, call)
    room = _room(model, len(ids), call)
    gates: tuple[Gate, ...] = tuple(gate for one in picked for gate in one.gates)
    wanted = min(DEFAULT_TOKENS, room) if call.max_tokens is None else call.max_tokens
    return Request(
        ids, gates=gates, max_new_tokens=wanted, temperature=call.temperature, top_p=call.top_p, seed=call.seed,
        stop=call.stop, trace=call.has_trace,
    )  # fmt: skip


def _token_ids(model: Model, call: Call) -> tuple[int, ...]:
    param = "messages" if call.is_chat else "prompt"
    prompt = _templated(model, cast(Any, call.prompt)) if call.is_chat else cast("str | tuple[int, ...]", call.prompt)
    try:
        return tuple(model.encode(prompt))
    except OptrodeError as error:
        raise refusal_of(error, param=param) from error


def _templated(model: Model, messages: Sequence[Message]) -> str:
    asked = f"chat with {model.name}"
    if not getattr(model.tokenizer, "chat_template", None):
        found = "its tokenizer has no chat template"
        raise Refused(400, "no_chat_template", asked, found, param="messages", next_step="POST to /v1/completions instead")
    turns = [{"role": one.role, "content": one.content} for one in messages]
    try:
        return str(model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template refuses in its own words: roles that do not alternate, no system turn
        found = f"its chat template does not take these messages ({' '.join(str(error).split())})"
        step = "change the roles or their order"
        raise Refused(400, "chat_template_failed", asked, found, param="messages", next_step=step) from error


def _room(model: Model, n_prompt: int, call: Call) -> int:
    """How many new tokens the model has room for."""
    wanted = call.max_tokens
    longest = getattr(getattr(model.module, "config", None), "max_position_embeddings", None)
    if longest is None:
        return DEFAULT_TOKENS
    room = int(longest) - n_prompt
    if room < max(1, wanted or 1):
        asked = f"a prompt of {n_prompt} token(s)" + (f" with {wanted} of answer" if wanted else " with an answer")
        step = f"ask for {room} tokens at most" if room > 0 else f"shorten the prompt to {int(longest) - 1} tokens at most"
        found = f"{model.name} has room for {longest} tokens"
        param = "max_tokens" if room > 0 else "messages" if call.is_chat else "prompt"
        raise Refused(400, "context_length_exceeded", asked, found, param=param, next_step=step)
    return room
