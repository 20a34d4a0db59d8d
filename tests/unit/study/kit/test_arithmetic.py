"""Chains of sums: they are right, and what is measured of them is what it says."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.study.kit import arithmetic as sums
from optrode.study.kit.reward import sample

NUMBERS = sums.Numbers(5)


@pytest.fixture
def chains():
    return sums.draw_chains(NUMBERS, 60, torch.Generator().manual_seed(0))


class Calculator(torch.nn.Module):
    """Says the right step and answer, each with a probability."""

    def __init__(self, p_step, p_answer):
        super().__init__()
        self.p_step, self.p_answer, self.unused = p_step, p_answer, torch.nn.Parameter(torch.zeros(1))

    def forward(self, ids, logits_to_keep=0):
        chance = torch.full((*ids.shape, NUMBERS.vocab), 1e-9)
        for pos, right, p in ((5, self._sum(ids[:, 0], ids[:, 1], ids[:, 2]), self.p_step), (6, None, self.p_answer)):
            if ids.shape[1] > pos:
                said = self._sum(ids[:, 6], ids[:, 3], ids[:, 4]) if right is None else right
                chance[:, pos] = (1 - p) / (NUMBERS.vocab - 1)
                chance[torch.arange(len(ids)), pos, said] = p
        return type("Output", (), {"logits": chance.log()[:, -logits_to_keep or None :]})()

    def _sum(self, left, sign, right):
        return torch.where(sign == 5, left + right, left - right) % 5


def test_chains_are_right(chains):
    for a, first, b, second, c, equals, step, answer in chains.tolist():
        assert equals == 7
        assert step == ((a + b) if first == 5 else (a - b)) % 5
        assert answer == ((step + c) if second == 5 else (step - c)) % 5


def test_all_signs_and_numbers_are_drawn(chains):
    assert set(chains[:, 0].tolist()) == set(range(5))
    assert {tuple(row) for row in chains[:, [1, 3]].tolist()} == {(5, 5), (5, 6), (6, 5), (6, 6)}


def test_what_is_wanted_is_said_at_its_place(chains):
    written = sums.joined(sums.written_chains(chains[:1]), sums.written_sums(NUMBERS, chains[:1]))
    row = chains[0].tolist()
    assert written.inputs.tolist() == [row[:7], [*row[:3], 7, 8, 8, 8]]
    assert written.wanted.tolist() == [[-1] * 5 + row[6:], [-1, -1, -1, row[6], -1, -1, -1]]


def test_accuracy_and_expected_reward_of_a_known_calculator(chains):
    assert sums.accuracy(Model(Calculator(0.9, 0.8)), chains) == 1.0
    assert sums.expected_reward(Model(Calculator(1.0, 0.8)), NUMBERS, chains) == pytest.approx(0.8, abs=1e-4)
    half = Model(Calculator(0.5, 1.0))
    drawn = sample(half, chains[:, :6].repeat(200, 1), 2)
    mean = float(sums.answer_reward(drawn, chains[:, 6:].repeat(200, 1)).mean())
    assert sums.expected_reward(half, NUMBERS, chains) == pytest.approx(mean, abs=0.02)


def test_only_the_answer_is_rewarded():
    found = sums.answer_reward(torch.tensor([[1, 2], [1, 3], [0, 2]]), torch.tensor([[1, 2]] * 3))
    assert found.tolist() == [1.0, 0.0, 1.0]


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(chains):
    written = sums.written_chains(chains)
    same, other = (sums.network(NUMBERS, seed, n_layers=1, n_heads=2, d_model=16) for seed in (0, 1))
    assert float(sums.distillation_loss(same)(same, written).detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(sums.distillation_loss(other)(same, written).detach()) > 0


def test_the_task_has_other_answers_in_its_corrupt_world():
    task = sums.chain_task(NUMBERS, 20, 3)
    assert len(task) == 20
    for pair in task.pairs:
        clean, other = pair.clean, pair.corrupt
        assert (clean[1], clean[3]) == (other[1], other[3])
        assert clean[6] != other[6]
        assert pair.right != pair.wrong
        assert pair.targets == ((5, clean[6]), (6, pair.right[0]))
    assert task == sums.chain_task(NUMBERS, 20, 3)


def test_the_metric_is_the_mean_probability_of_step_and_answer():
    task = sums.chain_task(NUMBERS, 4)
    model = Model(Calculator(0.9, 0.5))
    ids = torch.tensor([pair.clean for pair in task.pairs])
    found = sums.RIGHT_PROBABILITY.function(model(ids).logits[:, 5:7], task.pairs)
    assert torch.allclose(found, torch.full((4,), 0.7), atol=1e-4)


def test_too_few_numbers_are_refused():
    with pytest.raises(BadOption, match="modulo 3 or more"):
        sums.chain_task(sums.Numbers(2), 4)
