"""In-context classification with everything that its circuit is made of: words, a forerunner token, a label, several times.

A demonstration is some noisy words of one class, a separator s (the forerunner token of Revisiting the ICL inference
circuit, arXiv 2410.04468) and a label y; the query is words and a separator, at which its label is asked for. Which label
stands for which class is drawn anew for each row, so that only the demonstrations tell.

    x x s y   x x s y   x x s

Where that paper has models that can read already, this trains reading beside: at each separator the class of its words is
asked for as well, in other columns of the logits.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.spec import Spec
from optrode.nn.transformer import as_model, build


@final
@dataclass(frozen=True, eq=False)
class Words:
    """What rows are written in, as vectors.

    Attributes:
        classes: [class, width] what words of a class scatter around.
        labels: [label, width].
        separator: [width].
    """

    classes: Float[Tensor, "class width"]
    labels: Float[Tensor, "label width"]
    separator: Float[Tensor, " width"]


@final
@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of vectors, all of one layout.

    Attributes:
        vectors: [row, pos, width].
        classes: [row, demonstrations + 1], the query's last.
        labels: [row, demonstrations + 1] that stand for them.
        right: [row] number of the demonstration of the query's class.
    """

    vectors: Float[Tensor, "row pos width"]
    classes: Int[Tensor, "row item"]
    labels: Int[Tensor, "row item"]
    right: Int[Tensor, " row"]


@final
@dataclass(frozen=True)
class Demos:
    """How rows are drawn.

    Attributes:
        n_classes: in all; those of one row differ.
        n_labels: in all; those of one row differ.
        n_demos: demonstrations in a row.
        n_words: of each item.
        width: of the vectors, all standard normal.
        noise: standard deviation of a word around its class.

    Raises:
        BadOption: more demonstrations than classes or labels.
    """

    n_classes: int = 32
    n_labels: int = 6
    n_demos: int = 2
    n_words: int = 2
    width: int = 64
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.n_demos <= min(self.n_classes, self.n_labels):
            found = f"there are {self.n_classes} classes and {self.n_labels} labels, each once in a row"
            raise BadOption(f"{self.n_demos} demonstrations", found, next_step="give at least 2, and fewer than those")

    @property
    def period(self) -> int:
        """Tokens of a demonstration."""
        return self.n_words + 2

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.n_demos * self.period + self.n_words + 1

    @property
    def separators(self) -> tuple[int, ...]:
        """Positions of the separators, the query's last."""
        return tuple(item * self.period + self.n_words for item in range(self.n_demos + 1))

    def arrows(self, step: str) -> list[tuple[int, int]]:
        """(from, to) positions of a step of the circuit: "x>s", "xq>sq", "s>y", "x>y", "y>sq", "s>sq", "x>sq".

        x, s and y are words, separator and label of each demonstration; xq and sq those of the query.
        """
        *before, end = self.separators
        own = {
            "x>s": [(s - back, s) for s in before for back in range(1, self.n_words + 1)],
            "xq>sq": [(end - back, end) for back in range(1, self.n_words + 1)],
            "s>y": [(s, s + 1) for s in before],
            "x>y": [(s - back, s + 1) for s in before for back in range(1, self.n_words + 1)],
            "y>sq": [(s + 1, end) for s in before],
            "s>sq": [(s, end) for s in before],
            "x>sq": [(s - back, end) for s in before for back in range(1, self.n_words + 1)],
        }
        if step not in own:
            raise BadOption(f"step {step!r}", "no such step", nearest=tuple(own))
        return own[step]

    def words(self, random_seed: int) -> Words:
        """Vectors, drawn once."""
        generator = torch.Generator().manual_seed(random_seed)
        drawn = torch.randn(self.n_classes + self.n_labels + 1, self.width, generator=generator)
        return Words(drawn[: self.n_classes], drawn[self.n_classes : -1], drawn[-1])

    def draw(self, words: Words, n_rows: int, generator: torch.Generator) -> Rows:
        """Rows by these laws."""
        right = torch.randint(self.n_demos, (n_rows, 1), generator=generator)
        classes = _distinct(n_rows, self.n_classes, self.n_demos, generator)
        labels = _distinct(n_rows, self.n_labels, self.n_demos, generator)
        classes = torch.cat([classes, classes.gather(1, right)], 1)
        labels = torch.cat([labels, labels.gather(1, right)], 1)
        shape = (*classes.shape, self.n_words, self.width)
        items = words.classes[classes][:, :, None] + self.noise * torch.randn(shape, generator=generator)
        separators = words.separator.expand(*classes.shape, 1, -1)
        vectors = torch.cat([items, separators, words.labels[labels][:, :, None]], 2).flatten(1, 2)[:, :-1]
        return Rows(vectors, classes, labels, right[:, 0])

    def network(self, random_seed: int, n_layers: int = 3) -> Model:
        """A small transformer of attention alone, 8 heads of width 8; its logits are labels, then classes."""
        spec = Spec(
            n_layers, 8, 64, 1, self.length, positions="rotary", has_bias=False, norm_bias=True, unembed_bias=True,
            d_in=self.width, d_out=self.n_labels + self.n_classes,
        )  # fmt: skip
        return as_model(build(spec, random_seed, init="lecun"), "in-context classifier")

    def loss(self, model: Model, rows: Rows) -> Float[Tensor, ""]:
        """Cross-entropy of the label at the query, plus that of the class at every separator, in nats."""
        logits = model(inputs_embeds=rows.vectors, logits_to_keep=torch.tensor(self.separators)).logits
        own = cross_entropy(logits[..., self.n_labels :].flatten(0, 1), rows.classes.flatten())
        return cross_entropy(logits[:, -1, : self.n_labels], rows.labels[:, -1]) + own

    @torch.no_grad()
    def accuracy(self, model: Model, rows: Rows) -> float:
        """Share of rows whose query gets its label."""
        logits = model(inputs_embeds=rows.vectors, logits_to_keep=1).logits[:, -1, : self.n_labels]
        return float((logits.argmax(-1) == rows.labels[:, -1]).float().mean())


def _distinct(n_rows: int, n: int, k: int, generator: torch.Generator) -> Int[Tensor, "row k"]:
    return torch.rand(n_rows, n, generator=generator).argsort(1)[:, :k]
