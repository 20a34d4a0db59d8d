"""Directions on the embedded language model.

They tell apart sentiments in words and templates that they were not found from, and the unit of doses does not depend on how
long prompts are.
"""

import math
import statistics

import pytest
import torch

import optrode as op
from optrode.control.choosing import choose
from optrode.control.contrast import Contrast
from optrode.control.direction import directions, judged
from optrode.control.dose import iso_kl
from optrode.control.families import length_contrast
from optrode.control.states import read_states
from optrode.errors import SinkIncluded

pytestmark = pytest.mark.slow

SITES = "blocks.12:28.resid_post"
FITTED = Contrast.filled(
    (
        "The film was {}", "We had a {} time at the lake", "My new neighbour is a {} person",
        "What a {} day it has been for us",
    ),
    ("wonderful", "delightful", "excellent", "lovely", "brilliant", "charming"),
    ("horrible", "dreadful", "terrible", "awful", "miserable", "disgusting"),
)
OTHERS = Contrast.filled(
    ("I must say that the soup tasted {}", "Her last three letters sounded {} to me", "This hotel looks {}"),
    ("superb", "pleasant", "great", "beautiful", "fantastic", "good"),
    ("nasty", "rotten", "bad", "ugly", "appalling", "poor"),
)
PROSE = (
    "The old harbour lies at the foot of a steep hill, and in the morning the fishing boats come back one after "
    "another while the gulls circle above them. A baker opens his shop before sunrise, because the crews want warm "
    "bread as soon as they have tied up. Later in the day the market fills with people from the villages inland, who "
    "bring apples, cheese and wool, and who like to talk about the weather, the price of timber and the new road that "
    "the county has promised for ten years. When the tide is low, children walk out over the flat sand to a wreck "
    "that nobody has ever moved. Its ribs are black and soft, and at the stern there is still a plate with half of a "
    "name on it. Some say that it carried salt, others that it carried letters, and one old woman says that it "
    "carried nothing at all and was sunk for the insurance. In winter the harbour is quiet. Nets are mended in the "
    "sheds, engines are taken apart on kitchen tables, and the lamp at the end of the pier is lit at four in the "
    "afternoon. Ships that pass far out can see it for three hours before the headland hides it again, and their "
    "pilots write the time of it into the log, as their fathers and grandfathers did before them."
)


@pytest.fixture(scope="module")
def model():
    return op.load("smollm2")


@pytest.mark.parametrize(
    ("method", "bound"), [("difference", 0.95), ("logistic", 0.95), ("mass-mean", 0.95), ("paired-pca", 0.85)]
)
def test_sentiment_is_told_apart_in_other_words_and_templates(model, method, bound):
    found = directions(model, FITTED, SITES, method, random_seed=0)
    best = max(found, key=lambda one: (one.separation, one.site))
    assert best.separation >= 0.95 and not best.is_at_chance
    assert statistics.median(one.separation for one in judged(model, found, OTHERS)) >= bound


def test_means_with_the_sink_tell_less(model):
    """Texts of several lengths: the sink adds 25,000 over the number of tokens to the mean."""
    safe = directions(model, FITTED, SITES, read="mean", held_out=0.0)
    with pytest.warns(SinkIncluded):
        unsafe = directions(model, FITTED, SITES, read="mean", held_out=0.0, with_sink=True)
    better, worse = (
        statistics.mean(one.separation for one in judged(model, found, OTHERS)) for found in (safe, unsafe)
    )
    assert better >= 0.85 and worse <= better - 0.1


def test_the_unit_of_doses_does_not_depend_on_the_length_of_prompts(model):
    """From 16 to 256 tokens by less than 5 % at blocks 12 to 23.

    At blocks 24 to 27, where norms change with the position, it is up to 9 %: there the target is missed.
    """
    ids = model.to_tokens(PROSE)[0, :256].tolist()
    assert len(ids) == 256
    short = [tuple(ids[at : at + 16]) for at in range(0, 256, 16)]
    one, many = (read_states(model, texts, SITES) for texts in ([tuple(ids)], short))
    changes = [abs(a.typical / b.typical - 1) for a, b in zip(one, many, strict=True)]
    assert len(changes) == 16 and max(changes[:12]) < 0.05 and max(changes[12:]) < 0.12
    means = [abs(norm(model, [tuple(ids)], layer) / norm(model, short, layer) - 1) for layer in (12, 20, 27)]
    assert min(means) > 0.5  # a mean norm with the sink is another unit for every length


def norm(model, texts, layer):
    """Mean norm of all tokens, the sink among them: the unit that is not used."""
    site = f"blocks.{layer}.resid_post"
    return float(op.record(model, [list(text) for text in texts], site)[site].norm(dim=-1).mean())


def test_a_dose_of_one_nat_is_met_within_eight_evaluations(model):
    (found,) = directions(model, FITTED, "blocks.19.resid_post")
    prompts = ["The weather today is", "My sister told me that", "At the meeting we", "The report says"]
    iso = iso_kl(model, lambda dose: [found.gate(dose)], prompts, 1.0)
    assert iso.n_evaluations <= 8 and math.isclose(iso.kl, 1.0, rel_tol=0.05) and 0.02 < iso.dose < 1
    assert torch.isfinite(found.vector).all()


def test_a_dose_is_chosen_that_moves_sentiment_at_little_cost(model):
    vader = pytest.importorskip("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    asked = (
        "Tell me about your day.", "Describe a walk through a town.", "What is it like to travel by train?",
        "Write two sentences about a kitchen.", "How was the meeting?", "Describe the weather in autumn.",
    )  # fmt: skip
    choice = choose(
        model, directions(model, FITTED, "blocks.20.resid_post"), [chat(model, text) for text in asked],
        lambda answers: [vader.polarity_scores(text)["compound"] for text in answers], doses=(0.15, 0.3), n_tokens=24,
    )  # fmt: skip
    assert choice.best.dose == 0.15 and choice.best.score >= choice.plain.score + 0.1  # a pilot had +.18 at .10 nats
    assert choice.best.d_nll <= 0.3 < choice.table[1].d_nll


def test_short_and_long_answers_are_the_models_own(model):
    contrast = length_contrast(model, [chat(model, "Name a fruit.")], n_samples=4, max_new_tokens=32)
    (short,), (long,) = contrast.positive, contrast.negative
    assert len(short.token_ids) < len(long.token_ids)
    assert "Name a fruit." in model.to_string(short.token_ids[: short.start])


def chat(model, text):
    """A question as the model was trained to be asked."""
    turns = [{"role": "user", "content": text}]
    return model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
