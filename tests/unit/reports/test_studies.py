"""A study's page: what came of the claims is said in one sentence, and every number stands in the table."""

import html
import re
from dataclasses import replace

import pytest
import study_samples as samples
import training_samples

from optrode.claims import Bounds, Measured, find
from optrode.errors import BadOption
from optrode.reports import report
from optrode.reports.folder import read_run, write_run
from optrode.reports.strips import strip
from optrode.reports.studies import QUICK, duration, outcome, verdict_html

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(name="study", scope="module")
def _study():
    return samples.study_run()


def plain(page):
    """What a page says, as text."""
    body = re.sub(r"<script.*?</script>|<style.*?</style>", "", page.html(), flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", " ", body))


def test_sections_in_reading_order(study):
    page = report(samples.figures(), study)
    assert [section.key for section in page.sections] == ["claims", "figures", "notes", "provenance"]
    assert page.title == samples.PAPER.title and page.html() == report(study, samples.figures()).html()


def test_the_outcome_is_one_sentence(study):
    assert outcome(study) == "5 of 8 claims hold, 1 in part, 1 not at this size, 1 not measured."
    first = replace(study, claims=study.claims[:1], findings=study.findings[:1])
    assert outcome(first) == "1 of 1 claim holds."
    last = replace(study, claims=study.claims[6:7], findings=study.findings[6:7])
    assert outcome(last) == "None of 1 claim holds, 1 not at this size."
    assert outcome(replace(study, claims=(), findings=())) == "The study makes no claim."


def test_the_top_names_paper_question_and_outcome(study):
    words = plain(report(study))
    for part in (samples.PAPER.title, "Singh et al., 2024, arXiv 2404.07129", samples.QUESTION, outcome(study)):
        assert part in words


def test_a_row_has_every_number_of_its_claim(study):
    body = report(study).sections[0].body
    row = re.findall(r'<tr role="row">(?=<th scope="row")(.*?)</tr>', body, re.S)[5]
    words = re.sub(r"<[^>]+>", "|", row)
    for part in ("S6", "Fig. 8", "Clamping all heads", "sequences seen until", "at least 1.1", "in part: at least 0.9",
                 "from the paper", "|0.97|", "0.93 to 1.04, 3 seeds", "a pattern drawn at random",
                 "0.85, 0.8 to 0.9, 3 seeds", "expected: 0 to 1", "holds in part"):  # fmt: skip
        assert part in words, part
    assert "1.4 to 1.7, 2 of 3 seeds" in body, "a seed that gave nothing is told"


def test_verdicts_are_words_with_a_sign():
    found = {verdict: verdict_html(verdict) for verdict in ("holds", "holds in part", "not at this size", "not measured")}
    assert all(f" {verdict}</span>" in words for verdict, words in found.items())
    signs = [re.search(r'aria-hidden="true">(.)<', words)[1] for words in found.values()]
    assert len(set(signs)) == 4 and len({re.search(r'class="([^"]*)"', words)[1] for words in found.values()}) == 4


def test_a_quick_run_says_that_its_verdicts_mean_nothing():
    page = report(samples.study_run("quick"))
    assert plain(page).count(QUICK) == 2 and "5 of 8 claims hold" not in plain(page)
    assert 'class="verdict holds"' not in page.html() and "<dt>Hold</dt>" not in page.html()
    assert QUICK not in plain(report(samples.study_run()))


def test_differences_notes_and_sources_are_told(study):
    words = plain(report(study))
    for part in (*study.differences, *study.notes, "0123abc", "torch 2.13.0", "x86_64, 2 cores", "0, 1, 2", "5 min 12 s",
                 "optrode study run induction-formation", "2026-11-20 10:11:12"):  # fmt: skip
        assert part in words, part


def test_text_of_a_study_never_becomes_markup(study):
    claims = (replace(study.claims[0], says=HOSTILE, control=HOSTILE, place=HOSTILE), *study.claims[1:])
    paper = replace(study.paper, title=HOSTILE)
    hostile = replace(study, claims=claims, question=HOSTILE, differences=(HOSTILE,), paper=paper)
    figures = samples.figures()
    chart = replace(figures.charts[0], title=HOSTILE, x=HOSTILE, lines=(replace(figures.charts[0].lines[0], name=HOSTILE),))
    text = report(hostile, replace(figures, charts=(chart,))).html()
    assert HOSTILE not in text and "alert(1)</" not in text


def test_the_drawing_of_a_claim_has_a_dot_per_seed_and_open_sides_to_the_edge():
    claim = samples.claim("S", "", "", Bounds(0.5), Bounds(None, 0.25))
    drawn = strip(claim, find(claim, [Measured(0.6, 0.1), Measured(1.0, 0.2), Measured(0.8, 0.0)]))
    assert drawn.count('circle class="value"') == 3 and drawn.count('circle class="control"') == 3
    bands = re.findall(r'<rect class="wanted[^"]*" x="(\S+)" y="\S+" width="(\S+)"', drawn)
    wanted, control = ([float(part) for part in band] for band in bands)
    assert wanted[0] + wanted[1] == pytest.approx(168) and control[0] == 0 and control[0] + control[1] < wanted[0]
    at = [float(x) for x in re.findall(r'circle class="value" cx="(\S+)"', drawn)]
    assert wanted[0] < at[0] < at[2] < at[1] < 168
    assert "values 0.6, 1, 0.8, to be at least 0.5; controls 0.1, 0.2, 0, to be at most 0.25" in drawn


def test_a_claim_without_values_has_no_drawing():
    nothing = Measured(float("nan"), float("nan"))
    assert strip(samples.CLAIMS[0], find(samples.CLAIMS[0], [nothing])) == ""


def test_durations():
    assert [duration(seconds) for seconds in (4.25, 59.9, 312.4, 3780.0)] == [
        "4.25 s", "1 min 00 s", "5 min 12 s", "1 h 03 min",
    ]  # fmt: skip


def test_figures_alone_make_a_page():
    page = report(samples.figures())
    assert [section.key for section in page.sections] == ["figures"] and page.title == "Figures"
    assert set(page.sections[0].figures) == {"chart-0", "chart-1", "chart-2", "map-0", "slides-0"}


def test_a_page_has_one_study(study):
    with pytest.raises(BadOption, match="report with 2 StudyRun records"):
        report(study, study)


def test_a_study_comes_back_from_its_folder(study, tmp_path):
    write_run(tmp_path, {"study": study, "figures": samples.figures()})
    found = read_run(tmp_path)
    assert found == {"study": study, "figures": samples.figures()}
    assert report(*found.values()).html() == report(study, samples.figures()).html()


def test_a_study_and_a_training_run_share_a_page(study):
    page = report(training_samples.training_run(), study)
    assert [section.key for section in page.sections] == ["claims", "notes", "runs", "loss", "measures", "provenance"]
