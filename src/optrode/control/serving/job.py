"""A job: one request on its way through the worker, and the events that its client waits for."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import final

from optrode.control.generate import Request, Written
from optrode.control.serving.refusal import Refused, refusal_of


@final
@dataclass(frozen=True)
class Piece:
    """New text of an answer."""

    text: str


@final
@dataclass(frozen=True, eq=False)
class Done:
    """The whole answer."""

    written: Written


@final
@dataclass(frozen=True, eq=False)
class Failed:
    """There is no answer, or no more of it."""

    why: Refused


Event = Piece | Done | Failed


@final
class Job:
    """One request; whoever ends it first decides how.

    Args:
        request: what the engine is to run.
        deliver: takes events in their order, from any thread, the last one of them `Done` or `Failed`; must not block.
    """

    def __init__(self, request: Request, deliver: Callable[[Event], None]) -> None:
        self.request = request
        self._deliver, self._lock = deliver, Lock()
        self._is_over = False
        self._text = self._sent = ""

    @property
    def is_over(self) -> bool:
        """Whether its last event was delivered: nobody waits for more."""
        return self._is_over

    def begin(self) -> None:
        """It is run, perhaps again: text that was sent before is not sent twice."""
        self._text = ""

    def say(self, piece: str) -> None:
        """Deliver new text."""
        self._text += piece
        new = self._text[len(self._sent) :]
        with self._lock:
            if new and not self._is_over:
                self._sent += new
                self._deliver(Piece(new))

    def finish(self, written: Written) -> None:
        """Deliver the whole answer, and whatever of it was not said yet."""
        self.begin()
        self.say(written.text)
        self._end(Done(written))

    def fail(self, error: Exception) -> None:
        """Deliver why there is no answer."""
        self._end(Failed(refusal_of(error)))

    def _end(self, event: Event) -> None:
        with self._lock:
            if not self._is_over:
                self._is_over = True
                self._deliver(event)
