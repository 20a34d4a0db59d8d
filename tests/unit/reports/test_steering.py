"""The page of steering says what was measured beside every control, stamps judges, and lets no text become markup."""

from dataclasses import replace

import plotly.graph_objects as go
import pytest
import steering_samples as samples

from optrode.reports.page import Page, report
from optrode.reports.steering import (
    lead_of_control,
    sentence,
    steering_lead,
    steering_sections,
    steering_title,
    title_of_control,
)
from optrode.reports.steering_gates import gate_lead, gate_sections, gate_sentence, gate_title


def page_of(evaluation, quality=None):
    title = steering_title(evaluation)
    return Page(title, steering_lead(evaluation, title), (*steering_sections(evaluation), *gate_sections(quality)))


def section(page, key):
    return next(one for one in page.sections if one.key == key)


@pytest.fixture(name="page", scope="module")
def _page():
    return page_of(samples.evaluation(), samples.gate_quality())


def test_sections_in_reading_order(page):
    assert [one.key for one in page.sections] == [
        "effect", "doses", "examples", "side-effects", "traces", "judges", "gate-quality", "benefit", "gate-traces",
    ]  # fmt: skip
    assert page.title == "Steering sentiment in smollm2"


def test_the_sentence_names_effect_cost_chance_and_asking():
    assert sentence(samples.evaluation()) == (
        "At dose 0.2 the VADER score changes by +0.28 [0.18, 0.38] at 0.12 nats per token; 5 random vectors of equal norm "
        "by 0.03 either way on average; asking for it in words by 0.17 at 0.02."
    )


def test_an_effect_that_random_vectors_have_too_is_said_not_to_be_above_them():
    found = samples.evaluation(random_gain=0.4)
    assert not found.is_above_controls
    lead = steering_lead(found, "x")
    assert "Not above its controls" in lead and 'class="badge fails"' in lead
    assert "Above its controls" in steering_lead(samples.evaluation(), "x")


def test_without_random_vectors_there_is_no_verdict():
    found = samples.evaluation()
    alone = replace(found, conditions=tuple(one for one in found.conditions if one.kind not in ("random", "shuffled")))
    lead = steering_lead(alone, "x")
    assert alone.is_above_controls is None and "badge" not in lead and "chance is not ruled out" in lead


def test_unvalidated_judges_are_stamped_wherever_their_scores_stand():
    page = page_of(samples.evaluation(is_validated=False))
    assert "VADER: unvalidated judge: no labelled texts were given." in page.lead
    assert page.sections[0].body.count("Unvalidated judge: no labelled texts were given.") == 2
    assert section(page, "judges").body.count("unvalidated judge") == 2
    validated = page_of(samples.evaluation())
    assert "VADER: unvalidated" not in validated.lead and "Classifier: unvalidated judge" in validated.lead
    assert '<span class="verdict holds">validated</span>' in section(validated, "judges").body


def test_figures_are_plotly_with_every_kind_of_condition(page):
    figures = {key: figure for one in page.sections for key, figure in one.figures.items()}
    assert set(figures) == {"steering-0", "steering-1", "doses-parts"}
    for figure in figures.values():
        go.Figure(data=figure["data"], layout=figure["layout"])
    names = [trace["name"] for trace in figures["steering-0"]["data"]]
    assert names == ["steered", "plain (dose 0)", "random vectors of equal norm", "shuffled labels", "asked in words"]
    steered = figures["steering-0"]["data"][0]
    assert len(steered["x"]) == len(samples.DOSES) and steered["text"][0] == "−0.35" and steered["text"][3] == ""
    assert len({trace["meta"]["role"] for trace in figures["steering-0"]["data"]}) == 5


def test_every_condition_has_a_row_with_its_interval(page):
    body = section(page, "doses").body
    for one in samples.conditions():
        assert f'<th scope="row">{one.name}' in body
    assert body.count(" ★") == 3 and "0.76 <small>[0.66, 0.86]</small>" in body


def test_undefined_relevance_is_said(page):
    found = samples.evaluation()
    bare = tuple(replace(one, relevance=None) for one in found.conditions)
    other = page_of(replace(found, conditions=bare, notes=("relevance is undefined: why",)))
    assert "Relevance is undefined: why." in other.sections[0].body and "undefined" in section(other, "doses").body
    assert len(section(other, "doses").figures["doses-parts"]["data"]) == 3
    assert len(section(page, "doses").figures["doses-parts"]["data"]) == 4


def test_no_text_becomes_markup(page):
    body = section(page, "examples").body
    assert "<script>" not in body and body.count("&lt;script&gt;") == 6
    traces = section(page, "traces").body
    assert "<b>&lt;" not in traces and "&lt;b&gt;" in traces


def test_tokens_are_shaded_by_openness_and_the_answer_is_marked(page):
    body = section(page, "traces").body
    assert body.count('class="tone-p4"') == 4 and 'title="not asked"' in body and 'title="open 0.70"' in body
    before, after = body.split('aria-label="the answer begins"')
    assert "user" in before and "day" in after


def test_what_was_not_measured_has_no_section():
    found = replace(samples.evaluation(), examples=(), side_effects=(), traces=())
    assert [one.key for one in page_of(found).sections] == ["effect", "doses", "judges"]
    assert steering_sections(None) == gate_sections(None) == ()


def test_a_gate_is_compared_with_words_and_length():
    good, bad = samples.gate_quality(), samples.gate_quality(is_above=False)
    assert "above the bag of words (0.70; difference [0.02, 0.20])" in gate_sentence(good)
    assert "In domain its AUC is 0.99, above" in gate_sentence(bad)
    assert "is 0.80, not above the bag of words" in gate_sentence(bad)
    body = gate_sections(bad)[0].body
    assert body.count("not above the bag of words") == 1 and body.count("prompt length") == 2
    assert gate_title(good) == "A gate that opens when the request is about cooking, in smollm2"
    assert "93 %" in gate_lead(good, "x") and "95 %" in gate_lead(good, "x")


def test_shares_of_no_effect_are_undefined():
    found = samples.gate_quality()
    none = replace(found, benefits=tuple(replace(one, kept=None, removed=None) for one in found.benefits))
    assert gate_sections(none)[1].body.count("undefined") == 8
    assert [one.key for one in gate_sections(replace(found, benefits=(), traces=()))] == ["gate-quality"]


def test_a_page_of_both_is_headed_by_the_steering():
    found, gate = samples.evaluation(), samples.gate_quality()
    assert title_of_control(found, gate) == title_of_control(found, None) == steering_title(found)
    assert title_of_control(None, gate) == gate_title(gate) and title_of_control(None, None) == ""
    assert lead_of_control(found, gate, "x") == steering_lead(found, "x")
    assert lead_of_control(None, gate, "x") == gate_lead(gate, "x") and lead_of_control(None, None, "x") == ""


def test_the_same_record_gives_the_same_page():
    one, same = (page_of(samples.evaluation(), samples.gate_quality()).html() for _ in range(2))
    assert one == same and "no-referrer" in one


def test_records_of_control_are_reported_like_all_others():
    page = report(samples.gate_quality(), samples.evaluation())
    assert page.title == "Steering sentiment in smollm2" and page.lead == steering_lead(samples.evaluation(), page.title)
    assert [one.key for one in page.sections][-1] == "provenance"
    assert "Gate quality" in page.sections[-1].body and report(samples.gate_quality()).title.startswith("A gate that opens")
