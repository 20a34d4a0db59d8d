"""The policy's book, its two ways of tuning, masks, and turned coordinates that change nothing it does."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.study.kit import policy
from optrode.study.kit.policy import Size, Tuning

SIZE = Size(d_model=16, n_layers=2, n_heads=2, n_pretrain=2, rows=8, n_questions=6, group=4, most_steps=3, every=1)


@pytest.fixture(scope="module")
def book():
    return policy.write(5, torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def base(book):
    return policy.pretrain(book, SIZE, 0)


def test_a_book_asks_every_question_once_and_its_answers_differ(book):
    assert len({tuple(row) for row in book.questions.tolist()}) == 25 and set(book.questions[:, 2].tolist()) == {5}
    answers = torch.cat([book.right[:, None], book.wrong, book.other[:, None]], 1)
    assert all(len(set(row)) == 4 for row in answers.tolist()) and int(answers.max()) < 5
    with pytest.raises(BadOption, match="4 answers that all differ"):
        policy.write(3, torch.Generator())


def test_expected_reward_is_the_mean_probability_of_the_answer(book, base):
    model = policy.network(book, SIZE, base)
    chances = model(book.questions).logits[:, -1].softmax(-1).detach()
    by_hand = sum(float(chances[ix, answer]) for ix, answer in enumerate(book.right.tolist())) / 25
    assert policy.expected_reward(book, book.right)(model) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("way", policy.WAYS)
def test_tuning_raises_the_reward_and_reaches_the_blocks_matrices_alone(way, book, base):
    size = Size(**{**vars(SIZE), "n_questions": 25, "group": 16, "lr": 0.01, "most_steps": 30, "wanted": 0.4})
    tuned = policy.tune(book, size, base, way, random_seed=3)
    assert tuned.reward.values[-1] > 0.4 > tuned.reward.values[0] and tuned.n_steps < 30
    changed = {name for name in base if not torch.equal(base[name], tuned.weights[name])}
    assert changed == set(policy.matrices(base)) and len(changed) == 12


def test_weights_under_a_mask_stay_as_they_were(book, base):
    masks = {name: torch.rand(base[name].shape) < 0.5 for name in policy.matrices(base)}
    tuned = policy.tune(book, SIZE, base, "example", 1, Tuning(n_steps=3, masks=masks))
    for name, mask in masks.items():
        same = base[name] == tuned.weights[name]
        assert bool(same[~mask].all()) and float(same[mask].float().mean()) < 0.1


def test_runs_of_other_seeds_see_other_questions(book, base):
    runs = [policy.tune(book, SIZE, base, "example", seed, Tuning(n_steps=2)) for seed in (1, 1, 2)]
    first, again, other = (run.weights["blocks.0.mlp.up.weight"] for run in runs)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_turned_coordinates_change_one_layers_attention_and_nothing_that_is_computed(book, base):
    turned = policy.turned(base, 1, SIZE.n_heads, torch.Generator().manual_seed(2))
    changed = {name for name in base if not torch.equal(base[name], turned[name])}
    assert changed == {f"blocks.1.attn.{part}.weight" for part in "qkvo"}
    before, after = (policy.network(book, SIZE, weights)(book.questions).logits for weights in (base, turned))
    assert torch.allclose(before, after, atol=1e-5)


def test_there_are_two_ways(book, base):
    with pytest.raises(BadOption, match="Nearest: reward"):
        policy.tune(book, SIZE, base, "rewards", 0)
