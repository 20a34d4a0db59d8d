"""Gradient methods against their definitions written out (`naive.py`), to 1e-8 of the largest score and better."""

from dataclasses import replace

import numpy as np
import pytest

from optrode.circuit.edge.eap import path
from optrode.circuit.edge.score import score_edges
from optrode.errors import BadOption
from optrode.truth.planted import linear
from optrode.truth.programs import load
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import SPECS, Counted, far, llama, make_task, model_of, ungrouped_llama

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

FIRST_ORDER = {
    "eap": ({}, lambda *on, **of: naive.along_inputs(*on, [1.0], **of)),
    "eap-ig": ({"n_steps": 2}, lambda *on, **of: naive.along_inputs(*on, [0.5, 1.0], **of)),
    "clean-corrupted": ({}, lambda *on, **of: naive.along_inputs(*on, [0.0, 1.0], **of)),
    "eap-ig-activations": ({"n_steps": 2}, lambda *on, **of: naive.along_activations(*on, 2, **of)),
    "mask-ig": ({"n_steps": 2}, lambda *on, **of: naive.along_masks(*on, [0.25, 0.75], **of)),
}
OTHER_POINTS = {
    "eap-ig left": ({"n_steps": 3, "points": "left"}, lambda *on, **of: naive.along_inputs(*on, [0.0, 1 / 3, 2 / 3], **of)),
    "eap-ig midpoint": ({"n_steps": 1, "points": "midpoint"}, lambda *on, **of: naive.along_inputs(*on, [0.5], **of)),
    "mask-ig right": ({"n_steps": 2, "points": "right"}, lambda *on, **of: naive.along_masks(*on, [0.5, 1.0], **of)),
    "mask-ig left": ({"n_steps": 2, "points": "left"}, lambda *on, **of: naive.along_masks(*on, [0.0, 0.5], **of)),
}
EVERY = FIRST_ORDER | OTHER_POINTS


def scores_of(model, task, name, **options):
    return score_edges(model, task, method=name.split(" ")[0], n_checks=0, **EVERY[name][0], **options)


@pytest.mark.parametrize("name", FIRST_ORDER)
@pytest.mark.parametrize("case", SPECS)
def test_scores_are_those_of_the_definition(case, name):
    model, task = model_of(case), make_task((5, 5))
    wanted = FIRST_ORDER[name][1](naive.net_of(model.module), task)
    assert far(scores_of(model, task, name).per_prompt, wanted) <= 1e-11


@pytest.mark.parametrize("name", OTHER_POINTS)
def test_points_may_stand_elsewhere_and_prompts_differ_in_length(name):
    model, task = model_of("layer norm"), make_task((5, 7, 5))
    wanted = OTHER_POINTS[name][1](naive.net_of(model.module), task)
    assert far(scores_of(model, task, name).per_prompt, wanted) <= 1e-11


@pytest.mark.parametrize("name", FIRST_ORDER)
@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_what_replaces_an_ablated_sender_is_that_of_the_definition(ablation, name):
    model, task = model_of("RMS norm, grouped K/V"), make_task((5, 5))
    wanted = FIRST_ORDER[name][1](naive.net_of(model.module), task, ablation=ablation)
    assert far(scores_of(model, task, name, ablation=ablation).per_prompt, wanted) <= 1e-11


@pytest.mark.parametrize("name", ["eap", "mask-ig"])
@pytest.mark.parametrize("per_query_head", [False, True])
def test_grouped_keys_are_scored_by_group_or_by_query_head(per_query_head, name):
    task = make_task((4, 4))
    wanted = FIRST_ORDER[name][1](naive.net_of_llama(llama().module, per_query_head), task)
    assert far(scores_of(llama(), task, name, per_query_head=per_query_head).per_prompt, wanted) <= 1e-11


@pytest.mark.parametrize("name", ["eap", "eap-ig", "mask-ig"])
def test_keys_by_query_head_are_those_of_the_model_with_keys_written_out(name):
    grouped, plain = (scores_of(one, make_task((4, 5)), name, per_query_head=True) for one in (llama(), ungrouped_llama()))
    assert grouped.graph == plain.graph
    assert far(grouped.per_prompt, plain.per_prompt) <= 1e-11


def test_the_score_of_a_group_is_the_sum_over_its_query_heads():
    task = make_task()
    by_group, by_head = (scores_of(llama(), task, "eap", per_query_head=on) for on in (False, True))
    groups, heads = by_group.graph.matrix(by_group.values), by_head.graph.matrix(by_head.values)
    at, of = by_group.graph.receivers_of(1), by_head.graph.receivers_of(1)
    for part in ("k", "v"):
        np.testing.assert_allclose(groups[at[part]], heads[of[part]].reshape(2, 3, -1).sum(1), atol=1e-12)


def test_positions_are_scored_apart_and_add_up():
    for case in ("layer norm", "not causal"):
        model, task = model_of(case), make_task((6, 6))
        found = scores_of(model, task, "eap", by_pos=True)
        assert far(found.per_pos, naive.eap_by_pos(naive.net_of(model.module), task).mean(0)) <= 1e-11
        for name in ("eap-ig", "mask-ig"):
            found = scores_of(model, task, name, by_pos=True)
            np.testing.assert_allclose(found.per_pos.sum(1), found.values, atol=1e-12)


@pytest.mark.parametrize("name", ["eap", "eap-ig", "mask-ig"])
def test_scores_are_means_that_do_not_depend_on_the_batch(name):
    model, task = model_of("RMS norm, grouped K/V"), make_task((5,) * 12)
    whole = scores_of(model, task, name)
    np.testing.assert_array_equal(whole.values, whole.per_prompt.mean(0))
    for size in (1, 4, 5):
        starts = range(0, 12, size) if size > 1 else (0, 7)
        for start in starts:
            part = scores_of(model, replace(task, pairs=task.pairs[start : start + size]), name)
            assert far(part.per_prompt, whole.per_prompt[start : start + size]) <= 1e-10


def test_small_passes_change_nothing(monkeypatch):
    model, task = model_of("layer norm"), make_task((5, 7, 5, 5))
    whole = {name: scores_of(model, task, name).per_prompt for name in ("eap-ig", "mask-ig")}
    monkeypatch.setattr("optrode.circuit.edge.eap.N_TOKENS", 12)
    monkeypatch.setattr("optrode.circuit.edge.contract.N_FLOATS", 1)
    for name, wanted in whole.items():
        assert far(scores_of(model, task, name).per_prompt, wanted) <= 1e-12


PASSES = {"eap": (2, 1), "eap-ig": (3, 2), "eap-ig left": (4, 3), "clean-corrupted": (2, 2)}


@pytest.mark.parametrize("name", PASSES)
def test_passes_are_as_few_as_argued(name):
    model, task = model_of("layer norm"), make_task((6, 6, 6))
    with Counted(model.module) as count:
        found = scores_of(model, task, name)
    assert (count.forward, count.backward) == PASSES[name]
    assert found.provenance.n_passes == count.forward


@pytest.mark.parametrize("name", ["eap", "eap-ig"])
def test_without_a_corrupt_world_one_pass_less_is_made(name):
    model = model_of("layer norm")
    with Counted(model.module) as count:
        scores_of(model, make_task((6, 6)), name, ablation="zero")
    n_points = 2 if name == "eap-ig" else 1
    assert count.backward == n_points and count.forward <= n_points + 1


def test_points_stand_where_their_rule_says():
    assert path(4, "right") == [0.25, 0.5, 0.75, 1.0]
    assert path(4, "left") == [0.0, 0.25, 0.5, 0.75]
    assert path(4, "midpoint") == [0.125, 0.375, 0.625, 0.875]
    with pytest.raises(BadOption, match="Nearest: midpoint"):
        path(4, "mid-point")
    with pytest.raises(BadOption, match="at least one point"):
        path(0, "left")


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
def test_in_the_linear_model_first_order_is_exact(ablation):
    planted = linear(4)
    exact = score_edges(planted.model, planted.task, method="exact", ablation=ablation).per_prompt
    assert far(exact, naive.exact(naive.net_of(planted.model.module), planted.task, ablation=ablation)) <= 1e-10
    for name in ("eap", "eap-ig", "eap-ig left", "clean-corrupted"):
        assert far(scores_of(planted.model, planted.task, name, ablation=ablation).per_prompt, exact) <= 1e-10


# 200 points give the same, and take five times as long.


@pytest.mark.parametrize("name", ["xproportion", "pair_balance", "induction"])
def test_integrals_over_masks_add_up_to_the_effect_of_ablating_everything(name):
    bench = load(name).bench(4)
    found = score_edges(bench.model, bench.task, method="mask-ig", n_steps=40, n_checks=0, bench=bench)
    wanted = np.mean(bench.base("corrupt")) - np.mean(bench.base("clean"))
    assert found.values.sum() == pytest.approx(wanted, rel=0.01) and found.notes == ()


def test_an_integral_that_did_not_converge_is_flagged():
    bench = load("hist").bench(4)
    found = score_edges(bench.model, bench.task, method="mask-ig", n_steps=40, n_checks=0, bench=bench)
    assert abs(found.values.sum() - (-1.0)) > 0.01
    (note,) = found.notes
    assert note.startswith("mask-ig did not converge") and "by -1 " in note and "measure exactly" in note
