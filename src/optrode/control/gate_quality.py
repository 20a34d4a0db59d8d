"""How well a conditional gate knows when to open, and what it is worth: always beside what needs no model at all.

A gate whose AUC is not above that of a bag of words may have learned the words of its training prompts; the contrast set,
where the same words mean something else, is the honest test. Thresholds are fixed on validation prompts and then kept.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from optrode.circuit.circuit import Interval
from optrode.circuit.interval import draws, mean_interval
from optrode.control.behaviours import Behaviour, Trigger
from optrode.control.continuing import Continuation, continuations
from optrode.control.controls import Steer
from optrode.control.fluency import nll
from optrode.control.judges import word_classifier
from optrode.control.records import Benefit, GateQuality, GateScore, GateTest, Measure, TokenTrace
from optrode.control.tracing import traces_of
from optrode.errors import BadOption
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.provenance import provenance

Values = NDArray[np.float64]
Scorer = Callable[[Sequence[str]], Sequence[float]]
"""Requests -> [request] scores; higher: rather open."""

RATES: Final = (0.01, 0.05)
LENGTH: Final = "prompt length"
WORDS: Final = "bag of words"


def auc(positive: Values, negative: Values) -> float:
    """Area under the ROC curve: the share of pairs in which the positive scores higher; ties count half (Mann-Whitney)."""
    order = np.sort(negative)
    below, upto = np.searchsorted(order, positive, "left"), np.searchsorted(order, positive, "right")
    return float((below + upto).sum() / (2 * len(positive) * len(negative)))


def threshold_at(negative: Values, rate: float) -> float:
    """The least threshold that at most this share of the negative scores exceed."""
    n_above = int(np.floor(rate * len(negative) + 1e-9))
    return float(np.sort(negative)[len(negative) - 1 - n_above])


def quality(
    model: Model, gate: str, score: Scorer, trigger: Trigger, *, benefits: Sequence[Benefit] = (),
    traces: Sequence[TokenTrace] = (), random_seed: int = 0,
) -> GateQuality:  # fmt: skip
    """Score a gate on a trigger's prompts, beside their length and their words.

    Args:
        model: that the gate reads; for the provenance.
        gate: how it prints.
        score: of requests: a probe's, say. It must not have been fitted on validation, test or contrast requests.

    Raises:
        BadOption: scores that are not finite, or not one per request.
    """
    start = time.perf_counter()
    by_words = word_classifier(*trigger.train)
    scorers: dict[str, Scorer] = {
        "the gate": score,
        LENGTH: lambda asked: [float(len(model.to_tokens(one)[0])) for one in asked],
        WORDS: lambda asked: [float(p) for p in by_words.decision_function(list(asked))],
    }
    thresholds = {
        name: [threshold_at(_scores(one, name, trigger.validation[1]), rate) for rate in RATES]
        for name, one in scorers.items()
    }
    sets = {"in domain": trigger.test, "same words, other meaning": trigger.contrast}
    tests = [_test(name, pair, scorers, thresholds, random_seed) for name, pair in sets.items() if all(pair)]
    n_target, n_benign = (len(part) for part in trigger.validation)
    made = provenance(model.name, model.weights_hash, random_seed, time_s=time.perf_counter() - start)
    return GateQuality(
        gate, trigger.about, (n_target, n_benign), tuple(tests), tuple(benefits), tuple(traces), made
    )  # fmt: skip


def _scores(scorer: Scorer, name: str, asked: Sequence[str]) -> Values:
    found = np.asarray(scorer(asked), dtype=np.float64)
    if found.shape != (len(asked),) or not np.isfinite(found).all():
        what = f"{name} gave {found.shape} for {len(asked)} requests, {int((~np.isfinite(found)).sum())} not finite"
        raise BadOption("scores of a gate", what, next_step="give a function that returns one finite number per request")
    return found


def _test(
    name: str, pair: tuple[tuple[str, ...], tuple[str, ...]], scorers: Mapping[str, Scorer],
    thresholds: Mapping[str, Sequence[float]], random_seed: int,
) -> GateTest:  # fmt: skip
    target, benign = pair
    rows = {key: (_scores(one, key, target), _scores(one, key, benign)) for key, one in scorers.items()}
    drawn = draws(len(target), random_seed), draws(len(benign), random_seed + 1)
    resampled = {
        key: np.array([auc(high[one], low[two]) for one, two in zip(*drawn, strict=True)])
        for key, (high, low) in rows.items()
    }
    scores = [_score(key, *rows[key], resampled[key], thresholds[key], drawn[0]) for key in rows]
    gap = _percentiles(resampled["the gate"] - resampled[WORDS])
    return GateTest(name, len(target), len(benign), tuple(scores), gap)


def _score(
    name: str, target: Values, benign: Values, resampled: Values, thresholds: Sequence[float], drawn: NDArray[np.int64]
) -> GateScore:
    (tpr_1, at_1, fpr_1), (tpr_5, at_5, fpr_5) = [
        ((target > t).mean(), mean_interval((target > t).astype(float).tolist(), drawn), (benign > t).mean())
        for t in thresholds
    ]
    return GateScore(
        name, auc(target, benign), _percentiles(resampled), float(tpr_1), at_1, float(tpr_5), at_5, float(fpr_1),
        float(fpr_5),
    )  # fmt: skip


def _percentiles(values: Values) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))


def benefits_of(
    model: Model, behaviour: Behaviour, trigger: Trigger, steer: Steer, gated: Steer,
    opened: Callable[[Sequence[str]], Sequence[bool]], dose: float | int, *, n_tokens: int = 32, random_seed: int = 0,
) -> tuple[Benefit, ...]:  # fmt: skip
    """What the gate keeps of the effect on target requests, and spares on benign ones.

    Plain, always-on and gated texts are generated. An oracle chooses between the plain and the always-on text of each row,
    which is what a gate that is latched on the prompt does, since rows are independent; of a random gate of equal open rate
    the expected values are told.

    Args:
        behaviour: its first judge scores the effect.
        trigger: whose test requests are used.
        steer, gated: dose -> gates that are always open, and those under the condition.
        opened: requests -> whether the gate was open at each, for the open rates.

    Raises:
        Everything that `op.gates` raises.
    """
    requests = (*trigger.test[0], *trigger.test[1])
    is_target = np.arange(len(requests)) < len(trigger.test[0])
    prompts = behaviour.prompts(model, requests)
    said = {
        name: continuations(model, prompts, gates, n_tokens=n_tokens)
        for name, gates in (("plain", ()), ("always on", tuple(steer(dose))), ("gated", tuple(gated(dose))))
    }
    outcome = {name: _outcome(model, behaviour, texts, requests) for name, texts in said.items()}
    is_open = np.asarray(opened(requests), dtype=bool)
    rate = np.full(len(requests), is_open.mean())
    change = outcome["always on"] - outcome["plain"]
    found = {
        "always on": (np.ones(len(requests)), change),
        "gated": (is_open.astype(float), outcome["gated"] - outcome["plain"]),
        "random at equal open rate": (rate, rate * change),
        "oracle": (is_target.astype(float), is_target * change),
    }
    return _benefits(found, is_target, random_seed)


def _outcome(
    model: Model, behaviour: Behaviour, said: Sequence[Continuation], requests: Sequence[str]
) -> NDArray[np.float64]:
    """[concept or nll, request] of what was said."""
    return np.array([behaviour.judges[0].score([one.text for one in said], requests), nll(model, said)])


def _benefits(
    changes: Mapping[str, tuple[Values, Values]], is_target: NDArray[np.bool_], random_seed: int
) -> tuple[Benefit, ...]:
    measured = {
        name: (rate, _measure(change[0, is_target], random_seed), _measure(change[1, ~is_target], random_seed))
        for name, (rate, change) in changes.items()
    }
    _, effect, damage = measured["always on"]
    return tuple(
        Benefit(
            name, float(rate[is_target].mean()), float(rate[~is_target].mean()), kept, hurt,
            kept.mean / effect.mean if effect.mean > 0 else None, 1 - hurt.mean / damage.mean if damage.mean > 0 else None,
        )
        for name, (rate, kept, hurt) in measured.items()
    )  # fmt: skip


def _measure(values: NDArray[np.float64], random_seed: int) -> Measure:
    listed = [float(value) for value in values]
    return Measure(float(np.mean(listed)), mean_interval(listed, draws(len(listed), random_seed)), tuple(listed))


def open_at(model: Model, gates: Sequence[Gate], prompts: Sequence[str]) -> tuple[bool, ...]:
    """[prompt] whether any of the gates was more than half open at the first generated token."""
    found = []
    for prompt in prompts:
        traces = traces_of(model, gates, [prompt], n_tokens=2)
        found.append(any((trace.openness[trace.n_prompt - 1] or 0.0) > 0.5 for trace in traces))
    return tuple(found)
