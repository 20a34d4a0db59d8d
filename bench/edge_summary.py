"""From raw timings of edge attribution to ratios and targets. Standard library only.

A ratio is taken within each round, so that a machine that slows down for both sides does not show; its median, smallest and
largest over the rounds are told.
"""

from dataclasses import dataclass
from statistics import median
from typing import Any

from edge_cases import LEAST_AGREEMENT, MEMORY, METHODS, PASSES, PLAIN, TIMES, Case

Results = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of the rounds, with the smallest and the largest."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judged:
    """What was wanted of a method on a case, and what was found.

    Attributes:
        words: the target.
        found: yardstick -> how many times as much; a memory ratio has no spread.
        limit: that no ratio may pass.
    """

    words: str
    found: dict[str, Spread]
    limit: float

    def is_met(self, yardstick: str) -> bool:
        """Whether the median stays within the limit."""
        return self.found[yardstick].middle <= self.limit


def spread(values: list[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values))


def cases_of(results: Results) -> list[Case]:
    """All cases, in the order in which they were measured."""
    return [Case(*found) for found in results["cases"]]


def seconds(results: Results, case: Case, contender: str) -> list[float]:
    """Round by round. Plain passes read the clean prompts only, so theirs hold for every case of a length."""
    length, same = case.length, None if contender in PLAIN else case.same
    found = [run for run in results["runs"] if (run["contender"], run["length"], run["same"]) == (contender, length, same)]
    return [run["seconds"] for run in sorted(found, key=lambda run: run["round"])]


def time_ratio(results: Results, case: Case, contender: str, yardstick: str) -> Spread:
    """How many times as long as a yardstick, within each round."""
    pairs = zip(seconds(results, case, contender), seconds(results, case, yardstick), strict=True)
    return spread([own / plain for own, plain in pairs])


def memory(results: Results, case: Case, contender: str) -> float | None:
    """MiB that a process of its own added at its peak; None where that was not measured."""
    same = 0 if contender in PLAIN else case.same
    found = [
        one["peak_mib"] for one in results["memory"]
        if (one["contender"], one["length"], one["same"]) == (contender, case.length, same)
    ]  # fmt: skip
    return found[0] if found else None


def memory_ratio(results: Results, case: Case, contender: str, yardstick: str) -> Spread | None:
    """How many times as much memory as a yardstick added."""
    own, plain = memory(results, case, contender), memory(results, case, yardstick)
    return None if own is None or not plain else spread([own / plain])


def passes(results: Results, case: Case, contender: str) -> tuple[int, int]:
    """Forward and backward passes of one run, the most of all rounds."""
    same = None if contender in PLAIN else case.same
    found = [
        (run["forward"], run["backward"]) for run in results["runs"]
        if (run["contender"], run["length"], run["same"]) == (contender, case.length, same)
    ]  # fmt: skip
    return max(found)


def agreement(results: Results, case: Case, contender: str) -> float | None:
    """Largest difference from the definition, as a share of the largest score; None where it was not written out."""
    found = [
        run["disagreement"] for run in results["runs"]
        if (run["contender"], run["length"], run["same"]) == (contender, case.length, case.same) and "disagreement" in run
    ]  # fmt: skip
    return max(found, default=None)


def targets(results: Results) -> list[Judged]:
    """Every target, on the cases that count: those in which all positions differ."""
    counting = [case for case in cases_of(results) if not case.same]
    found = []
    for case in counting:
        for name, limit in TIMES.items():
            words = f"{METHODS[name]}, {case.length} tokens: time within {limit:g} times"
            found.append(Judged(words, {plain: time_ratio(results, case, name, plain) for plain in PLAIN}, limit))
        for name in METHODS:
            ratios = {plain: memory_ratio(results, case, name, plain) for plain in PLAIN}
            words = f"{METHODS[name]}, {case.length} tokens: memory within {MEMORY:g} times"
            found.append(Judged(words, {plain: ratio for plain, ratio in ratios.items() if ratio}, MEMORY))
    return found


def faults(results: Results) -> list[str]:
    """What would make the figures worthless: passes more or fewer than they should be, scores off their definition."""
    found = []
    for case in cases_of(results):
        for name, wanted in PASSES.items():
            what, counted = f"{name}, {case.length} tokens", passes(results, case, name)
            if counted != wanted:
                found.append(f"{what}: (forward, backward) passes are {counted}, not {wanted}")
            off = agreement(results, case, name)
            if off is not None and not off <= LEAST_AGREEMENT:
                found.append(f"{what}: scores are off their definition by {off:.1e} of the largest")
    return found
