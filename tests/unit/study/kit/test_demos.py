"""Rows of demonstrations have the layout that the arrows of the circuit assume."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.study.kit.demos import Demos

SMALL = Demos(n_classes=7, n_labels=4, n_demos=2, n_words=2, width=6, noise=0.0)


def drawn(task=SMALL, n=200):
    words = task.words(0)
    return words, task.draw(words, n, torch.Generator().manual_seed(0))


def test_rows_are_words_separator_label_again_and_again():
    words, rows = drawn()
    assert rows.vectors.shape == (200, SMALL.length, 6) and SMALL.length == 11 and SMALL.separators == (2, 6, 10)
    for item, start in enumerate((0, 4, 8)):
        expected = words.classes[rows.classes[:, item]]
        assert torch.equal(rows.vectors[:, start], expected) and torch.equal(rows.vectors[:, start + 1], expected)
        assert torch.equal(rows.vectors[:, start + 2], words.separator.expand(200, -1))
        if item < 2:
            assert torch.equal(rows.vectors[:, start + 3], words.labels[rows.labels[:, item]])


def test_the_query_is_of_one_demonstrations_class_and_wants_its_label():
    _, rows = drawn()
    assert bool((rows.classes[:, 0] != rows.classes[:, 1]).all()) and bool((rows.labels[:, 0] != rows.labels[:, 1]).all())
    at = rows.right[:, None]
    assert torch.equal(rows.classes.gather(1, at)[:, 0], rows.classes[:, 2])
    assert torch.equal(rows.labels.gather(1, at)[:, 0], rows.labels[:, 2])
    assert float(rows.right.float().mean()) == pytest.approx(0.5, abs=0.1)


def test_labels_do_not_tell_classes():
    _, rows = drawn(n=5000)
    joint = torch.bincount(rows.classes[:, 2] * 4 + rows.labels[:, 2], minlength=28) / 5000
    assert torch.allclose(joint, torch.full((28,), 1 / 28), atol=0.012)


def test_words_scatter_as_the_noise_says():
    task = Demos(noise=2.0)
    words, rows = drawn(task)
    off = rows.vectors[:, 0] - words.classes[rows.classes[:, 0]]
    assert float(off.std()) == pytest.approx(2.0, abs=0.05)


def test_arrows_of_the_steps():
    assert SMALL.arrows("s>y") == [(2, 3), (6, 7)] and SMALL.arrows("y>sq") == [(3, 10), (7, 10)]
    assert set(SMALL.arrows("x>s")) == {(0, 2), (1, 2), (4, 6), (5, 6)}
    assert set(SMALL.arrows("xq>sq")) == {(8, 10), (9, 10)}
    assert set(SMALL.arrows("x>y")) == {(0, 3), (1, 3), (4, 7), (5, 7)}
    assert SMALL.arrows("s>sq") == [(2, 10), (6, 10)]
    assert set(SMALL.arrows("x>sq")) == {(0, 10), (1, 10), (4, 10), (5, 10)}
    with pytest.raises(BadOption, match="no such step"):
        SMALL.arrows("y>s")


def test_the_loss_asks_for_the_label_at_the_query_and_for_the_class_at_each_separator():
    _, rows = drawn(n=8)
    model = SMALL.network(0, 2)
    logits = model(inputs_embeds=rows.vectors).logits.detach()
    label = -logits[:, 10, :4].log_softmax(-1).gather(1, rows.labels[:, 2:]).mean()
    own = [-logits[:, at, 4:].log_softmax(-1).gather(1, rows.classes[:, ix, None]) for ix, at in enumerate((2, 6, 10))]
    assert float(SMALL.loss(model, rows).detach()) == pytest.approx(float(label + torch.cat(own).mean()), rel=1e-5)
    right = logits[:, 10, :4].argmax(-1) == rows.labels[:, 2]
    assert SMALL.accuracy(model, rows) == float(right.float().mean())


def test_rows_that_cannot_be_drawn_are_refused():
    with pytest.raises(BadOption, match="each once in a row"):
        Demos(n_demos=7)
