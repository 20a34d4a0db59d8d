"""A tokenizer built offline, and tiny models that read text: for tests that need words.

Each of `WORDS` is one token with its leading space, as in real vocabularies. Everything else is cut into single
characters, so that " Zed" is four tokens, and decoding gives the text back.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from optrode.model.model import Model
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.tasks import words

PLAIN = (
    "When", " and", " went", " to", " the", " gave", " a", "The", " lasted", " from", " year", " near", " capital", " of",
    " is", " city", "So", " really", " friend", " isn't", " she", " he", " was", " has",
    " are", " were", " have", " good", " kind", " close", " funny", " great", " nice", " dear", " true", " loyal",
)  # fmt: skip
"""Words of prompts, as they stand in a text: with the space before them, unless they begin it."""

LISTS = (words.FEMALE_NAMES, words.MALE_NAMES, words.PLACES, words.OBJECTS, words.SPANS, words.SPOTS)
CHARACTERS = tuple(chr(code) for code in range(32, 127))


def _vocabulary() -> tuple[str, ...]:
    pairs = [word for pair in words.NOUNS + words.CAPITALS for word in pair]
    spaced = [f" {word}" for word in (*(word for part in LISTS for word in part), *pairs)]
    centuries = [f" {century}" for century in range(15, 19)]
    numbers = [f"{year:02d}" for year in range(100)]
    return tuple(dict.fromkeys(("<unk>", "<pad>", *PLAIN, *spaced, *centuries, *numbers, *CHARACTERS)))


WORDS = _vocabulary()


@cache
def tokenizer() -> Any:
    """A Hugging Face tokenizer over `WORDS`; the same one each time."""
    longest_first = sorted((word for word in WORDS[2:] if len(word) > 1), key=len, reverse=True)
    # A word ends where no letter or digit follows: " Mary" is not part of " Maryland".
    known = "|".join(rf"{word.replace('.', '[.]')}(?![A-Za-z0-9])" for word in longest_first)
    made = Tokenizer(WordLevel({word: ix for ix, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(rf"\d\d| 1[5-8]|{known}|[\s\S]"), behavior="isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )


def worded(name: str = "llama", *, random_seed: int = 0, **overrides: Any) -> Model:
    """A tiny random model that reads and writes `WORDS`."""
    module = tiny(name, random_seed=random_seed, vocab_size=len(WORDS), **overrides)
    return from_source(module, tokenizer=tokenizer())


def save_worded(folder: Path, name: str = "llama", **overrides: Any) -> Path:
    """A folder as `save_pretrained` writes it, with config, weights and tokenizer."""
    model = worded(name, **overrides)
    with torch.random.fork_rng():
        model.module.save_pretrained(folder)  # type: ignore[operator]
        model.tokenizer.save_pretrained(folder)
    return folder
