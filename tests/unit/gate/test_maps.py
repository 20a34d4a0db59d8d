"""Maps of activations as gates: their formulas, their supports, and what they refuse."""

import pytest
import torch

import optrode as op
from optrode.errors import BadGate, GateNotFinite, GateShape
from optrode.gate.maps import low_rank, membrane, rescale, scale_heads
from optrode.gate.place import gates
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.recording import record
from optrode.trial.naive import run_naively
from optrode.trial.run import Bench
from optrode.trial.trial import Trial
from tests.unit.gate.models import TOKENS as MODEL_TOKENS
from tests.unit.gate.models import own
from tests.unit.trial.test_packed import make_task

D, HEADS, WIDTH = 48, 6, 8
TOKENS = torch.arange(12).reshape(2, 6) * 5 % 61


@pytest.fixture(scope="module", name="model")
def _model():
    return from_source(tiny("llama").double())


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def before_and_after(model, site, gate):
    """What the site has without and with a gate."""
    plain = record(model, TOKENS, site)[site]
    with gates(model, gate):
        return plain, record(model, TOKENS, site)[site]


def test_rescale_maps_each_feature_with_its_own_weight_and_bias(model):
    weight, bias = drawn(D), drawn(D, seed=1)
    plain, mapped = before_and_after(model, "blocks.1.mlp_out", rescale("blocks.1.mlp_out", weight, bias))
    torch.testing.assert_close(mapped, weight * plain + bias)


def test_strength_goes_from_nothing_to_the_whole_map(model):
    weight, bias = drawn(D), drawn(D, seed=1)
    for strength in (0.25, 1.0):
        gate = rescale("blocks.1.mlp_out", weight, bias, strength=strength)
        plain, mapped = before_and_after(model, "blocks.1.mlp_out", gate)
        torch.testing.assert_close(mapped, (1 - strength) * plain + strength * (weight * plain + bias))


def test_the_identity_and_strength_0_change_no_bit(model):
    logits = model(TOKENS).logits
    identity = rescale("blocks.*.resid_post", torch.ones(D).double(), torch.zeros(D).double())
    nothing = rescale("blocks.*.resid_post", drawn(D), drawn(D, seed=1), strength=0.0)
    for gate in (identity, nothing):
        with gates(model, gate):
            assert torch.equal(model(TOKENS).logits, logits)


def test_outside_its_support_a_feature_is_left_alone(model):
    site = "blocks.0.resid_post"
    plain = record(model, TOKENS, site)[site]
    low, high = plain.flatten(0, 1).quantile(0.2, 0), plain.flatten(0, 1).quantile(0.7, 0)
    _, mapped = before_and_after(model, site, rescale(site, torch.full_like(low, 3.0), low, low=low, high=high))
    inside = (plain >= low) & (plain <= high)
    assert 0.3 < float(inside.double().mean()) < 0.7
    assert torch.equal(mapped[~inside], plain[~inside])
    torch.testing.assert_close(mapped[inside], (3 * plain + low)[inside])


def test_a_support_may_be_open_on_one_side(model):
    site, none = "blocks.0.resid_post", torch.zeros(D).double()
    _, mapped = before_and_after(model, site, rescale(site, none, none, low=none))
    plain, only_high = before_and_after(model, site, rescale(site, none, none, high=none))
    torch.testing.assert_close(mapped, plain.clamp(max=0))
    torch.testing.assert_close(only_high, plain.clamp(min=0))


def test_rescale_at_heads_has_a_weight_for_each_head_and_feature(model):
    weight, bias = drawn(HEADS, WIDTH), drawn(HEADS, WIDTH, seed=1)
    plain, mapped = before_and_after(model, "blocks.2.attn.z", rescale("blocks.2.attn.z", weight, bias))
    torch.testing.assert_close(mapped, weight * plain + bias)


def test_low_rank_sets_what_is_read_along_its_rows_and_leaves_the_rest(model):
    site = "blocks.1.resid_post"
    rotation = torch.linalg.qr(drawn(D, 3)).Q.T.contiguous()
    weight, bias = drawn(3, D, seed=1), drawn(3, seed=2)
    plain, mapped = before_and_after(model, site, low_rank(site, rotation, weight, bias))
    torch.testing.assert_close(mapped @ rotation.T, plain @ weight.T + bias)
    rest = torch.eye(D).double() - rotation.T @ rotation
    torch.testing.assert_close(mapped @ rest, plain @ rest)


def test_a_membrane_of_rank_1_adds_one_vector_by_how_much_another_is_there(model):
    site, down, up = "blocks.1.mlp_out", drawn(D), drawn(D, seed=1)
    plain, mapped = before_and_after(model, site, membrane(site, down, up, strength=0.5))
    torch.testing.assert_close(mapped, plain + 0.5 * (plain @ down)[..., None] * up)


def test_heads_are_scaled_one_by_one(model):
    factors = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5, 1.0], dtype=torch.float64)
    plain, mapped = before_and_after(model, "blocks.1.attn.z", scale_heads("blocks.1.attn.z", factors))
    torch.testing.assert_close(mapped, plain * factors[:, None])
    with gates(model, scale_heads("blocks.1.attn.z", 1 - torch.eye(HEADS)[2].double())):
        without = model(TOKENS).logits
    with gates(model, op.zero("blocks.1.attn.z[head=2]")):
        torch.testing.assert_close(model(TOKENS).logits, without)


def test_gradients_flow_into_weights_and_biases():
    model = own()

    def loss(weight, bias):
        with gates(model, rescale("blocks.0.mlp_out", weight, bias)):
            return model(MODEL_TOKENS).logits.square().mean()

    assert torch.autograd.gradcheck(loss, (drawn(8).requires_grad_(), drawn(8, seed=1).requires_grad_()))


def test_maps_hold_while_text_is_generated_with_its_cache(model):
    gate = rescale("blocks.*.mlp_out[pos=1:]", 1 + 0.1 * drawn(D), 0.1 * drawn(D, seed=1))
    with gates(model, gate):
        found = model.module.generate(TOKENS, attention_mask=torch.ones_like(TOKENS), max_new_tokens=5, pad_token_id=0)
        rows = TOKENS
        for _ in range(5):
            rows = torch.cat([rows, model(rows).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, rows)


def test_maps_print_what_they_are():
    one = torch.ones(D)
    assert str(rescale("embed", one, one)) == "rescale (48,) at embed"
    assert str(rescale("embed", one, one, low=-one, strength=0.5)) == "rescale (48,) within a support at embed, strength=0.5"
    assert str(membrane("embed", one, one)) == "map of rank 1 at embed"
    assert str(scale_heads("blocks.0.attn.z", torch.ones(6))) == "scale 6 heads at blocks.0.attn.z"


ONE = torch.ones(D)
REFUSED = {
    "shapes differ": (lambda: rescale("embed", ONE, ONE[:3]), BadGate, "give weight, bias, low and high in one shape"),
    "support empty": (lambda: rescale("embed", ONE, ONE, low=ONE, high=-ONE), BadGate, "low is above high for 48"),
    "whole numbers": (lambda: rescale("embed", ONE, ONE.long()), BadGate, "of type torch.int64"),
    "NaN": (lambda: rescale("embed", ONE, ONE * torch.nan), GateNotFinite, "NaN"),
    "rows not orthonormal": (lambda: low_rank("embed", ONE[None], ONE[None]), BadGate, "use op.membrane"),
    "ranks differ": (lambda: membrane("embed", ONE[None], ONE[None].repeat(2, 1)), BadGate, "[rank, feature]"),
    "no such option": (lambda: rescale("embed", ONE, ONE, strenght=1.0), BadGate, "strength"),
    "heads as a table": (lambda: scale_heads("embed", ONE[None]), BadGate, "one number per head"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_parts_are_refused_at_once(name):
    make, error, words = REFUSED[name]
    with pytest.raises(error) as refused:
        make()
    assert words in str(refused.value)


@pytest.mark.parametrize("make", [
    lambda: rescale("blocks.0.resid_post", torch.ones(6).double(), torch.ones(6).double()),
    lambda: rescale("blocks.0.attn.pattern", torch.ones(2, 6, 6, 6).double(), torch.ones(2, 6, 6, 6).double()),
    lambda: membrane("blocks.0.resid_post", torch.ones(6).double(), torch.ones(6).double()),
    lambda: scale_heads("blocks.0.attn.z", torch.ones(5).double()),
    lambda: scale_heads("blocks.0.resid_post", torch.ones(5).double()),
])  # fmt: skip
def test_maps_that_do_not_fit_the_site_are_refused(model, make):
    with pytest.raises(GateShape), gates(model, make()):
        model(TOKENS)


def test_packed_trials_of_maps_give_the_numbers_of_naive_ones(model):
    half = torch.linspace(-1, 1, D).double()
    held = [
        rescale("blocks.1.mlp_out", drawn(D), drawn(D, seed=1), low=-half.abs(), strength=0.5),
        rescale("blocks.2.attn.z[head=1]", drawn(HEADS, WIDTH), drawn(HEADS, WIDTH, seed=1)),
        membrane("blocks.1.resid_post[pos=-2:]", half, drawn(D)),
        scale_heads("blocks.0.attn.z", drawn(HEADS)),
    ]
    bench, trials = Bench(model, make_task()), [Trial((gate,), "clean", "logit_gap") for gate in held]
    assert {chunk.route for chunk in bench.plan(trials).chunks} == {"packed"}
    for values, trial in zip(bench.run_many(trials), trials, strict=True):
        assert values == pytest.approx(run_naively(model, make_task(), trial), abs=1e-6)
