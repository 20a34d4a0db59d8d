"""Steering under a condition, from a trigger to a judged gate: what it keeps of the effect, and what it spares."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from optrode.control.behaviours import Behaviour, Trigger
from optrode.control.conditional import LearnedCondition, fit_condition
from optrode.control.controls import Steer
from optrode.control.gate_quality import benefits_of, quality
from optrode.control.records import GateQuality
from optrode.control.tracing import traces_of
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.site.select import select_sites

DEPTH: Final = 0.4
"""At which the trigger of cooking is told best on SmolLM2's validation requests, as a share of the layers."""
N_TRACES: Final = 2
"""Traces of each class of requests."""


def under(condition: LearnedCondition, gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """The same gates, open where the condition says so."""
    openness = condition.openness()
    return tuple(replace(gate, openness=openness) for gate in gates)


def site_before(model: Model, gates: Sequence[Gate]) -> str:
    """The residual stream at two fifths of the depth, or at the first layer that gates act at, where that is earlier."""
    layers = [site.name.layers.single for gate in gates for site in select_sites(model, gate.site) if site.name.layers]
    first = min((layer for layer in layers if layer is not None), default=model.table.n_layers)
    return f"blocks.{min(int(DEPTH * model.table.n_layers), first)}.resid_{'pre' if first == 0 else 'post'}"


def judge_condition(
    model: Model, steer: Steer, behaviour: Behaviour, trigger: Trigger, dose: float | int, *, n_tokens: int = 32,
    random_seed: int = 0,
) -> tuple[LearnedCondition, GateQuality]:  # fmt: skip
    """Fit a condition on a trigger's training requests, and judge it and steering under it on its test requests.

    Args:
        steer: dose -> gates that are always open.

    Raises:
        BadGate: the condition tells held-out requests apart no better than chance.
    """
    held = tuple(steer(dose))
    condition = fit_condition(model, trigger, site_before(model, held), random_seed=random_seed)
    gated = under(condition, held)
    benefits = benefits_of(
        model, behaviour, trigger, steer, lambda one: under(condition, tuple(steer(one))), condition.opened, dose,
        n_tokens=n_tokens, random_seed=random_seed,
    )  # fmt: skip
    shown = behaviour.prompts(model, (*trigger.test[0][:N_TRACES], *trigger.test[1][:N_TRACES]))
    traces = traces_of(model, gated, shown, n_tokens=n_tokens)
    found = quality(
        model, str(gated[0]), condition.score, trigger, benefits=benefits, traces=traces, random_seed=random_seed
    )
    return condition, found
