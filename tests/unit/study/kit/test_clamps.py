"""Clamps of the induction circuit do to a pass what they say, and no more."""

import pytest
import torch

from optrode.gate.place import gates
from optrode.site.recording import record
from optrode.study.kit import clamps, icl

WORDS = icl.Vocabulary(icl.gaussian(6, 8), 5)
ROWS = icl.draw(WORDS, icl.Pool(range(6), icl.label_sets(5)[0]), 12, torch.Generator().manual_seed(1))
EACH = torch.arange(12)
N_HEADS = 4


@pytest.fixture
def model():
    built = icl.network(WORDS, 2, n_heads=N_HEADS, d_model=16)
    with torch.no_grad():
        built.module.embed.weight.mul_(50)  # labels as large as items, so that what moves them shows
    return built


def _seen(model, *held, sites=("blocks.*.attn.pattern", "logits")):
    with gates(model, *held):
        return record(model, {"input_ids": ROWS.ids}, list(sites), keep_logits=True)


def test_previous_token_holds_the_heads_named_and_leaves_the_others(model):
    free, held = _seen(model), _seen(model, *clamps.previous_token([0, 2]))
    pattern = held["blocks.0.attn.pattern"]
    expected = torch.zeros(5, 5)
    expected[0, 0] = expected[1, 0] = expected[2, 1] = expected[3, 2] = expected[4, 3] = 1
    assert torch.equal(pattern[:, 0], expected.expand(12, 5, 5)) and torch.equal(pattern[:, 2], expected.expand(12, 5, 5))
    assert torch.equal(pattern[:, [1, 3]], free["blocks.0.attn.pattern"][:, [1, 3]])


def test_previous_token_further_back_and_by_halves(model):
    free = _seen(model)["blocks.0.attn.pattern"][:, 1]
    back = _seen(model, *clamps.previous_token(1, back=2))["blocks.0.attn.pattern"][:, 1]
    assert torch.equal(back.argmax(-1)[0], torch.tensor([0, 1, 0, 1, 2])) and torch.equal(back.amax(-1), torch.ones(12, 5))
    half = _seen(model, *clamps.previous_token(1, strength=0.5))["blocks.0.attn.pattern"][:, 1]
    one = _seen(model, *clamps.previous_token(1))["blocks.0.attn.pattern"][:, 1]
    assert torch.allclose(half, (free + one) / 2)


def test_disallowed_heads_never_attend_to_the_token_before(model):
    pattern = _seen(model, *clamps.disallow_previous(range(N_HEADS)))["blocks.0.attn.pattern"]
    assert float(pattern.diagonal(-1, 2, 3).abs().max()) == 0
    assert torch.allclose(pattern.sum(-1), torch.ones(12, N_HEADS, 5))


def test_match_attends_from_the_query_to_the_right_label(model):
    free, held = _seen(model)["blocks.1.attn.pattern"], _seen(model, *clamps.match(1, WORDS))["blocks.1.attn.pattern"]
    expected = torch.zeros(12, 5)
    expected[EACH, ROWS.right] = 1
    assert torch.equal(held[:, 1, -1], expected)
    assert torch.equal(held[:, 1, :-1], free[:, 1, :-1]) and torch.equal(held[:, [0, 2, 3]], free[:, [0, 2, 3]])


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.6, 1.0])
def test_induction_strength_is_right_minus_wrong(model, strength):
    held = _seen(model, *clamps.induction_strength(2, strength, WORDS))["blocks.1.attn.pattern"][:, 2, -1]
    assert torch.allclose(held[EACH, ROWS.right] - held[EACH, ROWS.wrong], torch.full((12,), strength), atol=1e-6)
    assert torch.allclose(held.sum(-1), torch.ones(12))


def test_copy_sends_scores_to_the_logits_of_labels_in_context(model):
    free = _seen(model, sites=("blocks.1.attn.scores",))["blocks.1.attn.scores"]
    with gates(model, *clamps.copy(3)):
        logits = icl.read(model, ROWS)
    for row in range(12):
        expected = torch.full((5,), -1e9)
        for pos in (1, 3):
            expected[ROWS.ids[row, pos]] = free[row, 3, -1, pos]
        assert torch.equal(logits[row], expected)


def _embedded(module):
    return module.embed(ROWS.ids)


def _shifted(module):
    """By hand: the item before at each label, and so on; the first and the query keep their own."""
    own = _embedded(module)
    return torch.stack([own[:, 0], own[:, 0], own[:, 1], own[:, 2], own[:, 4]], 1)


def test_layer_one_reads_a_perfect_layer_one_into_patterns_and_the_embedding_into_values(model):
    module = model.module
    with gates(model, *clamps.layer_one()):
        found = icl.read(model, ROWS)
    block, closed = module.blocks[1], module._closed(ROWS.ids, None)
    turn = module._turn(torch.arange(5)[None])
    seen = {}
    handle = block.attn.pattern.register_forward_hook(lambda part, args, out: seen.update(pattern=out))
    block(_shifted(module), closed=closed, turn=turn)
    handle.remove()
    own = _embedded(module)
    values = block.attn.v(block.ln1(own)).unflatten(-1, (N_HEADS, -1))
    stream = own + block.attn.o(torch.einsum("bhps,bshd->bphd", seen["pattern"], values).flatten(2))
    by_hand = module.unembed(module.final_norm(stream))[:, -1]
    assert torch.allclose(found, by_hand, atol=1e-5)


def test_layer_one_copy_scores_the_perfect_layer_one(model):
    module = model.module
    with gates(model, *clamps.layer_one_copy(0)):
        found = icl.read(model, ROWS)
    seen = {}
    handle = module.blocks[1].attn.scores.register_forward_hook(lambda part, args, out: seen.update(scores=out))
    module.blocks[1](_shifted(module), closed=module._closed(ROWS.ids, None), turn=module._turn(torch.arange(5)[None]))
    handle.remove()
    assert torch.allclose(found.gather(1, ROWS.ids[:, 1:-1:2]), seen["scores"][:, 0, -1, 1:-1:2], atol=1e-6)


@pytest.mark.parametrize(("name", "learns", "does_not"), [
    ("layer one", ("blocks.1.attn.q", "blocks.1.attn.k", "blocks.1.attn.v", "embed.read_item"), ("blocks.0.attn.v",)),
    ("copy", ("blocks.1.attn.q", "blocks.1.attn.k", "blocks.0.attn.v"), ("blocks.1.attn.v", "unembed")),
    ("match", ("blocks.1.attn.v", "unembed"), ("blocks.1.attn.q", "blocks.1.attn.k")),
])  # fmt: skip
def test_what_is_left_to_be_learnt_gets_a_gradient_and_the_rest_none(model, name, learns, does_not):
    held = {"layer one": clamps.layer_one(), "copy": clamps.copy(1), "match": clamps.match(1, WORDS)}[name]
    alone = () if name == "copy" else clamps.only(1, 1, N_HEADS)
    with gates(model, *held, *alone):
        icl.loss(model, ROWS).backward()
    sizes = {key: 0.0 if p.grad is None else float(p.grad.norm()) for key, p in model.module.named_parameters()}
    assert all(sizes[f"{part}.weight"] > 1e-6 for part in learns)
    assert all(sizes[f"{part}.weight"] < 1e-9 for part in does_not)


def test_silent_heads_write_nothing(model):
    z = _seen(model, *clamps.only(2, 1, N_HEADS), sites=("blocks.1.attn.z",))["blocks.1.attn.z"]
    assert float(z[:, :, [0, 1, 3]].abs().max()) == 0 and float(z[:, :, 2].abs().max()) > 0
    out = "blocks.0.attn_out"
    assert float(_seen(model, *clamps.only(None, 0, N_HEADS), sites=(out,))[out].abs().max()) == 0
    assert clamps.ablated([], 1) == ()


def test_keeping_patterns_and_values_keeps_them_and_not_the_other(model):
    sites = ("blocks.1.attn.pattern", "blocks.1.attn.v")
    free, silent = _seen(model, sites=sites), clamps.ablated([0, 1], 0)
    patterns = _seen(model, *clamps.keeping_patterns(*silent), sites=sites)
    values = _seen(model, *clamps.keeping_values(*silent), sites=sites)
    assert torch.equal(patterns[sites[0]], free[sites[0]]) and not torch.allclose(patterns[sites[1]], free[sites[1]])
    assert torch.equal(values[sites[1]], free[sites[1]]) and not torch.allclose(values[sites[0]], free[sites[0]])
