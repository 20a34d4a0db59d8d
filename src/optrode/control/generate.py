"""Generation with gates per row: one batch, one pass per token, each request as it would be alone.

    plain, steered = op.generate(model, [op.Request("I think"), op.Request("I think", gates=(gate,))])

The module's own `generate` runs, with its K/V cache. Requests of one batch may differ in everything: gates, length,
temperature, seed, stop texts. Rows without gates are the plain model's, bit for bit.
"""

import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from torch import Tensor

from optrode.control.sampling import Sampling, Sound
from optrode.control.watching import Finish, Watcher
from optrode.errors import BadGate, BadOption, GateNotFinite, GateNotFired, UnsupportedArchitecture
from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.gate.trace import Trace
from optrode.model.generation import generation
from optrode.model.model import Model

OnToken = Callable[[int, str], None]
_END: Final = None


@final
@dataclass(frozen=True)
class Request:
    """What is asked of the model.

    Attributes:
        prompt: text (no special token is added), or token ids.
        gates: held for this row alone, throughout.
        max_new_tokens: at most so many.
        temperature: 0 takes the likeliest token; else tokens are drawn.
        top_p: draw among the likeliest tokens that have this probability together.
        seed: of what is drawn; the same whatever else is in the batch.
        stop: texts that end the answer, and are not part of it.
        trace: whether to keep how open the gates were.
    """

    prompt: str | tuple[int, ...]
    gates: tuple[Gate, ...] = ()
    max_new_tokens: int = 64
    temperature: float | int = 0.0
    top_p: float | int = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    trace: bool = False

    def __post_init__(self) -> None:
        asked = f"request {str(self.prompt)[:40]!r}"
        if self.max_new_tokens < 1:
            raise BadOption(asked, f"max_new_tokens={self.max_new_tokens}", next_step="ask for at least one token")
        for name, value, fits in (
            ("temperature", self.temperature, self.temperature >= 0), ("top_p", self.top_p, 0 < self.top_p <= 1),
        ):  # fmt: skip
            if not math.isfinite(value) or not fits:
                raise BadOption(asked, f"{name}={value}", next_step="temperature is 0 or more, top_p above 0 and at most 1")
        for gate in self.gates:
            if not isinstance(gate, Gate) or gate.rows is not None:
                found = "it says its rows itself" if isinstance(gate, Gate) else "it is not a gate"
                raise BadGate(f"{gate} of a request", found, next_step="a request's gates act on its own row")
            if not math.isfinite(gate.strength):
                raise GateNotFinite(f"{gate} of a request", "its dose is not a finite number", next_step="give a finite one")


@final
@dataclass(frozen=True)
class Written:
    """What was generated for a request.

    Attributes:
        text: without the prompt, special tokens and stop texts.
        token_ids: as generated, the end token included.
        finish: "stop" (an end token or stop text), "length", or "cancelled".
        n_prompt: tokens of the prompt.
        trace: of the request's gates, in their order; None where it was not asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Finish
    n_prompt: int
    trace: Trace | None = None


def generate(
    model: Model, requests: Sequence[Request | str] | Request | str, *, on_token: OnToken | None = None,
    cancelled: Callable[[int], bool] | None = None,
) -> tuple[Written, ...]:  # fmt: skip
    """Answer requests in one batch.

    Args:
        on_token: called with (row, new text) as soon as text is sure: whole characters, no part of a stop text.
        cancelled: asked after every token, whether a row is to end.

    Raises:
        BadOption: there is no request, or one of no token.
        UnsupportedArchitecture: the module cannot generate.
        GateError: from the gates; nothing is generated then.
    """
    asked = [one if isinstance(one, Request) else Request(one) for one in _listed(requests)]
    if not asked:
        raise BadOption("generation", "there is no request", next_step="give at least one")
    if not hasattr(model.module, "generate"):
        found = f"{type(model.module).__name__} has no generate"
        raise UnsupportedArchitecture(f"generation with {model.name}", found, next_step="load a causal language model")
    rows = [model.encode(one.prompt) for one in asked]
    watcher = Watcher(model, asked, max(map(len, rows)), _ends(model), on_token, cancelled)
    held, numbers = by_row(asked)
    trace: Trace | None = None
    try:
        with gates(model, *held, trace=any(one.trace for one in asked)) as keeper, generation([len(row) for row in rows]):
            _run(model, asked, rows, watcher)
            trace = keeper.trace if any(one.trace for one in asked) else None
    except GateNotFired:
        if max(map(len, watcher.tokens)) > 1 or all(gate.scope != "generated" for gate in held):
            raise  # an answer of one token has no generated position that a gate could act on
    return tuple(
        Written(*watcher.answer(ix), len(rows[ix]), _trace_of(trace, ix, numbers[ix]) if one.trace and trace else None)
        for ix, one in enumerate(asked)
    )


def stream(model: Model, requests: Sequence[Request | str] | Request | str) -> Iterator[tuple[int, str]]:
    """(row, new text) as it is written. Leaving the loop early ends the generation.

    Raises:
        As `generate`.
    """
    pieces: queue.Queue[tuple[int, str] | BaseException | None] = queue.Queue()
    is_left = threading.Event()

    def work() -> None:
        try:
            generate(model, requests, on_token=lambda *piece: pieces.put(piece), cancelled=lambda _: is_left.is_set())
            pieces.put(_END)
        except BaseException as error:  # it is raised where the pieces are read
            pieces.put(error)

    worker = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
    worker.start()
    try:
        while (piece := pieces.get()) is not _END:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        is_left.set()
        worker.join()


def _listed(requests: Sequence[Request | str] | Request | str) -> list[Request | str]:
    return [requests] if isinstance(requests, (Request, str)) else list(requests)


def by_row(requests: Sequence[Request]) -> tuple[list[Gate], list[list[int]]]:
    """The gates to hold, each once with all its rows; and for each request the numbers of its gates among them."""
    held: list[Gate] = []
    rows: list[list[int]] = []
    number: dict[tuple[int, int], int] = {}
    numbers: list[list[int]] = []
    for row, request in enumerate(requests):
        mine: list[int] = []
        for nth, gate in enumerate(request.gates):
            key = (id(gate), sum(other is gate for other in request.gates[:nth]))  # held twice is done twice
            if key not in number or mine and number[key] < mine[-1]:  # shared where it comes in the same order
                number[key] = len(held)
                held.append(gate)
                rows.append([])
            rows[number[key]].append(row)
            mine.append(number[key])
        numbers.append(mine)
    if len(requests) == 1:
        return held, numbers
    return [replace(gate, rows=tuple(on)) for gate, on in zip(held, rows, strict=True)], numbers


def _trace_of(trace: Trace, row: int, numbers: Sequence[int]) -> Trace:
    mine = trace.row(row)
    n_pos = max((values.shape[1] for values in mine.values.values()), default=0)
    closed = torch.zeros(1, n_pos)
    return Trace({nth: mine.values.get(ix, closed) for nth, ix in enumerate(numbers)}, mine.lengths)


def _ends(model: Model) -> tuple[int, ...]:
    """Tokens that end an answer."""
    config = getattr(model.module, "generation_config", None)
    found: Any = getattr(config, "eos_token_id", None)
    found = getattr(model.tokenizer, "eos_token_id", None) if found is None else found
    return () if found is None else (int(found),) if isinstance(found, int) else tuple(int(i) for i in found)


@torch.no_grad()
def _run(model: Model, requests: Sequence[Request], rows: Sequence[Sequence[int]], watcher: Watcher) -> None:
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    width, pad = max(map(len, rows)), model.pad_id
    token_ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=model.device)
    mask: Tensor = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    drawn = [one for one in requests if one.temperature]
    config = GenerationConfig(
        max_new_tokens=max(one.max_new_tokens for one in requests), do_sample=False, num_beams=1, repetition_penalty=1.0,
        pad_token_id=pad, eos_token_id=list(_ends(model)) or None, use_cache=True,
    )  # fmt: skip
    generate: Any = model.module.generate
    generate(
        input_ids=token_ids, attention_mask=mask, generation_config=config,
        logits_processor=LogitsProcessorList([Sound(), *([Sampling(requests)] if drawn else [])]),
        stopping_criteria=StoppingCriteriaList([watcher]),
    )  # fmt: skip
