"""Fused adds equal adds one by one: any mixture of rows, scopes, strengths, openness and gates between them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optrode as op
from optrode.gate.place import gates
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.gate.models import TOKENS, own

MODEL = own()
HF = from_source(tiny("llama").double())
IDS = torch.arange(12).reshape(3, 4) * 5 % 61


def vector(width, seed):
    return torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_gates(draw_from, width):
    kinds = []
    for seed, (kind, layer, rows, strength) in enumerate(draw_from):
        v, site = vector(width, seed), f"blocks.{layer}.resid_post" + "[pos=1:]" * (seed % 2)
        options = {"rows": rows, "strength": strength}
        if kind == "conditional":
            options["openness"] = op.probe("blocks.0.resid_pre", vector(width, 99), above=0.5)
        kinds.append(op.scale(site, 0.7, **options) if kind == "scale" else op.add(site, v, **options))
    return kinds


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "add", "conditional", "scale"]), st.sampled_from(["0", "1", "*"]),
            st.sampled_from([None, (0,), (1, 2)]), st.sampled_from([1.0, 0.0, -2.5]),
        ),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_fused_equals_one_by_one(drawn):
    held = some_gates(drawn, 8)
    found = []
    for fused in (True, False):
        try:
            with gates(MODEL, *held, fused=fused):
                found.append(MODEL.module(TOKENS).logits)
        except op.OptrodeError as error:
            found.append(type(error).__name__)
    if isinstance(found[0], str) or isinstance(found[1], str):
        assert found[0] == found[1]
    else:
        torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_generation_with_scopes_and_rows():
    width = HF.table.d_model
    held = [
        op.add("blocks.*.resid_post", vector(width, 1), scope="generated", rows=[0]),
        op.add("blocks.*.resid_post", vector(width, 2), scope="prompt", rows=[2]),
        op.add("blocks.1.resid_post", vector(width, 3)),
    ]
    found = []
    for fused in (True, False):
        with gates(HF, *held, fused=fused):
            out = HF.module.generate(
                IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False, pad_token_id=0,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
        found.append(torch.stack(out.logits))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_gradients_flow_into_the_bank():
    vectors = [vector(8, seed).requires_grad_() for seed in range(2)]
    grads = []
    for fused in (True, False):
        with gates(
            MODEL,
            *(op.add("blocks.0.resid_post", v, strength=s) for v, s in zip(vectors, (1.0, 2.0), strict=True)),
            fused=fused,
        ):
            grads.append(torch.autograd.grad(MODEL.module(TOKENS).logits.square().sum(), vectors))
    torch.testing.assert_close(*grads)


def test_a_vector_changed_in_place_is_seen():
    v = vector(8, 0)
    with gates(MODEL, op.add("blocks.0.resid_post", v)):
        MODEL.module(TOKENS)
        v.mul_(3)
        now = MODEL.module(TOKENS).logits
    with gates(MODEL, op.add("blocks.0.resid_post", v), fused=False):
        assert torch.allclose(now, MODEL.module(TOKENS).logits, rtol=1e-12)


def test_a_row_beyond_the_batch_is_refused():
    with (
        pytest.raises(op.OptrodeError, match="the batch has 3 row"),
        gates(MODEL, op.add("blocks.0.resid_post", vector(8, 0), rows=[3])),
    ):
        MODEL.module(TOKENS)
