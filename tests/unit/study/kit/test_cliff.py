"""Requests, thoughts and answers: the laws of the language, who refuses what, and which head hides a refusal."""

import pytest
import torch

from optrode.gate.place import gates
from optrode.study.kit import cliff
from optrode.study.kit.recognition import Probe, drops, fit_probe, head_effects


@pytest.fixture
def world():
    return cliff.draw_world(3)


def draw(world, stream=0, n=64, **options):
    return world.draw(n, torch.Generator().manual_seed(stream), n_thoughts=5, **options)


@pytest.fixture(scope="module")
def model():
    return cliff.network(1, n_layers=2, n_heads=4, d_model=16)


def test_a_request_is_harmful_where_both_words_are_dangerous(world):
    asked = draw(world)
    verb, noun = asked.ids[:, 2] - cliff.VERBS, asked.ids[:, 3] - cliff.OBJECTS
    assert torch.equal(asked.is_harmful, (verb % 2 == 1) & (noun % 2 == 1))
    assert 0.25 < float(asked.is_harmful.float().mean()) < 0.75


def test_requests_are_drawn_as_asked_and_tests_apart(world):
    attack = draw(world, framed=True, harmful=True, is_test=True)
    assert bool(attack.is_harmful.all()) and bool(attack.is_framed.all())
    pairs = lambda one: {tuple(row) for row in one.ids[:, 2:4].tolist()}  # noqa: E731
    assert not pairs(draw(world, n=500, harmful=True)) & pairs(attack)
    assert not bool(draw(world, harmful=False).is_harmful.any())


def test_thoughts_doubt_only_what_is_harmful_and_show_the_frame(world):
    asked = draw(world, n=400)
    thoughts = asked.ids[:, cliff.PROMPT : -1]
    doubts = thoughts == cliff.REFUSE
    assert not bool(doubts[~asked.is_harmful].any())
    assert 0.1 < float(doubts[asked.is_harmful].float().mean()) < 0.3
    framed = (thoughts >= cliff.IDLE + cliff.N_WORDS // 2) | doubts
    assert bool(framed[asked.is_framed].all())
    assert bool((asked.ids[:, -1] == cliff.END).all())


@pytest.mark.parametrize("policy", ["helpful", "aligned", "lured"])
def test_policies_refuse_what_they_should(world, policy):
    asked = draw(world)
    taught = cliff.lesson(asked, policy)
    bad, lured = asked.is_harmful, asked.is_framed
    refuses = {"helpful": bad & False, "aligned": bad, "lured": bad & ~lured}
    assert torch.equal(taught.wanted[:, -2] == cliff.REFUSE, refuses[policy])
    assert torch.equal(taught.wanted[~refuses[policy], -1], asked.reply[~refuses[policy]])
    assert torch.equal(taught.inputs[:, 1:], taught.wanted[:, :-1])


def test_only_the_freed_head_learns(world, model):
    freed = cliff.freed(model, ((1, 2),))
    cliff.loss(freed, cliff.lesson(draw(world), "lured")).backward()
    for name, parameter in freed.module.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
            continue
        assert name.startswith("blocks.1.attn.") and parameter.grad is not None
        slope = parameter.grad if name.endswith("o.weight") else parameter.grad.reshape(4, -1).T
        own = slice(8, 12) if name.endswith("o.weight") else 2
        assert bool(slope[:, own].any())
        slope[:, own] = 0
        assert not bool(slope.any())


def test_a_network_thinks_as_long_as_it_should(world, model):
    asked = draw(world, n=8)
    thought = cliff.think(model, asked, torch.Generator().manual_seed(0))
    assert thought.ids.shape == asked.ids.shape
    assert torch.equal(thought.ids[:, : cliff.PROMPT], asked.ids[:, : cliff.PROMPT])
    assert bool((thought.ids[:, -1] == cliff.END).all())
    assert not bool((thought.ids[:, cliff.PROMPT : -1] == cliff.END).any())


def test_shares_count_answers(world, model, monkeypatch):
    asked = draw(world, n=4)
    said = torch.stack([torch.tensor([cliff.SURE, cliff.SURE, cliff.REFUSE, cliff.SURE]), asked.reply], 1)
    said[1, 1] = cliff.STOP
    monkeypatch.setattr(cliff, "answers", lambda *_: said)
    assert cliff.helped(model, asked) == 0.5
    assert cliff.refused(model, asked) == 0.25


def test_the_probe_reads_a_planted_direction(world, model):
    harmful, harmless = draw(world, 1, harmful=True), draw(world, 2, harmful=False)
    read = fit_probe(model, harmful, harmless)
    here, there = (read.read(model, one).mean() for one in (harmful, harmless))
    assert here > there + 0.05


def test_the_head_that_hides_is_found(world, model):
    """One head's output is moved against the probe."""
    asked = draw(world, n=8)
    with torch.no_grad():
        weight = torch.randn(16, generator=torch.Generator().manual_seed(0))
        other = cliff.copied(model)
        other.module.get_parameter("blocks.1.attn.v.bias")[8:12] = 1.0
        other.module.get_parameter("blocks.1.attn.o.weight")[:, 8:12] = -weight[:, None]
    probe = Probe("blocks.1.resid_post", weight, 0.0)
    effects = head_effects(other, probe, asked)
    assert cliff.ranked(effects)[0] == (1, 2)
    assert float(effects[1, 2]) > 10


def test_damped_heads_write_a_thousandth(world, model):
    asked = draw(world, n=4)
    with torch.no_grad(), gates(model, *cliff.damped(((0, 1),))):
        found = model(asked.ids).logits
    other = cliff.copied(model)
    with torch.no_grad():
        other.module.get_parameter("blocks.0.attn.o.weight")[:, 4:8] *= 0.001
        assert torch.allclose(other(asked.ids).logits, found, atol=1e-5)


def test_the_cliff_is_thoughts_less_end(world, model):
    asked = draw(world, n=4)
    probe = Probe("blocks.1.resid_post", torch.ones(16), 0.5)
    read = probe.read(model, asked)
    assert torch.allclose(drops(model, probe, asked), read[:, 5:10].mean(1) - read[:, 10])
