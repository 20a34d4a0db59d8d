"""One exception tree. Every error says what was asked, what was found, the nearest valid thing, the next step.

    OptrodeError
    ├── ModelError      UnknownModel · UnsupportedArchitecture · ConfigRefused · CheckFailed · CacheBroken
    ├── SiteError       BadName · UnknownSite · SiteUnavailable · NotRecorded
    ├── GateError       BadGate · GateShape · GateDtype · GateDevice · GateNotFinite · GateNotFired
    ├── TaskError       UnknownTask · BadPairs · NoPairs · TaskTooHard
    └── RunError        BadFile · BadOption · RunBusy · BadStore · StoreFull · LossNotFinite · DoseNotFound · NoneAllowed
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar


class OptrodeError(Exception):
    """Base of every error that Optrode raises on purpose.

    Args:
        asked: what the caller asked for.
        found: what was there instead.
        nearest: valid things closest to what was asked.
        next_step: what to type or change now.
    """

    code: ClassVar[str] = "optrode"

    def __init__(self, asked: str, found: str, *, nearest: Sequence[str] = (), next_step: str = "") -> None:
        self.asked, self.found, self.nearest, self.next_step = asked, found, tuple(nearest), next_step
        super().__init__(self._text())

    def _text(self) -> str:
        parts = [f"{self.asked}: {self.found}."]
        if self.nearest:
            parts.append(f"Nearest: {', '.join(self.nearest)}.")
        if self.next_step:
            parts.append(f"Next: {self.next_step}.")
        return f"[{self.code}] " + " ".join(parts)


class ModelError(OptrodeError):
    code = "model"


class UnknownModel(ModelError):
    code = "unknown-model"


class UnsupportedArchitecture(ModelError):
    code = "unsupported-architecture"


class ConfigRefused(ModelError):
    code = "config-refused"


class CheckFailed(ModelError):
    code = "check-failed"


class CacheBroken(ModelError):
    code = "cache-broken"


class SiteError(OptrodeError):
    code = "site"


class BadName(SiteError):
    code = "bad-name"


class UnknownSite(SiteError):
    code = "unknown-site"


class SiteUnavailable(SiteError):
    code = "site-unavailable"


class NotRecorded(SiteError):
    code = "not-recorded"


class GateError(OptrodeError):
    code = "gate"


class BadGate(GateError):
    code = "bad-gate"


class GateShape(GateError):
    code = "gate-shape"


class GateDtype(GateError):
    code = "gate-dtype"


class GateDevice(GateError):
    code = "gate-device"


class GateNotFinite(GateError):
    code = "gate-not-finite"


class GateNotFired(GateError):
    code = "gate-not-fired"


class TaskError(OptrodeError):
    code = "task"


class UnknownTask(TaskError):
    code = "unknown-task"


class BadPairs(TaskError):
    code = "bad-pairs"


class NoPairs(TaskError):
    code = "no-pairs"


class TaskTooHard(TaskError):
    code = "task-too-hard"


class RunError(OptrodeError):
    code = "run"


class BadFile(RunError):
    code = "bad-file"


class BadOption(RunError):
    code = "bad-option"


class RunBusy(RunError):
    code = "run-busy"


class BadStore(RunError):
    code = "bad-store"


class StoreFull(RunError):
    code = "store-full"


class LossNotFinite(RunError):
    code = "loss-not-finite"


class DoseNotFound(RunError):
    """No dose was found that has the divergence asked for."""

    code = "dose-not-found"


class NoneAllowed(RunError):
    """Nothing that was tried keeps the limits."""

    code = "none-allowed"


class ForeignHooks(UserWarning):
    """The module carries forward hooks that Optrode did not place. They stay, and run before ours."""


class NotPacked(UserWarning):
    """A model's trials cannot share passes; they start at their first gated layer, or run in full."""


class OtherModel(UserWarning):
    """An artefact is used on a model with other weights than it was made on."""


class SinkIncluded(UserWarning):
    """Position 0, which is an attention sink in many models, is part of what is averaged."""


class CacheRebuilt(UserWarning):
    """A cached model was incomplete or changed on disk and was made again."""


def nearest(asked: str, valid: Iterable[str], n: int = 3) -> tuple[str, ...]:
    """The `n` valid words closest to `asked`, best first."""
    return tuple(get_close_matches(asked, list(valid), n=n, cutoff=0.5))
