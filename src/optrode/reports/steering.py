"""The page of an evaluation of steering: effect against cost with every control, doses, examples, side effects, gates.

The headline says as plainly that an effect is not above its controls as that it is, and every judge that was not validated
on the model's own texts carries its stamp wherever its scores stand.
"""

from collections.abc import Sequence
from typing import Any, Final

from optrode.claims import Chart, Line
from optrode.control.records import Condition, Evaluation, Example, GateQuality, JudgeRecord, Measure, SideEffect
from optrode.reports.blocks import code, facts, heading, paragraph, plot, table, text
from optrode.reports.charts import HEIGHT, MARGIN, STILL, chart_figure, chart_numbers, curve_trace
from optrode.reports.figures import LEGEND, Figure, layout_of
from optrode.reports.section import Section
from optrode.reports.steering_gates import gate_lead, gate_title, traces_html
from optrode.reports.words import capital, count, interval, number, short

STATUS: Final = {True: ("holds", "Above its controls"), False: ("fails", "Not above its controls"), None: ("", "")}
TONES: Final = {"steered": 0, "random": 6, "shuffled": 4, "prompt": 2, "plain": 5, "other": 7}
GROUPS: Final = {
    "steered": "steered", "plain": "plain (dose 0)", "random": "random vectors of equal norm",
    "shuffled": "shuffled labels", "prompt": "asked in words", "other": "other control",
}  # fmt: skip
COST: Final = "added NLL (nats per token)"
HOW: Final = (
    "Up is more of the concept, right is text that the model without gates finds less likely: added NLL is its negative "
    "log-likelihood there, minus that of plain text. Bars are 95 % bootstrap intervals over prompts. A text may fall apart "
    "while its judges are pleased: read the curve from the left."
)
PARTS: Final = (
    "Concept is the judge's score as a share of its scale; fluency is exp(−max(0, added NLL)), 0 where more than .3 of the "
    "bigrams are repeated; relevance is closeness to the prompt, 1 for plain text. The harmonic mean is 0 where one of "
    "them is."
)


def steering_title(evaluation: Evaluation) -> str:
    """The behaviour and the model."""
    return f"Steering {evaluation.behaviour} in {evaluation.provenance.model}"


def steering_lead(evaluation: Evaluation, title: str) -> str:
    """Heading, verdict, sentence, stamps and key figures."""
    kind, words = STATUS[evaluation.is_above_controls]
    badge = f'<p class="badge {kind}">{words}</p>' if words else ""
    return (
        f'<header><p class="eyebrow">Optrode report</p><h1>{text(title)}</h1>{badge}'
        f'<p class="headline">{text(sentence(evaluation))}</p>{stamps(evaluation.judges)}{facts(_key_figures(evaluation))}'
        "</header>"
    )


def title_of_control(evaluation: Evaluation | None, gate: GateQuality | None) -> str:
    """The title of a page of either record, or of both."""
    return steering_title(evaluation) if evaluation else gate_title(gate) if gate else ""


def lead_of_control(evaluation: Evaluation | None, gate: GateQuality | None, title: str) -> str:
    """The top of a page of either record; of both, that of the steering."""
    return steering_lead(evaluation, title) if evaluation else gate_lead(gate, title) if gate else ""


def sentence(evaluation: Evaluation) -> str:
    """What the control dose does, what its controls do, and what asking does."""
    judge, one = evaluation.judges[0].name, evaluation.control
    cost = f"{number(one.d_nll.mean)} nats per token"
    start = f"At dose {one.dose:g} the {judge} score changes by {_signed(one.gain[0])} at {cost}"
    parts = [_of_random(evaluation), _of_asking(evaluation)]
    return "; ".join([start, *(part for part in parts if part)]) + "."


def _of_random(evaluation: Evaluation) -> str:
    found = evaluation.of("random")
    if not found:
        return "no random vectors were measured, so chance is not ruled out"
    mean = sum(abs(one.gain[0].mean) for one in found) / len(found)
    return f"{count(len(found), 'random vector')} of equal norm by {number(mean)} either way on average"


def _of_asking(evaluation: Evaluation) -> str:
    asked = evaluation.of("prompt")
    if not asked:
        return ""
    return f"asking for it in words by {number(asked[0].gain[0].mean)} at {number(asked[0].d_nll.mean)}"


def _signed(measure: Measure) -> str:
    plus = "+" if measure.mean > 0 else ""
    return f"{plus}{number(measure.mean)} {interval(measure.interval)}"


def stamps(judges: Sequence[JudgeRecord]) -> str:
    """A warning for each judge that is not validated."""
    stamped = [f"{capital(one.name)}: {one.stamp}." for one in judges if one.stamp]
    return paragraph(" ".join(stamped), "warn") if stamped else ""


def _key_figures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    one = evaluation.control
    best = max(evaluation.of("plain", "steered"), key=lambda found: found.harmonic.mean)
    return [
        ("Concept gained", _signed(one.gain[0]).split(" [")[0], f"95 % {interval(one.gain[0].interval)}"),
        ("Cost", number(one.d_nll.mean), "nats per token"),
        ("Best harmonic mean", number(best.harmonic.mean), f"{best.name}; plain {number(evaluation.plain.harmonic.mean)}"),
        ("Judges agree", "–" if evaluation.agreement is None else number(evaluation.agreement), "Cohen's kappa"),
        ("Measured on", str(evaluation.n_prompts), f"prompts, {evaluation.n_new_tokens} tokens each"),
    ]


def steering_sections(evaluation: Evaluation | None) -> tuple[Section, ...]:
    """Effect against cost, doses, examples, side effects, traces, judges."""
    if evaluation is None:
        return ()
    found = (
        _curve(evaluation), _doses(evaluation), _examples(evaluation), _side_effects(evaluation), _traces(evaluation),
        _judges(evaluation),
    )  # fmt: skip
    return tuple(section for section in found if section is not None)


def _curve(evaluation: Evaluation) -> Section:
    blocks, figures = "", {}
    for ix, judge in enumerate(evaluation.judges):
        key = f"steering-{ix}"
        figures[key] = cost_figure(evaluation, ix)
        label = f"{capital(judge.name)} score against cost in language, steered and controls"
        stamp = f"{capital(judge.stamp)}." if judge.stamp else ""
        caption = f"{capital(judge.about)}. {stamp}"
        blocks += f'<div class="cell">{heading(capital(judge.name))}{plot(key, label, caption=caption, height=HEIGHT)}</div>'
    body = f'{paragraph(HOW)}<div class="row charts">{blocks}</div>{_notes(evaluation)}'
    return Section("effect", "Effect and cost", "Effect against cost", body, figures)


def _notes(evaluation: Evaluation) -> str:
    return paragraph(f"{capital('; '.join(evaluation.notes))}.", "muted") if evaluation.notes else ""


def cost_figure(evaluation: Evaluation, judge: int) -> Figure:
    """Concept score over cost: the doses as a line, every other condition as points."""
    traces = []
    for kind, name in GROUPS.items():
        found = evaluation.of(kind)  # type: ignore[arg-type]
        if kind == "steered":
            found = tuple(sorted(evaluation.of("plain", "steered"), key=lambda one: one.dose))
        if found:
            traces.append(_points(found, judge, name, TONES[kind], "lines+markers+text" if kind == "steered" else "markers"))
    xaxis: Figure = {"title": {"text": text(COST)}, **STILL}
    yaxis: Figure = {"title": {"text": text(evaluation.judges[judge].name)}, **STILL}
    layout = layout_of(xaxis=xaxis, yaxis=yaxis, margin=MARGIN)
    return {"data": traces, "layout": layout | {"showlegend": True, "legend": LEGEND}}


def _points(found: Sequence[Condition], judge: int, name: str, tone: int, mode: str) -> Figure:
    scores = [one.concept[judge] for one in found]
    arms: dict[str, Any] = {
        "type": "data", "symmetric": False, "array": [one.interval.high - one.mean for one in scores],
        "arrayminus": [one.mean - one.interval.low for one in scores], "thickness": 1, "width": 2,
    }  # fmt: skip
    labels: dict[str, Any] = {}
    if "text" in mode:
        words = [f"{one.dose:+g}".replace("-", "−") if one.dose else "" for one in found]
        labels = {"text": words, "textposition": "top right", "textfont": {"size": 11}, "cliponaxis": False}
    trace = curve_trace(
        [one.d_nll.mean for one in found], [one.mean for one in scores], name, tone, mode, True,
        error_y=arms, customdata=[text(one.name) for one in found], **labels,
    )  # fmt: skip
    return trace | {"hovertemplate": "<b>%{customdata}</b><br>score %{y:.3f} at %{x:.3f} nats<extra></extra>"}


def _doses(evaluation: Evaluation) -> Section:
    chart = _parts_chart(evaluation)
    names = [judge.name for judge in evaluation.judges]
    measured = ("added NLL", "repeated", "fluency", "relevance", "harmonic", "tokens")
    columns = ("condition", *names, f"change of {names[0]}", *measured)
    rows = [_row(evaluation, ix) for ix in range(len(evaluation.conditions))]
    front = "★ marks doses that no other dose beats in concept and cost at once (the Pareto front)."
    label = "Concept, fluency, relevance and their harmonic mean over doses"
    figure = plot("doses-parts", label, height=HEIGHT, caption=PARTS)
    listed = table(columns, rows, "Every condition, means over prompts with 95 % intervals", "numbers")
    body = figure + chart_numbers(chart) + listed + paragraph(front, "muted")
    return Section("doses", "Doses", "Doses and controls", body, {"doses-parts": chart_figure(chart)})


def _parts_chart(evaluation: Evaluation) -> Chart:
    found = sorted(evaluation.of("plain", "steered"), key=lambda one: one.dose)
    judge, doses = evaluation.judges[0], tuple(one.dose for one in found)
    width = (judge.high - judge.low) or 1.0
    share = tuple((one.concept[0].mean - judge.low) / width for one in found)
    lines = [
        Line("harmonic mean", doses, tuple(one.harmonic.mean for one in found)),
        Line(f"concept ({judge.name})", doses, share),
        Line("fluency", doses, tuple(one.fluency.mean for one in found)),
    ]
    if all(one.relevance is not None for one in found):
        lines.append(Line("relevance", doses, tuple(one.relevance.mean for one in found if one.relevance)))
    return Chart("Concept, fluency and relevance over doses", "dose", "share", tuple(lines))


def _row(evaluation: Evaluation, ix: int) -> tuple[str, ...]:
    one = evaluation.conditions[ix]
    star = " ★" if ix in evaluation.pareto else ""
    gain = "–" if one.kind == "plain" else text(_signed(one.gain[0]))
    return (
        f"{text(one.name)}{star}", *(_with_interval(score) for score in one.concept), gain, _with_interval(one.d_nll),
        number(one.rep2.mean), number(one.fluency.mean), number(one.relevance.mean) if one.relevance else "undefined",
        number(one.harmonic.mean), short(one.length.mean),
    )  # fmt: skip


def _with_interval(measure: Measure) -> str:
    return f"{number(measure.mean)} <small>{interval(measure.interval)}</small>"


def _examples(evaluation: Evaluation) -> Section | None:
    if not evaluation.examples:
        return None
    words = paragraph("The first test prompts, whatever was said to them; nothing is picked.", "muted")
    return Section("examples", "Examples", "Examples", words + "".join(map(_example, evaluation.examples)))


def _example(one: Example) -> str:
    sides = ((f"plain: {one.prompt}", one.plain), (f"dose {one.dose:g}", one.steered))
    cells = "".join(f'<div class="cell">{heading(title)}{paragraph(said or "(nothing)")}</div>' for title, said in sides)
    return f'<div class="row example">{cells}</div>'


def _side_effects(evaluation: Evaluation) -> Section | None:
    if not evaluation.side_effects:
        return None
    words = (
        "KL is between next-token distributions with and without gates, over what the plain model says to unrelated "
        "prompts; perplexity is of a fixed text that has nothing to do with the behaviour."
    )
    columns = ("dose", "KL on unrelated prompts (nats per token)", "perplexity of the held-out text", "plain")
    rows = [_side_row(one) for one in evaluation.side_effects]
    body = paragraph(words) + table(columns, rows, "Side effects of each dose", "numbers")
    return Section("side-effects", "Side effects", "Side effects", body)


def _side_row(one: SideEffect) -> tuple[str, ...]:
    return (f"{one.dose:g}", _with_interval(one.kl), short(one.perplexity), short(one.plain_perplexity))


def _traces(evaluation: Evaluation) -> Section | None:
    if not evaluation.traces:
        return None
    return Section("traces", "Gates over tokens", "Gates over tokens", traces_html(evaluation.traces))


def _judges(evaluation: Evaluation) -> Section:
    rows = [_judge_row(judge) for judge in evaluation.judges]
    columns = ("judge", "what it measures", "labelled texts", "balanced accuracy", "kappa with labels", "stamp")
    gates = "".join(f"<li>{code(gate)}</li>" for gate in evaluation.gates)
    held = f'{heading("Gates at the control dose")}<ul class="plain">{gates}</ul>'
    return Section("judges", "Judges", "Judges", table(columns, rows, "Who judged", "sources") + held)


def _judge_row(judge: JudgeRecord) -> tuple[str, ...]:
    found = judge.quality
    numbers = (str(found.n), number(found.balanced_accuracy), number(found.kappa)) if found else ("none", "–", "–")
    kind, words = ("holds", "validated") if judge.is_validated else ("fails", "unvalidated judge")
    why = judge.stamp.removeprefix("unvalidated judge: ")
    stamp = f'<span class="verdict {kind}">{text(words)}</span> <small>{text(why)}</small>'
    return (text(judge.name), text(judge.about), *numbers, stamp)
