"""Directions: where in a site's space the texts of a contrast differ, in units of the site's own typical norm.

A direction is found on part of the texts and judged on the others, so that what it says of itself is not what it was made
from. Its gate adds it in a dose relative to the typical norm: 0.3 moves a state by three tenths of its usual length.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.control.contrast import Contrast
from optrode.control.probing import L2, METHODS, Axis, chance_level, fit, separation
from optrode.control.states import Read, States, read_states
from optrode.errors import BadGate, BadOption, SinkIncluded, nearest
from optrode.gate.conditions import Observed, Pool, probe
from optrode.gate.gate import Aside, Gate, Scope
from optrode.gate.kinds import add
from optrode.model.model import Model
from optrode.model.names import SiteName, parse


@final
@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector at a site.

    Attributes:
        site: its name.
        vector: [feature] of unit norm, in the model's type and on its device.
        typical: median norm of the tokens' states at the site, without position 0: the unit of doses.
        method: how it was found.
        n: texts that it was found from.
        separation: area under the ROC curve of the projections of `n_held` other texts; NaN where none was held out.
        chance: the separation that a direction of no information exceeds in one of twenty cases, of independent texts.
        slope, midpoint: P(positive | h) = sigmoid(slope (vector·h - midpoint)), from the texts that it was found from.
        read: how the texts were read, at the "last" token or by the "mean".
        with_sink: whether position 0 counts.
    """

    site: str
    vector: Float[Tensor, " feature"]
    typical: float
    method: str
    n: int = 0
    separation: float = math.nan
    n_held: int = 0
    chance: float = 1.0
    slope: float = 0.0
    midpoint: float = 0.0
    read: Read = "last"
    with_sink: bool = False

    def __str__(self) -> str:
        judged = "not judged" if math.isnan(self.separation) else f"separation {self.separation:.2f} on {self.n_held} texts"
        return f"{self.method} of {self.n} texts at {self.site}: {judged}, typical norm {self.typical:.3g}"

    @property
    def is_at_chance(self) -> bool:
        """Whether what was held out is not told apart better than chance would; also where nothing was held out."""
        return not self.separation > self.chance

    def gate(self, dose: float, *, scope: Scope = "all", **options: Any) -> Gate:
        """A gate that adds the direction.

        Position 0 is left alone, as `typical` is not its norm, unless the direction was made with it.

        Args:
            dose: length of what is added, relative to the typical norm; negative to go the other way.
            scope: "all" positions, those of the "prompt", or the "generated" ones.
            options: of every gate: when, detach, openness, ...

        Raises:
            BadGate: no such option or scope.
            GateNotFinite: the dose is NaN or infinite.
        """
        where: SiteName = parse(self.site)
        if not self.with_sink and scope != "generated":
            where = _after_sink(where)
        return add(where, self.vector * self.typical, strength=float(dose), scope=scope, **options)

    def probe(
        self, *, above: float | int | None = None, below: float | int | None = None, read: str = "token",
        pool: Pool | None = None, source: Aside | None = None, hold: int = 0,
    ) -> Observed:  # fmt: skip
        """How open a gate is, by the probability of "positive" of what a pass shows at this site.

        Args:
            above, below: on that probability; without either the gate is as open as it says.
            read: "token", "prompt" (latched for each row), "previous" or "first_pass".
            pool: of the prompt; as the texts were read by default.
            source: the pass aside to read in.
            hold: for how many tokens more it stays as open as it was.

        Raises:
            BadGate: the direction does not tell held-out texts apart better than chance, or a word that makes no condition.
            GateNotFinite: a threshold is not a finite number.
        """
        self.check_above_chance("a probe")
        return probe(
            self.site, self.slope * self.vector, -self.slope * self.midpoint, above=above, below=below, link="logistic",
            read=read, pool=pool or self.read, source=source, hold=hold,
        )  # fmt: skip

    def score(self, states: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows"]:
        """The log odds of "positive" of states at this site."""
        vector = self.vector.to(states.dtype).to(states.device)
        scored: Tensor = self.slope * (states @ vector - self.midpoint)
        return scored

    def check_above_chance(self, asked: str) -> None:
        """Refuse a direction that says nothing of texts it was not found from.

        Raises:
            BadGate: it was judged at chance, or not judged.
        """
        if not self.is_at_chance:
            return
        found = "nothing was held out to judge it on"
        if not math.isnan(self.separation):
            found = f"its separation of {self.n_held} held-out texts is {self.separation:.2f}"
            found += f", and chance alone reaches {self.chance:.2f}"
        step = "give more texts, another layer or method, and held_out above 0"
        raise BadGate(f"{asked} by {self.method} at {self.site}", found, next_step=step)

    def opposite(self) -> "Direction":
        """The direction that points the other way, judged the other way round."""
        return replace(self, vector=-self.vector, midpoint=-self.midpoint, separation=1 - self.separation)

    def random(self, random_seed: int = 0) -> "Direction":
        """A random direction of the same norm at the same site: the control of any steering."""
        generator = torch.Generator().manual_seed(random_seed)
        drawn = torch.randn(len(self.vector), generator=generator, dtype=torch.float64)
        vector = (drawn / drawn.norm()).to(self.vector)
        return Direction(self.site, vector, self.typical, f"random {random_seed}", with_sink=self.with_sink)


def directions(
    model: Model, contrast: Contrast, sites: str | Sequence[str] = "blocks.*.resid_post", method: str = "difference", *,
    read: Read = "last", held_out: float = 0.25, random_seed: int = 0, with_sink: bool = False, l2: float = L2,
    batch_size: int = 16,
) -> tuple[Direction, ...]:  # fmt: skip
    """One direction for each site, from the negative towards the positive texts of a contrast.

    Args:
        sites: names or patterns; of a site with heads, one head.
        method: "difference", "pca", "paired-pca", "logistic" or "mass-mean" (see `control/probing.py`).
        read: the "last" token of each text, or the "mean" over its tokens.
        held_out: share of the texts of either side that the direction is judged on, and not found from; pairs stay together.
        random_seed: of the texts that are held out.
        with_sink: let position 0 count in means, norms and gates too. That warns: in many models it is an attention sink.
        l2: of method "logistic": the penalty's weight.

    Raises:
        BadOption: no such method or way to read, or a share out of range.
        BadPairs: too few texts, texts whose states do not differ, or no pairs for "paired-pca".
        BadName, UnknownSite, SiteUnavailable: from the sites.
    """
    _check_method(method, contrast)
    fitted, held = contrast.split(held_out, random_seed)
    options = {"read": read, "with_sink": with_sink, "batch_size": batch_size}
    return _directions(model, fitted, held, sites, method, l2, options)


def shuffled(
    model: Model, contrast: Contrast, sites: str | Sequence[str] = "blocks.*.resid_post", method: str = "difference", *,
    read: Read = "last", held_out: float = 0.25, random_seed: int = 0, with_sink: bool = False, l2: float = L2,
    batch_size: int = 16,
) -> tuple[Direction, ...]:  # fmt: skip
    """The same with shuffled labels: the control of what a direction owes to them.

    Half of the texts that it is found from change sides; the held-out texts, which judge it, keep their labels.

    Args:
        random_seed: of the texts that are held out, and of those that change sides.
        As `directions`.

    Raises:
        BadPairs: a side has fewer than two texts to shuffle.
        As `directions`.
    """
    _check_method(method, contrast)
    fitted, held = contrast.split(held_out, random_seed)
    options = {"read": read, "with_sink": with_sink, "batch_size": batch_size}
    found = _directions(model, fitted.shuffled(random_seed), held, sites, method, l2, options)
    return tuple(replace(one, method=f"{method}, labels shuffled") for one in found)


def judged(model: Model, found: Sequence[Direction], contrast: Contrast, *, batch_size: int = 16) -> tuple[Direction, ...]:
    """The same directions, judged on other texts, read as theirs were.

    Held-out texts that share templates or words with those that a direction was found from flatter it: judge it on others.

    Raises:
        As `read_states`.
    """
    ways = {(one.read, one.with_sink) for one in found}
    texts = (*contrast.positive, *contrast.negative)
    seen: dict[tuple[str, Read, bool], States] = {}
    for read, with_sink in sorted(ways):
        sites = [one.site for one in found if (one.read, one.with_sink) == (read, with_sink)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SinkIncluded)  # whoever made the directions was warned
            shown = read_states(model, texts, sites, read=read, with_sink=with_sink, batch_size=batch_size)
        seen |= {(states.site, read, with_sink): states for states in shown}
    return tuple(_judged(one, seen[one.site, one.read, one.with_sink], len(contrast.positive)) for one in found)


def _judged(one: Direction, states: States, n_positive: int) -> Direction:
    scores = states.pooled @ one.vector.cpu().double()
    high, low = scores[:n_positive], scores[n_positive:]
    chance = chance_level(len(high), len(low))
    return replace(one, separation=separation(high, low), n_held=len(scores), chance=chance)


def _directions(
    model: Model, fitted: Contrast, held: Contrast | None, sites: str | Sequence[str], method: str, l2: float,
    options: Mapping[str, Any],
) -> tuple[Direction, ...]:  # fmt: skip
    """Directions from some texts, judged on others; `options` are those of `read_states`."""
    sides = [side for part in (fitted, held) if part for side in (part.positive, part.negative)]
    made = []
    for states in read_states(model, [text for side in sides for text in side], sites, **options):
        positive, negative, *others = states.pooled.split([len(side) for side in sides])
        axis = fit(method, positive, negative, l2=l2)
        one = direction_along(model, axis, states, method, len(positive) + len(negative), others)
        made.append(replace(one, read=options["read"], with_sink=options["with_sink"]))
    return tuple(made)


def direction_along(
    model: Model, axis: Axis, states: States, method: str, n: int, held: Sequence[Tensor] = ()
) -> Direction:
    """A direction of an axis, judged on held-out states (positive [text, feature], negative) if there are any."""
    judged: dict[str, Any] = {}
    if held:
        high, low = (side @ axis.vector for side in held)
        judged = {
            "separation": separation(high, low), "n_held": len(high) + len(low),
            "chance": chance_level(len(high), len(low)),
        }  # fmt: skip
    vector = axis.vector.to(device=model.device, dtype=model.dtype)
    return Direction(states.site, vector, states.typical, method, n, slope=axis.slope, midpoint=axis.midpoint, **judged)


def _after_sink(where: SiteName) -> SiteName:
    """The same site, from position 1 on."""
    select = {axis: str(index) for axis, index in where.select} | {"pos": "1:"}
    return parse(f"{where.path}[{', '.join(f'{axis}={index}' for axis, index in select.items())}]")


def _check_method(method: str, contrast: Contrast) -> None:
    if method not in METHODS:
        raise BadOption(f"method {method!r}", "no such method", nearest=nearest(method, METHODS) or tuple(METHODS))
    if method == "paired-pca":
        contrast.check_paired("paired-pca of a contrast")
