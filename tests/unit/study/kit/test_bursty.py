"""Rows follow Reddy's laws, and the progress measures see mechanisms that are planted by hand."""

import math
from dataclasses import replace

import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.study.kit import bursty
from optrode.study.kit.bursty import Bursty

SMALL = Bursty(n_classes=12, n_labels=6, n_pairs=4, d_item=5, noise=0.0, n_places=11)


def drawn(task, n=64, seed=0):
    world = task.world(3)
    return world, task.draw(world, n, torch.Generator().manual_seed(seed))


def classes_of(world, batch):
    """The class of each item, by its vector; -1 for none."""
    near = torch.cdist(batch.vectors[:, ::2], world.means[None].expand(len(batch.target), -1, -1))
    nearest = near.min(2)
    return torch.where(nearest.values < 1e-5, nearest.indices, -1)


@pytest.mark.parametrize("burst", [1, 2, 4])
def test_a_bursty_row_asks_for_a_class_that_is_in_context_as_often_as_the_burst_says(burst):
    world, batch = drawn(replace(SMALL, burst=burst))
    classes = classes_of(world, batch)
    for row in classes:
        assert sorted(row[:-1].tolist().count(k) for k in set(row[:-1].tolist())) == [burst] * (4 // burst)
    assert torch.equal(batch.is_own, (classes[:, :-1] == classes[:, -1:]).long())
    assert batch.is_own.sum(1).tolist() == [burst] * 64


def test_items_are_followed_by_the_label_of_their_class():
    world, batch = drawn(SMALL)
    classes = classes_of(world, batch)
    assert torch.equal(batch.context, classes[:, :-1] % 6) and torch.equal(batch.target, classes[:, -1] % 6)
    assert torch.equal(batch.vectors[:, 1::2], world.labels[batch.context])
    assert batch.vectors.shape == (64, 9, 5)


def test_without_bursts_the_query_is_independent_of_the_context():
    _, batch = drawn(replace(SMALL, p_bursty=0.0), n=4000)
    assert float(batch.is_own.float().mean()) == pytest.approx(1 / 12, abs=0.01)
    _, idle = drawn(replace(SMALL, burst=2, asks_context=False), n=4000)
    assert float(idle.is_own.float().mean()) == pytest.approx(1 / 12, abs=0.01)


def test_the_share_of_bursty_rows_is_as_given():
    _, batch = drawn(replace(SMALL, n_classes=1000, p_bursty=0.3), n=4000)
    assert float(batch.is_own.any(1).float().mean()) == pytest.approx(0.3, abs=0.03)


def test_new_classes_are_none_of_the_world_and_have_the_usual_labels():
    world, batch = drawn(replace(SMALL, p_novel=1.0))
    assert bool((classes_of(world, batch) == -1).all())
    assert torch.equal(batch.vectors[:, 1::2], world.labels[batch.context])
    assert set(batch.target.tolist()) == set(range(6))
    world, some = drawn(replace(SMALL, p_novel=0.5), n=1000)
    is_new = (classes_of(world, some) == -1).float()
    assert float(is_new.mean()) == pytest.approx(0.5, abs=0.06)
    assert bool((is_new.std(1) == 0).all())


def test_the_swap_test_changes_the_labels_and_nothing_else():
    world = SMALL.world(3)
    plain, swapped = (t.draw(world, 32, torch.Generator().manual_seed(1)) for t in (SMALL, SMALL.swapped()))
    assert torch.equal(plain.vectors[:, ::2], swapped.vectors[:, ::2])
    assert torch.equal((plain.context + 1) % 6, swapped.context)
    assert torch.equal((plain.target + 1) % 6, swapped.target)
    assert torch.equal(swapped.vectors[:, 1::2], world.labels[swapped.context])


def test_tests_have_the_laws_that_their_names_say():
    trained = replace(SMALL, burst=2, asks_context=False, p_bursty=0.5)
    in_context, in_weights = trained.in_context(), trained.in_weights()
    assert (in_context.burst, in_context.asks_context, in_context.p_bursty, in_context.p_novel) == (1, True, 1.0, 1.0)
    assert (in_weights.p_bursty, in_weights.p_novel) == (0.0, 0.0)
    assert (trained.swapped().shift, trained.swapped().p_novel, trained.swapped().p_bursty) == (1, 0.0, 1.0)


def test_classes_are_as_frequent_as_zipf_says():
    world, batch = drawn(replace(SMALL, zipf=1.0, p_bursty=0.0), n=5000)
    counts = torch.bincount(classes_of(world, batch).flatten(), minlength=12) / (5000 * 5)
    law = 1 / torch.arange(1.0, 13)
    assert torch.allclose(counts, law / law.sum(), atol=0.01)


def test_classes_of_a_bursty_context_are_drawn_one_after_the_other_by_frequency():
    weights = torch.tensor([0.6, 0.3, 0.1])
    pairs = bursty._distinct(weights, 20_000, 2, torch.Generator().manual_seed(0))
    for first, second in ((0, 1), (1, 0), (2, 0), (0, 2)):
        share = float(((pairs[:, 0] == first) & (pairs[:, 1] == second)).float().mean())
        expected = weights[first] * weights[second] / (1 - weights[first])
        assert share == pytest.approx(float(expected), abs=0.01)


def test_items_scatter_around_their_class_and_keep_their_length():
    task = replace(SMALL, n_classes=400, d_item=50, noise=0.7)
    world, batch = drawn(task, n=500)
    items = batch.vectors[:, ::2].flatten(0, 1)
    assert float(items.square().sum(1).mean()) == pytest.approx(1, abs=0.03)
    similar = (items / items.norm(dim=1, keepdim=True)) @ (world.means / world.means.norm(dim=1, keepdim=True)).T
    assert float(similar.max(1).values.mean()) == pytest.approx(1 / math.sqrt(1 + 0.7**2), abs=0.03)


def test_positions_of_a_row_are_consecutive_and_start_anywhere():
    _, batch = drawn(SMALL, n=200)
    assert bool((batch.positions.diff(dim=1) == 1).all())
    assert set(batch.positions[:, 0].tolist()) == {0, 1, 2} and int(batch.positions.max()) == 10


@pytest.mark.parametrize(("change", "found"), [
    ({"burst": 3}, "do not fill"), ({"n_classes": 3}, "there are 3"), ({"n_places": 8}, "a row has 9 tokens"),
])  # fmt: skip
def test_laws_that_do_not_fit_are_refused(change, found):
    with pytest.raises(BadOption, match=found):
        replace(SMALL, **change)


def test_progress_of_a_network_whose_attention_is_given():
    _, batch = drawn(SMALL)
    model = bursty.network(SMALL)
    to_item, to_label = torch.eye(9), torch.eye(9)
    for label in (1, 3, 5, 7):
        to_item[label] = torch.eye(9)[label - 1]
    to_label[8] = torch.tensor([0, 0.1, 0, 0.2, 0, 0.3, 0, 0.4, 0])
    held = op.clamp("blocks.0.attn.pattern", to_item), op.clamp("blocks.1.attn.pattern", to_label)
    with op.gates(model, *held):
        found = bursty.progress(model, batch)
    expected = (batch.is_own * torch.tensor([0.1, 0.2, 0.3, 0.4])).sum(1).mean()
    assert found["ila1"] == 1 and found["tila2"] == pytest.approx(float(expected))


def test_preference_tells_the_right_label_from_any_in_context():
    _, batch = drawn(SMALL, n=500)
    model = bursty.network(SMALL)
    any_label = torch.full((500, 1, 6), -20.0)
    any_label[:, 0].scatter_(1, batch.context, 0.0)
    right = torch.full((500, 1, 6), -20.0)
    right[:, 0].scatter_(1, batch.target[:, None], 0.0)
    with op.gates(model, op.compute("logits", lambda h, p: right)):
        knows = bursty.progress(model, batch)
    by_chance = float((batch.context == batch.target[:, None]).float().mean())
    assert knows["accuracy"] == 1 and knows["cla"] == pytest.approx(1)
    assert knows["preference"] == pytest.approx(1 - by_chance, abs=1e-4)
    with op.gates(model, op.compute("logits", lambda h, p: any_label)):
        guesses = bursty.progress(model, batch)
    # Labels that stand in the context twice are as likely as others here, and less likely than by position.
    assert guesses["cla"] == pytest.approx(1, abs=1e-4) and abs(guesses["preference"]) < 0.05


def test_the_network_is_reddys():
    spec = Bursty().spec()
    assert (spec.n_layers, spec.n_heads, spec.d_model, spec.n_columns) == (2, 1, 128, 32)
    assert (spec.norm, spec.is_scaled, spec.has_output, spec.positions) == ("none", False, False, "one_hot")


def test_the_loss_is_that_of_the_querys_label():
    _, batch = drawn(SMALL)
    model = bursty.network(SMALL)
    logits = bursty.read(model, batch).detach()
    expected = -logits.log_softmax(-1).gather(1, batch.target[:, None]).mean()
    assert float(bursty.loss(model, batch).detach()) == pytest.approx(float(expected))
    assert bursty.accuracy(model, batch) == float((logits.argmax(1) == batch.target).float().mean())
