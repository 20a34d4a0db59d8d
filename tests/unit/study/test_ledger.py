from dataclasses import replace

import pytest

from optrode.claims import Bounds
from optrode.errors import BadFile, BadOption
from optrode.study.ledger import counts, enter, overview, page, read_ledger, stale
from optrode.study.study import NAMES, load, run
from tests.unit.study.sample import STUDY

ENTERED = read_ledger()


def test_a_run_that_is_entered_is_read_back(tmp_path):
    found, _ = run(STUDY)
    enter(found, tmp_path)
    assert read_ledger(tmp_path) == {"induction-formation": found}
    assert counts(found) == {"holds": 1, "holds in part": 0, "not at this size": 0, "not measured": 1}


def test_quick_runs_and_single_seeds_are_not_entered(tmp_path):
    with pytest.raises(BadOption, match="verdicts mean nothing"):
        enter(run(STUDY, profile="quick")[0], tmp_path)
    with pytest.raises(BadOption, match="1 random seed"):
        enter(run(STUDY, random_seeds=(4,))[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_entry_is_refused(tmp_path):
    enter(run(STUDY)[0], tmp_path)
    (tmp_path / "induction-formation.json").write_text("{")
    with pytest.raises(BadFile):
        read_ledger(tmp_path)


def test_an_entry_is_stale_when_a_claim_or_a_verdict_changed():
    found, _ = run(STUDY)
    assert stale(STUDY, found) == ()
    moved = replace(STUDY.claims[0], expected=Bounds(0.65))
    assert stale(replace(STUDY, claims=(moved, STUDY.claims[1])), found) == ("claim S1 changed",)
    assert stale(replace(STUDY, claims=STUDY.claims[:1]), found) == ("claim S2 is no longer made",)
    wrong = replace(found, findings=(replace(found.findings[0], verdict="not at this size"), found.findings[1]))
    assert stale(STUDY, wrong) == ("the verdict on S1 is not that of its numbers",)


def test_tables_say_every_number_and_keep_their_columns():
    found, _ = run(STUDY)
    ledger = {"induction-formation": found}
    lines = overview(ledger).splitlines()
    assert len(lines) == 2 + len(NAMES) and "| 2 | 1 |  |  | 1 |" in lines[2] and "not measured" in lines[3]
    rows = [line for line in page(ledger).splitlines() if line.startswith("| S")]
    assert len(rows) == 2 and "S1 rises \\| much" in rows[0] and "0.7 [0.6, 0.8]" in rows[0] and "**holds**" in rows[0]
    assert all(row.replace("\\|", "").count("|") == 10 for row in rows)


@pytest.mark.parametrize("name", ENTERED)
def test_the_ledger_is_fresh(name):
    assert stale(load(name), ENTERED[name]) == (), f"run `optrode study run {name} --enter`"
