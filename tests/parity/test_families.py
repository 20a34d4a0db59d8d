"""Every family's table against what transformers itself computes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from optrode.errors import ConfigRefused, SiteUnavailable
from optrode.gate.check import check_model
from optrode.gate.kinds import patch, zero
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.recording import record, recording
from tests.parity.cases import CASES, answer_of, held_of, inputs_of, is_inside, model_of, names_of

each_case = pytest.mark.parametrize(("case", "attention"), CASES)
each_model = pytest.mark.parametrize("case", [case for case, attention in CASES if attention == "eager"])
STANDARD = {
    "embed", "resid_pre", "ln1", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern", "attn.z", "attn.result",
    "attn_out", "resid_mid", "ln2", "mlp.pre", "mlp.post", "mlp_out", "resid_post", "final_norm", "logits",
}  # fmt: skip


def blocks(case: str, attention: str = "eager"):
    """Layer number and a function kind -> recorded tensor, for each block."""
    held = held_of(case, attention)
    for layer in range(model_of(case, attention).table.n_layers):
        yield layer, lambda kind, layer=layer: held[f"blocks.{layer}.{kind}"]


def gated(model: Model, inputs: dict[str, Tensor], *held) -> Tensor:
    with gates(model, *held):
        return answer_of(model, inputs)


@each_case
def test_recording_every_site_leaves_the_logits_bit_equal(case, attention):
    model, inputs = model_of(case, attention), inputs_of(case)
    plain = answer_of(model, inputs)
    with recording(model, [name for name in names_of(model) if not is_inside(model, name)]):
        assert torch.equal(answer_of(model, inputs), plain)
    with recording(model, names_of(model)):
        torch.testing.assert_close(answer_of(model, inputs), plain, rtol=1e-5, atol=1e-5)
    assert torch.equal(answer_of(model, inputs), plain)


@each_case
def test_patching_a_site_with_itself_is_bit_identical(case, attention):
    model, inputs, held = model_of(case, attention), inputs_of(case), held_of(case, attention)
    plain = answer_of(model, inputs)
    for kind in model.table.places:
        name = f"blocks.*.{kind}" if model.table.in_block(kind) else kind
        same = gated(model, inputs, patch(name, held))
        if is_inside(model, name):
            torch.testing.assert_close(same, plain, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(same, plain), name


@each_case
def test_zeroing_any_site_moves_the_logits(case, attention):
    model, inputs = model_of(case, attention), inputs_of(case)
    plain = answer_of(model, inputs)
    for name in names_of(model):
        if attention == "sdpa" and name.startswith(("blocks.0.", "blocks.2.")):
            continue  # the same modules in every layer; all of them are zeroed under eager
        moved = gated(model, inputs, zero(name))
        assert (moved - plain).abs().max() > 1e-3, name
        assert torch.isfinite(moved).all(), name


@each_case
def test_residuals_are_the_hidden_states_of_transformers(case, attention):
    model = model_of(case, attention)
    with torch.no_grad():
        hidden = model.module(**inputs_of(case), output_hidden_states=True).hidden_states
    for layer, at in blocks(case, attention):
        assert torch.equal(at("resid_pre"), hidden[layer])
        last = layer == model.table.n_layers - 1
        is_normed = "final_norm" in model.table.places and case != "vit"
        after = held_of(case, attention)["final_norm"] if last and is_normed else at("resid_post")
        assert torch.equal(after, hidden[layer + 1])


@each_model
def test_patterns_are_the_eager_attentions_of_transformers(case):
    model = model_of(case)
    with torch.no_grad():
        attentions = model.module(**inputs_of(case), output_attentions=True).attentions
    for layer, at in blocks(case):
        torch.testing.assert_close(at("attn.pattern"), attentions[layer], rtol=0, atol=1e-6)
        if "attn.scores" in model.table.places:
            torch.testing.assert_close(at("attn.scores").softmax(-1), attentions[layer], rtol=0, atol=1e-6)


@each_case
def test_the_residual_stream_is_the_sum_of_what_is_added_to_it(case, attention):
    model = model_of(case, attention)
    for layer, at in blocks(case, attention):
        if model.table.is_parallel:
            assert torch.equal(at("mlp_out") + at("attn_out") + at("resid_pre"), at("resid_post"))
            continue
        assert torch.equal(at("resid_pre") + at("attn_out"), at("resid_mid"))
        if case == "bert":
            norms = model.module.bert.encoder.layer[layer]
            assert torch.equal(norms.attention.output.LayerNorm(at("resid_mid")), at("ln1"))
            assert torch.equal(norms.output.LayerNorm(at("mlp_out") + at("ln1")), at("resid_post"))
        else:
            assert torch.equal(at("resid_mid") + at("mlp_out"), at("resid_post"))


@each_model
def test_results_of_the_heads_sum_to_the_projection(case):
    model, inputs = model_of(case, dtype=torch.float64), inputs_of(case, torch.float64)
    for layer in range(model.table.n_layers):
        path = model.table.places["attn.result"].path.replace("{L}", str(layer))
        held = record(model, inputs, [f"blocks.{layer}.attn.result", f"module:{path}.out"])
        bias = getattr(model.submodule(path), "bias", None)
        total = held[f"blocks.{layer}.attn.result"].sum(2) + (0 if bias is None else bias)
        torch.testing.assert_close(total, held[f"module:{path}.out"], rtol=0, atol=1e-12)


@each_model
def test_shapes_heads_and_groups(case):
    model, table = model_of(case), model_of(case).table
    n_pos = 10 if case == "vit" else 7
    grouped = case in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "olmo2", "mixtral")
    assert (table.n_kv_heads == 2 and table.n_heads == 6) if grouped else table.n_kv_heads == table.n_heads
    d_head = {"qwen3": 10, "gemma2": 10, "gemma3_text": 10}.get(case, table.d_model // table.n_heads)
    for _, at in blocks(case):
        assert at("attn.q").shape == at("attn.z").shape == (2, n_pos, table.n_heads, d_head)
        assert at("attn.k").shape == at("attn.v").shape == (2, n_pos, table.n_kv_heads, d_head)
        assert at("attn.pattern").shape == (2, table.n_heads, n_pos, n_pos)
        assert at("attn.result").shape == (2, n_pos, table.n_heads, table.d_model)
        assert at("resid_post").shape == at("attn_out").shape == (2, n_pos, table.d_model)
    assert {kind for kind in STANDARD if kind not in table.places} == STANDARD & set(table.absent)
    for kind, reason in table.absent.items():
        with pytest.raises(SiteUnavailable) as error:
            record(model, inputs_of(case), kind if kind in ("logits", "final_norm", "pos_embed") else f"blocks.0.{kind}")
        assert reason in str(error.value)


# Heads, against weights edited by hand. Nothing here knows the tables.


def attention_of(module: nn.Module, case: str, layer: int) -> nn.Module:
    match case.split()[0]:
        case "gpt2":
            return module.transformer.h[layer].attn
        case "bloom":
            return module.transformer.h[layer].self_attention
        case "gpt_neox":
            return module.gpt_neox.layers[layer].attention
        case "bert":
            return module.bert.encoder.layer[layer].attention
        case "vit":
            return module.vit.layers[layer].attention
        case _:
            return module.model.layers[layer].self_attn


def erase(module: nn.Module, case: str, kind: str, layer: int, head: int) -> None:
    """Make one head's q, k or v zero by its weights and biases; for z, make the output projection ignore it."""
    attn, name = attention_of(module, case, layer), case.split()[0]
    d = {"qwen3": 10, "gemma2": 10, "gemma3_text": 10, "gpt2": 9, "bert": 9, "vit": 9, "bloom": 6}.get(name, 8)
    part = slice(head * d, (head + 1) * d)
    if kind == "attn.z":
        if name == "gpt2":
            attn.c_proj.weight.data[part] = 0  # stored [in, out]
        else:
            output = {"gpt_neox": "dense", "bloom": "dense", "bert": "output.dense"}.get(name, "o_proj")
            attn.get_submodule(output).weight.data[:, part] = 0
        return
    which = "qkv".index(kind[-1])
    if name == "gpt2":
        part = slice(which * 36 + head * 9, which * 36 + (head + 1) * 9)
        attn.c_attn.weight.data[:, part] = 0
        attn.c_attn.bias.data[part] = 0
        return
    if name in ("gpt_neox", "bloom"):
        rows, made = slice(3 * head * d + which * d, 3 * head * d + (which + 1) * d), attn.query_key_value
    elif name == "phi3":
        start = (0, 6 * 8, 6 * 8 + 2 * 8)[which] + head * 8
        rows, made = slice(start, start + 8), attn.qkv_proj
    elif name == "bert":
        rows, made = part, (attn.self.query, attn.self.key, attn.self.value)[which]
    else:
        rows, made = part, (attn.q_proj, attn.k_proj, attn.v_proj)[which]
    made.weight.data[rows] = 0
    if made.bias is not None:
        made.bias.data[rows] = 0


@pytest.mark.parametrize("kind", ["attn.q", "attn.k", "attn.v", "attn.z"])
@each_model
def test_a_gated_head_equals_one_erased_from_the_weights(case, kind):
    model, inputs = model_of(case, dtype=torch.float64), inputs_of(case, torch.float64)
    plain = answer_of(model, inputs)
    n_heads = model.table.n_kv_heads if kind in ("attn.k", "attn.v") else model.table.n_heads
    for head in {0, n_heads // 2, n_heads - 1}:
        edited = copy.deepcopy(model.module)
        erase(edited, case, kind, 1, head)
        expected = answer_of(Model(edited), inputs)
        found = gated(model, inputs, zero(f"blocks.1.{kind}[head={head}]"))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert (found - plain).abs().max() > 1e-4


@each_model
def test_a_head_patched_from_another_prompt_changes_that_head_only(case):
    model, inputs = model_of(case), inputs_of(case)
    other = record(model, inputs_of(case, random_seed=1), "blocks.1.attn.v")
    with gates(model, patch("blocks.1.attn.v[head=1]", other)):
        after = record(model, inputs, "blocks.1.attn.v")
    expected = held_of(case)["blocks.1.attn.v"].clone()
    expected[:, :, 1] = other["blocks.1.attn.v"][:, :, 1]
    assert torch.equal(after["blocks.1.attn.v"], expected)


# What only some families have.


@pytest.mark.parametrize("case", ["gpt2", "bert"])
def test_position_embeddings_are_gated_per_row_and_position(case):
    model, inputs = model_of(case, dtype=torch.float64), inputs_of(case)
    assert held_of(case)["pos_embed"].shape == (2, 7, 36)
    edited = copy.deepcopy(model.module)
    (edited.transformer.wpe if case == "gpt2" else edited.bert.embeddings.position_embeddings).weight.data[3] = 0
    found = gated(model, inputs, zero("pos_embed[pos=3]"))
    torch.testing.assert_close(found, answer_of(Model(edited), inputs), rtol=0, atol=1e-12)


def test_gating_the_router_routes_again():
    model, inputs = model_of("mixtral", dtype=torch.float64), inputs_of("mixtral")
    assert held_of("mixtral")["blocks.1.mlp.router"].shape == (2, 7, 5)
    edited = copy.deepcopy(model.module)
    edited.model.layers[1].mlp.gate.weight.data[2] = 0
    found = gated(model, inputs, zero("blocks.1.mlp.router[feature=2]"))
    torch.testing.assert_close(found, answer_of(Model(edited), inputs), rtol=0, atol=1e-12)
    logits = model.module(**inputs, output_router_logits=True).router_logits[1]
    assert torch.equal(record(model, inputs, "blocks.1.mlp.router")["blocks.1.mlp.router"].flatten(0, 1), logits)


@pytest.mark.parametrize("case", ["gemma2", "gemma3_text", "olmo2"])
def test_what_is_added_comes_after_the_second_norm(case):
    for _, at in blocks(case):
        assert torch.equal(at("ln1_post"), at("attn_out"))
        assert torch.equal(at("ln2_post"), at("mlp_out"))


def test_phi3_splits_its_fused_mlp():
    module = model_of("phi3").module
    for layer, at in blocks("phi3"):
        mlp = module.model.layers[layer].mlp
        torch.testing.assert_close(at("mlp.pre_linear") * mlp.activation_fn(at("mlp.pre")), at("mlp.post"))


def test_sliding_windows_show_in_the_pattern():
    pattern = held_of("mistral")["blocks.0.attn.pattern"]
    behind = torch.arange(7)[:, None] - torch.arange(7)
    assert (pattern[..., behind >= 4] == 0).all() and (pattern[..., (behind >= 0) & (behind < 4)] > 0).all()


def test_encoders_attend_both_ways_and_decoders_do_not():
    for case in ("bert", "vit"):
        assert not model_of(case).table.is_causal and (held_of(case)["blocks.0.attn.pattern"] > 0).all()
    for case in ("gpt2", "gpt_neox", "bloom", "gemma2"):
        assert model_of(case).table.is_causal and (held_of(case)["blocks.0.attn.pattern"].triu(1) == 0).all()


@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        ("gpt2", "reorder_and_upcast_attn", True),
        ("gpt2", "add_cross_attention", True),
        ("bloom", "slow_but_exact", True),
        ("bloom", "apply_residual_connection_post_layernorm", True),
        ("bert", "chunk_size_feed_forward", 2),
        ("llama", "an_unknown_switch", 3),
    ],
)
def test_a_config_that_the_table_is_not_right_for_is_refused(case, field, value):
    module = tiny(case)
    setattr(module.config, field, value)
    with pytest.raises(ConfigRefused, match=field):
        from_source(module)


def prove(model: Model) -> None:
    check = check_model(model)
    assert [entry.kind for entry in check.kinds] == list(dict.fromkeys(name.kind for name in model.site_names()))
    assert all(entry.shape and entry.moved > 1e-3 for entry in check.kinds)


@each_case
def test_the_proof_at_load_holds(case, attention):
    prove(model_of(case, attention))


@each_model
def test_the_proof_holds_for_base_models_which_have_no_logits(case):
    model = model_of(case, has_head=False)
    prove(model)
    assert "logits" not in model.table.places and "without a head" in model.table.absent["logits"]
