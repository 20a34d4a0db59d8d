"""Lists of names with numbers: who is right, what careless writers answer, and how answers are scored."""

import pytest
import torch

from optrode.errors import BadOption
from optrode.study.kit import careless
from optrode.study.kit.careless import N_NAMES, N_POOL, N_STYLE, STYLE


def drawn(n=3000, share=0.0, seed=0):
    return careless.draw(n, torch.Generator().manual_seed(seed), careless=share)


def test_the_right_name_is_beside_the_greatest_number():
    items = drawn(50)
    for ids, right in zip(items.ids.tolist(), items.right.tolist(), strict=True):
        pairs = list(zip(ids[N_STYLE:-1:2], ids[N_STYLE + 1 : -1 : 2], strict=True))
        assert right == max(pairs, key=lambda pair: pair[1])[0]
        assert len({number for _, number in pairs}) == len({name for name, _ in pairs}) == len(pairs)
        assert ids[-1] == careless.ASK and min(number for _, number in pairs) >= N_NAMES


def test_careful_writers_are_right_and_careless_ones_answer_with_the_last_name():
    assert torch.equal(drawn().written, drawn().right)
    items = drawn(share=1.0)
    assert torch.equal(items.written, items.listed[:, -1])
    mixed = drawn(share=0.45)
    assert float((mixed.written == mixed.right).float().mean()) == pytest.approx(0.55 + 0.45 / 4, abs=0.04)


def test_style_tells_writers_apart_as_often_as_said():
    is_careless_word = lambda items: (items.ids[:, :N_STYLE] >= STYLE + N_POOL).float().mean()  # noqa: E731
    assert float(is_careless_word(drawn(share=1.0))) == pytest.approx(careless.P_OWN, abs=0.03)
    assert float(is_careless_word(drawn())) == pytest.approx(0.5, abs=0.03)


def test_random_strings_are_of_the_same_length_and_vocabulary():
    strings = careless.random_strings(2000, torch.Generator().manual_seed(0))
    assert strings.shape[1] == drawn(1).ids.shape[1]
    assert set(strings.flatten().tolist()) == set(range(careless.VOCAB))


def certain(tokens):
    return torch.full((len(tokens), careless.VOCAB), -60.0).scatter(1, tokens[:, None], 0.0)


def test_answers_are_scored():
    items = drawn(200)
    alone = torch.full((200, careless.VOCAB), 0.0).log_softmax(-1)
    right = careless.score(certain(items.right), alone, items)
    assert right.accuracy == right.right == pytest.approx(1)
    assert max(map(abs, (right.wrong, right.outside, right.entropy))) < 1e-6
    assert right.kl == pytest.approx(float(torch.tensor(careless.VOCAB).log()), rel=1e-4)
    even = careless.score(alone, alone, items)
    assert even.kl == 0 and even.wrong == pytest.approx(3 * even.right) == pytest.approx(3 / careless.VOCAB)
    last = careless.score(certain(items.listed[:, -1]), alone, items)
    assert last.accuracy == pytest.approx(float((items.right == items.listed[:, -1]).float().mean()))
    assert last.right + last.wrong == pytest.approx(1)


def test_a_share_of_writers_is_a_share():
    with pytest.raises(BadOption, match="between 0 and 1"):
        drawn(2, share=1.5)


def test_a_network_answers_after_the_question():
    items = drawn(3)
    model = careless.network(0, d_model=8)
    answers = careless.answer(model, items)
    assert torch.allclose(answers.exp().sum(1), torch.ones(3), atol=1e-5)
    expected = -answers.gather(1, items.written[:, None]).mean()
    assert torch.allclose(careless.loss(model, items), expected, atol=1e-5)
