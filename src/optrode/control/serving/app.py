"""The HTTP side: paths, bodies, streams."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from optrode.control.serving.call import Call, chat_call, text_call
from optrode.control.serving.door import refusal_response
from optrode.control.serving.fields import shown
from optrode.control.serving.job import Done, Event, Failed, Job, Piece
from optrode.control.serving.prompting import request_of
from optrode.control.serving.refusal import Refused, error_body, refusal_of
from optrode.control.serving.replies import Reply, sse
from optrode.control.serving.shelf import Shelf
from optrode.control.serving.worker import Worker
from optrode.errors import nearest

READ: Final = ("/health", "/v1/models", "/v1/gates")
WRITE: Final = ("/v1/chat/completions", "/v1/completions")
BODY_S: Final = 30.0
"""How long a client may take to send its request."""

Parse = Callable[[bytes, str], Call]
_LOG: Final = logging.getLogger("optrode.serving")
_STREAM: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@final
class Service:
    """Answers requests for one model with its shelf of gates.

    Args:
        worker: runs them.
        name: by which the model is served.
        max_body: bytes of a request's body at most.
    """

    def __init__(self, shelf: Shelf, worker: Worker, *, name: str, max_body: int) -> None:
        self.shelf, self.worker, self.name, self.max_body = shelf, worker, name, max_body
        self._watchers: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        """The ASGI application."""
        reads = zip(READ, (self.health, self.models, self.gates), strict=True)
        routes = [Route(path, answer, methods=["GET"]) for path, answer in reads]
        routes += [Route(path, answer, methods=["POST"]) for path, answer in zip(WRITE, (self.chat, self.text), strict=True)]
        routes += [Route("/v1/models/{name:path}", self.model, methods=["GET"])]
        return Starlette(routes=routes, exception_handlers={HTTPException: _refuse_path, Refused: _refuse})

    async def health(self, request: Request) -> Response:
        """Whether requests are taken."""
        return JSONResponse({"status": "shutting down" if self.worker.is_closed else "ok"})

    async def models(self, request: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The model by its name."""
        asked = request.path_params["name"]
        if asked == self.name:
            return JSONResponse(self._model())
        raise Refused(404, "model_not_found", f"model {shown(asked)}", "this server serves another one", nearest=[self.name])

    async def gates(self, request: Request) -> Response:
        """What requests can hold, with the cards."""
        return JSONResponse({"object": "list", "data": [entry.shown() for entry in self.shelf.entries.values()]})

    async def chat(self, request: Request) -> Response:
        """The next turn of a conversation."""
        return await self._complete(request, chat_call)

    async def text(self, request: Request) -> Response:
        """The continuation of a text."""
        return await self._complete(request, text_call)

    def _model(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": 0, "owned_by": "optrode"}

    async def _complete(self, request: Request, parse: Parse) -> Response:
        reply = self._prepared(await read_body(request, self.max_body), parse)
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        job = Job(reply.request, _deliverer(inbox))
        self.worker.submit(job)
        self._watch(request, job)
        first = await inbox.get()  # until then a failure can still be a status of its own
        if isinstance(first, Failed):
            raise first.why
        if reply.call.is_stream:
            return StreamingResponse(self._events(reply, job, first, inbox), media_type="text/event-stream", headers=_STREAM)
        return JSONResponse(await _whole(reply, first, inbox))

    def _prepared(self, raw: bytes, parse: Parse) -> Reply:
        """What is to be run, and how it is to be answered.

        Raises:
            Refused: it cannot be run.
        """
        try:
            call = parse(raw, self.name)
            picked = self.shelf.pick(call.gates)
            return Reply(call, self.name, picked, request_of(self.shelf.model, call, picked))
        except Refused:
            raise
        except Exception as error:  # such as a function of the shelf raises
            _LOG.error("a request failed", exc_info=error)
            raise refusal_of(error) from error

    async def _events(self, reply: Reply, job: Job, event: Event, inbox: "asyncio.Queue[Event]") -> AsyncIterator[bytes]:
        try:
            for chunk in reply.opening():
                yield chunk
            while isinstance(event, Piece):
                yield reply.piece(event.text)
                event = await inbox.get()
            for chunk in _ending(reply, event):
                yield chunk
        finally:
            self.worker.drop(job)  # nothing where it is over

    def _watch(self, request: Request, job: Job) -> None:
        """Drop the job when its client goes; the server says so too once the answer is sent."""

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.worker.drop(job)

        task = asyncio.create_task(watch())
        self._watchers.add(task)  # the loop itself keeps no tasks alive
        task.add_done_callback(self._watchers.discard)


async def read_body(request: Request, max_body: int) -> bytes:
    """A request's body.

    Raises:
        Refused: it is not declared as JSON, too large, or does not come.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # pages of other sites can send the other kinds without being asked
        found = f"its type is {kind or 'not said'}"
        step = "send the header 'Content-Type: application/json'"
        raise Refused(415, "unsupported_media_type", "request body", found, next_step=step)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_body:
        raise _too_large(max_body)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > max_body:
                    raise _too_large(max_body)
    except TimeoutError:
        found = f"it did not come within {BODY_S:g} s"
        raise Refused(408, "timeout", "request body", found, next_step="send it at once") from None
    except ClientDisconnect:
        raise Refused(499, "client_closed_request", "request body", "its client has gone") from None
    return bytes(body)


def _too_large(max_body: int) -> Refused:
    found = f"it is larger than the {max_body:,} bytes that this server takes"
    step = "shorten the prompt, or start the server with a larger max_body"
    return Refused(413, "body_too_large", "request body", found, next_step=step, headers={"Connection": "close"})


def _deliverer(inbox: "asyncio.Queue[Event]") -> Callable[[Event], None]:
    loop = asyncio.get_running_loop()

    def deliver(event: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server is down, and nobody waits
            loop.call_soon_threadsafe(inbox.put_nowait, event)

    return deliver


async def _whole(reply: Reply, event: Event, inbox: "asyncio.Queue[Event]") -> dict[str, Any]:
    while isinstance(event, Piece):
        event = await inbox.get()
    if isinstance(event, Failed):
        raise event.why
    return reply.whole(event.written)


def _ending(reply: Reply, event: Event) -> tuple[bytes, ...]:
    """The last chunks; where the answer broke off, an error instead of the end that clients wait for."""
    if isinstance(event, Done):
        return reply.ending(event.written)
    return (sse(error_body(event.why)),) if isinstance(event, Failed) else ()


async def _refuse(request: Request, error: Exception) -> Response:
    return refusal_response(refusal_of(error))


async def _refuse_path(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    path = request.url.path
    if isinstance(error, HTTPException) and error.status_code == 405:
        asked, found = f"{request.method} {path}", f"this path takes {'POST' if path in WRITE else 'GET'}"
        return refusal_response(Refused(405, "method_not_allowed", asked, found, headers=error.headers))
    known = (*READ, *WRITE)
    near = nearest(path, known) or known
    return refusal_response(Refused(404, "not_found", f"path {shown(path)}", "there is none", nearest=near))
