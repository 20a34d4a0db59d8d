"""What an evaluation of steering leaves behind: plain records, free of torch, that pages and tables are made of.

Nothing here is a verdict. What cannot be measured is None, and a judge that was not validated says so itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from optrode.circuit.circuit import Interval
from optrode.provenance import Provenance

Kind = Literal["plain", "steered", "random", "shuffled", "prompt", "other"]
"""What is steered with: nothing; the direction; a random or shuffled-label vector; words in the prompt; another control."""

LEAST_LABELS: Final = 60
LEAST_ACCURACY: Final = 0.85
"""From when on a judge counts as validated: labelled texts of the same model, balanced accuracy on them."""


@final
@dataclass(frozen=True)
class Measure:
    """A number per prompt, and their mean.

    Attributes:
        mean: over the prompts.
        interval: 95 % bootstrap percentile interval of the mean over prompts.
        per_prompt: [prompt].
    """

    mean: float
    interval: Interval
    per_prompt: tuple[float, ...]


@final
@dataclass(frozen=True)
class JudgeQuality:
    """How far a judge agrees with labels.

    Attributes:
        judge: its name.
        kappa: Cohen's kappa of the judge's yes or no with the labels.
        balanced_accuracy: mean of the shares found of the two classes.
        n: labelled texts.
        n_positive: of them.
        weights_hash: SHA-256 of the model that wrote the texts; empty where they are not of one model.
    """

    judge: str
    kappa: float
    balanced_accuracy: float
    n: int
    n_positive: int
    weights_hash: str = ""


@final
@dataclass(frozen=True)
class JudgeRecord:
    """A judge as it was used.

    Attributes:
        name: of the judge.
        about: what it measures, in a sentence.
        low, high: its scale; concept scores are shares of it.
        quality: its validation on texts of the model evaluated, or on others, or None.
        stamp: why it counts as unvalidated; empty where it is validated.
    """

    name: str
    about: str
    low: float
    high: float
    quality: JudgeQuality | None
    stamp: str

    @property
    def is_validated(self) -> bool:
        """Whether enough labelled texts of the same model agree with it."""
        return not self.stamp


@final
@dataclass(frozen=True)
class Condition:
    """One way of generating, on every prompt.

    Attributes:
        kind: what was steered with.
        name: as it is shown.
        dose: handed to the steering; 0 for plain generation and for prompting.
        random_seed: of a random or shuffled vector, else None.
        concept: one per judge, on the judge's own scale.
        gain: `concept` minus that of plain generation, prompt by prompt; one per judge.
        nll: of the continuation, nats per token, under the model without gates, after the prompt that it was given.
        d_nll: `nll` minus that of plain generation, prompt by prompt.
        rep2: share of bigrams of tokens that occurred before in the same continuation.
        length: tokens to the end, the end token counted; at most as many as were allowed.
        fluency: exp(-max(0, d_nll)); 0 where rep2 > .3.
        relevance: closeness to the prompt: 1 as close as plain text is, 0 as far as from other prompts; None: undefined.
        harmonic: harmonic mean of the concept's share of its scale (first judge), fluency and relevance; 0 if any is 0.
    """

    kind: Kind
    name: str
    dose: float
    random_seed: int | None
    concept: tuple[Measure, ...]
    gain: tuple[Measure, ...]
    nll: Measure
    d_nll: Measure
    rep2: Measure
    length: Measure
    fluency: Measure
    relevance: Measure | None
    harmonic: Measure


@final
@dataclass(frozen=True)
class SideEffect:
    """What a dose does where nothing was asked of it.

    Attributes:
        dose: of the steering.
        kl: KL(steered || plain) in nats per token, over what the plain model says to unrelated prompts.
        perplexity: of a fixed held-out text under the steered model.
        plain_perplexity: the same without gates.
    """

    dose: float
    kl: Measure
    perplexity: float
    plain_perplexity: float


@final
@dataclass(frozen=True)
class Example:
    """What was said to one prompt, plainly and steered."""

    prompt: str
    plain: str
    steered: str
    dose: float


@final
@dataclass(frozen=True)
class TokenTrace:
    """How far one gate was open at each token of one generation.

    Attributes:
        gate: as it prints.
        tokens: of prompt and continuation, as they are shown.
        n_prompt: how many of them are the prompt's.
        openness: of the gate at each token; None where it was not asked.
    """

    gate: str
    tokens: tuple[str, ...]
    n_prompt: int
    openness: tuple[float | None, ...]


@final
@dataclass(frozen=True)
class Evaluation:
    """Steering towards one behaviour, with its cost, its side effects and its controls.

    Attributes:
        behaviour, about: its name, and what it is in a sentence.
        gates: that steer at the control dose, as they print.
        judges: in the order of `Condition.concept`.
        agreement: Cohen's kappa between the yes or no of the first two judges over all texts; None with one judge.
        n_prompts, n_new_tokens: test prompts; most tokens generated for each.
        control_dose: at which random and shuffled vectors were measured, with equal norm.
        conditions: plain first, then doses in ascending order, then controls, then prompting.
        pareto: places in `conditions` of the doses that no other dose beats in both concept (first judge) and d_nll.
        side_effects: of each dose.
        examples: at the control dose.
        traces: of gates, where any is not always open.
        notes: what could not be measured, and why.
        provenance: model, seed, versions, time.
    """

    behaviour: str
    about: str
    gates: tuple[str, ...]
    judges: tuple[JudgeRecord, ...]
    agreement: float | None
    n_prompts: int
    n_new_tokens: int
    control_dose: float
    conditions: tuple[Condition, ...]
    pareto: tuple[int, ...]
    side_effects: tuple[SideEffect, ...]
    examples: tuple[Example, ...]
    traces: tuple[TokenTrace, ...]
    notes: tuple[str, ...]
    provenance: Provenance

    @property
    def plain(self) -> Condition:
        """Generation without gates."""
        return self.conditions[0]

    def of(self, *kinds: Kind) -> tuple[Condition, ...]:
        """The conditions of some kinds."""
        return tuple(one for one in self.conditions if one.kind in kinds)

    def at(self, dose: float | int) -> Condition:
        """The steered (or, for 0, plain) condition of a dose. Raises KeyError if it was not measured."""
        found = [one for one in self.of("plain", "steered") if one.dose == dose]
        if not found:
            raise KeyError(f"dose {dose} is none of {', '.join(f'{one.dose:g}' for one in self.of('plain', 'steered'))}")
        return found[0]

    @property
    def control(self) -> Condition:
        """The steered condition that the controls are of equal norm to."""
        return self.at(self.control_dose)

    @property
    def is_above_controls(self) -> bool | None:
        """Whether the gain (first judge) is above zero with its interval, and above the size of that of every vector that
        should have none; None without such vectors.
        """
        others = [abs(one.gain[0].mean) for one in self.of("random", "shuffled")]
        gain = self.control.gain[0]
        return gain.interval.low > 0 and gain.mean > max(others) if others else None


@final
@dataclass(frozen=True)
class GateScore:
    """How well one score tells the prompts at which a gate should open from the rest, on test prompts.

    Attributes:
        name: "the gate", "prompt length", "bag of words".
        auc: area under the ROC curve; ties count half.
        auc_interval: 95 % bootstrap interval, classes resampled apart.
        tpr_1, tpr_5: share found, at thresholds that 1 % and 5 % of validation's benign prompts exceed.
        tpr_1_interval, tpr_5_interval: 95 % bootstrap intervals, with the thresholds as they are.
        fpr_1, fpr_5: share of benign test prompts that exceed those thresholds: what was got where 1 % and 5 % were asked.
    """

    name: str
    auc: float
    auc_interval: Interval
    tpr_1: float
    tpr_1_interval: Interval
    tpr_5: float
    tpr_5_interval: Interval
    fpr_1: float
    fpr_5: float


@final
@dataclass(frozen=True)
class GateTest:
    """Scores on one set of test prompts.

    Attributes:
        name: of the set, "in domain" or "same words, other meaning".
        n_target, n_benign: its prompts.
        scores: the gate's first.
        above_words: gate's AUC minus that of the bag of words, 95 % bootstrap interval over the same prompts.
    """

    name: str
    n_target: int
    n_benign: int
    scores: tuple[GateScore, ...]
    above_words: Interval

    @property
    def is_above_words(self) -> bool:
        """Whether the gate sees more than which words there are."""
        return self.above_words.low > 0


@final
@dataclass(frozen=True)
class Benefit:
    """What a gate keeps of the steering where it is wanted, and spares where it is not.

    Attributes:
        name: "always on", "gated", "random at equal open rate", "oracle".
        open_target, open_benign: share of prompts at which it was open.
        effect: concept on target prompts minus plain, on the judge's scale.
        damage: d_nll on benign prompts, nats per token.
        kept: share of the effect of "always on"; None where that is not above zero.
        removed: share of the damage of "always on" that is gone; None where there was none.
    """

    name: str
    open_target: float
    open_benign: float
    effect: Measure
    damage: Measure
    kept: float | None
    removed: float | None


@final
@dataclass(frozen=True)
class GateQuality:
    """A conditional gate, beside what needs no model: the prompt's length and words.

    Attributes:
        gate: as it prints.
        about: when it should open.
        n_validation: target and benign prompts that thresholds and the bag of words were fixed on.
        tests: one per set of test prompts.
        benefits: of gating, or empty.
        traces: over tokens, or empty.
        provenance: of the measurement.
    """

    gate: str
    about: str
    n_validation: tuple[int, int]
    tests: tuple[GateTest, ...]
    benefits: tuple[Benefit, ...]
    traces: tuple[TokenTrace, ...]
    provenance: Provenance


def stamp_of(quality: JudgeQuality | None, weights_hash: str, is_never_valid: bool = False) -> str:
    """Why a judge counts as unvalidated for a model; empty where it is validated."""
    if is_never_valid:
        return "unvalidated judge: it looks for substrings, which is no judgement"
    if quality is None:
        return "unvalidated judge: no labelled texts were given"
    if quality.weights_hash != weights_hash:
        return "unvalidated judge: its labelled texts are not of this model"
    if quality.n < LEAST_LABELS:
        return f"unvalidated judge: {quality.n} labelled texts, {LEAST_LABELS} are needed"
    if not quality.balanced_accuracy >= LEAST_ACCURACY:
        return f"unvalidated judge: balanced accuracy {quality.balanced_accuracy:.2f}, {LEAST_ACCURACY:g} is needed"
    return ""


def pareto(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Places of the (concept, cost) points that no other one beats in one without being worse in the other."""

    def is_beaten(ix: int) -> bool:
        concept, cost = points[ix]
        return any(c >= concept and k <= cost and (c > concept or k < cost) for c, k in points)

    return tuple(ix for ix in range(len(points)) if not is_beaten(ix))
