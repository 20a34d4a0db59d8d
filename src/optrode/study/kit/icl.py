"""In-context classification: item, label, item, label, query; the query is of a class in context and wants its label.

Singh et al., arXiv 2404.07129, section 2, for two items in context: x1 l1 x2 l2 x_q. Classes of a sequence differ, labels
are drawn anew for each, so that only the context says which is right. Label sets that are left out of training ask whether a
model has learnt to look, or the sets.

    words = icl.Vocabulary(icl.gaussian(n_classes=50), n_labels=5)
    seen, unseen = icl.label_sets(5)
    rows = icl.draw(words, icl.Pool(range(50), seen), 32, generator)
    icl.loss(icl.network(words), rows)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import Any, Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.spec import Spec
from optrode.nn.transformer import as_model, build

SPLIT_SEED: Final = 20
"""Of the split of label sets, as the paper has it for all seeds."""


@final
@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What sequences are written in: ids 0 to n_labels - 1 are labels, items follow, class by class.

    Attributes:
        features: [item, width] what items look like.
        n_labels: number of labels.
        n_exemplars: items of each class.

    Raises:
        BadOption: items that do not divide into classes, or fewer than two labels.
    """

    features: Float[Tensor, "item width"]
    n_labels: int = 5
    n_exemplars: int = 1

    def __post_init__(self) -> None:
        if self.n_exemplars < 1 or len(self.features) % self.n_exemplars:
            found = f"{len(self.features)} items do not divide into classes of {self.n_exemplars}"
            raise BadOption(f"n_exemplars={self.n_exemplars}", found, next_step="give as many exemplars of every class")
        if self.n_labels < 2:
            raise BadOption(f"n_labels={self.n_labels}", "nothing to choose between", next_step="give 2 or more")

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.features) // self.n_exemplars

    def ids(self, classes: Int[Tensor, "*shape"], exemplars: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Token ids of exemplars of classes."""
        return self.n_labels + classes * self.n_exemplars + exemplars

    def classes_of(self, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """The classes that items are of."""
        return (ids - self.n_labels) // self.n_exemplars


@final
@dataclass(frozen=True, eq=False)
class Pool:
    """From what sequences are drawn.

    Attributes:
        classes, exemplars: numbers of those that may occur.
        label_sets: [set, pair] labels that stand together in a context, in random order.
        is_query_fresh: the query's exemplar is drawn anew; otherwise it is the one in context.
    """

    classes: Sequence[int]
    label_sets: Int[Tensor, "set pair"]
    exemplars: Sequence[int] = (0,)
    is_query_fresh: bool = False

    @property
    def n_pairs(self) -> int:
        """Items in context."""
        return int(self.label_sets.shape[1])

    def but(self, **changes: Any) -> "Pool":
        """The same pool with other fields."""
        return replace(self, **changes)


@final
@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of one length, 2 x pairs + 1.

    Attributes:
        ids: [batch, pos] items and labels in turn, the query last.
        wanted: [batch] the right label.
        right: [batch] its position.
    """

    ids: Int[Tensor, "batch pos"]
    wanted: Int[Tensor, " batch"]
    right: Int[Tensor, " batch"]

    @property
    def wrong(self) -> Int[Tensor, " batch"]:
        """Position of the other label, where two are in context."""
        return 4 - self.right


def label_sets(
    n_labels: int, n_pairs: int = 2, share_left_out: float = 0.2, random_seed: int = SPLIT_SEED
) -> tuple[Int[Tensor, "seen pair"], Int[Tensor, "unseen pair"]]:  # fmt: skip
    """All sets of labels, in two parts: those to train with, and those left out. Five labels make 8 + 2 pairs.

    Raises:
        BadOption: a part would be empty.
    """
    every = torch.tensor(list(combinations(range(n_labels), n_pairs)), dtype=torch.long).reshape(-1, n_pairs)
    n_left_out = round(share_left_out * len(every))
    if not 0 < n_left_out < len(every):
        found = f"{comb(n_labels, n_pairs)} sets, of which {n_left_out} would be left out"
        raise BadOption(f"{n_labels} labels, {n_pairs} in context", found, next_step="give more labels or another share")
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(random_seed))
    return every[order[n_left_out:]], every[order[:n_left_out]]


def gaussian(
    n_classes: int, width: int = 512, n_exemplars: int = 1, spread: float = 0.3, random_seed: int = 0
) -> Float[Tensor, "item width"]:  # fmt: skip
    """Items of classes that are random directions: a standard normal vector; exemplars have `spread` times another added."""
    generator = torch.Generator().manual_seed(random_seed)
    centres = torch.randn(n_classes, 1, width, generator=generator)
    around = torch.randn(n_classes, n_exemplars, width, generator=generator)
    return (centres + spread * around).flatten(0, 1) if n_exemplars > 1 else centres[:, 0]


def n_sequences(pool: Pool) -> int:
    """How many different sequences a pool has, where two pairs are in context and the query is an exemplar of it.

    Raises:
        BadOption: another pool.
    """
    if pool.is_query_fresh or pool.n_pairs != 2:
        found = f"it has {pool.n_pairs} pairs and is_query_fresh={pool.is_query_fresh}"
        raise BadOption("number of a pool's sequences", found, next_step="count those of two pairs and no fresh query")
    n, e = len(pool.classes), len(pool.exemplars)
    return n * (n - 1) * e * e * len(pool.label_sets) * 2 * 2


def draw(words: Vocabulary, pool: Pool, n: int, generator: torch.Generator) -> Sequences:
    """Sequences drawn from a pool, each as likely as any other.

    Raises:
        BadOption: fewer classes than items in context, or a class, exemplar or label that the vocabulary does not have.
    """
    _check(words, pool)
    k = pool.n_pairs
    classes = torch.rand(n, len(pool.classes), generator=generator).topk(k).indices
    classes = torch.tensor(pool.classes)[classes]
    exemplars = torch.tensor(pool.exemplars)
    own = exemplars[torch.randint(len(exemplars), (n, k + 1), generator=generator)]
    labels = pool.label_sets[torch.randint(len(pool.label_sets), (n,), generator=generator)]
    labels = labels.gather(1, torch.rand(n, k, generator=generator).argsort(1))
    which = torch.randint(k, (n, 1), generator=generator)
    last = own[:, k:] if pool.is_query_fresh else own[:, :k].gather(1, which)
    items = words.ids(classes, own[:, :k])
    query = words.ids(classes.gather(1, which), last)
    ids = torch.cat([torch.stack([items, labels], 2).flatten(1), query], 1)
    return Sequences(ids, labels.gather(1, which)[:, 0], 2 * which[:, 0] + 1)


def absent(words: Vocabulary, rows: Sequences) -> Sequences:
    """The same rows with a query whose class is not in context: nothing there says which label is right."""
    present = words.classes_of(rows.ids[:, :-1:2])
    query = words.classes_of(rows.ids[:, -1:])
    for _ in range(present.shape[1] + 1):
        is_present = (present == query).any(1, keepdim=True)
        query = torch.where(is_present, (query + 1) % words.n_classes, query)
    ids = torch.cat([rows.ids[:, :-1], words.ids(query, torch.zeros_like(query))], 1)
    return Sequences(ids, rows.wanted, rows.right)


def _check(words: Vocabulary, pool: Pool) -> None:
    if len(set(pool.classes)) < pool.n_pairs:
        found = f"the pool has {len(set(pool.classes))} classes"
        raise BadOption(f"{pool.n_pairs} classes in context", found, next_step="give more classes")
    for name, given, n in (
        ("class", max(pool.classes), words.n_classes), ("exemplar", max(pool.exemplars), words.n_exemplars),
        ("label", int(pool.label_sets.max()), words.n_labels),
    ):  # fmt: skip
        if given >= n:
            raise BadOption(f"{name} {given}", f"the vocabulary has {n}, counted from 0", next_step="give smaller numbers")


def network(words: Vocabulary, random_seed: int = 0, **changes: Any) -> Model:
    """The paper's model: two layers of attention alone, width 64, 8 heads, rotary positions, layer norms.

    Args:
        changes: fields of its `Spec` that are to differ.
    """
    width = words.features.shape[1]
    spec = Spec(
        n_layers=2, n_heads=8, d_model=64, vocab=words.n_labels, n_ctx=5, norm="layer", norm_bias=True, positions="rotary",
        has_bias=False, unembed_bias=True, n_items=len(words.features), d_item=width,
    )  # fmt: skip
    spec = replace(spec, **changes)
    return as_model(build(spec, random_seed, init="lecun", items=words.features), "in-context classifier")


def read(model: Model, rows: Sequences) -> Float[Tensor, "batch label"]:
    """Logits of the labels at the query."""
    logits: Tensor = model(rows.ids, logits_to_keep=1).logits[:, -1]
    return logits


def loss(model: Model, rows: Sequences) -> Float[Tensor, ""]:
    """Mean cross-entropy of the right label at the query, in nats."""
    return cross_entropy(read(model, rows), rows.wanted)


@torch.no_grad()
def accuracy(model: Model, rows: Sequences) -> float:
    """Share of rows whose right label is the model's first choice."""
    return float((read(model, rows).argmax(-1) == rows.wanted).float().mean())
