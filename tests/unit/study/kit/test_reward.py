"""Training by reward: the gradient is that of the expected reward, and answers are sampled as they should be."""

import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.nn.transformer import Spec, as_model, build
from optrode.study.kit.reward import Questions, advantages, answer_logprobs, exact_match, is_counted, reward_loss, sample

SPEC = Spec(n_layers=1, n_heads=1, d_model=8, vocab=4, n_ctx=4, d_mlp=8)


@pytest.fixture
def model():
    return as_model(build(SPEC, 3))


def test_advantages_are_relative_to_the_group():
    found = advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 4.0]]))
    assert torch.allclose(found[0], torch.tensor([1.0, -1.0, -1.0, 1.0]))
    assert torch.allclose(found[1] * 3**0.5, torch.tensor([-1.0, -1.0, -1.0, 3.0]))
    assert advantages(torch.tensor([[1.0, 0.0, 0.0]]), is_normed=False)[0, 0] == pytest.approx(2 / 3)


def test_a_group_of_equal_rewards_teaches_nothing():
    found = advantages(torch.tensor([[0.3, 0.3, 0.3], [0.1, 0.1, 0.1]]))
    assert torch.equal(found, torch.zeros(2, 3))


def test_the_gradient_is_that_of_the_expected_reward(model):
    """Over many samples, and times G / (G - 1), since a group's mean holds each answer itself."""
    prompts, wanted = torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1], [0]])
    exact = -model(prompts).logits[:, -1].softmax(-1).gather(1, wanted).mean()
    exact.backward()
    parameter = model.module.get_parameter("unembed.weight")
    right, parameter.grad = parameter.grad.clone(), None
    group = 20_000
    reward_loss(exact_match, group=group, is_normed=False)(model, Questions(prompts, wanted)).backward()
    estimate = parameter.grad * group / (group - 1)
    assert (estimate - right).norm() < 0.05 * right.norm()


def test_the_loss_is_minus_the_mean_reward(model):
    every = reward_loss(lambda answers, wanted: wanted[:, 0].float(), group=2)
    found = every(model, Questions(torch.tensor([[0], [1], [2]]), torch.tensor([[1], [0], [1]])))
    assert float(found.detach()) == pytest.approx(-2 / 3)


def test_answers_are_sampled_with_the_models_probabilities(model):
    prompts = torch.tensor([[1, 2]]).expand(8000, -1)
    drawn = sample(model, prompts, 1, temperature=0.5)
    wanted = (model(prompts[:1]).logits[0, -1] / 0.5).softmax(-1)
    assert torch.allclose(torch.bincount(drawn[:, 0], minlength=4) / 8000, wanted, atol=0.03)


def test_sampling_at_temperature_zero_takes_the_likeliest_token_by_token(model):
    first = model(torch.tensor([[1, 2]])).logits[:, -1].argmax(-1)
    second = model(torch.tensor([[1, 2, int(first)]])).logits[:, -1].argmax(-1)
    assert sample(model, torch.tensor([[1, 2]]), 2, temperature=0.0).tolist() == [[int(first), int(second)]]


def test_log_probabilities_are_those_of_each_token_given_all_before(model):
    prompts, answers = torch.tensor([[1, 2]]), torch.tensor([[3, 0]])
    found = answer_logprobs(model, prompts, answers, 2.0)
    for ix in range(2):
        before = torch.cat([prompts, answers[:, :ix]], 1)
        naive = (model(before).logits[0, -1] / 2.0).log_softmax(-1)[answers[0, ix]]
        assert float((found[0, ix] - naive).abs().detach()) < 1e-6


def test_nothing_counts_after_the_end():
    answers = torch.tensor([[1, 3, 3], [3, 3, 3], [0, 1, 2]])
    assert is_counted(answers, 3).tolist() == [[True, True, False], [True, False, False], [True] * 3]
    assert is_counted(answers, None).all()


def test_an_ended_answer_stays_ended(model):
    with op.gates(model, op.add("logits", torch.tensor([0.0, 0.0, 0.0, 100.0]))):
        assert sample(model, torch.tensor([[0]]), 3, end=3).tolist() == [[3, 3, 3]]
    drawn = sample(model, torch.tensor([[0]]).expand(200, -1), 3, end=3)
    assert not bool(((drawn[:, :-1] == 3) & (drawn[:, 1:] != 3)).any())


def test_the_hold_on_the_reference_pulls_the_policy_to_it(model):
    """With no reward, the gradient of the hold lowers KL(pi || pi_ref), and vanishes where they are equal."""
    questions = Questions(torch.tensor([[0, 1]]).expand(16, -1), torch.zeros(16, 1, dtype=torch.long))
    nothing = lambda answers, wanted: torch.zeros(len(answers))  # noqa: E731
    same = reward_loss(nothing, group=4, reference=as_model(build(SPEC, 3)), kl=1.0)(model, questions)
    same.backward()
    weight = model.module.get_parameter("unembed.weight")
    assert float(same.detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(weight.grad.norm()) < 1e-5
    other = as_model(build(SPEC, 4))
    held = op.train.fit(op.train.Plan(
        "held", lambda _: as_model(build(SPEC, 3)), lambda *_: questions, reward_loss(nothing, reference=other, kl=1.0), 40,
        op.train.adam(1e-2),
    )).model  # fmt: skip
    wanted = other(torch.tensor([[0, 1]])).logits[0, -1].softmax(-1)

    def away(policy):
        found = policy(torch.tensor([[0, 1]])).logits[0, -1].softmax(-1)
        return float((found * (found / wanted).log()).sum().detach())

    assert away(held) < 0.2 * away(model)


def test_training_by_reward_raises_the_reward():
    batch = lambda _, draw: (lambda ids: Questions(ids, ids[:, :1]))(torch.randint(4, (8, 2), generator=draw))  # noqa: E731
    ran = op.train.fit(op.train.Plan(
        "first token", lambda seed: as_model(build(SPEC, seed, init="he")), batch, reward_loss(exact_match), 120,
        op.train.adam(2e-2),
    ))  # fmt: skip
    rewards = [-value for value in ran.run.loss.values]
    assert sum(rewards[:10]) / 10 < 0.5
    assert sum(rewards[-10:]) / 10 > 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"group": 1}, "relative to another answer"),
        ({"n_new": 0}, "a token at least"),
        ({"temperature": 0.0}, "without chance"),
        ({"kl": 0.1}, "reference="),
        ({"kl": -1.0}, "reference="),
    ],
)
def test_what_cannot_be_trained_is_refused(options, words):
    with pytest.raises(BadOption, match=words):
        reward_loss(exact_match, **options)
