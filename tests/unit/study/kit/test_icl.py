"""In-context classification: what is drawn, how often, and what the model reads of it."""

from collections import Counter

import pytest
import torch

from optrode.errors import BadOption
from optrode.study.kit import icl

SEEN, UNSEEN = icl.label_sets(5)


def _words(n_classes=6, n_exemplars=1, n_labels=5):
    return icl.Vocabulary(icl.gaussian(n_classes, 4, n_exemplars), n_labels, n_exemplars)


def _draw(words, pool, n=400, seed=0):
    return icl.draw(words, pool, n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n_labels", "n_seen", "n_unseen"), [(5, 8, 2), (10, 36, 9), (15, 84, 21)])
def test_label_sets_divide_as_in_the_paper_and_are_all_there(n_labels, n_seen, n_unseen):
    seen, unseen = icl.label_sets(n_labels)
    assert (len(seen), len(unseen)) == (n_seen, n_unseen)
    every = {tuple(sorted(row)) for row in torch.cat([seen, unseen]).tolist()}
    assert len(every) == n_labels * (n_labels - 1) // 2


def test_the_training_set_of_the_paper_has_78400_sequences():
    assert icl.n_sequences(icl.Pool(range(50), SEEN)) == 78_400


def test_every_sequence_of_a_pool_is_drawn_equally_often():
    pool = icl.Pool(range(3), SEEN[:2])
    n = icl.n_sequences(pool)
    rows = _draw(_words(), pool, 100 * n)
    times = Counter(map(tuple, rows.ids.tolist()))
    assert n == 48 and len(times) == n
    chi_squared = sum((count - 100) ** 2 / 100 for count in times.values())
    assert chi_squared < 85  # 47 degrees of freedom: more in one of 1,000 draws


def test_the_query_is_of_a_class_in_context_and_wants_its_label():
    words = _words()
    rows = _draw(words, icl.Pool(range(6), SEEN))
    each = torch.arange(len(rows.ids))
    assert torch.equal(rows.ids[each, rows.right - 1], rows.ids[:, -1])
    assert torch.equal(rows.ids[each, rows.right], rows.wanted)
    assert (rows.ids[each, rows.wrong] != rows.wanted).all()
    assert (rows.ids[:, 0] != rows.ids[:, 2]).all()
    assert set(rows.right.tolist()) == {1, 3}


def test_pairs_left_out_never_stand_together():
    rows = _draw(_words(), icl.Pool(range(6), SEEN), 2000)
    together = {tuple(sorted(pair)) for pair in rows.ids[:, 1:-1:2].tolist()}
    assert together == {tuple(sorted(pair)) for pair in SEEN.tolist()}
    assert not together & {tuple(sorted(pair)) for pair in UNSEEN.tolist()}


def test_a_fresh_query_is_another_exemplar_of_the_same_class():
    words = _words(n_exemplars=4)
    rows = _draw(words, icl.Pool(range(6), SEEN, range(4), is_query_fresh=True))
    each = torch.arange(len(rows.ids))
    shown = rows.ids[each, rows.right - 1]
    assert torch.equal(words.classes_of(shown), words.classes_of(rows.ids[:, -1]))
    assert 0.6 < float((shown != rows.ids[:, -1]).float().mean()) < 0.9
    own = _draw(words, icl.Pool(range(6), SEEN, range(4)))
    assert torch.equal(own.ids[each, own.right - 1], own.ids[:, -1])


def test_contexts_of_three_have_three_classes_and_labels():
    sets, _ = icl.label_sets(5, n_pairs=3)
    rows = _draw(_words(), icl.Pool(range(6), sets))
    assert rows.ids.shape == (400, 7)
    assert all(len(set(row[0:6:2])) == 3 and len(set(row[1:6:2])) == 3 for row in rows.ids.tolist())
    assert set(rows.right.tolist()) == {1, 3, 5}


def test_an_absent_query_is_of_no_class_in_context():
    words = _words()
    rows = _draw(words, icl.Pool(range(6), SEEN))
    without = icl.absent(words, rows)
    assert torch.equal(without.ids[:, :-1], rows.ids[:, :-1])
    assert not (without.ids[:, :-1:2] == without.ids[:, -1:]).any()


def test_exemplars_surround_their_class():
    items = icl.gaussian(40, 256, 3, spread=0.3)
    near = (items[0::3] - items[1::3]).norm(dim=1) / 256**0.5
    far = (items[0::3] - items[1::3].roll(1, 0)).norm(dim=1) / 256**0.5
    assert torch.allclose(near.mean(), torch.tensor(0.3 * 2**0.5), atol=0.02)
    assert torch.allclose(far.mean(), torch.tensor((2 + 2 * 0.09) ** 0.5), atol=0.05)


def test_the_network_is_that_of_the_paper():
    words = icl.Vocabulary(icl.gaussian(50, 512), 5)
    model = icl.network(words, 3)
    shapes = {name: tuple(value.shape) for name, value in model.module.named_parameters()}
    assert shapes["embed.read_item.weight"] == (64, 512) and shapes["embed.read_item.bias"] == (64,)
    assert shapes["unembed.weight"] == (5, 64) and shapes["unembed.bias"] == (5,)
    assert shapes["blocks.1.attn.o.weight"] == (64, 64) and shapes["blocks.1.ln1.bias"] == (64,)
    assert not any(".mlp." in name or name.endswith("attn.q.bias") for name in shapes)
    assert abs(float(model.module.embed.weight.detach().std()) - 0.02) < 0.003
    assert model.table.n_heads == 8 and model.module.config.positions == "rotary"


def test_the_loss_is_that_of_the_query_alone():
    words = _words()
    model, rows = icl.network(words, n_heads=2, d_model=8), _draw(words, icl.Pool(range(6), SEEN), 20)
    whole = model(rows.ids).logits.detach()
    by_hand = -whole[:, -1].log_softmax(-1)[torch.arange(20), rows.wanted].mean()
    assert torch.allclose(icl.loss(model, rows), by_hand)
    assert icl.accuracy(model, rows) == float((whole[:, -1].argmax(-1) == rows.wanted).float().mean())


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadOption, match="7 items do not divide into classes of 2"):
        icl.Vocabulary(torch.zeros(7, 2), 5, 2)
    with pytest.raises(BadOption, match="the pool has 1 classes"):
        _draw(_words(), icl.Pool([3], SEEN))
    with pytest.raises(BadOption, match="class 6: the vocabulary has 6"):
        _draw(_words(), icl.Pool(range(7), SEEN))
    with pytest.raises(BadOption, match="label 4: the vocabulary has 3"):
        _draw(_words(n_labels=3), icl.Pool(range(6), SEEN))
    with pytest.raises(BadOption, match="1 sets, of which 0 would be left out"):
        icl.label_sets(2)
    with pytest.raises(BadOption, match="is_query_fresh=True"):
        icl.n_sequences(icl.Pool(range(6), SEEN, is_query_fresh=True))
