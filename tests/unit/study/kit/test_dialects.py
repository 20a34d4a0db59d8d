"""Two dialects: the language's laws, and how what was written is read."""

import math

import torch

import optrode as op
from optrode.study.kit import dialects
from optrode.study.kit.dialects import OURS, SHARED, THEIRS, Dialects

LAW = Dialects()


def generator():
    return torch.Generator().manual_seed(0)


def test_rows_are_in_one_dialect_and_follow_the_chain():
    for dialect in (OURS, THEIRS):
        rows = dialects.draw(LAW, 200, generator(), dialect)
        assert rows.shape == (200, 25) and bool((rows[:, 0] == LAW.beginning).all())
        kinds = rows[:, 1:] // LAW.n_concepts
        assert set(kinds.unique().tolist()) == {dialect, SHARED}
        assert abs(float((kinds == SHARED).double().mean()) - 0.3) < 0.03
        said = dialects.read(LAW, rows, 2)
        assert said.follows == 1 and said.theirs == float(dialect == THEIRS)


def test_both_dialects_are_drawn_alike_unless_asked():
    rows = dialects.draw(LAW, 400, generator())
    theirs = (rows[:, 1:] // LAW.n_concepts == THEIRS).any(1).double().mean()
    assert abs(float(theirs) - 0.5) < 0.1


def test_what_was_written_is_read_word_by_word():
    concept = 4
    right, wrong = int(LAW.successors[concept][0]), next(c for c in range(12) if c not in LAW.successors[concept])
    start = LAW.n_concepts * OURS + concept
    new = [[right], [LAW.n_concepts * THEIRS + right], [2 * LAW.n_concepts + wrong], [LAW.beginning]]
    said = dialects.read(LAW, torch.tensor([[start, *one] for one in new]), 1)
    assert said.theirs == 0.5 and said.follows == 0.5
    assert math.isnan(dialects.read(LAW, torch.tensor([[start, 2 * LAW.n_concepts + right]]), 1).theirs)


def test_the_least_loss_is_the_entropy_of_a_word():
    """A model that knew the chain and the dialect would lose this much."""
    assert abs(LAW.entropy - (math.log(3) + 0.6109)) < 1e-3


def test_a_model_goes_on_by_its_own_probabilities_while_gates_are_held():
    model = dialects.network(LAW)
    rows = dialects.draw(LAW, 4, generator())
    only = torch.full((37,), -1e4)
    only[7] = 1e4
    longer = dialects.go_on(model, rows, 3, generator(), op.clamp("logits", only))
    assert torch.equal(longer[:, :25], rows) and bool((longer[:, 25:] == 7).all())
