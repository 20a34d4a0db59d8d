"""The server: started and stopped around a block, or served until interrupted."""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, final

import uvicorn

from optrode.control.generate import generate
from optrode.control.serving.app import Service
from optrode.control.serving.door import Door, bound, checked_token, is_loopback
from optrode.control.serving.prompting import check_servable
from optrode.control.serving.shelf import Make, Shelf, shelf_of
from optrode.control.serving.worker import Engine, Worker
from optrode.errors import BadOption
from optrode.model.model import Model

MAX_BODY: Final = 1 << 20
"""Bytes of a request's body at most, unless it is said otherwise."""

GRACE_S: Final = 10.0
"""How long the batch under way may go on when the server shuts down."""

_SPARE: Final = 64
"""Connections beyond those of requests that run or wait."""

Gates = Shelf | str | Path | Mapping[str, Make] | None
"""What can be held: a shelf, a folder of artefacts, or functions by name."""


@final
class Server:
    """A server in a thread of its own; one more thread runs the model.

        with Server(model, "artefacts", port=0) as server:
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="none").models.list()

    While it runs, nothing else may run the model. A server is started once.

    Args:
        shelf: what requests can hold.
        host: address to listen at. All but loopback ask for a token.
        port: 0 for any that is free; `url` tells which.
        token: that requests have to bring; by default that of the environment variable OPTRODE_TOKEN, if there is one.
        name: by which the model is served; by default its own.
        max_batch: requests that run together at most.
        max_queue: requests that wait at most; others are told to come again.
        max_body: bytes of a request at most.
        engine: what runs a batch, in place of the model's generation.

    Raises:
        BadOption: other machines could reach it without a token, the address cannot be had, the model has no tokenizer, or a
            number is out of range.
        BadFile, GateError, SiteError: from the shelf.
    """

    def __init__(
        self, model: Model, shelf: Gates = None, *, host: str = "127.0.0.1", port: int = 8000, token: str | None = None,
        name: str | None = None, max_batch: int = 8, max_queue: int = 64, max_body: int = MAX_BODY,
        engine: Engine | None = None,
    ) -> None:  # fmt: skip
        check_servable(model)
        if max_body < 1:
            raise BadOption(f"max_body={max_body}", "no request would fit", next_step=f"leave it at {MAX_BODY}")
        self.worker = Worker(engine or partial(generate, model), max_batch=max_batch, max_queue=max_queue)
        self.service = Service(_shelf(model, shelf), self.worker, name=name or model.name, max_body=max_body)
        self._socket = bound(host, port)
        self.address, self.port = self._socket.getsockname()[:2]
        try:
            token = checked_token(token, host, self.address)
        except BadOption:
            self._socket.close()
            raise
        door = Door(self.service.app(), token=token, is_local=is_loopback(self.address))
        config = uvicorn.Config(
            door, log_config=None, access_log=False, lifespan="off", server_header=False, proxy_headers=False, ws="none",
            limit_concurrency=max_batch + max_queue + _SPARE,
        )  # fmt: skip
        self._uvicorn = _Uvicorn(config, self.worker)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it is, without a path."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)
        return f"http://{f'[{local}]' if ':' in local else local}:{self.port}"

    def start(self) -> "Server":
        """Answer requests from now on.

        Raises:
            BadOption: it was started before, or does not start.
        """
        if self._thread is not None:
            raise BadOption(f"server at {self.url}", "it was started before", next_step="make another one")
        self._thread = threading.Thread(target=self._run, name="optrode-server", daemon=True)
        self._thread.start()
        while not self._uvicorn.started and self._thread.is_alive():
            time.sleep(0.005)
        if not self._uvicorn.started:
            raise BadOption(f"server at {self.url}", "it did not start", next_step="see the log")
        return self

    def stop(self, grace_s: float | int = GRACE_S) -> None:
        """Shut down: requests that wait are refused, those that run have so many seconds, new ones find no server."""
        self._uvicorn.grace_s = grace_s
        self._uvicorn.should_exit = True
        if self._thread is None:
            self._socket.close()
        else:
            self._thread.join()

    def wait(self) -> None:
        """Serve in this thread, until a signal."""
        self._run()

    def _run(self) -> None:
        self.worker.start()
        try:
            self._uvicorn.run(sockets=[self._socket])
        finally:
            self.worker.close(grace_s=0.0)
            self.worker.join()

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@final
class _Uvicorn(uvicorn.Server):
    """Uvicorn that tells the worker first when it shuts down, so that requests that wait are answered."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self.worker, self.grace_s = worker, GRACE_S

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.worker.close(self.grace_s)
        self.config.timeout_graceful_shutdown = int(self.grace_s) + 5
        await super().shutdown(sockets)


def serve(
    model: Model, shelf: Gates = None, *, host: str = "127.0.0.1", port: int = 8000, token: str | None = None,
    name: str | None = None, max_batch: int = 8, max_queue: int = 64, max_body: int = MAX_BODY,
    on_start: Callable[[str], None] | None = None,
) -> None:  # fmt: skip
    """Serve a model with gates per request until interrupted: OpenAI's chat and completions, streams, traces.

    Args:
        on_start: told the address once it listens.
        shelf, host, port, token, name, max_batch, max_queue, max_body: as of `Server`.

    Raises:
        As `Server`.
    """
    server = Server(
        model, shelf, host=host, port=port, token=token, name=name, max_batch=max_batch, max_queue=max_queue,
        max_body=max_body,
    )  # fmt: skip
    if on_start is not None:
        on_start(server.url)
    try:
        server.wait()
    except KeyboardInterrupt:
        return


def _shelf(model: Model, shelf: Gates) -> Shelf:
    if isinstance(shelf, Shelf):
        return shelf
    if shelf is None or isinstance(shelf, (str, Path)):
        return shelf_of(model, shelf)
    return shelf_of(model, functions=shelf)
