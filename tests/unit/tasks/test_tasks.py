"""Task generators and the pairs they keep, on a tiny tokenizer; what the real model makes of them is in tests/slow."""

import json

import pytest

import optrode as op
from optrode.errors import NoPairs
from optrode.tasks.build import DEGENERATE, NOT_ONE_TOKEN, REPEATED, SAME_ANSWER, UNEQUAL, Draft, Plan, task_from_drafts
from tests.words import worded


@pytest.fixture(scope="module")
def model():
    return worded()


def plan(n=4):
    return Plan("toy", "A toy.", "logit_gap", n, 0, require_accuracy=0.0)


def draft(clean=" Mary", corrupt=" John", right=(" Mary",), wrong=(" John",)):
    return Draft("When{name} gave a drink to", {"name": clean}, {"name": corrupt}, right, wrong)


def test_pairs_that_cannot_be_used_are_dropped_and_counted(model):
    drafts = [
        draft(),
        draft(),
        draft(right=(" nosuchword here",)),
        draft(corrupt=" Mary John"),
        draft(right=(" John",)),
        draft(corrupt=" Mary"),
    ]
    task = task_from_drafts(model, plan(), drafts)
    assert len(task) == 1
    reasons = (REPEATED, NOT_ONE_TOKEN, UNEQUAL, SAME_ANSWER, DEGENERATE)
    assert {dropped.reason: dropped.n for dropped in task.dropped} == dict.fromkeys(reasons, 1)


def test_marks_are_token_positions(model):
    (pair,) = task_from_drafts(model, plan(1), [draft()]).pairs
    assert pair.clean_tokens[pair.marks["name"]].strip() == "Mary" and pair.marks["end"] == len(pair.clean) - 1


def test_only_degenerate_pairs_are_no_task(model):
    with pytest.raises(NoPairs, match="the metric is the same in both worlds"):
        task_from_drafts(model, plan(1), [draft(corrupt=" Mary")])


def test_the_same_seed_gives_the_same_task_and_another_seed_another(model):
    one, same, other = (op.tasks.induction(model, n=3, random_seed=seed, require_accuracy=0.0) for seed in (0, 0, 1))
    assert one == same and one.pairs != other.pairs


def test_induction_repeats_its_tokens(model):
    task = op.tasks.induction(model, n=2, length=7, require_accuracy=0.0)
    for pair in task.pairs:
        assert pair.clean[:7] == pair.clean[7:] == pair.corrupt[7:] and pair.corrupt[:7] != pair.clean[:7]
        assert pair.targets == tuple((pos, pair.clean[pos + 1]) for pos in range(7, 13))


def own_row(right, wrong):
    clean, corrupt = (f"The{name} gave a drink to the store" for name in (right, wrong))
    return {"clean": clean, "corrupt": corrupt, "answer": right, "wrong": wrong}


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_users_own_pairs(model, tmp_path, suffix):
    rows = [
        {"clean": "When Mary gave a drink to", "corrupt": "When John gave a drink to", "answer": " Mary", "wrong": " John"},
        own_row(" John", " Mary"),
    ]
    path = tmp_path / f"own.{suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    task = op.tasks.read_pairs(model, path, require_accuracy=0.0)
    assert task.name == "own" and [len(pair.clean) for pair in task.pairs] == [6, 8]
    assert task.length is None and len(task.half(0)) == len(task.half(1)) == 1
