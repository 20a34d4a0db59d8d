"""Sums are split as they should be, baselines read both addends, and a workspace learns a few of them."""

import pytest
import torch

import optrode as op
from optrode.study.kit import addition
from optrode.study.kit.digits import has_digits, load_digits


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_set(pairs):
    return {tuple(pair) for pair in pairs.tolist()}


@pytest.mark.parametrize("seed", [0, 1])
def test_every_pair_is_in_one_part_and_in_the_right_one(seed):
    data = addition.split(generator(seed))
    parts = [as_set(part) for part in (data.learnt, data.between, data.beyond)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 100
    assert min(map(sum, parts[2])) == addition.LONGEST + 1 and max(map(sum, parts[0] | parts[1])) <= addition.LONGEST
    assert all({(digit, 0), (0, digit)} <= parts[0] for digit in range(10))
    assert as_set(data.unseen) == parts[1] | parts[2] and len(parts[1]) == 19


def test_the_split_is_the_seeds():
    first, same, other = (addition.split(generator(seed)).between for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize("kind", ["workspace", "lstm", "transformer"])
def test_every_network_answers_with_sums_and_reads_both_addends(kind):
    model, ask = getattr(addition, f"make_{kind}")(0), getattr(addition, f"ask_{kind}")
    pairs = torch.tensor([[3, 4], [3, 5], [2, 4]])
    with torch.no_grad():
        found = ask(model, pairs)
    assert found.shape == (3, 19) and len({tuple(row) for row in found.tolist()}) == 3


def test_the_baselines_have_at_least_twice_the_parameters():
    ours, *others = (addition.n_parameters(make(0)) for make in (
        addition.make_workspace, addition.make_lstm, addition.make_transformer))  # fmt: skip
    assert min(others) >= 2 * ours


def test_accuracy_counts_the_greatest_logit():
    assert addition.accuracy(torch.eye(4), torch.tensor([0, 1, 3, 3])) == 0.75


def test_training_watches_all_three_parts():
    plan = addition.plan("few", addition.make_lstm, addition.ask_lstm, addition.split(generator()), 4, 1e-2, 0)
    run = op.train.fit(plan).run
    assert {"accuracy.learnt", "accuracy.between", "accuracy.beyond"} == set(run.measures)
    assert run.loss.values[-1] < run.loss.values[0]


@pytest.mark.skipif(not has_digits(), reason="scikit-learn is not installed")
def test_images_drawn_show_the_digits_asked_for_and_none_is_in_both_parts():
    train, test = load_digits(generator(), 300)
    assert len(test.digits) == 300 and len(train.digits) == 1497
    wanted = torch.tensor([7, 0, 7, 3])
    drawn = test.draw(wanted, generator(1))
    for image, digit in zip(drawn, wanted, strict=True):
        assert any(torch.equal(image, other) for other in test.pixels[test.digits == digit])
    assert not as_set(train.pixels) & as_set(test.pixels)
    assert float(train.pixels.max()) == 1 and float(train.pixels.min()) == 0
