"""Chains of sums: they are right, and what is measured of them is what it says."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.study.kit import arithmetic as sums
from optrode.study.kit.reward import exact_match, sample

NUMBERS = sums.Numbers(5)


@pytest.fixture
def chains():
    return sums.draw_chains(NUMBERS, 60, torch.Generator().manual_seed(0))


class Calculator(torch.nn.Module):
    """Says the right answer to a chain with a probability."""

    def __init__(self, p):
        super().__init__()
        self.p, self.unused = p, torch.nn.Parameter(torch.zeros(1))

    def forward(self, ids, logits_to_keep=0):
        chance = torch.full((*ids.shape, NUMBERS.vocab), (1 - self.p) / (NUMBERS.vocab - 1))
        step = self._sum(ids[:, 0], ids[:, 1], ids[:, 2])
        chance[torch.arange(len(ids)), 5, self._sum(step, ids[:, 3], ids[:, 4])] = self.p
        return type("Output", (), {"logits": chance.log()[:, -logits_to_keep or None :]})()

    def _sum(self, left, sign, right):
        return torch.where(sign == 5, left + right, left - right) % 5


def test_chains_are_right(chains):
    for a, first, b, second, c, equals, answer in chains.tolist():
        assert equals == 7
        step = (a + b) if first == 5 else (a - b)
        assert answer == ((step + c) if second == 5 else (step - c)) % 5


def test_all_signs_and_numbers_are_drawn(chains):
    assert set(chains[:, 0].tolist()) == set(range(5))
    assert {tuple(row) for row in chains[:, [1, 3]].tolist()} == {(5, 5), (5, 6), (6, 5), (6, 6)}


def test_what_is_wanted_is_said_at_its_place(chains):
    written = sums.joined(sums.written_chains(chains[:1]), sums.written_sums(NUMBERS, chains[:1]))
    row = chains[0].tolist()
    step = (row[0] + row[2] if row[1] == 5 else row[0] - row[2]) % 5
    assert written.inputs.tolist() == [row[:6], [*row[:3], 7, 8, 8]]
    assert written.wanted.tolist() == [[-1] * 5 + row[6:], [-1, -1, -1, step, -1, -1]]


def test_accuracy_and_expected_reward_of_a_known_calculator(chains):
    model = Model(Calculator(0.6))
    assert sums.accuracy(model, chains) == 1.0
    assert sums.expected_reward(model, chains) == pytest.approx(0.6)
    asked = sums.questions(chains.repeat(100, 1))
    drawn = sample(model, asked.prompts, 1)
    assert float(exact_match(drawn, asked.wanted).mean()) == pytest.approx(0.6, abs=0.02)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(chains):
    written = sums.written_chains(chains)
    same, other = (sums.network(NUMBERS, seed, n_layers=1, n_heads=2, d_model=16) for seed in (0, 1))
    assert float(sums.distillation_loss(same)(same, written).detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(sums.distillation_loss(other)(same, written).detach()) > 0


def test_the_task_has_other_answers_in_its_corrupt_world():
    task = sums.chain_task(NUMBERS, 20, 3)
    assert len(task) == 20
    for pair in task.pairs:
        assert (pair.clean[1], pair.clean[3]) == (pair.corrupt[1], pair.corrupt[3])
        assert pair.clean != pair.corrupt
        assert pair.right != pair.wrong
    model = Model(Calculator(1.0))
    for world, answers in (("clean", "right"), ("corrupt", "wrong")):
        ids = torch.tensor([pair.world(world) for pair in task.pairs])
        said = model(ids).logits[:, -1].argmax(-1)
        assert said.tolist() == [getattr(pair, answers)[0] for pair in task.pairs]
    assert task == sums.chain_task(NUMBERS, 20, 3)


def test_too_few_numbers_are_refused():
    with pytest.raises(BadOption, match="modulo 2 or more"):
        sums.chain_task(sums.Numbers(1), 4)
