"""A made-up evaluation and a made-up conditional gate, shaped like those of a small chat model."""

import math
import random

from optrode.circuit.circuit import Interval
from optrode.control.records import (
    Benefit,
    Condition,
    Evaluation,
    Example,
    GateQuality,
    GateScore,
    GateTest,
    JudgeQuality,
    JudgeRecord,
    Measure,
    SideEffect,
    TokenTrace,
)
from optrode.provenance import Provenance

N = 16
DOSES = (-0.35, -0.2, -0.1, 0.0, 0.1, 0.2, 0.35, 0.5)
GATE = "add tensor (576,) at blocks.20.resid_post[pos=1:], strength=0.2"
UNLABELLED = "unvalidated judge: no labelled texts were given"
HOSTILE = "<script>alert('x')</script> & \"quotes\""


def provenance(seed=0):
    versions = {"optrode": "0.1.0", "torch": "2.13.0", "python": "3.11.9"}
    date = "2026-11-20T10:11:12+00:00"
    return Provenance("smollm2", "cd" * 32, seed, versions, "x86_64, 2 cores", "python steer.py", date, 84.0, 900)


def measure(mean, spread=0.1, seed=0):
    rng = random.Random(f"{mean}{seed}")
    values = tuple(mean + rng.uniform(-1, 1) * spread for _ in range(N))
    return Measure(mean, Interval(mean - spread / 2, mean + spread / 2), values)


def condition(kind, name, dose, score, cost, seed=None, rep2=0.03):
    fluent = math.exp(-max(0.0, cost)) if rep2 <= 0.3 else 0.0
    share = (score + 1) / 2
    whole = 3 / (1 / share + 1 / fluent + 1 / 0.9) if fluent else 0.0
    concept = (measure(score, 0.2), measure((score + 1) / 2, 0.1))
    gain = (measure(score - 0.48, 0.2), measure((score - 0.48) / 2, 0.1))
    return Condition(
        kind, name, dose, seed, concept, gain, measure(0.9 + cost), measure(cost), measure(rep2, 0.02), measure(22.0, 4.0),
        measure(fluent), measure(0.9), measure(whole),
    )  # fmt: skip


def conditions(random_gain=0.0):
    scores = {-0.35: -0.3, -0.2: 0.1, -0.1: 0.3, 0.1: 0.6, 0.2: 0.76, 0.35: 0.75, 0.5: 0.6}
    steered = [
        condition("steered", f"dose {dose:g}", dose, scores[dose], 3 * dose * dose, rep2=0.4 if dose == 0.5 else 0.03)
        for dose in DOSES
        if dose
    ]
    drawn = [
        condition("random", f"random vector {ix + 1}", 0.2, 0.45 + 0.02 * ix + random_gain, 0.1 + 0.02 * ix, seed=ix)
        for ix in range(5)
    ]
    return (
        condition("plain", "plain", 0.0, 0.48, 0.0), *steered, *drawn,
        condition("shuffled", "shuffled labels", 0.2, 0.5, 0.08, seed=0),
        condition("prompt", "asked: Answer in a very happy mood.", 0.0, 0.65, 0.02),
        condition("prompt", "asked: Answer in a very sad mood.", 0.0, -0.16, 0.01),
    )  # fmt: skip


def judges(is_validated=True):
    good = JudgeQuality("VADER", 0.81, 0.91, 64, 30, "cd" * 32) if is_validated else None
    stamp = "" if is_validated else UNLABELLED
    return (
        JudgeRecord("VADER", "sentiment by a lexicon of words (compound score)", -1.0, 1.0, good, stamp),
        JudgeRecord("classifier", "probability of a positive mood", 0.0, 1.0, None, UNLABELLED),
    )


def trace():
    tokens = ("<|im_start|>", "user", "\n", "Tell", " me", "<b>", "\n", "A", " fine", " day", ".")
    openness = (0.0, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.0, 1.0, None)
    return TokenTrace("add at blocks.20.resid_post, by probe of blocks.10.resid_post", tokens, 7, openness)


def evaluation(random_gain=0.0, is_validated=True):
    examples = tuple(
        Example(f"Tell me about {what}.", f"{what.capitalize()} was there.", f"Oh, {what} was wonderful! {HOSTILE}", 0.2)
        for what in ("your morning", "a market", HOSTILE)
    )
    effects = tuple(SideEffect(dose, measure(4 * dose * dose), 20 + 30 * dose * dose, 20.0) for dose in DOSES if dose)
    return Evaluation(
        "sentiment", "how positive the mood of the text is", (GATE,), judges(is_validated), 0.62, N, 24, 0.2,
        conditions(random_gain), (1, 5, 6), effects, examples, (trace(),), (), provenance(),
    )  # fmt: skip


def gate_score(name, auc):
    low, high = max(0.0, auc - 0.06), min(1.0, auc + 0.05)
    at_1, at_5 = Interval(low - 0.3, high - 0.3), Interval(0.5, 0.9)
    return GateScore(name, auc, Interval(low, high), auc - 0.3, at_1, auc - 0.1, at_5, 0.0, 0.04)


def gate_quality(is_above=True):
    hard = Interval(0.02, 0.2) if is_above else Interval(-0.05, 0.1)
    names = ("the gate", "prompt length", "bag of words")
    easy_scores, hard_scores = (tuple(map(gate_score, names, aucs)) for aucs in ((0.99, 0.55, 0.9), (0.8, 0.5, 0.7)))
    tests = (
        GateTest("in domain", 24, 24, easy_scores, Interval(0.02, 0.2)),
        GateTest("same words, other meaning", 12, 12, hard_scores, hard),
    )
    benefits = (
        Benefit("always on", 1.0, 1.0, measure(0.3), measure(0.2), 1.0, 0.0),
        Benefit("gated", 0.95, 0.05, measure(0.28), measure(0.01), 0.93, 0.95),
        Benefit("random at equal open rate", 0.5, 0.5, measure(0.15), measure(0.1), 0.5, 0.5),
        Benefit("oracle", 1.0, 0.0, measure(0.3), measure(0.0), 1.0, 1.0),
    )
    gate = "add at blocks.20.resid_post, by probe of blocks.10.resid_post at the prompt's last, above 0.5"
    return GateQuality(gate, "when the request is about cooking", (20, 20), tests, benefits, (trace(),), provenance())
