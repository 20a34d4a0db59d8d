"""Positions that no gate can reach are run once: their keys and values serve every trial.

In a causal model a position sees only itself and earlier ones. If every gate of a trial leaves every recorded value
before position p as it is, then nothing before p differs from the run without gates, at any layer: the trial may start
at p, on the keys and values of that run. A trial that no gate changes anywhere needs no run at all. Both rest on gates
that treat each position by itself (`Actuator.is_pointwise`).
"""

import copy
import inspect
from dataclasses import dataclass
from typing import Any, Final, final

import torch

from optrode.gate.gate import Gate
from optrode.trial.trial import Trial
from optrode.trial.worlds import Worlds

_WHOLE_SITES: Final = ("attn.scores", "attn.pattern", "attn.result", "logits")
"""Sites whose recording would switch attention or cost much memory: their trials run in full."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a trial may start.

    Attributes:
        position: the first position that must be run, or None if the trial changes nothing.
        gates: those that select any position from there on.
    """

    position: int | None
    gates: tuple[Gate, ...]


@final
class Prefixes:
    """Keys and values of the prompts' beginnings, per world, group and length."""

    def __init__(self, worlds: Worlds) -> None:
        self.worlds = worlds
        self._caches: dict[tuple[str, int, int], Any] = {}

    def start(self, trial: Trial, group: int, first_read: int) -> Start:
        """Where a trial may start.

        Args:
            first_read: the first position whose logits the metric reads.
        """
        in_full = Start(0, trial.gates)
        if not all(map(can_be_shared, trial.gates)):
            return in_full
        self.worlds.remember(trial.gates, trial.world)
        spans = [self.worlds.span(gate, trial.world, group) for gate in trial.gates]
        if any(span.last is None for span in spans):
            return in_full  # a gate that selects nothing: the full run raises the right error
        firsts = [span.first for span in spans if span.first is not None]
        if not firsts:
            return Start(None, ())
        first = min(*firsts, first_read) if can_restart(self.worlds) else 0
        held = tuple(g for g, span in zip(trial.gates, spans, strict=True) if span.last is not None and span.last >= first)
        return Start(first, held)

    def cache(self, world: str, group: int, length: int) -> Any:
        """A copy of the keys and values of the first `length` positions of a world's prompts."""
        key = (world, group, length)
        if key not in self._caches:
            model = self.worlds.model
            tokens = torch.tensor(self.worlds.tokens(world, group), device=model.device)[:, :length]
            self.worlds.n_passes += 1
            self._caches[key] = model.module(input_ids=tokens, use_cache=True, logits_to_keep=1).past_key_values
        return copy.deepcopy(self._caches[key])  # a forward pass appends to the cache that it is given


def can_be_shared(gate: Gate) -> bool:
    """Whether a gate's reach can be read off recordings: a named site with positions, an actuator that is pointwise."""
    return gate.actuator.is_pointwise and not gate.site.is_module and gate.site.kind not in _WHOLE_SITES


def can_restart(worlds: Worlds) -> bool:
    """Whether the model can go on from keys and values: causal, with a cache, and logits on demand."""
    names = inspect.signature(worlds.model.module.forward).parameters
    return worlds.model.table.is_causal and {"past_key_values", "use_cache", "logits_to_keep"} <= set(names)
