"""Composition scores against dense products of whole matrices, and on heads that were made to compose."""

import numpy as np
import pytest
import torch

from optrode.circuit.compose import composition
from optrode.circuit.edge.wiring import wiring_of
from optrode.circuit.heads import Factors, factors_of, linear_part, singular
from optrode.errors import BadOption, SiteUnavailable
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.unit.circuit.planted import planted_model


def make_model(family):
    return from_source(tiny(family).double())


def dense_gpt2(model, layer, head):
    """(OV, QK) as [d_model, d_model], by hand: layer norm's gain and centring folded in."""
    block, d = model.module.transformer.h[layer], 36
    q, k, v = (block.attn.c_attn.weight[:, part * d + head * 9 : part * d + head * 9 + 9] for part in range(3))
    fold = (torch.eye(d, dtype=torch.float64) - 1 / d) @ torch.diag(block.ln_1.weight)
    return fold @ v @ block.attn.c_proj.weight[head * 9 : head * 9 + 9], fold @ q @ k.T @ fold.T


def dense_llama(model, layer, head):
    block = model.module.model.layers[layer]
    q, k, v = (getattr(block.self_attn, f"{part}_proj").weight.T for part in "qkv")
    own, group = slice(head * 8, head * 8 + 8), slice(head // 3 * 8, head // 3 * 8 + 8)
    fold = torch.diag(block.input_layernorm.weight)
    return fold @ v[:, group] @ block.self_attn.o_proj.weight.T[own], fold @ q[:, own] @ k[:, group].T @ fold


def dense_gemma(model, layer, head):
    block = model.module.model.layers[layer]
    q, k, v = (getattr(block.self_attn, f"{part}_proj").weight.T for part in "qkv")
    own, group = slice(head * 10, head * 10 + 10), slice(head // 3 * 10, head // 3 * 10 + 10)
    fold = torch.diag(1 + block.input_layernorm.weight)
    after = torch.diag(1 + block.post_attention_layernorm.weight)
    return fold @ v[:, group] @ block.self_attn.o_proj.weight.T[own] @ after, fold @ q[:, own] @ k[:, group].T @ fold


DENSE = {"gpt2": dense_gpt2, "llama": dense_llama, "gemma": dense_gemma}


@torch.no_grad()
def naive(dense, model, writer, reader):
    """{side: score} of two (layer, head)."""
    ov, (read_ov, qk) = dense(model, *writer)[0], dense(model, *reader)
    sides = {"q": qk, "k": qk.T, "v": read_ov}
    return {side: float((ov @ read).norm() / (ov.norm() * read.norm())) for side, read in sides.items()}


@pytest.mark.parametrize("family", DENSE)
def test_scores_are_those_of_dense_products(family):
    model, dense = make_model(family), DENSE[family]
    found, n = composition(model), model.table.n_heads
    for writer, reader in (((0, 0), (1, 1)), ((0, 3), (2, 2)), ((1, n - 1), (2, 0))):
        wanted = naive(dense, model, writer, reader)
        for ix, side in enumerate(found.kinds):
            score = found.scores[ix, reader[0] * n + reader[1], writer[0] * n + writer[1]]
            assert score == pytest.approx(wanted[side], abs=1e-12), (side, writer, reader)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gemma3_text", "gpt_neox", "phi3", "qwen3", "bloom"])
def test_folded_weights_read_the_stream_as_the_norm_and_the_weights_do_but_for_its_size(family):
    model = make_model(family)
    wiring = wiring_of(model)
    norm, x = wiring.input_norm(1), torch.randn(1, 4, model.table.d_model, dtype=torch.float64)
    weight = wiring.input_weights(1, "q")[0][2]
    normed = (norm(x) - norm(torch.zeros_like(x)))[0] @ weight
    read = x[0] @ linear_part(norm, wiring).fold(weight[None])[0]
    sizes = (read / normed).detach()
    assert torch.allclose(sizes, sizes.mean(-1, keepdim=True).expand_as(sizes), rtol=1e-5, atol=1e-7)


def test_without_folding_the_weights_are_taken_as_they_are():
    model = make_model("olmo2")
    wiring = wiring_of(model)
    factors = factors_of(wiring, 1, "ov", fold_norm=False)
    weight, own = wiring.output_weights(1), factors_of(wiring, 1, "ov")
    assert torch.equal(factors.right, weight) and torch.equal(factors.left, own.left), "OLMo 2 has no norm before attention"
    gain = model.module.model.layers[1].post_attention_layernorm.weight
    assert torch.allclose(own.right, weight * gain)


def test_pairs_that_are_not_in_order_have_no_score():
    found = composition(make_model("gpt2"), ("k",))
    layers = np.arange(12) // 4
    assert (np.isnan(found.scores[0]) == (layers[:, None] <= layers)).all()
    assert found.heads[5] == "a1.h1" and found.components is None and found.scores.shape == (1, 12, 12)


@pytest.mark.parametrize("by", ["writer", "reader"])
def test_components_are_those_of_dense_decompositions(by):
    model = make_model("gpt2")
    found = composition(model, by=by)
    ov, (read_ov, qk) = dense_gpt2(model, 0, 2)[0], dense_gpt2(model, 2, 1)
    for ix, read in enumerate((qk, qk.T, read_ov)):
        taken = torch.linalg.svd(ov if by == "writer" else read)
        for part in (0, 3, 8):
            one = taken.S[part] * torch.outer(taken.U[:, part], taken.Vh[part])
            left, right = (one, read) if by == "writer" else (ov, one)
            wanted = ((left @ right).norm() / (left.norm() * right.norm())).item()
            assert found.components[ix, 9, 2, part] == pytest.approx(wanted, abs=1e-9)
    assert np.isnan(found.components[0, 2, 9]).all()


def test_singular_values_and_vectors_put_the_matrix_together_again():
    factors = Factors(torch.randn(3, 20, 6, dtype=torch.float64), torch.randn(3, 6, 20, dtype=torch.float64))
    found = singular(factors)
    assert torch.allclose(torch.einsum("hid,hi,hie->hde", found.u, found.s, found.v), factors.left @ factors.right)
    for vectors in (found.u, found.v):
        assert torch.allclose(vectors @ vectors.transpose(1, 2), torch.eye(6, dtype=torch.float64).expand(3, 6, 6))


def test_planted_composition_stands_out_on_the_side_that_reads():
    model = planted_model()
    found = composition(model, fold_norm=True)
    assert {(writer, reader) for writer, reader, _ in found.table(2)} == {("a0.h1", "a1.h2.q"), ("a0.h3", "a1.h2.q")}
    q, k, v = (found.scores[ix, 6] for ix in range(3))
    assert q[1] > 0.3 and k[1] == pytest.approx(0, abs=1e-12) and v[1] == pytest.approx(0, abs=1e-12)


def test_random_heads_score_the_baseline():
    found = composition(make_model("gpt2"), fold_norm=False)
    assert np.nanmean(found.scores) == pytest.approx(found.baseline, rel=0.1)
    above = composition(make_model("gpt2"), fold_norm=False, subtract_baseline=True)
    assert np.allclose(above.scores, found.scores - found.baseline, equal_nan=True)
    same = composition(make_model("gpt2"), fold_norm=False, by="writer", subtract_baseline=True)
    assert abs(np.nanmean(same.components)) < 0.1 * same.component_baseline


def test_components_without_a_singular_value_have_no_score():
    found = composition(planted_model(), ("q",), by="writer")
    assert np.isfinite(found.components[0, 6, 1]).sum() == 5, "the planted head writes 5 dimensions of 8"


def test_bad_input_is_named():
    model = make_model("gpt2")
    with pytest.raises(BadOption, match="kind 'o'"):
        composition(model, ("q", "o"))
    with pytest.raises(BadOption, match="Nearest: writer"):
        composition(model, by="writers")
    with pytest.raises(BadOption, match="fold_norm=False"):
        composition(make_model("bert"))
    assert np.isfinite(composition(make_model("bert"), fold_norm=False).scores[:, 4, 0]).all()
    with pytest.raises(SiteUnavailable, match="generic"):
        composition(from_source(torch.nn.Linear(3, 3), family=None))
