"""Texts of SmolLM2 that a reader labelled, by which the judges of sentiment are validated for that model."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from optrode.control.demos.sentiment import sentiment
from optrode.control.judges import validate
from optrode.control.records import JudgeQuality

FILE: Final = Path(__file__).with_name("sentiment_labels.json")


@cache
def sentiment_qualities() -> tuple[JudgeQuality, ...]:
    """How far each judge of `sentiment()` agrees with the reader; holds for the weights that wrote the texts.

    A judge that falls short stays stamped: `evaluate(..., qualities=demos.sentiment_qualities())`.
    """
    held: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    prompts, texts, labels = zip(*held["texts"], strict=True)
    return tuple(
        validate(judge, texts, labels, prompts=prompts, weights_hash=held["weights_hash"]) for judge in sentiment().judges
    )
