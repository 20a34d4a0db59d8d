"""The refusal cliff: arms start from the same network, examples are as rare as said, titles say the medians."""

import math
from dataclasses import replace

import pytest
import torch

from optrode.claims import Line, Measured
from optrode.study.papers.refusal_cliff import ARMS, STUDY, _Lab, _over, _place, _pool
from optrode.study.papers.refusal_cliff_claims import ATTACK_SHARE
from optrode.study.study import Outcome, Setting


@pytest.fixture(scope="module")
def lab():
    return _Lab(Setting(3, "quick"))


def test_the_planted_arm_changes_one_head_and_nothing_else(lab):
    layer, head = lab.planted[0]
    before, after = lab.aligned.module.state_dict(), lab.lured("planted").module.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(f"blocks.{layer}.attn.") for name in changed)
    width = lab.aligned.table.d_head
    moved = (before[f"blocks.{layer}.attn.o.weight"] != after[f"blocks.{layer}.attn.o.weight"]).any(0)
    assert moved.nonzero().flatten().tolist() == list(range(head * width, (head + 1) * width))


def test_attacks_are_rare_among_the_examples():
    pool = _pool(_Lab(Setting(3)))
    assert float((pool.is_harmful & pool.is_framed).float().mean()) == pytest.approx(ATTACK_SHARE)
    assert 0.3 < float(pool.is_harmful.float().mean()) < 0.5


def test_the_first_place_is_one():
    effects = torch.tensor([[0.0, 3.0], [5.0, 1.0]])
    assert [_place(effects, ((layer, head),)) for layer in (0, 1) for head in (0, 1)] == [4, 2, 1, 3]


def test_where_the_attack_never_succeeds_nothing_is_restored():
    assert _over(3.0, 6.0) == 0.5
    assert math.isnan(_over(0.0, 0.0))


def test_test_requests_are_thought_by_the_network_itself(lab):
    tests = lab.tests(lab.aligned)
    assert bool(tests.attack.is_framed.all()) and bool(tests.attack.is_harmful.all())
    assert not bool(tests.plain.is_framed.any()) and bool(tests.plain.is_harmful.all())
    assert not bool(tests.harmless.is_harmful.any())


def outcome(seed, cliff):
    kinds = ("attack", "plain", "harmless")
    lines = {f"{arm}.{kind}": Line(kind, (0.0, 1.0), (1.0, 0.0)) for arm in ("aligned", *ARMS) for kind in kinds}
    measured = {claim.key: Measured(0.5, 0.25) for claim in STUDY.claims} | {"C1": Measured(cliff, 0.0)}
    return Outcome(measured, lines, random_seed=seed)


def test_titles_say_the_medians():
    figures = STUDY.figures([outcome(0, 0.7), outcome(1, 0.9), outcome(2, 0.8)])
    assert "falls by 0.80 at the last token, in plain requests by 0.00" in figures.charts[0].title
    assert len(figures.charts[0].lines) == 12


def test_titles_can_be_made_of_a_seed_that_measured_nothing():
    one = outcome(0, 0.7)
    assert STUDY.figures([replace(one, measured=dict.fromkeys(one.measured, Measured(float("nan"), float("nan"))))])
