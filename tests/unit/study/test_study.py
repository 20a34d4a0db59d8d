import math
from dataclasses import replace

import pytest

import optrode as op
from optrode.claims import Measured
from optrode.errors import BadOption
from optrode.records import read_named, write_named
from optrode.study.study import NAMES, Outcome, load, read_summary, run
from tests.unit.study.sample import STUDY


def test_a_run_measures_every_seed_and_judges_every_claim():
    found, figures = run(STUDY)
    assert found.random_seeds == (0, 1, 2) and [f.verdict for f in found.findings] == ["holds", "not measured"]
    assert found.findings[0].median == pytest.approx(0.7) and found.notes == ("no data",)
    assert [line.y[1] for line in figures.charts[0].lines] == [0.0, 1.0, 2.0]


def test_a_quick_run_takes_one_seed():
    assert run(STUDY, profile="quick")[0].random_seeds == (0,)


def test_finished_seeds_are_read_and_give_the_same_run(tmp_path):
    calls = []

    def counted(setting):
        calls.append(setting.random_seed)
        return STUDY.run(setting)

    study = replace(STUDY, run=counted)
    first = run(study, out=tmp_path)
    again = run(study, out=tmp_path)
    assert calls == [0, 1, 2] and again[0].findings == first[0].findings and again[1] == first[1]


def test_profiles_do_not_share_outcomes(tmp_path):
    run(STUDY, profile="quick", out=tmp_path)
    assert len(run(STUDY, out=tmp_path)[0].random_seeds) == 3
    assert sorted(p.name for p in tmp_path.glob("*seed-0.json")) == ["measured-seed-0.json", "quick-seed-0.json"]


def test_what_was_not_measured_comes_back_as_such(tmp_path):
    run(STUDY, out=tmp_path)
    (tmp_path / "measured-seed-0.json").unlink()
    assert run(STUDY, out=tmp_path)[0].findings[1].values == (None, None, None)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_are_different_and_there_is_one(seeds):
    with pytest.raises(BadOption, match="random seeds of induction-formation"):
        run(STUDY, random_seeds=seeds)


def test_wrong_names_are_answered_with_the_nearest():
    with pytest.raises(BadOption, match="Nearest: rnn-hmm"):
        load("rnn-hm")
    with pytest.raises(BadOption, match="Nearest: measured"):
        run(STUDY, profile="measure")


def test_an_outcome_of_an_unknown_claim_is_refused():
    wrong = replace(STUDY, run=lambda setting: Outcome({"S11": Measured(1.0, math.nan)}))
    with pytest.raises(BadOption, match="'S11', which is no claim. Nearest: S1"):
        run(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_every_study_states_claims_with_bounds_and_controls(name):
    study = op.study.load(name)
    assert study.slug == name and study.paper.year > 2000 and study.question.endswith("?")
    assert len({claim.key for claim in study.claims}) == len(study.claims) > 0
    for claim in study.claims:
        assert (claim.expected.low, claim.expected.high) != (None, None), claim.key
        assert claim.control and (claim.control_expected.low, claim.control_expected.high) != (None, None), claim.key
    assert len(set(study.random_seeds)) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_quick_profile_measures_every_claim_and_draws_every_figure(name, tmp_path):
    study = op.study.load(name)
    found, figures = run(study, profile="quick", out=tmp_path)
    outcome = read_named(tmp_path / "quick-seed-0.json", {"Outcome": Outcome})
    left_out = {claim.key for claim in study.claims} - set(outcome.measured)
    assert not left_out or found.notes, f"{left_out} are left out, and no note says why"
    assert figures.charts or figures.maps
    op.report(found, figures).save(tmp_path / "page.html")
    assert read_written(found, tmp_path) == found


def read_written(found, folder):
    return read_summary(write_named(folder / "study.json", found))
