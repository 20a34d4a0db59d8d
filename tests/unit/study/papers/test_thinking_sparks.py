"""Emergent heads: what the study adds to its kits."""

import pytest

from optrode.model.names import parse
from optrode.study.kit.births import Census
from optrode.study.papers.thinking_sparks import NUMBERS, _changes, _first_as_good, _Lab, _short, ablations, correlation
from optrode.study.study import Setting
from optrode.train.loop import fit
from optrode.train.plan import Measure, Plan


@pytest.fixture
def lab():
    return _Lab(Setting(0, "quick"))


def test_what_never_changes_is_correlated_with_nothing():
    assert correlation([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]) == 0.0
    assert correlation([1.0, 5.0, 7.0], [2.0, 3.0, 90.0]) == pytest.approx(1.0)
    assert correlation(_changes((1.0, 2.0, 4.0, 4.5)), [1.0, 0.0, 2.0]) == pytest.approx(-1.0)


def test_heads_are_shown_by_layer_and_number():
    assert _short("blocks.2.attn.z[head=5]") == "2.5"
    assert parse("blocks.2.attn.z[head=5]").kind == "attn.z"


def test_runs_are_compared_where_they_are_first_as_good(lab):
    scores = iter([0.1, 0.4, 0.3, 0.6])
    decay = lambda model, _: model.module.get_parameter("unembed.weight").square().mean()  # noqa: E731
    plan = Plan(
        "steps", lab.network, lambda *_: None, decay, 3,
        measures={"accuracy": Measure(lambda _: next(scores))}, measure_at=(0, 1, 2, 3),
    )  # fmt: skip
    ran = fit(plan)
    assert [_first_as_good(ran, good) for good in (0.0, 0.35, 0.5, 0.9)] == [0, 1, 3, 3]


def test_nothing_is_lost_without_emergent_heads(lab):
    model = lab.network(0)
    every = frozenset(f"blocks.{layer}.attn.z[head={head}]" for layer in (0, 1) for head in (0, 1))
    assert ablations(lab, model, Census((0, 1), (every, every))) == (0.0, 0.0, 0.0)


def test_as_many_heads_are_ablated_of_either_kind(lab, monkeypatch):
    seen = []
    monkeypatch.setattr("optrode.study.papers.thinking_sparks._lost", lambda lab, model, heads: seen.append(heads) or 0.5)
    names = [f"blocks.{layer}.attn.z[head={head}]" for layer in (0, 1) for head in (0, 1)]
    counted = Census((0, 1), (frozenset(names[:1]), frozenset(names[:3])))
    assert ablations(lab, lab.network(0), counted) == (0.5, 0.5, 0.5)
    assert {len(heads) for heads in seen} == {1}
    assert {heads[0] for heads in seen} - {names[3]} <= {names[1], names[2]}
    assert [names[3]] in seen


def test_the_base_model_stays_as_it_is_while_it_is_trained_on(lab):
    before = lab.base.model.weights_hash
    ran = lab.post_train("reward")
    assert lab.base.model.weights_hash == before
    assert ran.model.weights_hash != before
    assert ran.run.checkpoints[0].weights_hash == before


def test_signs_are_told_apart():
    assert NUMBERS.text((3, 5, 6, 7, 8)) == ("3", "+", "-", "=", ".")
