"""What is particular to the study of how an induction circuit forms."""

import math
from dataclasses import replace

import pytest
import torch

from optrode.study.kit import clamps, formation, formed
from optrode.study.kit.curves import falls_below
from optrode.study.kit.icl_training import N_BATCH
from optrode.study.papers.induction_formation import STUDY
from optrode.study.study import Setting
from optrode.train.loop import fit
from optrode.train.records import Series


def test_kendalls_tau_of_the_papers_own_order_is_one():
    published = [0.33, 0.42, 0.8, 2.2, 3.1]  # 1e5 sequences, Fig. 5b: match, copy, layer 1, previous token, free
    assert formation.agreement(published) == 1.0
    assert formation.agreement(published[::-1]) == -1.0
    assert formation.agreement([0.33, 0.33, 0.8, 2.2, 3.1]) == 0.9
    assert formation.agreement([0.42, 0.33, 0.8, 2.2, 3.1]) == 0.8


def test_the_threshold_is_four_tenths_of_ln_2():
    assert pytest.approx(0.277259, abs=1e-6) == formation.THRESHOLD


def test_sequences_until_the_threshold_count_the_batch():
    plan = formation.lab_of(Setting(0, "quick")).bench.plan("x", n_steps=2, every=1)
    ran = fit(plan)
    passed, never = (replace(ran, run=replace(ran.run, n_steps=20, measures={"seen": Series((0, 10, 20), values)}))
                     for values in ((1.0, 0.4, 0.1), (1.0, 0.9, 0.8)))  # fmt: skip
    assert formation.passes(passed) == pytest.approx(N_BATCH * falls_below(passed.run.measures["seen"], formation.THRESHOLD))
    assert 10 * N_BATCH < formation.passes(passed) < 20 * N_BATCH
    assert math.isnan(formation.passes(never)) and formation.at_least(never) == 20 * N_BATCH


def test_a_clamped_run_and_a_free_one_see_the_same_batches_from_the_same_start():
    lab = formation.lab_of(Setting(3, "quick"))
    plans = [lab.bench.plan("x", held, 3, every=3) for held in ((), clamps.previous_token(0))]
    first = [plan.batch(1, torch.Generator().manual_seed(5)).ids for plan in plans]
    assert torch.equal(*first)
    weights = [plan.make(3).module.state_dict() for plan in plans]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_matching_held_is_learnt_before_the_free_network_leaves_its_plateau():
    setting = Setting(0, "quick")
    lab = formation.lab_of(setting)
    held = lab.alone(*clamps.match(lab.head, lab.bench.words))
    losses = {name: fit(lab.bench.plan(name, gates, 60, every=60)).run.measures["seen"].values[-1]
              for name, gates in (("match", held), ("free", lab.alone()))}  # fmt: skip
    assert losses["match"] < losses["free"] - 0.1


def test_a_last_row_of_fewer_heads_is_filled_up():
    shown = formed.pattern_map(torch.ones(1, 3, 5, 5), "now", per_row=2)
    assert len(shown.columns) == 2 * 6 - 1 and shown.cells[-1] == (1.0,) * 5 + (None,) * 6


def test_patterns_stand_side_by_side_with_gaps_between():
    pattern = torch.arange(2 * 6 * 25).reshape(2, 6, 5, 5).float()
    shown = formed.pattern_map(pattern, "now", per_row=4)
    assert len(shown.rows) == len(shown.cells) == 4 * 5 + 3 and len(shown.columns) == 4 * 6 - 1
    row = shown.rows.index("L2 h0-3 l1")
    assert shown.cells[row][6:12] == (*pattern[1, 1, 1, :2].tolist(), None, None, None, None)
    assert {len(cells) for cells in shown.cells} == {len(shown.columns)}


def test_every_claim_has_bounds_for_value_and_control_and_a_key_of_its_own():
    keys = [claim.key for claim in STUDY.claims]
    assert keys == [f"S{n}" for n in range(1, 20)]
    for claim in STUDY.claims:
        assert claim.expected.low is not None or claim.expected.high is not None
        assert claim.control_expected.low is not None or claim.control_expected.high is not None
