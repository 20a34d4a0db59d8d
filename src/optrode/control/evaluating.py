"""Evaluation of steering that cannot flatter: every dose with its cost in language, beside what should not work.

Always measured: dose 0, the opposite sign, random vectors of equal norm, a vector from shuffled labels, and asking for the
behaviour in words. All texts are greedy, without penalties on repetition, which would hide that a text falls apart.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from optrode.circuit.interval import Draws, draws, mean_interval
from optrode.control.behaviours import Behaviour
from optrode.control.continuing import Continuation, continuations
from optrode.control.controls import N_RANDOM, Control, Steer, controls_of
from optrode.control.fluency import fluency, harmonic, kl_to_plain, nll, perplexity, relevance, repeated_bigrams
from optrode.control.judges import Judge, by_name, kappa
from optrode.control.records import (
    Condition,
    Evaluation,
    Example,
    JudgeQuality,
    Kind,
    Measure,
    SideEffect,
    pareto,
)
from optrode.control.tracing import traces_of
from optrode.errors import BadOption
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.run import Progress, no_progress

DOSES: Final = (-0.35, -0.2, -0.1, 0.0, 0.05, 0.1, 0.2, 0.35, 0.5)
N_EXAMPLES: Final = 6
N_TRACES: Final = 4


def evaluate(
    model: Model, steer: Steer, behaviour: Behaviour, doses: Sequence[float | int] = DOSES, *,
    control_dose: float | int | None = None, controls: Sequence[Control] = (), qualities: Sequence[JudgeQuality] = (),
    n_tokens: int = 48, n_random: int = N_RANDOM, random_seed: int = 0, progress: Progress = no_progress,
) -> Evaluation:  # fmt: skip
    """Steer with several doses, and measure concept, fluency, relevance and side effects beside the controls.

    Args:
        steer: dose -> gates; those of dose 0 are never asked for, as that is plain generation.
        doses: dose 0 and the opposite of the control dose are added where they are missing.
        behaviour: tested on its test requests. Choose layer and dose with `behaviour.for_choosing()`, never on these.
        control_dose: at which controls are measured; by default the positive dose with the best harmonic mean.
        controls: of your own, beside (or, for gates that do not add vectors, instead of) random and shuffled vectors.
        qualities: of judges (`validate`); without one of this model a judge is stamped as unvalidated.
        n_tokens: most new tokens of each text.
        n_random: random vectors.
        random_seed: of random vectors, shuffled labels and bootstrap draws.

    Raises:
        BadOption: a dose that is NaN or infinite, no positive dose, no request, or gates for which there is no control.
        Everything that `op.gates` raises.
    """
    wanted = _checked(doses, control_dose)
    run = _Run(model, behaviour, n_tokens, random_seed, progress)
    start = time.perf_counter()
    own = any(one.kind == "random" for one in controls)
    run.n_all = len(wanted) + (0 if own else n_random + 1) + len(controls) + len(_instructions(behaviour))
    plain = run.texts("plain", "plain", 0.0, ())
    steered = [run.steered(steer, dose) for dose in wanted if dose]
    chosen = float(control_dose) if control_dose is not None else run.best([plain, *steered])
    if -chosen not in wanted:
        run.n_all += 1
        steered.append(run.steered(steer, -chosen))
    steered.sort(key=lambda one: one.dose)
    made = () if own else controls_of(model, steer, behaviour.contrast(model), random_seed, n_random)
    others = [run.texts(one.kind, one.name, chosen, one.steer(chosen), one.random_seed) for one in (*made, *controls)]
    asked = [run.texts("prompt", f"asked: {words}", 0.0, (), None, words) for words in _instructions(behaviour)]
    every = [plain, *steered, *others, *asked]
    conditions, notes = run.conditions(every)
    gates = tuple(steer(chosen))
    return Evaluation(
        behaviour=behaviour.name,
        about=behaviour.about,
        gates=tuple(str(gate) for gate in gates),
        judges=tuple(one.record(by_name(qualities).get(one.name), model.weights_hash) for one in behaviour.judges),
        agreement=run.agreement(every),
        n_prompts=len(run.requests),
        n_new_tokens=n_tokens,
        control_dose=chosen,
        conditions=conditions,
        pareto=_pareto(conditions),
        side_effects=run.side_effects(steer, [one.dose for one in steered]),
        examples=run.examples(plain, next(one for one in steered if one.dose == chosen)),
        traces=traces_of(model, gates, run.prompts[:N_TRACES], n_tokens=n_tokens),
        notes=notes,
        provenance=provenance(
            model.name, model.weights_hash, random_seed, time_s=time.perf_counter() - start, n_passes=run.n_passes
        ),
    )  # fmt: skip


def _checked(doses: Sequence[float | int], control_dose: float | int | None) -> tuple[float, ...]:
    given = [*doses, *([] if control_dose is None else [control_dose])]
    for dose in given:
        if not math.isfinite(dose):
            raise BadOption(f"evaluate at dose {dose}", "it is not a finite number", next_step="give finite doses")
    found = sorted({0.0, *map(float, given)})
    if found[-1] <= 0 or control_dose is not None and not control_dose > 0:
        raise BadOption(f"evaluate at doses {list(doses)}", "controls need a positive dose", next_step="give one above 0")
    return tuple(found)


def _instructions(behaviour: Behaviour) -> tuple[str, ...]:
    return tuple(words for words in (behaviour.instruction, behaviour.opposite_instruction) if words)


def _pareto(conditions: Sequence[Condition]) -> tuple[int, ...]:
    """Places in the conditions; fewer nats than plain text count as none, since degenerate text is likely text."""
    places = [ix for ix, one in enumerate(conditions) if one.kind in ("plain", "steered")]
    points = [(conditions[ix].concept[0].mean, max(0.0, conditions[ix].d_nll.mean)) for ix in places]
    return tuple(places[ix] for ix in pareto(points))


_Scores = Sequence[Sequence[float]]


def _less(values: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    return tuple(value - other for value, other in zip(values, others, strict=True))


@final
@dataclass(frozen=True, eq=False)
class _Texts:
    """What was said under one condition."""

    kind: Kind
    name: str
    dose: float
    random_seed: int | None
    said: tuple[Continuation, ...]
    nll: tuple[float, ...]

    @property
    def texts(self) -> list[str]:
        return [one.text for one in self.said]


@final
class _Run:
    """Generates under each condition, and makes numbers of what was said."""

    def __init__(
        self, model: Model, behaviour: Behaviour, n_tokens: int, random_seed: int, progress: Progress
    ) -> None:
        self.model, self.behaviour, self.requests, self.n_tokens = model, behaviour, behaviour.test, n_tokens
        self.prompts = behaviour.prompts(model, behaviour.test)
        self.drawn: Draws = draws(len(behaviour.test), random_seed)
        self.progress, self.n_done, self.n_all, self.n_passes = progress, 0, 0, 0

    def steered(self, steer: Steer, dose: float) -> _Texts:
        """Texts at a dose."""
        return self.texts("steered", f"dose {dose:g}", dose, steer(dose))

    def texts(
        self, kind: Kind, name: str, dose: float, gates: Sequence[Gate], random_seed: int | None = None, words: str = ""
    ) -> _Texts:
        """Generate, and see how likely it is to the model without gates."""
        prompts = self.behaviour.prompts(self.model, self.requests, words) if words else self.prompts
        said = continuations(self.model, prompts, gates, n_tokens=self.n_tokens)
        self.n_done += 1
        self.n_passes += max(len(one.ids) for one in said) + 1
        self.progress("steering", self.n_done, self.n_all)
        return _Texts(kind, name, dose, random_seed, said, nll(self.model, said))

    def best(self, measured: Sequence[_Texts]) -> float:
        """The positive dose with the best harmonic mean."""
        conditions, _ = self.conditions(measured)
        return max((one for one in conditions if one.dose > 0), key=lambda one: one.harmonic.mean).dose

    def conditions(self, measured: Sequence[_Texts]) -> tuple[tuple[Condition, ...], tuple[str, ...]]:
        """All conditions, the first one being plain, and what could not be measured."""
        plain = measured[0]
        said = [[judge.score(one.texts, self.requests) for judge in self.behaviour.judges] for one in measured]
        close = [relevance(one.texts, plain.texts, self.requests) for one in measured]
        note = "relevance is undefined: plain texts are no closer to their own prompts than to others"
        made = [
            self._condition(one, scores, said[0], plain, relevant)
            for one, scores, relevant in zip(measured, said, close, strict=True)
        ]
        return tuple(made), (note,) if close[0] is None else ()

    def _condition(
        self, one: _Texts, scores: _Scores, before: _Scores, plain: _Texts, relevant: tuple[float, ...] | None
    ) -> Condition:
        d_nll = _less(one.nll, plain.nll)
        rep2 = tuple(repeated_bigrams(said.ids) for said in one.said)
        fluent = tuple(map(fluency, d_nll, rep2))
        shares = [_share(self.behaviour.judges[0], score) for score in scores[0]]
        parts = [shares, fluent, *([relevant] if relevant is not None else [])]
        return Condition(
            one.kind, one.name, one.dose, one.random_seed,
            concept=tuple(map(self.measure, scores)),
            gain=tuple(self.measure(_less(now, then)) for now, then in zip(scores, before, strict=True)),
            nll=self.measure(one.nll),
            d_nll=self.measure(d_nll),
            rep2=self.measure(rep2),
            length=self.measure([float(len(said.ids)) for said in one.said]),
            fluency=self.measure(fluent),
            relevance=None if relevant is None else self.measure(relevant),
            harmonic=self.measure([harmonic(*row) for row in zip(*parts, strict=True)]),
        )  # fmt: skip

    def measure(self, values: Sequence[float]) -> Measure:
        """Values of the prompts with their mean and its interval."""
        return Measure(float(np.mean(values)), mean_interval(values, self.drawn), tuple(values))

    def agreement(self, measured: Sequence[_Texts]) -> float | None:
        """Cohen's kappa of the first two judges over everything that was said."""
        if len(self.behaviour.judges) < 2:
            return None
        texts = [text for one in measured for text in one.texts]
        first, second = (judge.says(texts, list(self.requests) * len(measured)) for judge in self.behaviour.judges[:2])
        return kappa(first, second)

    def side_effects(self, steer: Steer, doses: Sequence[float]) -> tuple[SideEffect, ...]:
        """KL on unrelated prompts, and the perplexity of the held-out text; empty without either."""
        about, model = self.behaviour, self.model
        if not about.unrelated or not about.held_out:
            return ()
        asked = about.prompts(model, about.unrelated)
        said = continuations(model, asked, n_tokens=self.n_tokens)
        own, drawn = perplexity(model, about.held_out), draws(len(said), 0)
        found = []
        for dose in doses:
            gates = tuple(steer(dose))
            kl = kl_to_plain(model, gates, said)
            measured = Measure(float(np.mean(kl)), mean_interval(kl, drawn), kl)
            found.append(SideEffect(dose, measured, perplexity(model, about.held_out, gates), own))
            self.progress("side effects", len(found), len(doses))
        return tuple(found)

    def examples(self, plain: _Texts, steered: _Texts) -> tuple[Example, ...]:
        """The first prompts, whatever was said to them."""
        pairs = zip(self.requests, plain.texts, steered.texts, strict=True)
        return tuple(Example(asked, own, other, steered.dose) for asked, own, other in list(pairs)[:N_EXAMPLES])


def _share(judge: Judge, score: float) -> float:
    """A score as a share of the judge's scale."""
    low, high = judge.scale
    return min(1.0, max(0.0, (score - low) / (high - low)))
