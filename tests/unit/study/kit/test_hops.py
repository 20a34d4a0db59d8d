"""Two-hop questions: the laws of the world, what is learned and what is left out, and a network built by hand."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.study.kit import hops


@pytest.fixture
def world():
    return hops.draw_world(20, 6, 4, 0.25, torch.Generator().manual_seed(0))


@pytest.fixture
def questions(world):
    return hops.ask(world, 3.0, 30, torch.Generator().manual_seed(1))


def holds(world, h, r, t):
    return int(world.tails[h, r - world.n_entities]) == t


class Lookup(torch.nn.Module):
    """Answers from a table of facts: after one relation and an entity before it, or after two relations, the first of them.

    At a written bridge it looks up the bridge with the relation before it.
    """

    def __init__(self, world):
        super().__init__()
        self.world, self.embed = world, torch.nn.Embedding(world.vocab, 2)

    def forward(self, ids):
        n, tails = self.world.n_entities, self.world.tails
        logits = torch.zeros(*ids.shape, self.world.vocab)
        for row, tokens in enumerate(ids.tolist()):
            for pos in range(1, len(tokens)):
                head, relation = (tokens[0], tokens[1]) if pos < 3 else (tokens[3], tokens[2])
                if n <= relation < self.world.vocab - 1 and head < n:
                    logits[row, pos, tails[head, relation - n]] = 1.0
        return type("Output", (), {"logits": logits})()


def test_each_entity_has_its_facts(world):
    assert (world.tails >= 0).sum(1).tolist() == [4] * 20
    assert int(world.is_ood.sum()) == 20
    assert not bool((world.is_ood & (world.tails < 0)).any())


def test_questions_are_true_and_made_of_the_right_facts(world, questions):
    for name, is_out in (("train", False), ("id_test", False), ("ood_test", True)):
        for h, r1, r2, b, t in getattr(questions, name).tolist():
            assert holds(world, h, r1, b)
            assert holds(world, b, r2, t)
            hops_out = {bool(world.is_ood[h, r1 - 20]), bool(world.is_ood[b, r2 - 20])}
            assert hops_out == {is_out}


def test_every_chain_of_allowed_facts_is_there_once(world):
    allowed = (world.tails >= 0) & ~world.is_ood
    found = {tuple(row[:3]) for row in hops.chains(world, ~world.is_ood).tolist()}
    naive = {
        (h, 20 + r1, 20 + r2)
        for h in range(20) for r1 in range(6) for r2 in range(6)
        if allowed[h, r1] and allowed[int(world.tails[h, r1]), r2]
    }  # fmt: skip
    assert found == naive
    assert len(hops.chains(world, ~world.is_ood)) == len(naive)


def test_tests_are_left_out_of_training(questions):
    trained = {tuple(row) for row in questions.train.tolist()}
    assert not trained & {tuple(row) for row in questions.id_test.tolist()}
    assert not trained & {tuple(row) for row in questions.ood_test.tolist()}
    assert len(questions.facts) == 80


def test_lessons_ask_for_what_follows(world, questions):
    made = hops.lessons(world, questions.facts, questions.train)
    h, r, t = questions.facts[0].tolist()
    assert made.inputs[0].tolist() == [h, r, 26, 26]
    assert made.wanted[0].tolist() == [-1, t, -1, -1]
    question = questions.train[0].tolist()
    assert made.inputs[made.n_facts].tolist() == question[:4]
    assert made.wanted[made.n_facts].tolist() == [-1, -1, *question[3:]]
    direct = hops.lessons(world, questions.facts, questions.train, has_bridge=False)
    assert direct.inputs[made.n_facts].tolist() == [*question[:3], 26]
    assert direct.wanted[made.n_facts].tolist() == [-1, -1, question[4], -1]


def test_noise_changes_its_share_of_the_questions_and_no_fact(world, questions):
    made = hops.lessons(world, questions.facts, questions.train)
    noisy = hops.with_noise(made, 0.5, 20, torch.Generator().manual_seed(2))
    differs = (noisy.wanted != made.wanted).any(1)
    assert not bool(differs[: made.n_facts].any())
    assert 0.4 < float(differs[made.n_facts :].float().mean()) < 0.55
    assert torch.equal(noisy.inputs, made.inputs)
    assert torch.equal(noisy.wanted[:, :3], made.wanted[:, :3])


def test_a_noisy_bridge_is_also_what_is_read(world, questions):
    made = hops.lessons(world, questions.facts, questions.train)
    noisy = hops.with_noise(made, 0.5, 20, torch.Generator().manual_seed(2), at=(2, 3))
    asked = slice(made.n_facts, None)
    assert torch.equal(noisy.inputs[asked, 3], noisy.wanted[asked, 2])


def test_a_batch_holds_its_share_of_facts(world, questions):
    made = hops.lessons(world, questions.facts, questions.train)
    _, wanted = made.batch(40, 0.25, torch.Generator().manual_seed(0))
    assert (wanted[:, 1] >= 0).tolist() == [True] * 10 + [False] * 30


def test_a_network_that_looks_facts_up_is_right_by_the_bridge_alone(world, questions):
    model = Model(Lookup(world))
    for asked in (questions.id_test, questions.ood_test):
        assert hops.accuracy(model, asked, hops.answer_by_bridge) == 1.0
        assert hops.accuracy(model, asked, hops.answer_given_bridge) == 1.0
        assert hops.accuracy(model, asked, hops.answer_directly) < 0.5
    assert torch.equal(hops.answer_directly(model, questions.id_test), questions.id_test[:, 3])


def test_another_entity_leads_to_another_answer_that_a_fact_tells(world, questions):
    generator = torch.Generator().manual_seed(3)
    for column in (0, 3):
        kept, other, moved = hops.other_entities(world, questions.id_test, column, generator)
        assert 0 < len(kept) <= 30
        for (h, r1, r2, b, t), entity, answer in zip(kept.tolist(), other.tolist(), moved.tolist(), strict=True):
            bridge = entity if column == 3 else int(world.tails[entity, r1 - 20])
            assert entity != (b if column == 3 else h)
            assert holds(world, bridge, r2, answer)
            assert answer != t


def test_the_lens_reads_what_the_last_layer_says(world, questions):
    model = hops.network(world, 0, n_layers=2, d_model=16)
    asked = questions.id_test[:5]
    found = hops.readability(model, asked, asked[:, 3])
    logits = model(asked[:, :3]).logits[:, 1:]
    above = [[int((logits[row, pos] > logits[row, pos, asked[row, 3]]).sum()) for pos in (0, 1)] for row in range(5)]
    assert found.shape == (2, 2)
    assert torch.allclose(found[-1], (1 / (1 + torch.tensor(above))).mean(0))


def test_worlds_that_there_are_not_are_refused():
    with pytest.raises(BadOption, match="1 to 6 relations"):
        hops.draw_world(20, 6, 7, 0.1, torch.Generator())
    with pytest.raises(BadOption, match="below 1"):
        hops.draw_world(20, 6, 4, 1.0, torch.Generator())
