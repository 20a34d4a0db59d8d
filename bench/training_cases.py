"""What bench/training.py measures: models to train, and gates held while they do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

import optrode as op
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.nn.transformer import Spec, as_model, build

RANDOM_SEED: Final = 0
TARGET: Final = 1.15
"""Times the step without gates, for gates that need no second pass."""
VOCAB: Final = 512

Gates = tuple[op.Gate, ...]


@dataclass(frozen=True)
class Shape:
    """A model and its batches.

    Attributes:
        family: "own" for the reference transformer, "gpt2" for transformers' GPT-2.
        batch, length: rows and tokens of a step.
        n_steps: in one turn of a contender.
        n_rounds: turns of each contender.
        is_judged: whether the target is for it.
    """

    name: str
    family: str
    d_model: int
    n_layers: int
    n_heads: int
    batch: int
    length: int
    n_steps: int
    n_rounds: int
    is_judged: bool

    @property
    def words(self) -> str:
        """As the page describes it."""
        kind = "reference transformer" if self.family == "own" else "GPT-2 of transformers, eager attention"
        sizes = f"{self.n_layers} layers of {self.n_heads} heads, d {self.d_model}"
        return f"{kind}, {sizes}, batches of {self.batch} x {self.length} tokens"


FULL: Final = (
    Shape("small", "own", 64, 2, 8, 32, 5, 50, 15, False),
    Shape("mid", "own", 256, 4, 4, 16, 128, 3, 9, True),
    Shape("gpt2", "gpt2", 256, 4, 4, 16, 128, 3, 9, True),
)
QUICK: Final = (Shape("small", "own", 16, 2, 2, 4, 5, 2, 3, False), Shape("gpt2", "gpt2", 16, 2, 2, 4, 5, 2, 3, True))


def model_of(shape: Shape) -> op.Model:
    """The model with random weights, ready to be trained."""
    width = 4 * shape.d_model
    if shape.family == "own":
        spec = Spec(shape.n_layers, shape.n_heads, shape.d_model, VOCAB, shape.length, d_mlp=width)
        model = as_model(build(spec, RANDOM_SEED, init="torch"))
    else:
        sizes = {"num_hidden_layers": shape.n_layers, "n_embd": shape.d_model, "n_head": shape.n_heads, "n_inner": width}
        rest = {"vocab_size": VOCAB, "max_position_embeddings": shape.length, "attn_implementation": "eager"}
        model = from_source(tiny("gpt2", random_seed=RANDOM_SEED, **sizes, **rest))
    model.module.train()
    return model


def tokens_of(shape: Shape) -> torch.Tensor:
    """One batch; what is learned from it does not matter here."""
    return torch.randint(0, VOCAB, (shape.batch, shape.length), generator=torch.Generator().manual_seed(RANDOM_SEED))


def _previous(shape: Shape) -> torch.Tensor:
    """The previous-token pattern [pos, src]."""
    pattern = torch.diag(torch.ones(shape.length - 1), -1)
    pattern[0, 0] = 1
    return pattern


CONTENDERS: Final[Mapping[str, tuple[str, Callable[[Shape], Gates]]]] = {
    "none": ("no gate", lambda shape: ()),
    "zero": ("zero on one head", lambda shape: (op.zero("blocks.0.attn.z[head=1]"),)),
    "clamp": ("clamp of one head's pattern", lambda shape: (op.clamp("blocks.0.attn.pattern[head=1]", _previous(shape)),)),
    "ramp": (
        "ramped scale at every layer",
        lambda shape: (op.scale("blocks.*.resid_post", 0.9, when=op.when(ramp=10**6)),),
    ),
    "add": ("add at every layer", lambda shape: (op.add("blocks.*.resid_post", torch.full((shape.d_model,), 1e-3)),)),
    "first pass": (
        "pattern of a first pass at every layer",
        lambda shape: (op.patch("blocks.*.attn.pattern", op.first_pass()),),
    ),
}
"""Name -> what it is in words, and its gates."""
PLAIN: Final = ("zero", "clamp", "ramp", "add")
"""Those that the target is for."""
