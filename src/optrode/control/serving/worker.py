"""The worker: one thread that owns the model, and runs the requests that wait as one batch."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread, Timer
from typing import Final, Protocol, final, runtime_checkable

from optrode.control.generate import Request, Written
from optrode.control.serving.job import Job
from optrode.control.serving.refusal import Refused
from optrode.errors import BadOption, OptrodeError

_LOG: Final = logging.getLogger("optrode.serving")
_LONGEST_RETRY_S: Final = 60


@runtime_checkable
class Engine(Protocol):
    """Answers requests as one batch: `generate`, with its model."""

    def __call__(
        self, requests: Sequence[Request], *, on_token: Callable[[int, str], None], cancelled: Callable[[int], bool]
    ) -> tuple[Written, ...]:
        """The answers, in the order of the requests."""
        ...


@final
class Worker:
    """Runs jobs in batches, first come, first served.

    Jobs that come while a batch runs wait for the next one.

    Args:
        engine: runs one batch.
        max_batch: jobs in a batch at most.
        max_queue: jobs that wait at most.
        gather_s: how long the first job of a batch waits for others; less than a token takes on most models.

    Raises:
        BadOption: a number is less than 1.
    """

    def __init__(self, engine: Engine, *, max_batch: int = 8, max_queue: int = 64, gather_s: float | int = 0.02) -> None:
        for name, value in {"max_batch": max_batch, "max_queue": max_queue}.items():
            if value < 1:
                raise BadOption(f"{name}={value}", "there has to be room for one request", next_step=f"{name}=1 or more")
        self.engine, self.max_batch, self.max_queue, self.gather_s = engine, max_batch, max_queue, gather_s
        self._changed = Condition()
        self._waiting: deque[Job] = deque()
        self._running: tuple[Job, ...] = ()
        self._is_closed = self._is_cut = False
        self._batch_s = 1.0
        self._timer: Timer | None = None
        self._thread = Thread(target=self._work, name="optrode-worker", daemon=True)

    @property
    def n_waiting(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        """Jobs of the batch under way whose clients still wait."""
        return sum(not job.is_over for job in self._running)

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more jobs."""
        return self._is_closed

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job in line.

        Raises:
            Refused: the line is full (429, with the seconds after which to try again), or the server is shutting down.
        """
        with self._changed:
            if self._is_closed:
                raise closing()
            if len(self._waiting) >= self.max_queue:
                found = f"{len(self._waiting)} others wait already, which is all that this server lets wait"
                seconds = self._retry_s()
                raise Refused(
                    429, "queue_full", "request", found, headers={"Retry-After": str(seconds)},
                    next_step=f"try again in {seconds} s, or start the server with a larger max_queue",
                )  # fmt: skip
            self._waiting.append(job)
            self._changed.notify_all()

    def drop(self, job: Job) -> None:
        """A job's client is gone: it gives up its place in line, or ends at the next token."""
        job.fail(Refused(499, "client_closed_request", "request", "its client has gone"))
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def close(self, grace_s: float | int = 10.0) -> None:
        """Take no more jobs, and refuse those that wait; the batch under way has so many seconds to end. Does not block."""
        with self._changed:
            self._is_closed = True
            waiting, self._waiting = tuple(self._waiting), deque()
            self._changed.notify_all()
        for job in waiting:
            job.fail(closing())
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Timer(grace_s, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def join(self, timeout_s: float | int = 30.0) -> bool:
        """Wait until the thread has ended, after `close`; whether it has."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._timer is not None:
            self._timer.cancel()
        return not self._thread.is_alive()

    def _cut(self) -> None:
        """The grace is over: rows end at their next token, and their clients are told now."""
        self._is_cut = True
        for job in self._running:
            job.fail(closing())

    def _retry_s(self) -> int:
        """When there will be room again, if batches go on taking as long as the last one."""
        n_batches = math.ceil(len(self._waiting) / self.max_batch)
        return min(_LONGEST_RETRY_S, max(1, math.ceil(self._batch_s * n_batches)))

    def _work(self) -> None:
        while jobs := self._next():
            began = time.monotonic()
            self._run(jobs)
            self._running, self._batch_s = (), time.monotonic() - began

    def _next(self) -> tuple[Job, ...]:
        """The next batch, as soon as there is one; none once the worker is closed."""
        with self._changed:
            while not self._is_closed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                self._changed.wait_for(lambda: len(self._waiting) >= self.max_batch or self._is_closed, self.gather_s)
                if self._waiting:  # those that came may have gone meanwhile
                    n = min(self.max_batch, len(self._waiting))
                    self._running = tuple(self._waiting.popleft() for _ in range(n))
                    return self._running
        return ()

    def _run(self, jobs: Sequence[Job]) -> None:
        """Run jobs as one batch; where that fails, one by one, so that none takes others with it."""
        live = [job for job in jobs if not job.is_over]
        if not live:
            return
        try:
            for job in live:
                job.begin()
            written = self.engine(
                [job.request for job in live], on_token=lambda row, piece: live[row].say(piece),
                cancelled=lambda row: self._is_cut or live[row].is_over,
            )  # fmt: skip
        except Exception as error:
            self._retry(live, error)
            return
        for job, one in zip(live, written, strict=True):
            if one.finish == "cancelled":
                job.fail(closing())
            else:
                job.finish(one)

    def _retry(self, jobs: Sequence[Job], error: Exception) -> None:
        if len(jobs) > 1:
            for job in jobs:
                self._run([job])
            return
        if not isinstance(error, OptrodeError):
            _LOG.error("a request failed", exc_info=error)
        jobs[0].fail(error)


def closing() -> Refused:
    """What clients of a server that shuts down are told."""
    return Refused(503, "shutting_down", "request", "the server is shutting down", next_step="try again when it is back")
