"""Judges score what they say they score, and are trusted only as far as labels of the same model allow."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from optrode.control.judges import Classifier, Length, Sentences, Share, Substring, Vader, kappa, validate
from optrode.control.records import JudgeQuality, stamp_of
from optrode.errors import BadOption

GOOD, BAD = "What a wonderful, happy day, I love it.", "This is awful, I hate it and I am sad."
GIBBERISH = "love happy happy great joy love great wonderful happy"
HASH = "ab" * 32


def test_vader_reads_mood_and_is_fooled_by_gibberish():
    good, bad, gibberish, nothing = Vader().score([GOOD, BAD, GIBBERISH, ""], [""] * 4)
    assert good > 0.5 > 0 > bad and nothing == 0
    assert gibberish > good - 0.1, "which is why fluency and a second judge stand beside it"


def test_a_classifier_learns_from_its_own_texts():
    judge = Classifier("mood", ("a happy day", "happy people", "so happy"), ("a sad day", "sad people", "so sad"))
    assert judge.says(["they are happy", "they are sad"], ["", ""]) == (True, False)
    assert all(0 <= score <= 1 for score in judge.score([GOOD, BAD, ""], [""] * 3)) and judge.score([], []) == ()
    with pytest.raises(BadOption, match="texts of both classes"):
        Classifier("mood", ("a",), ())
    with pytest.raises(BadOption, match="Nearest: word, content, char"):
        Classifier("mood", ("a",), ("b",), features="bytes")


def test_letters_tell_languages():
    french, english = ("le temps est beau et les rues",), ("the weather is fine and the streets",)
    judge = Classifier("French", french, english, features="char")
    one, other = judge.score(["les gens et le monde", "the people and the world"], ["", ""])
    assert one > 0.5 > other


def test_length_counts_words_or_what_it_is_told_to():
    assert Length(10).score(["one two three", "", "a " * 99], [""] * 3) == (3, 0, 10)
    assert Length(10, count=len).score(["abcd"], [""]) == (4,) and Length(8).threshold == 4


def test_sentences_are_counted_where_they_have_words():
    assert Sentences().score(["One. Two! Three?", "1.5 is a number", "", "...", "a\n\nb"], [""] * 5) == (3, 1, 0, 0, 2)


def test_a_share_of_words_counts_whole_words_and_beginnings():
    judge = Share("sea", "words of the sea", ("sea", "sail*"), full=0.5)
    assert judge.score(["The sea", "season of seals", "Sailors sailed", ""], [""] * 4) == (0.5, 0.0, 0.5, 0.0)
    with pytest.raises(BadOption, match="list of words is empty"):
        Share("none", "nothing", ())


def test_substrings_stay_stamped_whatever_their_labels_say():
    judge = Substring(("sorry",))
    assert judge.score(["I'm Sorry.", "Sure."], ["", ""]) == (1, 0)
    texts, labels = ["sorry", "sure"] * 40, [True, False] * 40
    perfect = validate(judge, texts, labels, weights_hash=HASH)
    assert perfect.balanced_accuracy == 1 and "substrings" in judge.record(perfect, HASH).stamp
    with pytest.raises(BadOption, match="a string is empty"):
        Substring(("",))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_kappa_is_that_of_scikit_learn(pairs):
    first, second = ([bool(row[side]) for row in pairs] for side in (0, 1))
    found = kappa(first, second)
    if found is None:
        assert len({*first, *second}) == 1
    else:
        assert found == pytest.approx(cohen_kappa_score(first, second), abs=1e-9) and -1 <= found <= 1
        assert found == pytest.approx(kappa(second, first), abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=60))
def test_validation_measures_balanced_accuracy(pairs):
    texts, labels = ["sorry" if said else "sure" for said, _ in pairs], [label for _, label in pairs]
    if len(set(labels)) == 1:
        with pytest.raises(BadOption, match="of both classes"):
            validate(Substring(("sorry",)), texts, labels)
        return
    quality = validate(Substring(("sorry",)), texts, labels, weights_hash=HASH)
    assert quality.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, [said for said, _ in pairs]))
    assert quality.n == len(pairs) and quality.n_positive == sum(labels)


def test_validation_refuses_labels_that_do_not_fit():
    with pytest.raises(BadOption, match="2 texts with 1 positive of 1 labels"):
        validate(Vader(), [GOOD, BAD], [True])


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        (None, "no labelled texts"),
        (JudgeQuality("VADER", 0.9, 0.95, 80, 40, "cd" * 32), "not of this model"),
        (JudgeQuality("VADER", 0.9, 0.95, 80, 40), "not of this model"),
        (JudgeQuality("VADER", 0.9, 0.95, 59, 30, HASH), "59 labelled texts, 60 are needed"),
        (JudgeQuality("VADER", 0.6, 0.84, 60, 30, HASH), "balanced accuracy 0.84, 0.85 is needed"),
        (JudgeQuality("VADER", 0.6, math.nan, 60, 30, HASH), "0.85 is needed"),
    ],
)
def test_a_judge_is_stamped_unless_enough_labels_of_the_same_model_agree(quality, words):
    assert words in stamp_of(quality, HASH) and "unvalidated judge" in stamp_of(quality, HASH)


def test_a_validated_judge_has_no_stamp():
    record = Vader().record(JudgeQuality("VADER", 0.8, 0.85, 60, 30, HASH), HASH)
    assert record.is_validated and (record.low, record.high) == (-1, 1)
