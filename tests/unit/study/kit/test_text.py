"""Text of the standard library: what is read, how it is written as ids, and how pieces are drawn."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.study.kit import text


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_character_has_an_id_of_its_own_and_comes_back():
    written = "\n" + "".join(map(chr, range(32, 127)))
    ids = text.encode(written)
    assert sorted(ids.tolist()) == list(range(1, text.VOCAB)) and text.decode(ids) == written
    assert text.decode(torch.tensor([text.BOS])) == ""


def test_what_is_neither_printable_ascii_nor_a_newline_is_left_out():
    assert text.decode(text.encode("a\tb\r\né\x7fc")) == "ab\nc"


def test_the_corpus_is_the_modules_one_after_another_the_last_ones_apart():
    words = text.corpus(("getopt", "queue", "shlex"), 1)
    assert text.decode(words.seen).startswith(text.decode(text.encode(text.source("getopt"))))
    assert text.decode(words.unseen) == text.decode(text.encode(text.source("shlex")))
    assert "def getopt(" in text.source("getopt")


@pytest.mark.parametrize("module", ["sys", "no_such_module_here"])
def test_modules_without_a_source_are_refused(module):
    with pytest.raises(BadOption, match=f"source of the module '{module}'"):
        text.source(module)


@pytest.mark.parametrize("n", [0, 2])
def test_neither_part_of_a_corpus_may_be_empty(n):
    with pytest.raises(BadOption, match=f"{n} of 2 modules"):
        text.corpus(("getopt", "queue"), n)


def test_pieces_start_with_the_beginning_and_come_from_all_places_alike():
    ids = torch.arange(1, 9)
    rows = text.draw(ids, 4000, 3, numbers())
    assert rows.shape == (4000, 4) and set(rows[:, 0].tolist()) == {text.BOS}
    assert torch.equal(rows[:, 2:], rows[:, 1:-1] + 1)
    counts = torch.bincount(rows[:, 1], minlength=7)[1:7]
    assert float((counts - 4000 / 6).abs().max()) < 4 * math.sqrt(4000 / 6)
    assert torch.equal(rows, text.draw(ids, 4000, 3, numbers()))
    with pytest.raises(BadOption, match="the text has 8 characters"):
        text.draw(ids, 1, 9, numbers())


def test_loss_is_the_cross_entropy_of_each_next_character():
    model = text.network(1, n_layers=1, d_model=8, d_mlp=8, n_heads=2, n_ctx=8)
    rows = text.draw(torch.arange(1, 60), 3, 6, numbers())
    logits = model(rows).logits.detach()
    by_hand = [float(cross_entropy(logits[row, at], rows[row, at + 1])) for row in range(3) for at in range(6)]
    assert float(text.loss(model, rows).detach()) == pytest.approx(sum(by_hand) / 18, rel=1e-5)
