"""Doses that do equal damage: how strong a gate may be for the same shift of what the model says next.

Strengths of different sites and methods cannot be compared by their size. By what they do to the distribution of the next
token they can: a dose is found at which a quantile of KL(gated || plain), over the tokens of the gated model's own answers,
has a given value in nats.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch

from optrode.control.rollout import Prompt, roll_out
from optrode.errors import BadOption, DoseNotFound
from optrode.gate.gate import Gate
from optrode.model.model import Model

GatesAt = Callable[[float], Sequence[Gate]]
"""dose -> the gates to hold."""

_STRIDE: Final = 8.0
"""Greatest factor from one dose to the next while the target is not yet enclosed."""


@final
@dataclass(frozen=True)
class IsoKL:
    """A dose of a given divergence.

    Attributes:
        dose: as `gates_at` takes it.
        kl: the quantile of KL(gated || plain) over tokens at this dose, in nats.
        target, quantile: what was asked for.
        n_evaluations: doses that were tried.
        tried: (dose, kl) in the order of the trials.
    """

    dose: float
    kl: float
    target: float
    quantile: float
    n_evaluations: int
    tried: tuple[tuple[float, float], ...]


def iso_kl(
    model: Model, gates_at: GatesAt, prompts: Sequence[Prompt], target: float = 1.0, *, quantile: float = 0.95,
    n_tokens: int = 20, tolerance: float = 0.05, max_evaluations: int = 8, first: float = 0.2,
) -> IsoKL:  # fmt: skip
    """The dose at which a quantile of KL(gated || plain) over the tokens of greedy answers is `target` nats.

    Args:
        gates_at: dose -> gates, e.g. `lambda dose: [direction.gate(dose)]`.
        prompts: texts or token ids to answer.
        quantile: over all tokens of all answers; the defaults are those of steering-lite's calibration.
        n_tokens: of each answer.
        tolerance: how far off the target the divergence may be, relative to it.
        max_evaluations: doses to try at most.
        first: the first dose to try; negative to search on the other side.

    Raises:
        BadOption: a target, quantile, tolerance or first dose out of range.
        DoseNotFound: no dose tried is within the tolerance: the message says what the closest were.
        GateError: as `op.gates`.
    """
    if not 0 <= quantile <= 1:
        raise BadOption(f"quantile={quantile}", "a share in [0, 1]", nearest=("0.95",))
    sign = math.copysign(1.0, first)

    def divergence(dose: float) -> float:
        rolled = roll_out(model, prompts, gates_at(sign * dose), n_tokens)
        return float(torch.quantile(torch.cat(rolled.kl), quantile))

    tried = solve(divergence, target, first=abs(first), tolerance=tolerance, max_evaluations=max_evaluations)
    dose, kl = tried[-1]
    signed = tuple((sign * at, found) for at, found in tried)
    return IsoKL(sign * dose, kl, target, quantile, len(tried), signed)


def solve(
    measure: Callable[[float], float], target: float, *, first: float = 0.2, tolerance: float = 0.05,
    max_evaluations: int = 8,
) -> tuple[tuple[float, float], ...]:  # fmt: skip
    """Doses tried until a measure that grows from 0, about as the square of the dose, is at its target.

    The first step takes the square for exact; further steps are secants in logarithms, through the last two doses, or
    between the closest ones on either side of the target once there are such, and halves of that interval where these stall.

    Returns:
        (dose, measure) in the order tried; the last one is within the tolerance.

    Raises:
        BadOption: a target, tolerance or first dose that is not positive and finite, or no evaluation.
        DoseNotFound: none was within the tolerance, or the measure is not finite.
    """
    for name, value in (("target", target), ("tolerance", tolerance), ("first", first)):
        if not (value > 0 and math.isfinite(value)):
            raise BadOption(f"{name}={value}", "not a positive number", next_step="give a positive, finite one")
    if max_evaluations < 1:
        raise BadOption(f"max_evaluations={max_evaluations}", "nothing could be tried", nearest=("8",))
    tried: list[tuple[float, float]] = []
    dose = first
    while len(tried) < max_evaluations:
        found = measure(dose)
        tried.append((dose, found))
        if abs(found - target) <= tolerance * target:
            return tuple(tried)
        if not math.isfinite(found):
            raise _not_found(target, tried, "lower the first dose, or check the gates' values")
        dose = _next(tried, target)
    raise _not_found(target, tried, "allow more evaluations or a wider tolerance, or give more prompts")


def _next(tried: Sequence[tuple[float, float]], target: float) -> float:
    low = max((one for one in tried if one[1] < target), default=None)
    high = min((one for one in tried if one[1] > target and (low is None or one[0] > low[0])), default=None)
    if low is None or high is None:
        return _outwards(tried, target, is_up=high is None)
    stalls = len(tried) >= 4 and (tried[-1][1] > target) == (tried[-2][1] > target) == (tried[-3][1] > target)
    slope = 0.5 if stalls or low[1] <= 0 else math.log(target / low[1]) / math.log(high[1] / low[1])
    return math.exp(math.log(low[0]) + min(max(slope, 0.05), 0.95) * math.log(high[0] / low[0]))


def _outwards(tried: Sequence[tuple[float, float]], target: float, *, is_up: bool) -> float:
    """The next dose while all that were tried are on one side of the target."""
    dose, found = tried[-1]
    power = 2.0 if len(tried) < 2 else _power(tried[-2], tried[-1])
    factor = _STRIDE if found <= 0 else (target / found) ** (1 / power)
    nearest = 1.05 if is_up else 1 / 1.05
    factor = max(factor, nearest) if is_up else min(factor, nearest)
    return dose * min(max(factor, 1 / _STRIDE), _STRIDE)


def _power(one: tuple[float, float], other: tuple[float, float]) -> float:
    """How the measure grows between two doses, dose ** power; between 1/2 and 4, as it may be flat or jump."""
    if one[1] <= 0 or other[1] <= 0 or one[0] == other[0]:
        return 2.0
    return min(max(math.log(other[1] / one[1]) / math.log(other[0] / one[0]), 0.5), 4.0)


def _not_found(target: float, tried: Sequence[tuple[float, float]], step: str) -> DoseNotFound:
    below = max((one for one in tried if one[1] < target), key=lambda one: one[1], default=None)
    above = min((one for one in tried if one[1] > target), key=lambda one: one[1], default=None)
    found = f"{len(tried)} doses were tried" + ("" if above else ", all below it") + ("" if below else ", none below it")
    near = tuple(f"{kl:.3g} nats at dose {dose:.4g}" for dose, kl in (one for one in (below, above) if one))
    return DoseNotFound(f"a dose of {target:g} nats", found, nearest=near, next_step=step)
