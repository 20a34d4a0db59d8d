"""A controller decides at the prompt how open each gate is; every gate that it opens acts, or is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optrode as op
from optrode.control.controller import Controller, controller_for, controller_gates
from optrode.control.direction import Direction
from optrode.errors import BadGate, BadOption, GateShape, UnknownSite
from optrode.model.generation import generation
from optrode.model.source import from_source
from optrode.model.tiny import tiny

PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]
SITES = tuple(f"blocks.{layer}.resid_post" for layer in range(3))


@pytest.fixture(name="model", scope="module")
def _model():
    return from_source(tiny("llama"))


@pytest.fixture(name="steer", scope="module")
def _steer(model):
    vectors = torch.eye(model.table.d_model)[:3]
    return tuple(Direction(site, vector, 10.0, "by hand") for site, vector in zip(SITES, vectors, strict=True))


@pytest.fixture(name="controller")
def _controller(model, steer):
    return controller_for(model, steer, SITES[-1], n_hidden=8, random_seed=1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(0, 100), st.sampled_from(["sigmoid", "softplus"]))
def test_outputs_are_the_amount_times_weights_of_which_the_largest_is_one(n_gates, seed, amount):
    made = Controller(("blocks.0.resid_post",), 6, n_gates, n_hidden=4, amount=amount, random_seed=seed)
    features = 3 * torch.randn(7, 6, generator=torch.Generator().manual_seed(seed))
    amounts, weights = made.amounts(features), made.layer_weights(features)
    assert torch.allclose(made(features), amounts[:, None] * weights, atol=1e-6)
    assert torch.allclose(weights.amax(-1), torch.ones(7)) and bool((weights > 0).all()) and bool((amounts >= 0).all())
    assert torch.allclose(made(features).amax(-1), amounts), "the amount is how open the most open gate is"


def test_equal_seeds_make_equal_controllers_and_leave_the_callers_random_state_alone(model, steer):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, two, other = (controller_for(model, steer, SITES[0], random_seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(one.hidden.weight, two.hidden.weight) and not torch.equal(one.hidden.weight, other.hidden.weight)


def test_uniform_weights_open_all_gates_alike(model, steer):
    made = controller_for(model, steer, SITES[0], weights="uniform")
    features = torch.randn(3, model.table.d_model)
    assert torch.equal(made(features), made.amounts(features)[:, None].expand(3, 3)) and made.weight_parameters == ()


def test_each_sites_features_are_brought_to_one_size():
    made = Controller(("a", "b"), 8, 1)
    features = torch.randn(50, 8) * torch.tensor([1.0] * 4 + [1000.0] * 4) + 7.0
    made.standardise(features)
    shown = (features - made.centre) / made.spread
    for part in (shown[:, :4], shown[:, 4:]):
        assert float(part.square().mean()) == pytest.approx(1, abs=1e-4) and float(part.mean(0).abs().max()) < 1e-4


def test_gates_are_open_as_the_controller_says_of_a_pass_without_them(model, steer, controller):
    read = torch.stack([op.record(model, row, SITES[-1])[SITES[-1]][0, -1] for row in PROMPTS])
    with op.gates(model, *controller_gates(controller, steer), trace=True) as held, torch.no_grad():
        model(**model.batch(PROMPTS).arguments())
    expected = controller(read).detach()
    for ix in range(3):
        for row, tokens in enumerate(PROMPTS):
            assert torch.allclose(held.trace.values[ix][row, : len(tokens)], expected[row, ix], atol=1e-5)


def test_every_declared_gate_acts_where_it_reads_the_last_layer_in_a_first_pass(model, steer, controller):
    batch = model.batch(PROMPTS)
    for gate in controller_gates(controller, steer, 1.0):
        plain = op.record(model, batch, gate.site.whole)[str(gate.site.whole)]
        with op.gates(model, gate):
            gated = op.record(model, batch, gate.site.whole)[str(gate.site.whole)]
        assert float((gated - plain).abs().max()) > 0.1


def test_reading_late_layers_in_the_pass_itself_to_steer_all_is_refused(model, steer, controller):
    """The published recipe reads the last layers, and could steer only the last of them."""
    held = controller_gates(controller, steer, two_pass=False)
    with pytest.raises(BadGate, match="first_pass"), op.gates(model, *held):
        pass
    with op.gates(model, held[-1]):
        model(**model.batch(PROMPTS).arguments())


def test_reading_below_all_that_is_steered_needs_no_second_pass(model, steer):
    early = controller_for(model, steer[1:], SITES[0], random_seed=2)
    batch = model.batch(PROMPTS)
    with torch.no_grad():
        with op.gates(model, *controller_gates(early, steer[1:], two_pass=False)):
            once = model(**batch.arguments()).logits
        with op.gates(model, *controller_gates(early, steer[1:], two_pass=True)):
            twice = model(**batch.arguments()).logits
    assert torch.allclose(once, twice, atol=1e-5)


def test_what_was_decided_at_the_prompt_holds_through_generation(model, steer, controller):
    ids = torch.tensor([PROMPTS[0], PROMPTS[2][:4]])
    held = controller_gates(controller, steer, 0.5)
    said = {}
    for use_cache in (True, False):
        with op.gates(model, *held, trace=True) as now, generation([4, 4]):
            said[use_cache] = model.module.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, use_cache=use_cache,
                pad_token_id=0,
            )  # fmt: skip
            if use_cache:
                for values in now.trace.values.values():
                    assert torch.allclose(values, values[:, :1].expand_as(values))
    assert torch.equal(said[True], said[False])


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"observe": "blocks.9.resid_post"}, UnknownSite, "blocks.9"),
        ({"observe": SITES[0], "amount": "sigmod"}, BadOption, "sigmoid"),
        ({"observe": SITES[0], "weights": "even"}, BadOption, "uniform"),
        ({"observe": SITES[0], "n_hidden": 0}, BadOption, "at least one"),
        ({"observe": f"{SITES[0]}[feature=3]"}, BadOption, "not known"),
        ({"observe": ()}, BadOption, "sites=0"),
    ],
)
def test_a_controller_that_cannot_be_made_is_refused(model, steer, options, error, says):
    with pytest.raises(error, match=says):
        controller_for(model, steer, **options)


def test_gates_for_another_number_of_directions_and_features_of_another_site_are_refused(model, steer, controller):
    with pytest.raises(BadGate, match=r"3 output"):
        controller_gates(controller, steer[:2])
    with pytest.raises(GateShape, match="made for 48 features, and 5"):
        controller(torch.zeros(2, 5))
