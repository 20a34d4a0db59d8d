"""Demonstrations: sets of texts that share no templates, judges that can tell their own classes, chat templates."""

import re
from itertools import combinations

import pytest

from optrode.control import demos
from optrode.control.behaviours import Behaviour, Exchange, Trigger, chat
from optrode.control.contrast import Contrast
from optrode.control.demos import neutral
from optrode.control.judges import Vader
from optrode.errors import BadOption
from tests.words import worded

EVERY = [demos.find(name) for name in demos.DEMOS]


def grams(texts, n=5):
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    return {tuple(row[at : at + n]) for row in words for at in range(len(row) - n + 1)}


@pytest.mark.parametrize("behaviour", EVERY, ids=lambda one: one.name)
def test_extraction_validation_and_test_share_no_templates(behaviour):
    extraction = {one.user for one in (*behaviour.positive, *behaviour.negative)}
    extraction |= {one.reply for one in (*behaviour.positive, *behaviour.negative)}
    sets = [grams(extraction), grams(behaviour.validation), grams(behaviour.test)]
    assert all(not one & two for one, two in combinations(sets, 2))
    assert not grams(behaviour.test) & grams([behaviour.instruction, behaviour.opposite_instruction], 4)


@pytest.mark.parametrize("behaviour", EVERY, ids=lambda one: one.name)
def test_sets_are_paired_large_enough_and_hold_no_text_twice(behaviour):
    assert len(behaviour.positive) == len(behaviour.negative) >= 16
    assert len(behaviour.validation) >= 16 and len(behaviour.test) >= 32 and len(behaviour.judges) == 2
    for part in (behaviour.positive, behaviour.negative, behaviour.validation, behaviour.test, behaviour.unrelated):
        assert len(set(part)) == len(part)


def test_the_headline_has_sixty_four_prompts():
    assert len(demos.sentiment().test) == 64 and len(neutral.VALIDATION) == 24 and len(neutral.UNRELATED) == 16


@pytest.mark.parametrize("behaviour", EVERY, ids=lambda one: one.name)
def test_neutral_prompts_do_not_please_the_judges(behaviour):
    for judge in behaviour.judges:
        if judge.name not in ("length", "sentences"):
            said, scores = (ask(behaviour.test, behaviour.test) for ask in (judge.says, judge.score))
            low, high = judge.scale
            off = (sum(scores) / len(scores) - judge.threshold) / (high - low)
            assert sum(said) <= 0.35 * len(said) or abs(off) < 0.05, judge.name


@pytest.mark.parametrize("name", ["sea", "music", "french", "spanish"])
def test_judges_tell_extraction_texts_that_they_have_not_learned(name):
    behaviour = demos.find(name)
    for judge in behaviour.judges:
        high = judge.says([one.reply for one in behaviour.positive], [""] * len(behaviour.positive))
        low = judge.says([one.reply for one in behaviour.negative], [""] * len(behaviour.negative))
        assert sum(high) >= 0.75 * len(high) and sum(low) <= 0.2 * len(low), judge.name


def test_the_classifier_of_sentiment_agrees_with_vader_on_plain_sentences():
    vader, classifier = demos.sentiment().judges
    texts = ("We had a wonderful and joyful time.", "It was a terrible and gloomy night.", "A delightful meal.", "Despair.")
    assert vader.says(texts, texts) == classifier.says(texts, texts) == (True, False, True, False)


def test_judges_of_sentiment_are_validated_on_labelled_texts_of_one_model_or_stay_stamped():
    vader, classifier = demos.sentiment_qualities()
    assert vader.n == classifier.n >= 60 and len(vader.weights_hash) == 64
    assert vader.balanced_accuracy == pytest.approx(0.908, abs=0.001) and vader.kappa == pytest.approx(0.81, abs=0.01)
    records = [
        judge.record(one, vader.weights_hash)
        for judge, one in zip(demos.sentiment().judges, (vader, classifier), strict=True)
    ]
    assert [one.is_validated for one in records] == [True, False] and "balanced accuracy 0.80" in records[1].stamp
    assert "not of this model" in demos.sentiment().judges[0].record(vader, "0" * 64).stamp


def test_the_trigger_has_classes_of_like_length_and_no_shared_sets():
    trigger = demos.cooking()
    sets = [{*target, *benign} for target, benign in (trigger.train, trigger.validation, trigger.test, trigger.contrast)]
    assert all(not one & two for one, two in combinations(sets, 2))
    for target, benign in (trigger.train, trigger.validation, trigger.test):
        lengths = [sum(len(one.split()) for one in part) / len(part) for part in (target, benign)]
        assert len(target) == len(benign) and abs(lengths[0] - lengths[1]) < 0.7
    with pytest.raises(BadOption, match="a class of train is empty"):
        Trigger("none", "never", ((), ("a",)), (("a",), ("b",)), (("c",), ("d",)), ((), ()))


def test_prompts_go_through_the_chat_template():
    model = worded()
    assert chat(model, "When Mary", " went") == "When Mary  went" and chat(model, "", "The city") == "The city"
    model.tokenizer.chat_template = "{% for one in messages %}<{{one.role}}>{{one.content}}{% endfor %}<assistant>"
    try:
        behaviour = demos.sentiment()
        (prompt,) = behaviour.prompts(model, ["Hello?"])
        assert prompt == "<user>Hello?<assistant>"
        assert behaviour.prompts(model, ["Hello?"], "Be kind.") == ("<user>Be kind. Hello?<assistant>",)
        contrast = behaviour.contrast(model)
        assert isinstance(contrast, Contrast) and contrast.positive[0].endswith("<assistant>Today I")
    finally:
        model.tokenizer.chat_template = None


def test_verbosity_counts_tokens_where_there_is_a_tokenizer():
    model = worded()
    judge = demos.find("verbosity", model).judges[0]
    assert judge.score(["When Mary", ""], ["", ""]) == (2, 0)


def test_choosing_uses_validation_requests_alone():
    behaviour = demos.sentiment()
    chosen = behaviour.for_choosing()
    assert chosen.test == behaviour.validation and not set(chosen.test) & set(behaviour.test)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": ()}, "its test set is empty"),
        ({"judges": ()}, "its judges set is empty"),
        ({"positive": ()}, "its positive set is empty"),
        ({"negative": (Exchange("a", "b"),), "positive": (Exchange("a", "b"),)}, "both its positive and negative set"),
        ({"test": ("seen",), "validation": ("seen",)}, "'seen' is a test prompt and was used before"),
    ],
)
def test_a_behaviour_that_could_flatter_is_refused(changes, words):
    sets = {"positive": (Exchange("a"),), "negative": (Exchange("b"),), "validation": ("c",), "test": ("d",)}
    parts = {**sets, "judges": (Vader(),)}
    with pytest.raises(BadOption, match=re.escape(words)):
        Behaviour("mine", "about", **(parts | changes), instruction="Do it.")


def test_an_unknown_demonstration_is_named_with_the_nearest():
    with pytest.raises(BadOption, match="Nearest: sentiment"):
        demos.find("sentimet")
