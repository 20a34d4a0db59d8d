"""Conditions that are decided once, at the prompt: a probe, or the projected cosine of conditional steering (CAST).

Texts of either side are parted in three: those that a direction is found from, those that the layer and the threshold are
chosen on, and those that the result is judged on. What is said of a condition is from the last, which nothing was chosen by.
`control/conditional.py` does the first for requests in a chat template.

CAST (Lee et al., arXiv 2409.05907): score cos(h, tanh(P h)), P the projection on a direction c, h the mean of the prompt's
states; c the first principal component of the differences of pairs, here drawn by chance; layer, threshold and side of it
by F1.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from optrode.control.contrast import Contrast, Sample
from optrode.control.probing import L2, chance_level, fit, separation
from optrode.control.states import Read, States, read_states
from optrode.errors import BadGate, BadOption, BadPairs
from optrode.gate.conditions import Observed, cosine, probe
from optrode.gate.scorers import Cosine
from optrode.model.model import Model
from optrode.model.names import parse

Side = Literal["above", "below"]
_LEAST: Final = 6
"""Texts of either side: two for each of the three parts."""
_PARTS: Final = ("found from", "chosen on", "judged on")


@final
@dataclass(frozen=True, eq=False)
class Latched:
    """A condition with a threshold, and what it does on texts that nothing was chosen by.

    Attributes:
        site, read: what is read, at the prompt's "last" token or as the "mean" over its tokens.
        method: "probe" or "CAST".
        weight, bias: [feature] of the probe's log odds; of CAST the direction, and 0.
        threshold, side: open where the score is "above" or "below".
        separation: area under the ROC curve of the scores, counted towards the side that opens.
        chance: what a score without information exceeds in one of twenty cases.
        hit, false_alarm: shares of the positive and of the negative texts at which it opens.
        n_judged: texts of both sides that these are of.
        with_sink: position 0 was read too, which gates never do.
    """

    site: str
    read: Read
    method: str
    weight: Float[Tensor, " feature"]
    bias: float
    threshold: float
    side: Side
    separation: float
    chance: float
    hit: float
    false_alarm: float
    n_judged: int
    with_sink: bool = False

    def __str__(self) -> str:
        judged = f"separation {self.separation:.2f}, opens at {self.hit:.0%} and {self.false_alarm:.0%}"
        return f"{self.method} at {self.site}, {self.side} {self.threshold:.3g}: {judged} of {self.n_judged} texts"

    @property
    def openness(self) -> Observed:
        """The condition for gates at the same or a later site: `op.add(site, v, openness=found.openness)`.

        Raises:
            BadGate: position 0 was read too, and a gate's condition leaves it out.
        """
        if self.with_sink:
            found = "it was fitted with position 0, which conditions of gates leave out"
            raise BadGate(f"gate open by {self}", found, next_step="fit it without with_sink=True")
        above, below = (self.threshold if self.side == side else None for side in ("above", "below"))
        how: dict[str, Any] = {"read": "prompt", "pool": self.read, "above": above, "below": below}
        if self.method == "CAST":
            return cosine(self.site, self.weight, projected=True, **how)
        return probe(self.site, self.weight, self.bias, link="linear", **how)


def fit_probe(
    model: Model, positive: Sequence[Sample], negative: Sequence[Sample], site: str, *, read: Read = "last",
    rate: float = 0.05, l2: float = L2, random_seed: int = 0,
) -> Latched:  # fmt: skip
    """A logistic probe, open above what a share of negative texts exceeds.

    Args:
        positive, negative: prompts in the form in which the model will be given them.
        rate: share of the negative texts that the threshold is chosen on, at which it may open.
        random_seed: of the parting.

    Raises:
        BadGate: it does not tell the texts that it is judged on better than chance.
        BadOption, BadPairs: a rate out of range, fewer than six texts on a side, or states that do not differ.
        BadName, UnknownSite, SiteUnavailable: from the site.
    """
    if not 0 <= rate < 1:
        raise BadOption(f"rate={rate}", "a share in [0, 1) of the negative texts", nearest=("0.05",))
    contrast = _checked(positive, negative)
    (states,) = _one(read_states(model, _texts(contrast), site, read=read))
    parts = _parted(states, contrast, random_seed)
    axis = fit("logistic", *parts[0], l2=l2)
    _, (_, benign), judged = ([axis.slope * (side @ axis.vector - axis.midpoint) for side in part] for part in parts)
    threshold = float(benign.sort(descending=True).values[math.floor(rate * len(benign) + 1e-9)])
    weight = (axis.slope * axis.vector).to(model.device, model.dtype)
    bias = -axis.slope * axis.midpoint
    return _judged(states.site, read, "probe", weight, bias, threshold, "above", (judged[0], judged[1]), with_sink=False)


def fit_cast(
    model: Model, positive: Sequence[Sample], negative: Sequence[Sample],
    sites: str | Sequence[str] = "blocks.*.resid_post", *, read: Read = "mean", method: str = "paired-pca",
    with_sink: bool = False, random_seed: int = 0,
) -> Latched:  # fmt: skip
    """The projected cosine at the site, and with the threshold and side, that have the greatest F1 on texts to choose on.

    Every threshold between two scores is tried. Of equal F1, the earlier site, the side "above" and the lower threshold.
    The score sees how large a state's part along the direction is, not its sign: sets of one form, whose states differ
    little in that, are often refused here where a probe tells them well.

    Args:
        sites: names or patterns.
        method: of `directions`: "paired-pca" as published, or "difference" of means, ...
        with_sink: let position 0 count in the mean, as the published code does. That warns, and makes a condition for no
            gate: where it is an attention sink the score tells prompts by their length, and often the wrong way round.
        random_seed: of the parting.

    Raises:
        BadGate: it does not tell the texts that it is judged on better than chance.
        BadOption: no such method.
        BadPairs: fewer than six texts on a side, or states that do not differ.
        BadName, UnknownSite, SiteUnavailable: from the sites.
    """
    contrast = _checked(positive, negative)
    best: tuple[float, float, Side, States, Cosine, tuple[Tensor, Tensor]] | None = None
    for states in read_states(model, _texts(contrast), sites, read=read, with_sink=with_sink):
        parts = _parted(states, contrast, random_seed)
        scorer = _scorer(method, *parts[0])
        chosen, judged = ((_cosines(scorer, high), _cosines(scorer, low)) for high, low in parts[1:])
        for f1, threshold, side in _grid(*chosen):
            if best is None or f1 > best[0]:
                best = f1, threshold, side, states, scorer, judged
    assert best is not None
    _, threshold, side, states, scorer, judged = best
    direction = scorer.direction.to(model.device, model.dtype)
    return _judged(states.site, read, "CAST", direction, 0.0, threshold, side, judged, with_sink=with_sink)


def cast_separation(
    model: Model, positive: Sequence[Sample], negative: Sequence[Sample], site: str, *, read: Read = "mean",
    method: str = "paired-pca", with_sink: bool = False, random_seed: int = 0,
) -> float:  # fmt: skip
    """Area under the ROC curve of CAST's score at one site, higher for positive texts, on those that nothing is found from.

    Raises:
        As `fit_cast`, but that a score at chance is told, and not refused.
    """
    contrast = _checked(positive, negative)
    (states,) = _one(read_states(model, _texts(contrast), site, read=read, with_sink=with_sink))
    found, *others = _parted(states, contrast, random_seed)
    scorer = _scorer(method, *found)
    high, low = (torch.cat([_cosines(scorer, part[ix]) for part in others]) for ix in (0, 1))
    return separation(high, low)


def _judged(
    site: str, read: Read, method: str, weight: Tensor, bias: float, threshold: float, side: Side,
    judged: tuple[Tensor, Tensor], *, with_sink: bool,
) -> Latched:  # fmt: skip
    """A condition with what it does on the last part of the texts; refused at chance."""
    sign = 1.0 if side == "above" else -1.0
    high, low = (sign * scores for scores in judged)
    told, chance = separation(high, low), chance_level(len(high), len(low))
    if not told > chance:
        found = f"its separation of {len(high) + len(low)} texts that nothing was chosen by is {told:.2f}, and chance alone "
        step = "give more texts, or texts that differ in what is to be told; or read another layer"
        raise BadGate(f"condition by {method} at {site}", f"{found}reaches {chance:.2f}", next_step=step)
    rates = [float((scores > sign * threshold).double().mean()) for scores in (high, low)]
    return Latched(
        site, read, method, weight, bias, threshold, side, told, chance, rates[0], rates[1], len(high) + len(low), with_sink
    )


def _grid(high: Float64[Tensor, " positive"], low: Float64[Tensor, " negative"]) -> Iterator[tuple[float, float, Side]]:
    """F1 of being open, with every threshold between two scores, on either side of it."""
    scores = torch.cat([high, low]).unique()
    bounds = (scores[1:] + scores[:-1]) / 2 if len(scores) > 1 else scores
    sides: tuple[Side, ...] = ("above", "below")
    for side in sides:
        sign = 1.0 if side == "above" else -1.0
        hits = (sign * high[:, None] > sign * bounds).sum(0)
        alarms = (sign * low[:, None] > sign * bounds).sum(0)
        f1 = 2 * hits / (hits + alarms + len(high))
        at = int(f1.argmax())
        yield float(f1[at]), float(bounds[at]), side


def _scorer(
    method: str, positive: Float64[Tensor, "positive feature"], negative: Float64[Tensor, "negative feature"]
) -> Cosine:
    n = min(len(positive), len(negative))
    return Cosine(fit(method, positive[:n], negative[:n]).vector, is_projected=True)


def _cosines(scorer: Cosine, states: Float64[Tensor, "text feature"]) -> Float64[Tensor, " text"]:
    return scorer.scores(states[:, None])[:, 0, 0]


def _checked(positive: Sequence[Sample], negative: Sequence[Sample]) -> Contrast:
    contrast = Contrast(tuple(positive), tuple(negative))
    least = min(len(contrast.positive), len(contrast.negative))
    if least < _LEAST:
        found = f"one side has {least} text(s), and they are parted in those it is {', '.join(_PARTS)}"
        raise BadPairs("a condition", found, next_step=f"give at least {_LEAST} of either side; 100 are a good start")
    return contrast


def _texts(contrast: Contrast) -> list[Sample]:
    return [*contrast.positive, *contrast.negative]


def _one(states: tuple[States, ...]) -> tuple[States]:
    if len(states) != 1:
        asked = f"a condition that reads {len(states)} sites"
        raise BadOption(asked, "it reads one", nearest=[str(parse(one.site)) for one in states[:3]])
    return (states[0],)


def _parted(states: States, contrast: Contrast, random_seed: int) -> list[tuple[Tensor, Tensor]]:
    """States of positive and negative texts: to find from, a half; to choose on and to judge on, a quarter each."""
    sides = states.pooled.split([len(contrast.positive), len(contrast.negative)])
    draws = torch.Generator().manual_seed(random_seed)
    parts = []
    for side in sides:
        order = torch.randperm(len(side), generator=draws)
        n = len(side) // 4
        parts.append(side[order].split([len(side) - 2 * max(n, 2), max(n, 2), max(n, 2)]))
    return [(high, low) for high, low in zip(*parts, strict=True)]
