"""Demonstrations, with texts of our own: sentiment, verbosity, topic, language, and a conditional one.

behaviour = demos.sentiment()
demos.find("verbosity", model)
"""

from collections.abc import Callable, Mapping
from typing import Final

from optrode.control.behaviours import Behaviour, Trigger
from optrode.control.demos.cooking import cooking
from optrode.control.demos.labels import sentiment_qualities
from optrode.control.demos.language import french, spanish
from optrode.control.demos.sentiment import sentiment
from optrode.control.demos.topic import music, sea
from optrode.control.demos.verbosity import verbosity
from optrode.errors import BadOption, nearest
from optrode.model.model import Model

DEMOS: Final[Mapping[str, Callable[[], Behaviour]]] = {
    "sentiment": sentiment, "verbosity": verbosity, "sea": sea, "music": music, "french": french, "spanish": spanish,
}  # fmt: skip


TRIGGERS: Final[Mapping[str, Callable[[], Trigger]]] = {"cooking": cooking}


def find_trigger(name: str) -> Trigger:
    """A demonstration's trigger by name.

    Raises:
        BadOption: there is none of this name.
    """
    if name not in TRIGGERS:
        raise BadOption(f"trigger {name!r}", "no such demonstration", nearest=nearest(name, TRIGGERS) or tuple(TRIGGERS))
    return TRIGGERS[name]()


def find(name: str, model: Model | None = None) -> Behaviour:
    """A demonstration's behaviour by name.

    Args:
        model: whose tokenizer counts, where lengths are judged; without it words are counted.

    Raises:
        BadOption: there is none of this name.
    """
    if name not in DEMOS:
        raise BadOption(f"behaviour {name!r}", "no such demonstration", nearest=nearest(name, DEMOS) or tuple(DEMOS))
    return verbosity(model) if name == "verbosity" else DEMOS[name]()


__all__ = [
    "DEMOS", "TRIGGERS", "cooking", "find", "find_trigger", "french", "music", "sea", "sentiment", "sentiment_qualities",
    "spanish", "verbosity",
]  # fmt: skip
