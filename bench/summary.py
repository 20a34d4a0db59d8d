"""From raw timings to what the page and the plot say: medians, ratios, targets. Standard library only."""

from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from jobs import JOBS, RIVALS
from machine import ONEDNN

Results = dict[str, Any]
RATIOS: Final = {"grid": 35.0, "grid-all": 5.5, "heads": 10.0}
"""How many times faster than the faster rival Optrode is meant to be."""

LEAST_RATE: Final = 0.75
"""Of the machine's rate of matrix products, on the operations that Optrode counts in `grid-all`."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a contender needed for a job.

    Attributes:
        time_s: median over rounds.
        spread: fastest and slowest round.
        difference: largest absolute difference from plain PyTorch hooks, over all rounds; None if nothing was compared.
        n_compared: cells compared in the round that compared most.
        peak_mib, total_mib: memory that the job added, and that the process had then; the largest of all rounds.
        error: why there is no time.
    """

    contender: str
    time_s: float = 0.0
    spread: tuple[float, float] = (0.0, 0.0)
    difference: float | None = None
    n_compared: int = 0
    peak_mib: float = 0.0
    total_mib: float = 0.0
    way: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What was wanted, and what was found."""

    words: str
    found: str
    is_met: bool | None


def row(results: Results, job: str, contender: str) -> Row:
    """The rounds of one contender at one job. A peer's time for `grid` also holds for `grid-all`."""
    measured = job if contender == "optrode" else JOBS[job].same_as or job
    runs = [run for run in results["runs"] if (run["job"], run["contender"]) == (measured, contender)]
    fine = [run for run in runs if "error" not in run]
    if not fine:
        first = runs[0]["error"] if runs else results["contenders"].get(contender, {}).get("error") or "not measured"
        return Row(contender, error=first)
    times = [run["scaled_s"] for run in fine]
    differences = [run["difference"] for run in fine if run["difference"] is not None]
    return Row(
        contender, median(times), (min(times), max(times)), max(differences, default=None),
        max(run["n_compared"] for run in fine), max(run["peak_mib"] for run in fine),
        max(run["total_mib"] for run in fine), fine[0]["way"],
    )  # fmt: skip


def rows(results: Results, job: str) -> list[Row]:
    """All contenders at one job, Optrode first, then the fastest; those without a time last."""
    found = [row(results, job, name) for name in results["contenders"]]
    return sorted(found, key=lambda each: (each.contender != "optrode", bool(each.error), each.time_s))


def faster_rival(results: Results, job: str) -> Row | None:
    """The faster of TransformerLens and nnsight."""
    found = [each for each in rows(results, job) if each.contender in RIVALS and not each.error]
    return min(found, key=lambda each: each.time_s, default=None)


def counted_flops(work: dict[str, float], weights: dict[str, int]) -> float:
    """Floating-point operations of the linear layers of a sweep; attention, norms and recordings are left out."""
    tokens = work["token_layers"] * weights["block"] + work.get("kv_token_layers", 0) * weights["keys_values"]
    return 2.0 * (tokens + work.get("logits", 0) * weights["per_logit"])


def best_rate(results: Results) -> float | None:
    """The machine's best rate of matrix products, over shapes and repetitions."""
    return max((rate for rates in results["matmul"] for rate in rates.values()), default=None)


def achieved_rate(results: Results) -> float | None:
    """Median rate of Optrode on the operations that it counts in `grid-all`."""
    runs = [
        run for run in results["runs"]
        if (run["job"], run["contender"]) == ("grid-all", "optrode") and run.get("more", {}).get("work")
    ]  # fmt: skip
    rates = [counted_flops(run["more"]["work"], run["more"]["weights"]) / run["scaled_s"] for run in runs]
    return median(rates) if rates else None


def targets(results: Results) -> list[Target]:
    """Every target with what was found."""
    found = [_ratio_target(results, job, wanted) for job, wanted in RATIOS.items()]
    return [*found[:2], _rate_target(results), *found[2:], _record_target(results)]


def _ratio_target(results: Results, job: str, wanted: float) -> Target:
    own, rival = row(results, job, "optrode"), faster_rival(results, job)
    words = f"{job}: at least {wanted:g} times as fast as the faster of TransformerLens and nnsight"
    if own.error or rival is None:
        return Target(words, own.error or "no rival was measured", None)
    ratio = rival.time_s / own.time_s
    return Target(words, f"{ratio:.1f} times", ratio >= wanted)


def _rate_target(results: Results) -> Target:
    words = f"grid-all: at least {LEAST_RATE:.0%} of the machine's rate of matrix products, on counted operations"
    best, achieved = best_rate(results), achieved_rate(results)
    usual = max((rate for rates in results["matmul"] for name, rate in rates.items() if ONEDNN not in name), default=None)
    if best is None or achieved is None or usual is None:
        return Target(words, "not measured", None)
    share = achieved / best
    found = f"{share:.0%} of the best rate ({achieved / 1e9:.0f} of {best / 1e9:.0f} GFLOP/s, oneDNN)"
    return Target(words, f"{found}; {achieved / usual:.0%} of torch.mm's ({usual / 1e9:.0f})", share >= LEAST_RATE)


def _record_target(results: Results) -> Target:
    own, bare = row(results, "record", "optrode"), row(results, "record", "hooks")
    words = "record: at least as fast as a bare forward pass with PyTorch hooks that keep what they see"
    if own.error or bare.error:
        return Target(words, own.error or bare.error, None)
    ratio = bare.time_s / own.time_s
    return Target(words, f"{ratio:.2f} times ({bare.way})", ratio >= 1)
