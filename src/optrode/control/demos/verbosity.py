"""Verbosity: the same questions, answered at length or in a word; judged by counting."""

from typing import Final

from optrode.control.behaviours import Behaviour, Exchange
from optrode.control.demos import neutral
from optrode.control.judges import Length, Sentences
from optrode.model.model import Model

CAP: Final = 128
_ASKED: Final = (
    ("What is salt?", "Salt is"), ("Who repairs shoes?", "Shoes are repaired by"),
    ("Why is grass green?", "Grass is green because of"), ("What do bees make?", "Bees make"),
    ("What is a comet?", "A comet is"), ("Where do penguins live?", "Penguins live in"),
    ("What is paper made of?", "Paper is made of"), ("How do birds fly?", "Birds fly with"),
    ("What is an island?", "An island is"), ("What do teeth do?", "Teeth"),
    ("What is steel?", "Steel is"), ("Why do we sleep?", "We sleep to"),
    ("What is a mayor?", "A mayor is"), ("What causes tides?", "Tides are caused by"),
    ("What is a fossil?", "A fossil is"), ("How hot is the sun?", "The sun is"),
    ("What is a loan?", "A loan is"), ("What do roots do?", "Roots"),
    ("What is glass?", "Glass is"), ("What is a harbour?", "A harbour is"),
)  # fmt: skip
_LONG: Final = "Explain in great detail, with many examples and several paragraphs."
_SHORT: Final = "Reply with one or two words only."
_QUESTIONS: Final = (
    "What is a volcano?", "How does a bicycle stay upright?", "Why do leaves fall in autumn?", "What does a judge do?",
    "What is the difference between a frog and a toad?", "How is cheese made?", "Why do cities have parks?",
    "What is an atom?", "How do airplanes stay in the air?", "What is a shadow?", "Why do people collect stamps?",
    "How is a book printed?", "What is inflation?", "Why is the sea salty?", "How do magnets work?", "What is a desert?",
    "Why do cats purr?", "What is the purpose of a bank?", "How do plants drink?", "What is a rainbow?",
    "Why do we have seasons?", "What is a poem?", "How does soap clean?", "What is a virus?", "Why does iron rust?",
    "How do maps show height?", "What is a republic?", "Why do stars twinkle?", "How does a lock work?",
    "What is a glacier?", "Why do dogs bark?", "What is electricity?",
)  # fmt: skip


def verbosity(model: Model | None = None, cap: int = CAP) -> Behaviour:
    """More is longer. Judged by tokens to the end and by sentences.

    Args:
        model: whose tokenizer counts; without it words are counted.
        cap: of tokens: the top of the judge's scale. Generate as many.
    """
    counted = (lambda text: len(model.to_str_tokens(text)) if text else 0) if model is not None else None
    return Behaviour(
        name="verbosity",
        about="how long the answer is",
        positive=tuple(Exchange(f"{_LONG} {question}", start) for question, start in _ASKED),
        negative=tuple(Exchange(f"{_SHORT} {question}", start) for question, start in _ASKED),
        validation=neutral.VALIDATION,
        test=_QUESTIONS,
        judges=(Length(cap, counted), Sentences()),
        instruction="Answer at great length.",
        opposite_instruction="Keep it as short as possible.",
        unrelated=neutral.UNRELATED,
        held_out=neutral.HELD_OUT,
    )
