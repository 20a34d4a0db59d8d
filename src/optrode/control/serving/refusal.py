"""Refusals: errors that go to a client, in the shape that OpenAI's clients read."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

from optrode.errors import OptrodeError, RunError

_TYPES: Final = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
}  # fmt: skip


@final
class Refused(RunError):
    """A request that is not answered, and why.

    Attributes:
        status: of the HTTP response.
        reason: in one word, for programs (`code` in the response).
        param: the field of the request that it is about.
        headers: of the HTTP response.
    """

    code = "refused"

    def __init__(
        self, status: int, reason: str, asked: str, found: str, *, param: str | None = None, nearest: Sequence[str] = (),
        next_step: str = "", headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.status, self.reason, self.param, self.headers = status, reason, param, dict(headers or {})
        super().__init__(asked, found, nearest=nearest, next_step=next_step)


def bad(param: str, asked: str, found: str, *, nearest: Sequence[str] = (), next_step: str = "") -> Refused:
    """A request with a field that cannot be: 400."""
    reason = "invalid_value"
    return Refused(400, reason, asked, found, param=param, nearest=nearest, next_step=next_step)


def refusal_of(error: Exception, *, param: str | None = None) -> Refused:
    """Any error as a refusal: what Optrode raises is the request's fault (400), anything else ours (500)."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, OptrodeError):
        found, near, step = error.found, error.nearest, error.next_step
        return Refused(400, error.code, error.asked, found, param=param, nearest=near, next_step=step)
    found = f"it failed inside the server ({type(error).__name__}: {' '.join(str(error).split())})"
    return Refused(500, "internal_error", "request", found, next_step="see the server's log")


def error_body(refused: Refused) -> dict[str, Any]:
    """The JSON body of a refusal."""
    kind = _TYPES.get(refused.status, "server_error" if refused.status >= 500 else "invalid_request_error")
    message = str(refused).partition("] ")[2]
    return {"error": {"message": message, "type": kind, "param": refused.param, "code": refused.reason}}
