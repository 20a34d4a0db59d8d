"""A behaviour: what to extract a direction from, what to choose and to test it on, and who judges.

The three sets of texts share no templates: a direction that only knows its own templates fails on the test prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from optrode.control.contrast import Contrast
from optrode.control.judges import Judge
from optrode.errors import BadOption
from optrode.model.model import Model


@final
@dataclass(frozen=True)
class Exchange:
    """What a user says and how the answer begins; without a user, a plain text.

    Attributes:
        user: the request; empty for a text that is no answer.
        reply: the beginning of the answer, or the text.
    """

    user: str
    reply: str = ""


@final
@dataclass(frozen=True)
class Behaviour:
    """A behaviour to steer towards, and away from with a negative dose.

    Attributes:
        name: short.
        about: what more of it means, in a sentence.
        positive, negative: exchanges with and without it, to extract a direction from; in pairs.
        validation: requests to choose the site and the dose on.
        test: requests to report on.
        judges: of the texts; the first one counts in the harmonic mean.
        instruction: asks for it in words: the control that steering has to be compared with.
        opposite_instruction: asks for its opposite; empty where there is none.
        unrelated: requests that have nothing to do with it, for side effects.
        held_out: a fixed text, for side effects.
    """

    name: str
    about: str
    positive: tuple[Exchange, ...]
    negative: tuple[Exchange, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    judges: tuple[Judge, ...]
    instruction: str
    opposite_instruction: str = ""
    unrelated: tuple[str, ...] = ()
    held_out: str = ""

    def __post_init__(self) -> None:
        asked = f"behaviour {self.name!r}"
        for part in ("positive", "negative", "test", "judges"):
            if not getattr(self, part):
                raise BadOption(asked, f"its {part} set is empty", next_step=f"give at least one in {part}=")
        used = set(self.positive) | set(self.negative)
        if set(self.positive) & set(self.negative):
            raise BadOption(asked, "an exchange is in both its positive and negative set", next_step="leave it out of one")
        shared = set(self.test) & {*self.validation, *(one.user for one in used)}
        if shared:
            found = f"{sorted(shared)[0]!r} is a test prompt and was used before"
            raise BadOption(asked, found, next_step="keep test prompts apart from extraction and validation")

    def contrast(self, model: Model) -> Contrast:
        """The positive and the negative texts, as the model is given them."""
        sides = [tuple(chat(model, one.user, one.reply) for one in part) for part in (self.positive, self.negative)]
        return Contrast(*sides)

    def prompts(self, model: Model, requests: Sequence[str], instruction: str = "") -> tuple[str, ...]:
        """Requests as the model is given them, with an instruction before each where one is given."""
        return tuple(chat(model, f"{instruction} {request}".strip()) for request in requests)

    def for_choosing(self) -> "Behaviour":
        """The same behaviour with its validation requests in the place of the test requests: to choose layer and dose."""
        return self.but(test=self.validation, validation=())

    def but(self, **changes: object) -> "Behaviour":
        """The same behaviour with some attributes changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


@final
@dataclass(frozen=True)
class Trigger:
    """A class of requests at which a gate should open, and others at which it should not.

    Attributes:
        name: short.
        about: when a gate should open.
        train, validation, test, contrast: (target, benign) requests: to fit on, to fix thresholds on, to report on, and
            with the same words of other meaning.
    """

    name: str
    about: str
    train: tuple[tuple[str, ...], tuple[str, ...]]
    validation: tuple[tuple[str, ...], tuple[str, ...]]
    test: tuple[tuple[str, ...], tuple[str, ...]]
    contrast: tuple[tuple[str, ...], tuple[str, ...]]

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            if not all(getattr(self, part)):
                raise BadOption(f"trigger {self.name!r}", f"a class of {part} is empty", next_step="give requests of both")


def chat(model: Model, user: str, reply: str = "") -> str:
    """A request, and the beginning of an answer, in the model's chat template; as they are where it has none.

    Without a request the reply stands alone, as a text.
    """
    if not user:
        return reply
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        return f"{user} {reply}".strip()
    turns = [{"role": "user", "content": user}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)) + reply
