"""The trained induction model does induction, with one previous-token head and one induction head."""

import pytest
import torch

from optrode.circuit.edge.graph import LOGITS
from optrode.errors import BadOption, TaskTooHard
from optrode.trial.run import Bench
from optrode.truth.induction import (
    TOKEN_ACCURACY,
    Recipe,
    induction_heads,
    induction_task,
    load_induction,
    token_accuracy,
    train_induction,
)
from tests.unit.truth.naive import exact_effects, graph_of


@pytest.fixture(name="model", scope="module")
def _model():
    return load_induction(torch.float64)


def test_it_predicts_the_second_half_from_the_first_and_only_from_it(model):
    task = induction_task(model, 32, random_seed=5)
    bench = Bench(model, task, TOKEN_ACCURACY)
    assert token_accuracy(model, task) >= 0.95
    assert sum(bench.base("clean")) / 32 == pytest.approx(token_accuracy(model, task))
    assert sum(bench.base("corrupt")) / 32 <= 0.1
    assert bench.accuracy("clean") == 1.0


def test_pairs_differ_in_the_first_half_alone(model):
    task = induction_task(model, 8, length=9)
    for pair in task.pairs:
        assert pair.clean[:9] == pair.clean[9:] == pair.corrupt[9:] and pair.corrupt[:9] != pair.clean[:9]
        assert len(set(pair.clean)) == 9 and pair.marks == {"repeat": 9, "end": 17}
        assert pair.targets == tuple((pos, pair.clean[pos + 1]) for pos in range(9, 17))
    assert task == induction_task(model, 8, length=9) != induction_task(model, 8, 1, length=9)


def test_one_edge_between_heads_carries_it(model):
    task = induction_task(model, 32, random_seed=6)
    heads = induction_heads(model, task)
    lost = exact_effects(model, task, TOKEN_ACCURACY)
    assert lost.pop(f"{heads.previous} -> {heads.induction}.k") <= -0.5
    assert lost[f"{heads.induction} -> {LOGITS}"] <= -0.5
    rest = [effect for edge, effect in lost.items() if edge.startswith("a0") and not edge.endswith(LOGITS)]
    assert len(rest) == 47 and min(rest) >= -0.05


def test_heads_are_found_by_where_they_look_and_what_they_write(model):
    task = induction_task(model, 16)
    heads = induction_heads(model, task)
    scores = heads.previous_scores, heads.induction_scores
    assert heads.previous == f"a0.h{scores[0].index(max(scores[0]))}"
    assert heads.induction == f"a1.h{scores[1].index(max(scores[1]))}"
    assert all(sorted(some)[-1] > 5 * sorted(some)[-2] for some in scores)


def test_its_graph_has_no_mlps(model):
    assert graph_of(model).n_edges == 1 * 12 + 5 * 12 + 9


def test_too_little_training_is_an_error():
    steps = []
    with pytest.raises(TaskTooHard, match=r"from seed 3: it is right on \d+% of the tokens. Next: take another seed"):
        train_induction(3, Recipe(n_steps=2), lambda *step: steps.append(step))
    assert steps == [("training", 1, 2), ("training", 2, 2)]


def test_halves_that_do_not_fit_are_refused(model):
    with pytest.raises(BadOption, match=r"n=4, length=17: it takes a pair at least, and halves of 2 to 16 tokens"):
        induction_task(model, 4, length=17)
