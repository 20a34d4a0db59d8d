"""A condition learned from requests: a probe on the prompt, with site and threshold from prompts it was not fitted on.

The threshold is what a share of benign validation prompts exceeds; AUC and the rates that are reported come from test
prompts (`gate_quality.quality`), beside the prompt's length and its words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from optrode.control.behaviours import Trigger, chat
from optrode.control.contrast import Contrast
from optrode.control.direction import Direction, directions
from optrode.control.gate_quality import auc, threshold_at
from optrode.control.states import Read, read_states
from optrode.gate.conditions import Observed, probe
from optrode.model.model import Model

SITE: Final = "blocks.12.resid_post"
"""Chosen on validation requests, in a pilot with SmolLM2."""


@final
@dataclass(frozen=True, eq=False)
class LearnedCondition:
    """A linear probe that opens gates by the prompt.

    Attributes:
        model: that it reads.
        direction: the probe, by logistic regression on training requests.
        threshold: of its log odds.
        trigger: when it should open.
        rate: of benign validation requests that exceed the threshold.
    """

    model: Model
    direction: Direction
    threshold: float
    trigger: Trigger
    rate: float

    def score(self, requests: Sequence[str]) -> tuple[float, ...]:
        """[request] log odds: the scorer of `quality`."""
        return tuple(_all_scores(self.model, [self.direction], requests)[0].tolist())

    def opened(self, requests: Sequence[str]) -> tuple[bool, ...]:
        """[request] whether the gate opens."""
        return tuple(score > self.threshold for score in self.score(requests))

    def openness(self) -> Observed:
        """The condition for a gate at the same or a later layer: `op.add(site, v, openness=condition.openness())`.

        It is decided once per row, by the prompt's last token or the mean over its tokens (the first one, which is often an
        attention sink, left out), and held from then on.
        """
        one = self.direction
        bias = -one.slope * one.midpoint
        return probe(
            one.site, one.slope * one.vector, bias, above=self.threshold, link="linear", read="prompt", pool=one.read
        )  # fmt: skip


def fit_condition(
    model: Model, trigger: Trigger, sites: str | Sequence[str] = SITE, *, read: Read = "mean", rate: float = 0.05,
    random_seed: int = 0,
) -> LearnedCondition:  # fmt: skip
    """Fit probes on a trigger's training requests, take the site that tells the validation requests best, and fix the
    threshold on the benign ones of these.

    Args:
        sites: names or patterns, read in the chat template.
        read: the "mean" over the prompt's tokens, or the "last" one.
        rate: share of benign validation requests at which it may open.

    Raises:
        BadGate: the probe does not tell held-out training requests better than chance.
        BadOption, UnknownSite: from the site.
    """
    sides = [tuple(chat(model, request) for request in part) for part in trigger.train]
    made = directions(model, Contrast(*sides), sites, "logistic", read=read, random_seed=random_seed)
    target, benign = (_all_scores(model, made, part) for part in trigger.validation)
    best = max(range(len(made)), key=lambda ix: auc(target[ix], benign[ix]))
    made[best].check_above_chance(f"a condition for {trigger.name!r}")
    return LearnedCondition(model, made[best], threshold_at(benign[best], rate), trigger, rate)


def _all_scores(model: Model, found: Sequence[Direction], requests: Sequence[str]) -> list[NDArray[np.float64]]:
    """[direction][request] log odds."""
    prompts = [chat(model, request) for request in requests]
    states = read_states(model, prompts, [one.site for one in found], read=found[0].read)
    return [np.asarray(one.score(held.pooled).tolist()) for one, held in zip(found, states, strict=True)]
