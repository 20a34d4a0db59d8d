"""Merged weights do what the gates did, in every family and any order, up to rounding; the given model stays as it is."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optrode as op
from optrode.control.merging import merge, weight_changes
from optrode.gate import maps
from optrode.gate.gate import Gate
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.nn.transformer import Spec, as_model, build

TOKENS = torch.randint(61, (2, 7), generator=torch.Generator().manual_seed(1))
FAMILIES = ("llama", "gpt2", "gpt_neox", "bloom", "phi3", "qwen3")
BOUND = {torch.float32: 1e-5, torch.float64: 1e-12}


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64).to(dtype)


def groups(model):
    """Gates by what is tried with them."""
    d_model, d_head, dtype = model.table.d_model, model.table.d_head, model.dtype

    def made(*shape, seed=0):
        return drawn(*shape, dtype=dtype, seed=seed) / 2

    other = made(d_model, seed=1)
    return {
        "added to the stream": [
            op.add("blocks.1.resid_post", made(d_model), strength=0.5), op.add("blocks.2.resid_pre", other),
        ],
        "added by the halves": [op.add("blocks.*.attn_out", made(d_model)), op.add("blocks.*.mlp_out", other)],
        "directions taken out": [
            op.project_out("blocks.*.attn_out", made(2, d_model)), op.project_out("blocks.1.mlp_out", other, strength=0.5),
        ],
        "heads and neurons scaled": [
            op.scale("blocks.0.attn.z[head=1]", 0.2), op.scale("blocks.2.mlp.post[feature=3:7]", 3.0),
            maps.scale_heads("blocks.1.attn.z", made(model.table.n_heads)),
        ],
        "projections": [
            op.affine("blocks.0.attn.q", made(d_head, d_head), made(d_head)), op.zero("blocks.1.attn.v[head=0]"),
            op.clamp("blocks.2.mlp.pre[feature=2]", 0.5), op.project_out("blocks.2.attn.k[head=1]", made(d_head)),
        ],
        "maps": [
            maps.rescale("blocks.0.mlp_out", made(d_model), other), maps.membrane("blocks.1.attn_out", made(d_model), other),
            op.affine("blocks.1.mlp_out", made(d_model, d_model), strength=0.25),
        ],
        "what reads": [op.add("blocks.1.attn.z", made(d_head)), op.affine("blocks.1.attn.z[head=0]", made(d_head, d_head))],
    }  # fmt: skip


def logits(model, *gates):
    with torch.no_grad(), op.gates(model, *gates):
        return model.module(TOKENS).logits


def gap(model, gates):
    return float((logits(model, *gates) - logits(merge(model, gates))).abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_logits_are_the_gated_ones(family, dtype):
    model = from_source(tiny(family).to(dtype))
    for name, gates in groups(model).items():
        assert float((logits(model) - logits(model, *gates)).abs().max()) > 0.05, name
        assert gap(model, gates) <= BOUND[dtype] * max(1.0, float(logits(model, *gates).abs().max())), name


def test_our_own_transformer_is_merged_too():
    spec = Spec(n_layers=2, n_heads=2, d_model=8, vocab=61, n_ctx=7, d_mlp=12)
    model = as_model(build(spec, 1, torch.float64))
    gates = [op.add("blocks.0.resid_post", drawn(8)), op.scale("blocks.1.attn.z[head=1]", 0.1), op.zero("blocks.1.mlp_out")]
    assert gap(model, gates) <= 1e-12


def test_a_model_without_a_table_is_merged_by_module():
    network = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2, bias=False))
    model, x = op.load(network, family=None), torch.randn(3, 4)
    gates = [op.add("module:2.in", drawn(5, dtype=torch.float32)), op.scale("module:0.out[feature=1]", 0.0)]
    with op.gates(model, *gates), torch.no_grad():
        gated = network(x)
    merged = merge(model, gates, inputs=x)
    assert torch.allclose(merged.module(x), gated, atol=1e-6)
    assert merged.module[2].bias is not None and network[2].bias is None


@given(order=st.permutations(range(7)), strengths=st.lists(st.floats(-2, 2), min_size=7, max_size=7))
@settings(max_examples=15, deadline=None)
def test_gates_act_in_the_order_of_the_pass_whatever_order_they_are_given_in(order, strengths):
    model = gpt2()
    found = [
        op.add("blocks.1.resid_post", drawn(36)), op.scale("blocks.1.mlp_out", 2.0), op.add("blocks.1.mlp_out", drawn(36)),
        op.project_out("blocks.1.mlp_out", drawn(36, seed=5)), op.scale("module:transformer.h.1.mlp.c_proj.out", -0.5),
        op.add("blocks.1.mlp.post", drawn(50)), op.project_out("blocks.1.mlp.post", drawn(2, 50)),
    ]  # fmt: skip
    gates = [Gate(found[ix].site, found[ix].actuator, strengths[ix]) for ix in order]
    if all(strengths):
        assert gap(model, gates) <= 1e-11


def gpt2(_held=[]):  # noqa: B006
    if not _held:
        _held.append(from_source(tiny("gpt2").double()))
    return _held[0]


def test_the_model_itself_stays_as_it_is_and_the_copy_has_no_hooks():
    model = from_source(tiny("llama").train())
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    vector = drawn(48, dtype=torch.float32)
    merged = merge(model, [op.add("blocks.1.resid_post", vector), op.zero("blocks.0.attn.z[head=1]")])
    after = model.module.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(module.training for module in (*model.module.modules(), *merged.module.modules()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in merged.module.modules())
    assert merged.weights_hash != model.weights_hash
    changed = set(merged.module.state_dict()) - set(before)
    assert changed == {"model.layers.1.mlp.down_proj.bias"}
    assert merged.table is model.table and "2 gate(s) merged" in merged.name


def test_tied_embeddings_stay_tied():
    model = from_source(tiny("gpt2"))
    merged = merge(model, [op.add("blocks.0.attn_out", drawn(36, dtype=torch.float32))])
    assert merged.module.lm_head.weight is merged.module.transformer.wte.weight


def test_untied_embeddings_can_change():
    model = from_source(tiny("llama", tie_word_embeddings=False).double())
    direction = drawn(48)
    gates = [op.project_out("embed", direction), op.add("embed", drawn(48, seed=2))]
    assert gap(model, gates) <= 1e-6  # Llama's norms round to float32
    everywhere = [op.project_out(site, direction) for site in ("embed", "blocks.*.attn_out", "blocks.*.mlp_out")]
    stream = op.record(merge(model, everywhere), TOKENS, "blocks.2.resid_post")["blocks.2.resid_post"]
    assert float((stream @ direction).abs().max()) < 1e-9  # what writes to the stream writes nothing there


def test_merged_models_generate_with_their_own_cache():
    model = from_source(tiny("llama"))
    gates = [op.add("blocks.1.resid_post", drawn(48, dtype=torch.float32))]
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with op.gates(model, *gates):
        gated = model.module.generate(TOKENS, **options)
    assert torch.equal(gated, merge(model, gates).module.generate(TOKENS, **options))


def test_changes_of_weights_are_named_by_module():
    model = gpt2()
    changes = weight_changes(model, [op.add("blocks.1.resid_post", drawn(36)), op.scale("blocks.0.attn.z[head=2]", 0.0)])
    found = {change.path: change for change in changes}
    assert set(found) == {"transformer.h.1.mlp.c_proj", "transformer.h.0.attn.c_proj"}
    moved = found["transformer.h.1.mlp.c_proj"]
    assert torch.equal(moved.weight, moved.new_weight) and torch.allclose(moved.new_bias - moved.bias, drawn(36))
    scaled = found["transformer.h.0.attn.c_proj"]
    assert scaled.is_scaling and int((scaled.scale_in == 0).sum()) == 9
    assert not scaled.new_weight[:, 18:27].any() and torch.equal(scaled.new_weight[:, :18], scaled.weight[:, :18])


def test_a_copy_of_a_merged_model_is_as_good():
    model = gpt2()
    merged = merge(model, [op.zero("blocks.1.mlp_out")])
    assert torch.equal(logits(merged), copy.deepcopy(merged.module)(TOKENS).logits)
