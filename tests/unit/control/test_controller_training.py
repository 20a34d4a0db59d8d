"""Training a controller: through the frozen model, to the best epoch, the same from the same seed, without a trace."""

import copy
import math

import pytest
import torch

import optrode as op
from optrode.control.contrast import Answered
from optrode.control.controller import controller_for, controller_gates
from optrode.control.controller_records import Objective, Recipe
from optrode.control.controller_training import score_controller, train_controller
from optrode.control.direction import Direction
from optrode.errors import BadOption, BadPairs, LossNotFinite
from optrode.gate.conditions import by_row
from optrode.model.source import from_source
from optrode.model.tiny import tiny

SITES = tuple(f"blocks.{layer}.resid_post" for layer in range(3))
WANTED = 20
TRIGGER, OTHER = 5, 6
RECIPE = Recipe(Objective(kl=1.0, l1=0.01), n_epochs=12, batch_size=12, lr=0.01)


def prompts(token, n, seed):
    """Rows of different lengths that end with a token."""
    draws = torch.Generator().manual_seed(seed)
    return [(*torch.randint(30, 60, (3 + ix % 3,), generator=draws).tolist(), token) for ix in range(n)]


@pytest.fixture(name="model", scope="module")
def _model():
    return from_source(tiny("llama"))


@pytest.fixture(name="steer", scope="module")
def _steer(model):
    """Towards one token, at the last layer only; elsewhere at random."""
    out = model.module.get_output_embeddings().weight.detach()
    one = out[WANTED] - out.mean(0)
    drawn = [torch.randn(len(one), generator=torch.Generator().manual_seed(ix)) for ix in range(2)]
    vectors = [vector / vector.norm() for vector in (*drawn, one)]
    return tuple(Direction(site, vector, 20.0, "by hand") for site, vector in zip(SITES, vectors, strict=True))


def trained(model, steer, recipe=RECIPE, seed=0, **options):
    controller = controller_for(model, steer, SITES[-1], n_hidden=16, random_seed=seed, **options)
    gates = controller_gates(controller, steer, 1.0)
    told = train_controller(
        model, controller, gates, prompts(TRIGGER, 24, 1), (WANTED,), prompts(OTHER, 24, 2), recipe=recipe, random_seed=seed
    )
    return controller, gates, told


@pytest.fixture(name="found", scope="module")
def _found(model, steer):
    return trained(model, steer)


def test_a_trained_controller_opens_for_the_trigger_and_leaves_others_alone(model, steer, found):
    controller, gates, _ = found
    score = score_controller(model, controller, gates, prompts(TRIGGER, 30, 3), (WANTED,), prompts(OTHER, 30, 4))
    assert score.separation >= 0.9 and score.open_positive > 2 * score.open_negative
    shut = controller_gates(controller, steer, 0.0)
    nothing = score_controller(model, controller, shut, prompts(TRIGGER, 30, 3), (WANTED,), prompts(OTHER, 30, 4))
    assert score.effect < 0.5 * nothing.effect and score.harm < 0.5 and nothing.harm == pytest.approx(0, abs=1e-6)


def test_layer_weights_get_the_tasks_gradient_and_choose_the_layer_that_steers(model, found):
    controller, _, told = found
    assert min(told.weight_gradients) > 0
    features = torch.cat([op.record(model, [row], SITES[-1])[SITES[-1]][:, -1] for row in prompts(TRIGGER, 8, 5)])
    assert controller.layer_weights(features).mean(0).argmax() == 2


def test_one_weight_for_all_layers_is_worse_where_layers_differ(model, steer, found):
    *_, uniform = trained(model, steer, weights="uniform")
    assert uniform.best.total > 1.1 * found[2].best.total
    assert uniform.weight_gradients == (0.0,) * RECIPE.n_epochs


def test_the_best_epoch_is_restored_and_the_history_is_as_long_as_the_training(model, steer):
    """At this rate it gets worse and worse after its first steps."""
    recipe = Recipe(Objective(1.0, 0.01), n_epochs=4, batch_size=12, lr=3.0)
    controller, gates, told = trained(model, steer, recipe)
    assert len(told.train) == 4 and len(told.validation) == 5
    assert told.best.total == min(one.total for one in told.validation) and told.best_epoch < 4
    again = controller_for(model, steer, SITES[-1], n_hidden=16, random_seed=0)
    held = controller_gates(again, steer, 1.0)
    shorter = Recipe(Objective(1.0, 0.01), n_epochs=max(1, told.best_epoch), batch_size=12, lr=3.0)
    if told.best_epoch:
        train_controller(
            model, again, held, prompts(TRIGGER, 24, 1), (WANTED,), prompts(OTHER, 24, 2), recipe=shorter, random_seed=0
        )
    assert torch.equal(again.hidden.weight, controller.hidden.weight)


def test_equal_seeds_give_equal_bits(model, steer):
    short = Recipe(n_epochs=2, batch_size=12)
    (one, _, told), (two, _, same) = (trained(model, steer, short) for _ in range(2))
    assert told == same
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_the_model_is_left_as_it_was(steer):
    model = from_source(tiny("llama"))
    model.module.train()
    model.module.lm_head.weight.requires_grad_(False)
    before, learns = copy.deepcopy(model.module.state_dict()), [p.requires_grad for p in model.module.parameters()]
    trained(model, steer, Recipe(n_epochs=1))
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())
    assert [p.requires_grad for p in model.module.parameters()] == learns and model.module.training
    assert all(p.grad is None for p in model.module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.module.modules())


def test_effect_and_harm_are_those_of_one_row_at_a_time(model, steer, found):
    """Rows of different lengths share a padded pass, and answers follow prompts of which alone the controller reads."""
    controller, gates, _ = found
    bad, good = prompts(TRIGGER, 4, 6), prompts(OTHER, 4, 7)
    answered = [Answered((*row, 33, 34), len(row)) for row in good]
    score = score_controller(model, controller, gates, bad, (WANTED, 21), answered, objective=Objective(2.0, 0.0))
    effect, harm = [], []
    with torch.no_grad():
        for row in bad:
            with op.gates(model, *_open_for(model, controller, steer, row)):
                said = model(torch.tensor([[*row, WANTED, 21]])).logits[0].log_softmax(-1)
            effect.append(-(said[len(row) - 1, WANTED] + said[len(row), 21]) / 2)
        for one in answered:
            ids = torch.tensor([one.token_ids])
            plain = model(ids).logits[0, one.start - 1 :].log_softmax(-1)
            with op.gates(model, *_open_for(model, controller, steer, one.token_ids[: one.start])):
                said = model(ids).logits[0, one.start - 1 :].log_softmax(-1)
            harm.append((said.exp() * (said - plain)).sum(-1).mean())
    assert score.effect == pytest.approx(float(torch.stack(effect).mean()), rel=1e-3)
    assert score.harm == pytest.approx(float(torch.stack(harm).mean()), rel=1e-3, abs=1e-6)
    assert score.total == pytest.approx(score.effect + 2 * score.harm)


def _open_for(model, controller, steer, prompt):
    read = op.record(model, [list(prompt)], SITES[-1])[SITES[-1]][0, -1]
    opened = controller(read).detach()
    return [one.gate(1.0, openness=by_row(opened[ix][None])) for ix, one in enumerate(steer)]


def test_gates_that_the_controller_does_not_open_are_refused(model, steer, found):
    controller, gates, _ = found
    for held in (gates[:2], [one.gate(1.0) for one in steer], (*gates, gates[0])):
        with pytest.raises(BadOption, match="controller_gates"):
            score_controller(model, controller, held, prompts(TRIGGER, 2, 1), (WANTED,), prompts(OTHER, 2, 1))


@pytest.mark.parametrize(
    "options", [{"n_epochs": 0}, {"batch_size": 0}, {"lr": 0.0}, {"lr": math.nan}, {"held_out": 1.0}, {"held_out": 0.0}]
)
def test_a_recipe_out_of_range_is_refused(options):
    with pytest.raises(BadOption, match=next(iter(options))):
        Recipe(**options)


@pytest.mark.parametrize("options", [{"kl": -1.0}, {"l1": math.inf}])
def test_weights_of_the_objective_out_of_range_are_refused(options):
    with pytest.raises(BadOption, match="finite weight"):
        Objective(**options)


def test_too_few_prompts_and_answers_for_other_prompts_are_refused(model, steer, found):
    controller, gates, _ = found
    good = prompts(OTHER, 3, 1)
    with pytest.raises(BadPairs, match="positives"):
        train_controller(model, controller, gates, [], (WANTED,), good)
    with pytest.raises(BadPairs, match="3 positives and 2 wanted"):
        train_controller(model, controller, gates, prompts(TRIGGER, 3, 1), [(WANTED,), (21,)], good)


def test_an_objective_that_is_not_finite_stops_the_training(model, steer):
    controller = controller_for(model, steer, SITES[-1])
    with torch.no_grad():
        controller.to_amount.bias.fill_(math.nan)
    with pytest.raises(LossNotFinite, match="lower lr"):
        train_controller(
            model, controller, controller_gates(controller, steer), prompts(TRIGGER, 4, 1), (WANTED,), prompts(OTHER, 4, 1)
        )
