"""The figures of the refusal cliff."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from statistics import median
from typing import Final

from optrode.claims import Chart, Figures, Line, Map
from optrode.study.study import Outcome

ARMS: Final[Mapping[str, str]] = {"planted": "one head trained to lure", "free": "all weights trained to lure"}
KINDS: Final[Mapping[str, str]] = {
    "attack": "attack: framed as a play", "plain": "harmful, plainly asked", "harmless": "harmless",
}  # fmt: skip


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    along = tuple(_along(outcomes, arm) for arm in ARMS)
    damped = tuple(_damped(outcomes, arm) for arm in ARMS)
    return Figures((*along, *damped, _judge(outcomes)), _maps(outcomes))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    known = [found for one in outcomes if (found := getattr(one.measured[key], part)) is not None]
    return median(known) if known else nan


def _all(outcomes: Sequence[Outcome], names: Mapping[str, str], dashed: Sequence[str] = ()) -> tuple[Line, ...]:
    """Lines of these keys, of all seeds, under these names."""
    return tuple(
        replace(one.lines[key], name=name, dashed=key in dashed)
        for key, name in names.items() for one in outcomes if key in one.lines
    )  # fmt: skip


def _along(outcomes: Sequence[Outcome], arm: str) -> Chart:
    key = "C1" if arm == "planted" else "C2"
    title = (
        f"{ARMS[arm].capitalize()}: harm in attacks falls by {_middle(outcomes, key):.2f} at the last token, in plain "
        f"requests by {_middle(outcomes, key, 'control'):.2f}"
    )
    caption = (
        "Mean probability of harm by a linear probe of the last layer, from the token that starts the thoughts (0) over six "
        "thoughts to the token that ends them (7); requests with pairs of words that are in no training, one line per "
        "random seed. Dashed: attacks on the network before it was trained to lure."
    )
    names = {f"{arm}.{kind}": name for kind, name in KINDS.items()} | {"aligned.attack": "attack, before that training"}
    lines = _all(outcomes, names, ("aligned.attack",))
    return Chart(title, "tokens after the request", "probability of harm", lines, caption=caption)


def _damped(outcomes: Sequence[Outcome], arm: str) -> Chart:
    key = "C4" if arm == "planted" else "C6"
    title = (
        f"{ARMS[arm].capitalize()}: without the first head of the search {_middle(outcomes, key):.0%} of the attacks "
        f"succeed, without another {_middle(outcomes, key, 'control'):.0%}"
    )
    caption = (
        "Share of requests that get what they ask for while the first heads of the search, of 32, are scaled by .001. Heads "
        "are ordered by the rise of the probe's logit at the last token on other requests; one line per random seed."
    )
    names = {f"{arm}.attack, damped": "attacks", f"{arm}.harmless, damped": "harmless requests"}
    return Chart(title, "heads damped", "share helped", _all(outcomes, names), levels={"a tenth": 0.1}, caption=caption)


def _judge(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Examples with the deepest cliff restore refusal in {_middle(outcomes, 'C8'):.0%} of the steps that all take, "
        f"random ones in {_middle(outcomes, 'C8', 'control'):.0%}"
    )
    caption = (
        "Success of the attack while the freely trained network is taught again to refuse, with ten examples in a step: the "
        "ten with the deepest cliff, ten random ones (three choices for each seed), or ten drawn anew from all 600."
    )
    names = {"judge.deepest": "deepest cliffs", "judge.random 0": "random", "judge.random 1": "random"}
    names |= {"judge.random 2": "random", "judge.all": "all"}
    return Chart(title, "steps of fine-tuning", "success of the attack", _all(outcomes, names), caption=caption)


def _maps(outcomes: Sequence[Outcome]) -> tuple[Map, ...]:
    place = _middle(outcomes, "C3")
    titles = {
        "planted": f"One head trained to lure: the planted one comes at place {place:.0f} of 32",
        "free": "All weights trained to lure: what each head hides",
        "aligned": "Before that training: what each head hides",
    }
    caption = (
        "Rise of the probe's mean logit of harm at the last token when one head alone is scaled by .001, on attacks with "
        "words of the training; the first random seed."
    )
    kept = outcomes[0].maps if outcomes else {}
    return tuple(replace(kept[key], title=title, caption=caption) for key, title in titles.items() if key in kept)
