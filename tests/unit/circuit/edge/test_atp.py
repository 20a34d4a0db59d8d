"""The corrections of AtP* against attention recomputed, and branches detached, in a forward pass written out."""

import numpy as np
import pytest

from optrode.circuit.edge.score import score_edges
from optrode.errors import BadOption
from optrode.truth.planted import linear, or_gate
from optrode.truth.programs import load
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import SPECS, far, llama, make_task, model_of, ungrouped_llama

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

LEARNED = [name for name, spec in SPECS.items() if spec.positions != "rotary"]
ROTARY = [name for name, spec in SPECS.items() if spec.positions == "rotary"]

def scores_of(model, task, method, **options):
    return score_edges(model, task, method=method, n_checks=0, **options)


@pytest.mark.parametrize("case", LEARNED)
def test_attention_is_computed_again(case):
    model, task = model_of(case), make_task((5, 6, 5))
    wanted = naive.with_attention_again(naive.net_of(model.module), task)
    assert far(scores_of(model, task, "atp-qk").per_prompt, wanted) <= 1e-10


@pytest.mark.parametrize("case", ROTARY)
def test_attention_with_rotary_positions_is_computed_again(case):
    model, task = model_of(case), make_task((5, 5))
    wanted = naive.with_attention_again(naive.net_of(model.module), task)
    assert far(scores_of(model, task, "atp-qk").per_prompt, wanted) <= 1e-10


@pytest.mark.parametrize("per_query_head", [False, True])
def test_keys_of_groups_are_computed_again_for_all_their_heads(per_query_head):
    task = make_task((4, 4))
    wanted = naive.with_attention_again(naive.net_of_llama(llama().module, per_query_head), task)
    assert far(scores_of(llama(), task, "atp-qk", per_query_head=per_query_head).per_prompt, wanted) <= 1e-10


@pytest.mark.parametrize("method", ["atp-qk", "atp-drop"])
def test_by_query_head_they_are_those_of_the_model_with_keys_written_out(method):
    task = make_task((5, 4))
    grouped, plain = (scores_of(one, task, method, per_query_head=True) for one in (llama(), ungrouped_llama()))
    assert far(grouped.per_prompt, plain.per_prompt) <= 1e-10


@pytest.mark.parametrize("ablation", ["zero", "mean"])
def test_attention_is_computed_again_for_other_ablations(ablation):
    model, task = model_of("layer norm"), make_task((5, 5))
    wanted = naive.with_attention_again(naive.net_of(model.module), task, ablation=ablation)
    assert far(scores_of(model, task, "atp-qk", ablation=ablation).per_prompt, wanted) <= 1e-10


def test_few_senders_and_few_rows_at_a_time_change_nothing(monkeypatch):
    model, task = model_of("layer norm"), make_task((5, 5, 5))
    whole = scores_of(model, task, "atp-qk").per_prompt
    monkeypatch.setattr("optrode.circuit.edge.atp.N_TOKENS", 40)
    monkeypatch.setattr("optrode.circuit.edge.eap.N_TOKENS", 10)
    assert far(scores_of(model, task, "atp-qk").per_prompt, whole) <= 1e-12


def test_where_scores_of_attention_are_the_same_again_they_are_exact():
    planted = linear(4)
    exact = scores_of(planted.model, planted.task, "exact").per_prompt
    assert far(scores_of(planted.model, planted.task, "atp-qk").per_prompt, exact) <= 1e-10


def test_saturated_attention_hides_an_edge_from_eap_and_not_from_the_correction():
    bench, edge = load("induction").bench(8), "a0.h0 -> a1.h0.k"
    exact, eap, again = (
        score_edges(bench.model, bench.task, method=method, n_checks=0, bench=bench) for method in ("exact", "eap", "atp-qk")
    )
    at = exact.graph.edge(edge)
    assert abs(eap.values[at]) < 1e-4 * abs(exact.values[at])
    assert again.values[at] == pytest.approx(exact.values[at], rel=0.05)


@pytest.mark.parametrize("case", SPECS)
def test_every_layer_is_left_out_of_the_backward_pass_once(case):
    model, task = model_of(case), make_task((5, 5))
    wanted = naive.with_drops(naive.net_of(model.module), task)
    assert far(scores_of(model, task, "atp-drop").per_prompt, wanted) <= 1e-10


def test_dropped_scores_have_the_sign_of_eap():
    model, task = model_of("layer norm"), make_task((5, 5))
    eap, drop = (scores_of(model, task, method).per_prompt for method in ("eap", "atp-drop"))
    np.testing.assert_array_equal(np.sign(drop), np.sign(eap))


def test_what_cannot_be_corrected_is_refused():
    model, task = model_of("layer norm"), make_task((5, 5))
    with pytest.raises(BadOption, match="a changed key acts at later positions"):
        scores_of(model, task, "atp-qk", by_pos=True)
    with pytest.raises(BadOption, match="absolute values of positions do not add up"):
        scores_of(model, task, "atp-drop", by_pos=True)
    planted = or_gate(4)
    with pytest.raises(BadOption, match="or_gate has one layer"):
        scores_of(planted.model, planted.task, "atp-drop")
