"""Conditional gates on a page: how well they know when to open, what that is worth, and tokens shaded by openness."""

from collections.abc import Sequence
from typing import Final

from optrode.control.records import Benefit, GateQuality, GateScore, GateTest, TokenTrace
from optrode.reports.blocks import code, facts, heading, paragraph, table, text
from optrode.reports.section import Section
from optrode.reports.words import capital, interval, number

TONES: Final = ("tone-z", "tone-p1", "tone-p2", "tone-p3", "tone-p4")
SHADES: Final = "Darker is more open. The bar stands between prompt and answer."
SCORE_COLUMNS: Final = ("score", "AUC", "found at 1 % false alarms", "found at 5 %", "false alarms got at 1 %", "at 5 %")
BENEFIT_COLUMNS: Final = (
    "gate", "open where wanted", "open where not", "effect where wanted", "added NLL where not", "effect kept",
    "damage removed",
)  # fmt: skip


def gate_title(found: GateQuality) -> str:
    """When the gate opens, and the model."""
    return f"A gate that opens {found.about}, in {found.provenance.model}"


def gate_lead(found: GateQuality, title: str) -> str:
    """Heading, the gate's AUC beside that of the words, key figures."""
    return (
        f'<header><p class="eyebrow">Optrode report</p><h1>{text(title)}</h1>'
        f'<p class="headline">{text(gate_sentence(found))}</p>{facts(_key_figures(found))}</header>'
    )


def gate_sentence(found: GateQuality) -> str:
    """How the gate does against the bag of words, on each set of prompts."""
    return " ".join(map(_about_test, found.tests)) or "The gate was tested on no prompts."


def _about_test(test: GateTest) -> str:
    gate = test.scores[0]
    words = next(score for score in test.scores if score.name == "bag of words")
    verdict = "above the bag of words" if test.is_above_words else "not above the bag of words"
    gap = f"difference {interval(test.above_words)}"
    return f"{capital(test.name)} its AUC is {number(gate.auc)}, {verdict} ({number(words.auc)}; {gap})."


def _key_figures(found: GateQuality) -> list[tuple[str, str, str]]:
    first = [(test.name, test.scores[0]) for test in found.tests]
    shown = [(f"AUC, {name}", number(score.auc), f"95 % {interval(score.auc_interval)}") for name, score in first]
    for gated in [one for one in found.benefits if one.name == "gated"]:
        shown += [("Effect kept", _share(gated.kept), "of always on")]
        shown += [("Damage removed", _share(gated.removed), "of always on")]
    return shown


def gate_sections(found: GateQuality | None) -> tuple[Section, ...]:
    """Quality, benefit, traces."""
    if found is None:
        return ()
    sections = [_quality(found)]
    if found.benefits:
        columns = BENEFIT_COLUMNS
        words = "Effect is on prompts at which the gate should open; damage is added NLL on the others."
        rows = [_benefit_row(one) for one in found.benefits]
        body = paragraph(words) + table(columns, rows, "Gated against ungated, random and perfect gates", "numbers")
        sections.append(Section("benefit", "Benefit", "What the gate is worth", body))
    if found.traces:
        sections.append(Section("gate-traces", "Over tokens", "The gate over tokens", traces_html(found.traces)))
    return tuple(sections)


def _quality(found: GateQuality) -> Section:
    n_target, n_benign = found.n_validation
    words = f"Thresholds were fixed on {n_target} + {n_benign} validation prompts and kept. "
    words += "The bag of words was fitted on the training prompts."
    body = paragraph(words) + f"<p>{code(found.gate)}</p>"
    for test in found.tests:
        rows = [_score_row(score) for score in test.scores]
        caption = f"{capital(test.name)}: {test.n_target} prompts at which it should open, {test.n_benign} others"
        body += heading(capital(test.name)) + table(SCORE_COLUMNS, rows, caption, "numbers") + _verdict(test)
    return Section("gate-quality", "Gate quality", "Does the gate know when to open?", body)


def _verdict(test: GateTest) -> str:
    kind, words = ("holds", "above the bag of words") if test.is_above_words else ("fails", "not above the bag of words")
    gap = f"difference of AUC, 95 % {interval(test.above_words)}"
    return f'<p><span class="verdict {kind}">{words}</span> <small>{text(gap)}</small></p>'


def _score_row(score: GateScore) -> tuple[str, ...]:
    def found(value: float, bounds: str) -> str:
        return f"{number(value)} <small>{bounds}</small>"

    return (
        text(score.name), found(score.auc, interval(score.auc_interval)), found(score.tpr_1, interval(score.tpr_1_interval)),
        found(score.tpr_5, interval(score.tpr_5_interval)), number(score.fpr_1), number(score.fpr_5),
    )  # fmt: skip


def _benefit_row(one: Benefit) -> tuple[str, ...]:
    effect, damage = (f"{number(m.mean)} <small>{interval(m.interval)}</small>" for m in (one.effect, one.damage))
    rates = (number(one.open_target), number(one.open_benign))
    return (text(one.name), *rates, effect, damage, _share(one.kept), _share(one.removed))


def _share(value: float | None) -> str:
    return "undefined" if value is None else f"{number(100 * value, 0)} %"


def traces_html(traces: Sequence[TokenTrace]) -> str:
    """Tokens shaded by how open a gate was, one strip per generation."""
    shown = "".join(f"{heading(trace.gate)}{_strip(trace)}" for trace in traces)
    ramp = '<span class="scale">closed <span class="ramp half" aria-hidden="true"></span> open</span>'
    return f'<div class="legend">{ramp}<span class="note">{text(SHADES)}</span></div>{shown}'


def _strip(trace: TokenTrace) -> str:
    cells = [_token(token, value) for token, value in zip(trace.tokens, trace.openness, strict=True)]
    bar = '<b aria-label="the answer begins">|</b>'
    return f'<div class="strip">{"".join(cells[: trace.n_prompt])}{bar}{"".join(cells[trace.n_prompt :])}</div>'


def _token(token: str, value: float | None) -> str:
    shade = TONES[0] if value is None else TONES[min(4, max(0, round(4 * value)))]
    about = "not asked" if value is None else f"open {value:.2f}"
    shown = token.replace("\n", "⏎").strip(" ") or "·"
    return f'<span class="{shade}" title="{about}">{text(shown)}</span>'
