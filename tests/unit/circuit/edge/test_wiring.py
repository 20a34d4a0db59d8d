"""Weights taken apart by head: what a wiring computes is what the model's own modules compute."""

import pytest
import torch

import optrode as op
from optrode.circuit.edge.graph import Graph
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadOption, SiteUnavailable
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.circuit.edge.cases import SPECS, llama, model_of

FAMILIES = ["gpt2", "gpt_neox", "llama", "qwen2", "mistral", "phi3", "gemma2", "olmo2", "mixtral", "bloom", "bert"]
NO_PARALLEL = {"gpt_neox"}
PLAIN_QK = [name for name in FAMILIES if name != "olmo2"]  # OLMo 2 norms q and k after their projections


def model_named(family):
    return from_source(tiny(family, **({"experts_implementation": "eager"} if family == "mixtral" else {})).double())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_is_that_of_the_table(family):
    model = model_named(family)
    table = model.table
    expected = Graph(table.n_layers, table.n_heads, table.n_kv_heads, True, family in NO_PARALLEL)
    assert wiring_of(model).graph == expected


def test_our_own_models_have_the_graph_of_their_spec():
    for case, spec in SPECS.items():
        expected = Graph(spec.n_layers, spec.n_heads, spec.n_kv, spec.d_mlp > 0, spec.is_parallel)
        assert wiring_of(model_of(case)).graph == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_add_up_to_the_output_of_attention_without_its_bias(family):
    model = model_named(family)
    wiring, kinds = wiring_of(model), ("attn.z", "attn_out")
    z, out = (op.record(model, [[1, 5, 7, 3]], f"blocks.1.{kind}")[f"blocks.1.{kind}"] for kind in kinds)
    written = wiring.write(1, z)
    assert written.shape == (1, wiring.graph.n_heads, 4, model.table.d_model)
    rest = out - written.sum(1)
    if "ln1_post" not in model.table.places:
        torch.testing.assert_close(rest, rest[:, :1].expand_as(rest), atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", PLAIN_QK)
def test_q_k_and_v_are_read_through_the_layers_own_norm(family):
    model = model_named(family)
    wiring = wiring_of(model)
    sites = {kind: f"blocks.1.{kind}" for kind in ("attn_in", "attn.q", "attn.k", "attn.v")}
    found = {kind: op.record(model, [[1, 5, 7, 3]], site)[site] for kind, site in sites.items()}
    normed = wiring.input_norm(1)(found["attn_in"])[:, None]
    for part, n in (("q", model.table.n_heads), ("k", model.table.n_kv_heads), ("v", model.table.n_kv_heads)):
        projected = wiring.project(1, part, normed.expand(-1, n, -1, -1), range(n))
        torch.testing.assert_close(projected, found[f"attn.{part}"], atol=1e-10, rtol=1e-10)
        last = wiring.project(1, part, normed, [n - 1])
        torch.testing.assert_close(last, found[f"attn.{part}"][:, :, -1:], atol=1e-10, rtol=1e-10)


def test_by_query_head_a_group_has_its_weights_once_for_each_head():
    grouped, wide = wiring_of(llama()), wiring_of(llama(), per_query_head=True)
    assert (grouped.graph.n_kv, wide.graph.n_kv) == (2, 6)
    for part in ("k", "v"):
        (weight, bias), (wide_weight, wide_bias) = (wiring.input_weights(0, part) for wiring in (grouped, wide))
        for head in range(6):
            assert torch.equal(wide_weight[head], weight[head // 3]) and torch.equal(wide_bias[head], bias[head // 3])
    assert torch.equal(grouped.input_weights(0, "q")[0], wide.input_weights(0, "q")[0])


def test_by_query_head_means_nothing_where_keys_are_not_grouped():
    wiring = wiring_of(model_named("gpt2"), per_query_head=True)
    assert not wiring.per_query_head and wiring.graph == wiring_of(model_named("gpt2")).graph


def test_attention_is_widened_inside_the_context_alone():
    wiring = wiring_of(llama(), per_query_head=True)
    own = [layer.self_attn for layer in llama().module.model.layers]
    with pytest.raises(ZeroDivisionError), wiring.widened():
        assert [one.num_key_value_groups for one in own] == [1, 1, 1]
        raise ZeroDivisionError
    assert [one.num_key_value_groups for one in own] == [3, 3, 3]


@pytest.mark.parametrize("family", ["phi3", "olmo2"])
def test_keys_that_only_come_by_group_are_refused_by_query_head(family):
    with pytest.raises(BadOption, match="per_query_head for .* takes keys by K/V group only.*leave per_query_head out"):
        wiring_of(model_named(family), per_query_head=True)


def test_modules_without_a_table_of_heads_are_refused():
    model = from_source(torch.nn.Sequential(torch.nn.Linear(3, 3)), family=None)
    with pytest.raises(SiteUnavailable, match="generic route has no site resid_pre.*`optrode models`"):
        wiring_of(model)
