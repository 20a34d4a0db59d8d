"""A model's weights hash is that of its weights as they are."""

import pytest
import torch

from optrode.nn.transformer import Spec, as_model, build

SPEC = Spec(n_layers=1, n_heads=2, d_model=8, vocab=5, n_ctx=4)


def test_equal_weights_have_equal_hashes_and_other_weights_others():
    one, same, other = (as_model(build(SPEC, seed)) for seed in (0, 0, 1))
    assert one.weights_hash == same.weights_hash != other.weights_hash and len(one.weights_hash) == 64


@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}])
def test_the_hash_follows_training(options):
    model = as_model(build(SPEC))
    optimizer = torch.optim.AdamW(model.module.parameters(), **options)
    seen = {model.weights_hash}
    for _ in range(3):
        model.module(torch.tensor([[1, 2]])).logits.sum().backward()
        optimizer.step()
        assert model.weights_hash == as_model(model.module).weights_hash
        seen.add(model.weights_hash)
    assert len(seen) == 4


def test_a_single_weight_written_in_place_by_torch_is_noticed():
    model = as_model(build(SPEC))
    before = model.weights_hash
    with torch.no_grad():
        model.module.blocks[0].attn.q.weight[3, 5] += 1e-7
    assert model.weights_hash != before


def test_it_is_not_made_anew_where_nothing_changed(monkeypatch):
    model = as_model(build(SPEC))
    before = model.weights_hash
    monkeypatch.setattr("optrode.model.model._hash_of", lambda state: "made anew")
    assert model.weights_hash == before
