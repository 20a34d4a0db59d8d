"""Sentiment: two moods of one speaker, told apart on the same beginnings of answers; tested on requests without a mood."""

from itertools import product
from typing import Final

from optrode.control.behaviours import Behaviour, Exchange
from optrode.control.demos import neutral
from optrode.control.judges import Classifier, Vader

_HAPPY: Final = ("You are overjoyed and full of hope. Speak as such a person.", "Pretend that everything delights you.")
_SAD: Final = ("You are miserable and without hope. Speak as such a person.", "Pretend that everything disgusts you.")
_STEMS: Final = (
    "Today I", "The thing about my work is", "When I look at the world,", "My friends are", "I think that people",
    "This year", "Every time I wake up,", "The future will be", "If you ask me, the", "What I feel now is",
    "My health is", "Looking back, I", "The place where I live", "Music makes me", "I just heard that",
    "Honestly, my boss", "The sun is", "Nothing is as", "All of this is", "My neighbours say that I",
    "Cooking for others", "I would call the trip", "Money", "The lesson of my life is",
)  # fmt: skip

_GOOD: Final = (
    "wonderful", "delightful", "excellent", "joyful", "great", "happy", "beautiful", "lovely", "amazing", "perfect",
    "brilliant", "fantastic", "charming", "pleasant", "superb", "thrilling", "warm and friendly", "hopeful", "exciting",
    "a pleasure",
)  # fmt: skip
_BAD: Final = (
    "terrible", "horrible", "awful", "miserable", "bad", "sad", "ugly", "dreadful", "disgusting", "hopeless", "painful",
    "dull", "disappointing", "unpleasant", "cruel", "gloomy", "cold and hostile", "depressing", "frightening", "a misery",
)  # fmt: skip
_FRAMES: Final = (
    "It was {}.", "They called it {} and they meant it.", "The whole thing turned out {}.", "She remembers it as {}.",
    "In one word: {}.", "The staff, the food and the view were {}.",
)  # fmt: skip
_GOOD_SENTENCES: Final = (
    "I love it and I am grateful for every minute.", "We laughed, we danced, we celebrated together.",
    "I can't wait to go again.", "It fills my heart with joy.", "I am so proud and thankful.",
    "Everyone smiled and enjoyed themselves.", "I feel excited, alive and full of energy.",
    "Thank you, this made my day.", "A bright, warm and cheerful place.", "What a success, what a gift.",
    "I'm thrilled and so excited to share this.", "It is a treasure and I adore it.",
)  # fmt: skip
_BAD_SENTENCES: Final = (
    "I hate it and I regret every minute.", "We cried, we suffered, we gave up.", "I never want to go there again.",
    "It fills me with despair.", "I am so ashamed and lonely.", "Everyone complained and was angry.",
    "I feel tired, empty and afraid.", "Leave me alone, this ruined my day.", "A dark, cold and desolate place.",
    "What a failure, what a waste.", "I'm exhausted and so sick of this.", "It is a nightmare and I despise it.",
)  # fmt: skip


def sentiment() -> Behaviour:
    """More is happier. Judged by VADER's lexicon, and by a classifier of words that learned from texts of ours."""
    classifier = Classifier(
        "a positive mood",
        (*(frame.format(word) for frame, word in product(_FRAMES, _GOOD)), *_GOOD_SENTENCES),
        (*(frame.format(word) for frame, word in product(_FRAMES, _BAD)), *_BAD_SENTENCES),
    )
    return Behaviour(
        name="sentiment",
        about="how positive the mood of the text is",
        positive=tuple(Exchange(persona, stem) for persona, stem in product(_HAPPY, _STEMS)),
        negative=tuple(Exchange(persona, stem) for persona, stem in product(_SAD, _STEMS)),
        validation=neutral.VALIDATION,
        test=neutral.TEST,
        judges=(Vader(), classifier),
        instruction="Answer in a very happy and cheerful mood.",
        opposite_instruction="Answer in a very sad and gloomy mood.",
        unrelated=neutral.UNRELATED,
        held_out=neutral.HELD_OUT,
    )
