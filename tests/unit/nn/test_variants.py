"""What a spec can leave out or read instead: each does what its field says, and every site is still proven."""

import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.gate.check import check_model
from optrode.nn.transformer import INITS, Spec, Transformer, as_model, build

SIZES = {"n_layers": 2, "n_heads": 2, "d_model": 12, "vocab": 5, "n_ctx": 7}
REDDY = Spec(
    **SIZES | {"n_heads": 1}, norm="none", positions="one_hot", has_bias=False, is_scaled=False, has_output=False,
    head_layers=3, unembed_bias=True,
)  # fmt: skip
SINGH = Spec(
    **SIZES, positions="rotary", has_bias=False, norm_bias=True, unembed_bias=True, n_items=4, d_item=9
)  # fmt: skip
SPECS = {
    "Reddy's": REDDY,
    "Singh's": SINGH,
    "one-hot positions, full blocks": Spec(**SIZES, positions="one_hot", d_mlp=10),
    "two unprojected heads": Spec(**SIZES, has_output=False, d_mlp=10, norm="rms"),
    "vectors through a map": Spec(**SIZES, positions="one_hot", d_in=6, norm_bias=False),
    "unscaled, one hidden layer in the head": Spec(**SIZES, is_scaled=False, head_layers=1, d_out=3),
}


@pytest.fixture(params=SPECS, name="spec")
def _spec(request):
    return SPECS[request.param]


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(spec, dtype=torch.float64, **options):
    items = numbers(spec.n_items, spec.d_item, dtype=dtype) if spec.n_items else None
    return build(spec, dtype=dtype, items=items, **options)


def test_every_site_is_proven(spec):
    model = as_model(make(spec, torch.float32))
    kinds = {entry.kind for entry in check_model(model).kinds}
    assert kinds == set(model.table.places) and {"attn.z", "attn.result", "embed"} <= kinds


def test_a_spec_is_rebuilt_from_what_it_says_of_itself(spec):
    assert Spec(**spec.to_dict()) == spec


def test_fields_at_their_default_are_no_part_of_older_keys():
    plain = Spec(**SIZES).to_dict()
    assert len(plain) == 16 and "is_scaled" not in plain and "d_in" not in plain
    assert set(REDDY.to_dict()) - set(plain) == {"is_scaled", "has_output", "head_layers", "unembed_bias"}


def test_one_hot_positions_and_token_have_dimensions_of_their_own():
    module = make(REDDY)
    ids, positions = torch.tensor([[1, 4, 0], [2, 2, 3]]), torch.tensor([[3, 4, 5], [0, 6, 1]])
    with op.recording(as_model(module), ["embed", "pos_embed", "blocks.0.resid_pre"]) as held:
        plain, shifted = module(ids).logits, module(ids, position_ids=positions).logits
    stream = held["blocks.0.resid_pre"]
    assert torch.equal(stream[:2, :, :7], torch.eye(7, dtype=torch.float64)[:3].expand(2, 3, 7))
    assert torch.equal(stream[2:, :, :7], torch.eye(7, dtype=torch.float64)[positions])
    assert torch.equal(stream[2:, :, 7:], module.embed.weight.detach()[ids])
    assert torch.equal(held["embed"][:, :, :7], torch.zeros(4, 3, 7, dtype=torch.float64))
    assert torch.equal(stream, held["embed"] + held["pos_embed"])
    assert not torch.allclose(plain, shifted)


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_hot_positions_do_not_count_padding(side):
    module, row = make(REDDY), torch.tensor([[1, 4, 0]])
    pad, real = torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 3, dtype=torch.long)
    parts = [(pad, pad), (row, real)] if side == "left" else [(row, real), (pad, pad)]
    ids, mask = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    kept = slice(2, None) if side == "left" else slice(0, 3)
    torch.testing.assert_close(module(ids, mask).logits[:, kept], module(row).logits, atol=1e-12, rtol=0)


def written_out(module, stream):
    """Reddy's network on [pos, d_model]: no scale, no norm, no output projection; a ReLU MLP reads the end."""
    for block in module.blocks:
        attn = block.attn
        q, k, v = (stream @ part.weight.T for part in (attn.q, attn.k, attn.v))
        added = []
        for p in range(len(stream)):
            weights = torch.stack([q[p] @ k[s] for s in range(p + 1)]).exp()
            added.append(sum(w * v[s] for s, w in enumerate(weights / weights.sum())))
        stream = stream + torch.stack(added)
    for ix in (0, 2, 4):
        stream = (stream @ module.head[ix].weight.T + module.head[ix].bias).clamp(min=0)
    return stream @ module.unembed.weight.T + module.unembed.bias


def test_unscaled_unprojected_attention_and_its_head_are_those_of_the_written_out_definition():
    module, vectors = make(REDDY), numbers(2, 6, 5)
    with torch.no_grad():
        place = torch.eye(7, dtype=torch.float64)[:6]
        expected = torch.stack([written_out(module, torch.cat([place, row], 1)) for row in vectors])
        torch.testing.assert_close(module(inputs_embeds=vectors).logits, expected, atol=1e-12, rtol=0)


def test_several_unprojected_heads_write_side_by_side():
    model = as_model(make(SPECS["two unprojected heads"]))
    held = op.record(model, [[0, 1, 2, 3]], ["blocks.0.attn.z", "blocks.0.attn.result", "blocks.0.attn_out"])
    z, result = held["blocks.0.attn.z"], held["blocks.0.attn.result"]
    assert torch.equal(held["blocks.0.attn_out"], z.flatten(2)) and torch.equal(result.sum(2), z.flatten(2))
    assert torch.equal(result[:, :, 1, :6], torch.zeros(1, 4, 6, dtype=torch.float64))
    with op.gates(model, op.zero("blocks.0.attn.result[head=1]")), op.recording(model, "blocks.0.attn_out") as gated:
        model(torch.tensor([[0, 1, 2, 3]]))
    assert torch.equal(gated["blocks.0.attn_out"], result[:, :, 0])


def test_scores_are_divided_by_the_root_of_the_width_unless_the_spec_says_otherwise():
    scaled, unscaled = (make(Spec(**SIZES, is_scaled=flag, has_bias=False)) for flag in (True, False))
    unscaled.load_state_dict(scaled.state_dict())
    site = "blocks.0.attn.scores"
    one, two = (op.record(as_model(module), [[0, 1, 2]], site)[site] for module in (scaled, unscaled))
    torch.testing.assert_close(one * 6**0.5, two, atol=1e-12, rtol=0)


def test_items_are_their_features_through_one_map():
    module, ids = make(SINGH), torch.tensor([[5, 0, 8, 4, 6]])
    embed, features = module.embed, numbers(4, 9)
    expected = torch.stack([
        features[0] @ embed.read_item.weight.T + embed.read_item.bias, embed.weight[0],
        features[3] @ embed.read_item.weight.T + embed.read_item.bias, embed.weight[4],
        features[1] @ embed.read_item.weight.T + embed.read_item.bias,
    ])  # fmt: skip
    torch.testing.assert_close(embed(ids)[0], expected, atol=1e-12, rtol=0)
    assert module.config.vocab_size == 9 and module(ids).logits.shape == (1, 5, 5)


def test_training_moves_the_map_and_the_labels_read_but_no_features():
    module, ids = make(SINGH), torch.tensor([[5, 0, 8, 3, 6]])
    before = module.embed.features.clone()
    torch.optim.SGD(module.parameters(), lr=0.1).zero_grad()
    module(ids).logits[:, -1].square().sum().backward()
    assert all(p is not module.embed.features for p in module.parameters()) and not module.embed.features.requires_grad
    assert float(module.embed.read_item.weight.grad.abs().max()) > 0
    read = module.embed.weight.grad.abs().sum(1) > 0
    assert read.tolist() == [True, False, False, True, False] and torch.equal(before, module.embed.features)


def test_items_are_saved_hashed_and_loaded_with_the_weights():
    module, other = make(SINGH), Transformer(SINGH).double()
    assert bool(other.embed.features.isnan().all())
    other.load_state_dict(module.state_dict())
    ids = torch.tensor([[5, 0, 8]])
    assert torch.equal(module(ids).logits, other(ids).logits)
    moved = build(SINGH, dtype=torch.float64, items=numbers(4, 9, seed=1))
    assert as_model(module).weights_hash == as_model(other).weights_hash != as_model(moved).weights_hash


def test_prompts_may_hold_items_and_nothing_beyond():
    model = as_model(make(SINGH))
    assert op.record(model, [[8, 0]], "embed")["embed"].shape == (1, 2, 12)
    with pytest.raises(BadOption, match="token id 9 is not in the vocabulary of 9 tokens"):
        op.record(model, [[9, 0]], "embed")


def test_vectors_take_the_place_of_token_ids():
    module = make(REDDY)
    ids = torch.tensor([[1, 4, 0]])
    vectors = module.embed.weight[ids]
    assert torch.equal(module(inputs_embeds=vectors).logits, module(ids).logits)
    assert torch.equal(module(vectors).logits, module(ids).logits)
    held = op.record(as_model(module), vectors, "embed")["embed"]
    assert torch.equal(held[:, :, 7:], vectors)


def test_vectors_go_through_a_map_where_the_spec_has_one():
    module, vectors = make(SPECS["vectors through a map"]), numbers(2, 3, 6)
    held = op.record(as_model(module), {"inputs_embeds": vectors}, "embed")["embed"]
    read = module.embed.read_in
    torch.testing.assert_close(held[:, :, 7:], vectors @ read.weight.T + read.bias, atol=1e-12, rtol=0)
    module(inputs_embeds=vectors).logits.square().sum().backward()
    assert float(read.weight.grad.abs().max()) > 0 and module.embed.weight.grad is None


def test_gates_act_on_what_is_read_from_vectors():
    module, vectors = make(SPECS["vectors through a map"]), numbers(1, 3, 6)
    model = as_model(module)
    with op.gates(model, op.zero("embed[pos=1, feature=7:12]")), op.recording(model, "blocks.0.resid_pre") as held:
        module(inputs_embeds=vectors)
    stream = held["blocks.0.resid_pre"][0]
    assert torch.equal(stream[1], torch.eye(12, dtype=torch.float64)[1]) and float(stream[2, 7:].abs().max()) > 0


def test_the_head_has_hidden_layers_and_hands_out_no_columns():
    module = make(REDDY)
    assert len(module.head) == 6 and module.get_output_embeddings() is None
    held = op.record(as_model(module), [[0, 1]], ["module:head.5.out", "module:unembed.in"])
    assert torch.equal(held["module:head.5.out"], held["module:unembed.in"]) and float(held["module:head.5.out"].min()) == 0
    assert make(SINGH).get_output_embeddings() is not None
    kept = module(torch.tensor([[0, 1, 2]]), logits_to_keep=1).logits
    torch.testing.assert_close(kept, module(torch.tensor([[0, 1, 2]])).logits[:, -1:], atol=1e-14, rtol=0)


def test_norms_can_have_biases_where_projections_have_none():
    names = {name for name, _ in make(SINGH).named_parameters()}
    assert {"blocks.0.ln1.bias", "final_norm.bias", "unembed.bias"} <= names and "blocks.0.attn.q.bias" not in names
    without = {name for name, _ in make(SPECS["vectors through a map"]).named_parameters()}
    assert "blocks.0.attn.q.bias" in without and "blocks.0.ln1.bias" not in without


def test_gradients_reach_every_parameter(spec):
    module = make(spec)
    ids = torch.arange(spec.vocab_size)[None, :7] if spec.n_items == 0 else torch.tensor([[0, 1, 2, 3, 4, 5, 8]])
    loss = module(ids).logits.square().mean()
    loss = loss + (module(inputs_embeds=numbers(1, 7, spec.d_in)).logits.square().mean() if spec.d_in else 0)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"has_output": False, "d_head": 5}, r"2 heads of width 5 put 10 numbers side by side, d_model is 12"),
        ({"d_item": 9}, r"n_items=0, d_item=9: items need a number and a width. Next: give n_items too"),
        ({"n_items": 9}, r"n_items=9, d_item=0: items need a number and a width. Next: give d_item too"),
        ({"positions": "one_hot", "n_ctx": 12}, r"n_ctx=12 of d_model=12 dimensions, which leaves none for the token"),
        ({"positions": "onehot"}, r"positions='onehot': no such choice. Nearest: one_hot"),
        ({"norm_bias": True, "norm": "rms"}, r"norm_bias=True with norm='rms': only a layer norm has a bias"),
        ({"head_layers": -1}, r"head_layers=-1: it is a number or a width"),
        ({"d_in": -2}, r"d_in=-2: it is a number or a width"),
    ],
)
def test_specs_that_do_not_fit_are_refused(change, message):
    with pytest.raises(BadOption, match=message):
        Spec(**SIZES | change)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(), "input_ids or inputs_embeds: there is neither"),
        (lambda m: m(torch.tensor([[1]]), inputs_embeds=numbers(1, 1, 5)), "there are both"),
        (lambda m: m(inputs_embeds=numbers(1, 2, 4)), r"inputs_embeds of shape \[1, 2, 4\]: the model reads .* width 5"),
        (lambda m: m(inputs_embeds=numbers(1, 8, 5)), "a prompt of 8 tokens: the model was built for n_ctx=7"),
        (lambda m: m(torch.tensor([[1, 2]]), position_ids=torch.tensor([[6, 7]])), "position_ids from 6 to 7"),
    ],
)
def test_inputs_that_the_model_cannot_read_are_refused(call, message):
    with pytest.raises(BadOption, match=message):
        call(make(REDDY))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (None, "a model of 4 items: no features are given"),
        (torch.zeros(3, 9), r"items of shape \[3, 9\]: the spec has n_items=4, d_item=9"),
        (torch.tensor([0.0, 0, float("nan"), 0])[:, None].expand(4, 9), "item 2 is not finite"),
    ],
)
def test_items_that_do_not_fit_are_refused(items, message):
    with pytest.raises(BadOption, match=message):
        build(SINGH, items=items)
    if items is None:
        with pytest.raises(BadOption, match="the spec has n_items=0"):
            build(REDDY, items=torch.zeros(3, 9))


@pytest.mark.parametrize("init", INITS)
def test_every_start_is_reproducible_and_leaves_the_callers_random_state_alone(init):
    before = torch.random.get_rng_state()
    one, two = (make(SINGH, init=init).state_dict() for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = build(SINGH, 1, torch.float64, init=init, items=numbers(4, 9)).state_dict()
    assert not torch.equal(one["blocks.0.attn.q.weight"], other["blocks.0.attn.q.weight"])
    assert torch.equal(one["embed.features"], numbers(4, 9))
