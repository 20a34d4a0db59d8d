"""Watching a generation: which rows are finished and why, and which text is sure to stay."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from optrode.model.model import Model

Finish = Literal["stop", "length", "cancelled"]
_UNFINISHED = "\ufffd"


@runtime_checkable
class Limited(Protocol):
    """When a row's answer ends."""

    @property
    def max_new_tokens(self) -> int:
        """At most so many."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end it."""
        ...


@final
class Watcher:
    """A stopping criterion that reads along: it ends rows one by one, and passes on their text.

    Args:
        width: columns of the prompts.
        ends: tokens that end an answer.
    """

    def __init__(
        self, model: Model, rows: Sequence[Limited], width: int, ends: tuple[int, ...],
        on_token: Callable[[int, str], None] | None = None, cancelled: Callable[[int], bool] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.rows, self.width, self.ends = model, tuple(rows), width, ends
        self.on_token, self.cancelled = on_token, cancelled
        self.tokens: list[list[int]] = [[] for _ in rows]
        self.finish: list[Finish | None] = [None for _ in rows]
        self.sent = [0 for _ in rows]
        self.cut: list[int | None] = [None for _ in rows]

    def __call__(self, input_ids: Int[Tensor, "rows pos"], scores: Any = None, **options: Any) -> Bool[Tensor, " rows"]:
        for ix, token in enumerate(input_ids[:, -1].tolist()):
            if self.finish[ix] is None:
                self._read(ix, int(token))
        done = [finish is not None for finish in self.finish]
        return torch.tensor(done, device=input_ids.device)

    def _read(self, ix: int, token: int) -> None:
        row, tokens = self.rows[ix], self.tokens[ix]
        tokens.append(token)
        if token in self.ends:
            self.finish[ix] = "stop"
        elif self.cancelled is not None and self.cancelled(ix):
            self.finish[ix] = "cancelled"
        elif len(tokens) >= row.max_new_tokens:
            self.finish[ix] = "length"
        if row.stop or self.on_token is not None:
            self._pass_on(ix)

    def _pass_on(self, ix: int) -> None:
        text, stop = self.text(ix), self.rows[ix].stop
        at = min((found for word in stop if (found := text.find(word)) >= 0), default=-1)
        if at >= 0:
            self.finish[ix], self.cut[ix] = "stop", at
            text = text[:at]
        elif self.finish[ix] is None:
            text = text[: sure_length(text, stop)]
        if self.on_token is not None and len(text) > self.sent[ix]:
            self.on_token(ix, text[self.sent[ix] :])
        self.sent[ix] = max(self.sent[ix], len(text))

    def text(self, ix: int) -> str:
        """A row's text so far; empty where the model has no tokenizer."""
        if self.model.tokenizer is None:
            return ""
        return str(self.model.tokenizer.decode(self.tokens[ix], skip_special_tokens=True))

    def answer(self, ix: int) -> tuple[str, tuple[int, ...], Finish]:
        """A row's text, tokens, and why it ended."""
        text = self.text(ix)
        return text[: self.cut[ix]], tuple(self.tokens[ix]), self.finish[ix] or "length"


def sure_length(text: str, stop: Sequence[str]) -> int:
    """How much of a text stays whatever comes: without characters that are not whole, or what may begin a stop text."""
    whole = text.rstrip(_UNFINISHED)
    held_back = [n for word in stop for n in range(1, min(len(word), len(whole) + 1)) if whole.endswith(word[:n])]
    return len(whole) - max(held_back, default=0)
