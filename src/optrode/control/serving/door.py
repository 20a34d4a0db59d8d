"""The door: who may ask at all. Addresses that others can reach need a token; loopback is for this machine's own names."""

import hmac
import ipaddress
import os
import re
import socket
from collections.abc import Iterable
from typing import Any, Final, final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from optrode.control.serving.refusal import Refused, error_body
from optrode.errors import BadOption

TOKEN_VARIABLE: Final = "OPTRODE_TOKEN"
SHORTEST: Final = 16
OPEN_PATHS: Final = ("/health",)
_MAKE: Final = "make one: python -c 'import secrets; print(secrets.token_urlsafe())'"


def checked_token(token: str | None, host: str, address: str) -> str | None:
    """The token to ask for, given or from the environment; None where none is needed.

    Args:
        host: as it was given.
        address: of the socket.

    Raises:
        BadOption: other machines can reach the address, and there is no token or a short one; it cannot stand in a header.
    """
    token = token if token is not None else os.environ.get(TOKEN_VARIABLE)
    if not token:
        if is_loopback(address):
            return None
        found = "other machines can reach it, and there is no token"
        step = f"set {TOKEN_VARIABLE} or give token=; {_MAKE}; or serve on 127.0.0.1"
        raise BadOption(f"serve on {host}", found, next_step=step)
    if not re.fullmatch(r"[!-~]+", token):
        found = "it holds blanks, or characters that cannot stand in a header"
        raise BadOption("token of the server", found, next_step=_MAKE)
    if len(token) < SHORTEST and not is_loopback(address):
        found = f"it has {len(token)} characters, which can be guessed"
        raise BadOption("token of the server", found, next_step=f"take {SHORTEST} or more; {_MAKE}")
    return token


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, and nobody else's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        BadOption: there is no such address, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise BadOption(f"port {port}", "ports go from 0 to 65535", next_step="give one, or 0 for any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        found = f"there is no such address ({error.strerror})"
        raise BadOption(f"serve on {host}:{port}", found, next_step="give an address of this machine") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen()
    except OSError as error:
        made.close()
        step = "give another port, or 0 for any that is free; or stop what listens there"
        raise BadOption(f"serve on {host}:{port}", f"it cannot be had ({error.strerror})", next_step=step) from error
    return made


@final
class Door:
    """ASGI middleware: checks the token, and on loopback the Host header.

    A page of another site can make a browser ask this machine under a name of its own (DNS rebinding). Such requests bear
    that name in their Host header.
    """

    def __init__(self, app: ASGIApp, *, token: str | None = None, is_local: bool = True) -> None:
        self.app, self.is_local = app, is_local
        self._token = None if token is None else token.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refused as refused:
            await refusal_response(refused)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        host = _header(headers, b"host").decode("latin-1")
        if self.is_local and not is_loopback(_without_port(host)):
            found = "this server answers to localhost and 127.0.0.1 only"
            step = "ask at http://127.0.0.1, or serve on that host with a token"
            raise Refused(403, "wrong_host", f"host {host!r}", found, next_step=step)
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            self._check_token(_header(headers, b"authorization"))

    def _check_token(self, header: bytes) -> None:
        scheme, _, given = header.partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token or b""):
            return
        found = "the token in it is not the server's" if header else "there is none, and this server asks for a token"
        raise Refused(
            401, "invalid_api_key", "Authorization header", found, headers={"WWW-Authenticate": "Bearer"},
            next_step="send 'Authorization: Bearer TOKEN' (api_key= in OpenAI's client)",
        )  # fmt: skip


def refusal_response(refused: Refused) -> JSONResponse:
    """A refusal as an HTTP response."""
    return JSONResponse(error_body(refused), refused.status, headers=refused.headers)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """A header's value; empty where it is missing, or there are several that disagree."""
    found: set[Any] = {value for key, value in headers if key.lower() == name}
    return found.pop() if len(found) == 1 else b""


def _without_port(host: str) -> str:
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
