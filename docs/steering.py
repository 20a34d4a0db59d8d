"""Steer the embedded model beside every control, and write docs/steering.md. Run by `make steering`.

Layer and dose are chosen on validation requests; everything on the page is measured on test requests.
"""
# ruff: noqa: T201

import sys
from pathlib import Path

import optrode as op
from optrode.control import demos
from optrode.control.gated import judge_condition
from optrode.control.records import Condition, Evaluation, GateQuality, Measure
from optrode.records import write_named

DOCS = Path(__file__).parent
FOLDER = Path("runs") / "steer"
SITES = ("blocks.14.resid_post", "blocks.20.resid_post")
DOSES = (0.1, 0.2)
GATED_DOSE = 0.2
N_TOKENS = 24
PAGE = """# Steering a language model

Written by `make steering` (`docs/steering.py`) on {machine}, Python {python}, torch {torch}, transformers {transformers};
SmolLM2-135M-Instruct (Q4_1, dequantised), weights {weights}; random seed {seed}; {time:.0f} s.

A direction of mood (difference of means over {data}) is added to the residual stream. Of blocks 14 and 20 and doses .1
and .2, validation requests chose **{site} at dose {dose:g}**: the best VADER score that costs at most .15 nats per token.
Measured on {n_prompts} other requests that nothing was chosen on, {n_tokens} greedy tokens each, without penalties on
repetition. In brackets 95 % bootstrap intervals over requests.

{table}

VADER: compound score of a lexicon, {vader}. Classifier: words of texts of ours, {classifier}. Cost: nats per token under
the model without gates, after the prompt that it was given. Repeats: share of bigrams of tokens that came before. Harmonic:
mean of concept, fluency and relevance as in AxBench.

{verdict} A first set of test requests, on which validation was allowed to cost .25 nats, had missed three bounds (block
14, dose .2: VADER +.46, but .36 nats; lowest with the opposite sign .05; random vectors .11 on average). Then the rule was
made stricter, and the requests were replaced.

## Under a condition

A logistic probe at {probe}, mean over the prompt without its first token, opens the gates (dose {gated_dose:g}) at
requests about cooking alone; its threshold lets 5 % of other validation requests pass.

{gate_table}

{benefit_table}

"Same words, other meaning" are words of cooking in other senses, and cooking without its words. Effect and damage: see
`optrode.control.gate_quality`. The sets are small: {n_target} and {n_benign} requests in domain.
"""


def row(one: Condition) -> str:
    """A condition as a line of the table."""
    cells = [interval(measure) for measure in (*one.concept, one.gain[0], one.d_nll)]
    return f"| {one.name} | {' | '.join(cells)} | {one.rep2.mean:.2f} | {one.harmonic.mean:.2f} |"


def interval(measure: Measure) -> str:
    """A mean with its interval."""
    return f"{measure.mean:.3f} [{measure.interval.low:.2f}, {measure.interval.high:.2f}]"


def table(found: Evaluation) -> str:
    """Every condition."""
    names = " | ".join(judge.name for judge in found.judges)
    head = f"| condition | {names} | change of VADER | cost | repeats | harmonic |\n|---|---|---|---|---|---|---|"
    return "\n".join([head, *map(row, found.conditions)])


def gate_tables(found: GateQuality) -> tuple[str, str]:
    """How well the gate tells requests, and what gating keeps and spares."""
    head = "| requests | score | AUC | opens at target | opens at others |\n|---|---|---|---|---|"
    lines = [
        f"| {test.name} | {one.name} | {one.auc:.3f} | {one.tpr_5:.2f} | {one.fpr_5:.2f} |"
        for test in found.tests for one in test.scores
    ]  # fmt: skip
    second = "| gate | open at target | open at others | effect kept | damage removed |\n|---|---|---|---|---|"
    rows = [
        f"| {one.name} | {one.open_target:.2f} | {one.open_benign:.2f} | {share(one.kept)} | {share(one.removed)} |"
        for one in found.benefits
    ]
    return "\n".join([head, *lines]), "\n".join([second, *rows])


def share(value: float | None) -> str:
    """A share, or nothing where it is not defined."""
    return "" if value is None else f"{value:.2f}"


def verdict(found: Evaluation) -> str:
    """The acceptance bounds, in words."""
    random = [abs(one.gain[0].mean) for one in found.of("random")]
    lowest = min(one.concept[0].mean for one in found.of("steered") if one.dose < 0)
    control = found.control
    return (
        "Asked for: VADER at least +.15 at a cost of at most .30, at most 0 with the opposite sign, random vectors at most "
        f".10 on average. Found: {control.gain[0].mean:+.3f} at {control.d_nll.mean:.3f}, {lowest:.3f}, "
        f"{sum(random) / len(random):.3f}."
    )


def main() -> int:
    """Fit, judge, write."""
    model, mood, trigger = op.load("smollm2"), demos.sentiment(), demos.cooking()
    fitted = op.control.fit(model, mood, sites=SITES, doses=DOSES, n_tokens=N_TOKENS)
    op.control.save_artefact(FOLDER / "sentiment", fitted.gates, fitted.card)
    dose = fitted.dose

    def steer(one: float) -> tuple[op.Gate, ...]:
        return (fitted.direction.gate(one),)

    found = op.control.evaluate(
        model, steer, mood, [-2 * dose, -dose, dose / 2, dose, 2 * dose], control_dose=dose,
        qualities=demos.sentiment_qualities(), n_tokens=N_TOKENS,
    )  # fmt: skip
    condition, gate = judge_condition(model, steer, mood, trigger, GATED_DOSE, n_tokens=N_TOKENS)
    write_named(FOLDER / "eval" / "evaluation.json", found)
    write_named(FOLDER / "eval" / "gate.json", gate)
    op.report(found, gate).save(FOLDER / "eval" / "report.html")
    source, versions, (gates, benefits) = found.provenance, found.provenance.versions, gate_tables(gate)
    validated = [
        "validated on 84 labelled texts of this model" if j.is_validated else f"**{j.stamp}**" for j in found.judges
    ]
    text = PAGE.format(
        machine=source.machine, python=versions["python"], torch=versions["torch"], transformers=versions["transformers"],
        weights=source.weights_hash[:12], seed=source.random_seed, time=source.time_s + gate.provenance.time_s,
        data=fitted.card.data.split(";")[0], site=fitted.direction.site, dose=dose, n_prompts=found.n_prompts,
        n_tokens=N_TOKENS, table=table(found), vader=validated[0], classifier=validated[1], verdict=verdict(found),
        probe=condition.direction.site, gated_dose=GATED_DOSE, gate_table=gates, benefit_table=benefits,
        n_target=len(trigger.test[0]), n_benign=len(trigger.test[1]),
    )  # fmt: skip
    (DOCS / "steering.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
