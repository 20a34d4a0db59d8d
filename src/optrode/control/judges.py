"""Judges of texts: how much of a concept is in them, by rules that anybody can read. No judge is another language model.

A judge is trusted only as far as it was validated on texts of the model under evaluation (`validate`); gibberish, for one,
fools a lexicon. Two judges of different kind stand in every built-in behaviour, and their agreement in every report.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, final

import numpy as np

from optrode.control.records import JudgeQuality, JudgeRecord, stamp_of
from optrode.errors import BadOption, nearest

Count = Callable[[str], int]
WORDS: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?", re.UNICODE)
FEATURES: Final[Mapping[str, Mapping[str, Any]]] = {
    "word": {"ngram_range": (1, 2)}, "content": {"stop_words": "english"},
    "char": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}  # fmt: skip
"""What a classifier reads of a text, by name, and scikit-learn's options for it."""

STEER: Final = "pip install 'optrode[steer]'"


class Judge(ABC):
    """Scores texts; higher is more of the concept."""

    is_never_valid: ClassVar[bool] = False
    """Whether it stays stamped whatever its labels say."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short, as it stands in tables."""

    @property
    @abstractmethod
    def about(self) -> str:
        """What it measures, in a sentence."""

    @property
    @abstractmethod
    def scale(self) -> tuple[float, float]:
        """Its least and greatest score; the concept's share is taken of it."""

    @property
    @abstractmethod
    def threshold(self) -> float:
        """From where on a text counts as having the concept."""

    @abstractmethod
    def score(self, texts: Sequence[str], prompts: Sequence[str]) -> tuple[float, ...]:
        """[text] scores of texts, each said to the prompt at the same place."""

    def says(self, texts: Sequence[str], prompts: Sequence[str]) -> tuple[bool, ...]:
        """[text] whether each has the concept."""
        return tuple(score > self.threshold for score in self.score(texts, prompts))

    def record(self, quality: JudgeQuality | None, weights_hash: str) -> JudgeRecord:
        """The judge as a record, stamped where it is not validated for a model."""
        stamp = stamp_of(quality, weights_hash, self.is_never_valid)
        return JudgeRecord(self.name, self.about, *self.scale, quality, stamp)


@final
@dataclass(frozen=True)
class Vader(Judge):
    """Sentiment by lexicon: VADER's compound score in [-1, 1] (Hutto and Gilbert 2014)."""

    name = "VADER"
    about = "sentiment by a lexicon of words (compound score)"
    scale = (-1.0, 1.0)
    threshold = 0.05  # the authors' own

    def score(self, texts: Sequence[str], prompts: Sequence[str]) -> tuple[float, ...]:
        return tuple(float(self._analyser.polarity_scores(text)["compound"]) for text in texts)

    @cached_property
    def _analyser(self) -> Any:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError:
            raise _not_installed("judge VADER", "vaderSentiment") from None
        return SentimentIntensityAnalyzer()


@final
@dataclass(frozen=True)
class Classifier(Judge):
    """P(concept) by logistic regression on TF-IDF features of labelled texts of our own.

    Attributes:
        concept: its name.
        positive, negative: texts to learn from; none may be judged later.
        features: "word" (one and two words), "content" (words but the commonest English ones) or "char" (two to four
            characters within words).
    """

    concept: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    features: str = "word"

    scale = (0.0, 1.0)
    threshold = 0.5

    def __post_init__(self) -> None:
        if not self.positive or not self.negative:
            raise BadOption(f"judge of {self.concept}", "it needs texts of both classes", next_step="give both")
        if self.features not in FEATURES:
            near = nearest(self.features, FEATURES) or tuple(FEATURES)
            raise BadOption(f"features={self.features!r}", "there are no such", nearest=near)

    @property
    def name(self) -> str:
        return "classifier"

    @property
    def about(self) -> str:
        kind = "letters" if self.features == "char" else "words"
        n = len(self.positive) + len(self.negative)
        return f"probability of {self.concept} by a logistic regression on {kind}, learned from {n} texts of our own"

    def score(self, texts: Sequence[str], prompts: Sequence[str]) -> tuple[float, ...]:
        if not texts:
            return ()
        return tuple(float(p) for p in self._fitted.predict_proba(list(texts))[:, 1])

    @cached_property
    def _fitted(self) -> Any:
        return word_classifier(self.positive, self.negative, self.features)


def word_classifier(positive: Sequence[str], negative: Sequence[str], features: str = "word") -> Any:
    """A fitted scikit-learn pipeline: TF-IDF, then logistic regression; class 1 is `positive`.

    Raises:
        BadOption: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        raise _not_installed("a classifier of texts", "scikit-learn") from None
    pipeline = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, **FEATURES[features]),
        LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced"),
    )
    return pipeline.fit([*positive, *negative], [1] * len(positive) + [0] * len(negative))


@final
@dataclass(frozen=True)
class Length(Judge):
    """Verbosity: the length of a text up to its end, in tokens where a tokenizer counts, else in words.

    Attributes:
        cap: how much is allowed: the top of the scale.
        count: text -> its length.
        unit: what is counted.
    """

    cap: int
    count: Count | None = None
    unit: str = "tokens"

    name = "length"

    @property
    def about(self) -> str:
        return f"{self.unit if self.count else 'words'} to the end of the text, at most {self.cap}"

    @property
    def scale(self) -> tuple[float, float]:
        return (0.0, float(self.cap))

    @property
    def threshold(self) -> float:
        return self.cap / 2

    def score(self, texts: Sequence[str], prompts: Sequence[str]) -> tuple[float, ...]:
        counted = self.count or (lambda text: len(WORDS.findall(text)))
        return tuple(float(min(self.cap, counted(text))) for text in texts)


@final
@dataclass(frozen=True)
class Sentences(Judge):
    """Verbosity: how many sentences there are.

    Attributes:
        cap: the top of the scale.
    """

    cap: int = 6

    name = "sentences"

    @property
    def about(self) -> str:
        return f"number of sentences begun, at most {self.cap}"

    @property
    def scale(self) -> tuple[float, float]:
        return (0.0, float(self.cap))

    @property
    def threshold(self) -> float:
        return self.cap / 2

    def score(self, texts: Sequence[str], prompts: Sequence[str]) -> tuple[float, ...]:
        begun = [[part for part in re.split(r"[.!?]+(?:\s+|$)|\n+", text) if WORDS.search(part)] for text in texts]
        return tuple(float(min(self.cap, len(parts))) for parts in begun)


@final
@dataclass(frozen=True)
class Share(Judge):
    """The share of a text's words that are in a list: stop words of a language, words of a topic.

    Attributes:
        key, says_what: the judge's name, and what it measures.
        words: in lower case; one that ends in "*" stands for every word that begins so.
        full: the share at which the scale ends.
        least: the share from which on a text has the concept.
    """

    key: str
    says_what: str
    words: tuple[str, ...]
    full: float = 1.0
    least: float = 0.1

    def __post_init__(self) -> None:
        if not self.words:
            raise BadOption(f"judge {self.key!r}", "its list of words is empty", next_step="name at least one word")

    @property
    def name(self) -> str:
        return self.key

    @property
    def about(self) -> str:
        return self.says_what

    @property
    def scale(self) -> tuple[float, float]:
        return (0.0, self.full)

    @property
    def threshold(self) -> float:
        return self.least

    def score(self, texts: Sequence[str], prompts: Sequence[str]) -> tuple[float, ...]:
        return tuple(self._share([word.lower().replace("’", "'") for word in WORDS.findall(text)]) for text in texts)

    def _share(self, words: Sequence[str]) -> float:
        return min(self.full, sum(map(self._is_in, words)) / len(words)) if words else 0.0

    def _is_in(self, word: str) -> bool:
        whole, starts = self._lists
        return word in whole or word.startswith(starts)

    @cached_property
    def _lists(self) -> tuple[frozenset[str], tuple[str, ...]]:
        starts = tuple(word[:-1] for word in self.words if word.endswith("*"))
        return frozenset(word for word in self.words if not word.endswith("*")), starts


@final
@dataclass(frozen=True)
class Substring(Judge):
    """Whether a text holds any of some strings. It is no judgement, and stays stamped whatever its labels say."""

    strings: tuple[str, ...]

    is_never_valid = True
    name = "substring"
    scale = (0.0, 1.0)
    threshold = 0.5

    def __post_init__(self) -> None:
        if not all(self.strings) or not self.strings:
            raise BadOption("judge by substrings", "a string is empty, or there is none", next_step="name what to look for")

    @property
    def about(self) -> str:
        return f"whether any of {len(self.strings)} strings occurs"

    def score(self, texts: Sequence[str], prompts: Sequence[str]) -> tuple[float, ...]:
        lowered = [string.lower() for string in self.strings]
        return tuple(float(any(string in text.lower() for string in lowered)) for text in texts)


def validate(
    judge: Judge, texts: Sequence[str], labels: Sequence[bool | int], *, prompts: Sequence[str] = (), weights_hash: str = ""
) -> JudgeQuality:
    """How far a judge agrees with labels.

    Args:
        texts: labelled, best of the model that is to be evaluated.
        labels: whether each has the concept.
        prompts: that they were said to, where the judge reads those.
        weights_hash: of the model that wrote them (`model.weights_hash`); without it the judge stays unvalidated.

    Raises:
        BadOption: there are not as many labels as texts, or only labels of one class.
    """
    truth = np.asarray([bool(label) for label in labels])
    if len(truth) != len(texts) or truth.all() or not truth.any():
        found = f"{len(texts)} texts with {int(truth.sum())} positive of {len(truth)} labels"
        raise BadOption(f"validate judge {judge.name}", found, next_step="give one label per text, of both classes")
    said = np.asarray(judge.says(texts, prompts or [""] * len(texts)))
    balanced = float((said[truth].mean() + (~said[~truth]).mean()) / 2)
    return JudgeQuality(judge.name, kappa(said, truth) or 0.0, balanced, len(texts), int(truth.sum()), weights_hash)


def kappa(first: Sequence[bool] | Any, second: Sequence[bool] | Any) -> float | None:
    """Cohen's kappa of two yes-or-no judgements of the same texts (Cohen 1960); None where chance alone would agree."""
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if not len(a):
        return None
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return None if chance >= 1 else float(((a == b).mean() - chance) / (1 - chance))


def by_name(qualities: Sequence[JudgeQuality]) -> Mapping[str, JudgeQuality]:
    """Validations by the judge's name; the last one of a name counts."""
    return {quality.judge: quality for quality in qualities}


def _not_installed(asked: str, package: str) -> BadOption:
    return BadOption(asked, f"{package} is not installed", next_step=STEER)
