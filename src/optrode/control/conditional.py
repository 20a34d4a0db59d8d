"""A condition learned from requests: a probe on the prompt's last token, with a threshold from prompts it was not fitted on.

The threshold is what a share of benign validation prompts exceeds; AUC and the rates that are reported come from test
prompts (`gate_quality.quality`), beside the prompt's length and its words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from optrode.control.behaviours import Trigger, chat
from optrode.control.contrast import Contrast
from optrode.control.direction import Direction, directions
from optrode.control.gate_quality import threshold_at
from optrode.control.states import read_states
from optrode.gate.conditions import Observed, probe
from optrode.model.model import Model


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
        """[request] log odds, read at the prompt's last token: the scorer of `quality`."""
        return _scores(self.model, self.direction, requests)

    def opened(self, requests: Sequence[str]) -> tuple[bool, ...]:
        """[request] whether the gate opens."""
        return tuple(score > self.threshold for score in self.score(requests))

    def openness(self) -> Observed:
        """The condition for a gate at the same or a later layer: `op.add(site, v, openness=condition.openness())`.

        It is decided once per row, at the prompt's last token, and held from then on.
        """
        one = self.direction
        bias = -one.slope * one.midpoint
        return probe(
            one.site, one.slope * one.vector, bias, above=self.threshold, link="linear", read="prompt", pool="last"
        )  # fmt: skip


def fit_condition(
    model: Model, trigger: Trigger, site: str = "blocks.18.resid_post", *, rate: float = 0.05, random_seed: int = 0
) -> LearnedCondition:
    """Fit a probe on a trigger's training requests, and fix its threshold on the benign validation ones.

    Gates that it opens by the prompt act from the prompt's last token on: give them scope="generated" or "all".

    Args:
        site: read at the prompt's last token, in the chat template.
        rate: share of benign validation requests at which it may open.

    Raises:
        BadGate: the probe does not tell held-out training requests better than chance.
        BadOption, UnknownSite: from the site.
    """
    sides = [tuple(chat(model, request) for request in part) for part in trigger.train]
    (found,) = directions(model, Contrast(*sides), site, "logistic", random_seed=random_seed)
    found.check_above_chance(f"a condition for {trigger.name!r}")
    benign = np.asarray(_scores(model, found, trigger.validation[1]))
    return LearnedCondition(model, found, threshold_at(benign, rate), trigger, rate)


def _scores(model: Model, direction: Direction, requests: Sequence[str]) -> tuple[float, ...]:
    prompts = [chat(model, request) for request in requests]
    (states,) = read_states(model, prompts, direction.site, read="last")
    return tuple(float(value) for value in direction.score(states.pooled))
