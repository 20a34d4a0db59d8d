"""Maps on the embedded language model: learned from 16 sentences of each kind, they hold for other words and templates."""

import pytest
import torch

import optrode as op
from optrode.control.end_to_end import lineas
from optrode.control.transport import distance, linear_act
from optrode.gate.place import gates

pytestmark = pytest.mark.slow

SITES = "blocks.12|16|20|24.mlp_out"
FITTED = (
    (
        "The film was {}", "We had a {} time at the lake", "My new neighbour is a {} person",
        "What a {} day it has been for us",
    ),
    ("wonderful", "delightful", "excellent", "lovely"), ("horrible", "dreadful", "terrible", "awful"),
)  # fmt: skip
OTHERS = (
    (
        "The soup tasted {}", "It was a {} trip to the mountains", "Her speech sounded {} to everyone",
        "The hotel room looked {} this morning",
    ),
    ("great", "amazing", "fantastic", "beautiful"), ("bad", "nasty", "ugly", "disgusting"),
)  # fmt: skip
PROMPTS = ["I think the new restaurant is", "The book I read last week was", "My weekend was", "To be honest, this song is"]
GOOD = (" great", " good", " amazing", " wonderful", " excellent", " beautiful", " perfect")
BAD = (" bad", " terrible", " awful", " horrible", " boring", " disappointing", " worst")


@pytest.fixture(scope="module", name="model")
def _model():
    return op.load("smollm2")


def texts(templates, good, bad):
    """Sentences of the source, bad ones, and of the target, good ones."""
    return tuple([template.format(word) for template in templates for word in words] for words in (bad, good))


@torch.no_grad()
def leaning(model, *held):
    """How much likelier good words are next than bad ones, in nats, mean over prompts."""
    batch = model.batch(PROMPTS)
    with gates(model, *held):
        logits = model.module(**batch.arguments()).logits.log_softmax(-1)
    last = logits[torch.arange(len(PROMPTS)), torch.tensor(batch.lengths) - 1]
    good, bad = ([one for word in words if (one := model.to_single_token(word)) is not None] for words in (GOOD, BAD))
    return float((last[:, good].logsumexp(-1) - last[:, bad].logsumexp(-1)).mean())


def left(model, *held):
    """Summed distance on sentences of other words and templates."""
    return sum(float(one.sum()) for one in distance(model, *texts(*OTHERS), SITES, *held).values())


def test_maps_learned_together_carry_a_sentiment_over_and_maps_without_labels_do_not(model):
    bad, good = texts(*FITTED)
    plain, before = leaning(model), left(model)
    maps = lineas(model, bad, good, SITES, n_steps=25, lr=0.1)
    by_site = linear_act(model, bad, good, SITES, support=None)
    unlabelled = lineas(model, bad[::2] + good[::2], bad[1::2] + good[1::2], SITES, n_steps=25, lr=0.1)
    assert maps.losses[-1] < 0.35
    assert left(model, *maps.gates()) < 0.95 * before < left(model, *unlabelled.gates())
    assert left(model, *maps.gates()) < left(model, *by_site.gates())
    together, fitted, neither = (leaning(model, *one.gates()) - plain for one in (maps, by_site, unlabelled))
    assert together > 0.7 and fitted > 0.5 and abs(neither) < 0.4
    assert 0.2 < leaning(model, *maps.gates(0.5)) - plain < together
