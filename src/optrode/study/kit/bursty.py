"""Reddy's in-context classification: items of noisy classes with their labels, then one item whose label is asked for.

A row is x1 l1 ... xN lN x, all of them vectors of width D; positions are one-hot, from a random start. How rows are drawn
decides what is learnt (Reddy, arXiv 2312.03002; symbols K, L, N, D, B, eps, alpha, p_B, p_C as there): few classes that
seldom come in bursts are learnt by heart, in the weights; many that come in bursts are looked up in the context.

    task = Bursty(n_classes=256)
    world = task.world(random_seed=0)
    batch = task.draw(world, 128, generator)
    logits = read(network(task), batch)
"""

import math
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.spec import Spec
from optrode.nn.transformer import as_model, build
from optrode.site.recording import recording
from optrode.train.measures import context_label_mass, item_label_association

N_NOVEL: Final = 128
"""Classes that are made anew for each batch, K_c."""


@final
@dataclass(frozen=True, eq=False)
class World:
    """What stays the same over training.

    Attributes:
        means: [K, D] of the classes, of expected length 1.
        labels: [L, D] vectors of the labels, of expected length 1.
    """

    means: Float[Tensor, "class d_item"]
    labels: Float[Tensor, "label d_item"]


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of vectors, and what is known of them.

    Attributes:
        vectors: [row, 2N + 1, D].
        positions: [row, 2N + 1] one-hot positions, in a row one after the other.
        context: [row, N] labels in context.
        is_own: [row, N] 1 where an item in context is of the query's class, else 0.
        target: [row] label of the query.
    """

    vectors: Float[Tensor, "row pos d_item"]
    positions: Int[Tensor, "row pos"]
    context: Int[Tensor, "row pair"]
    is_own: Int[Tensor, "row pair"]
    target: Int[Tensor, " row"]

    @property
    def item_pos(self) -> Int[Tensor, "row pair"]:
        """Positions of the items in context, counted from the start of the row."""
        return torch.arange(0, 2 * self.context.shape[1], 2).expand_as(self.context)

    @property
    def label_pos(self) -> Int[Tensor, "row pair"]:
        """Positions of the labels in context."""
        return self.item_pos + 1


@final
@dataclass(frozen=True)
class Bursty:
    """How rows are drawn.

    Attributes:
        n_classes: K; class k has label k mod L.
        n_labels: L.
        n_pairs: N, in context.
        d_item: D, width of items and labels.
        burst: B, items of each class in the context of a bursty row, which then has N / B classes.
        noise: eps, of an item around its class: (mean + eps * eta) / sqrt(1 + eps^2).
        zipf: alpha; class k (from 1) is drawn with probability proportional to k^-alpha.
        p_bursty: p_B, share of rows in which the query is of a class in the context; in others all items are independent.
        asks_context: false for bursts that say nothing: the query of a bursty row is independent of them.
        p_novel: p_C, share of rows whose classes are new with each batch, 128 of them, equally frequent.
        n_places: one-hot positions; a row starts at any at which it fits.
        shift: added to every label in context and to the target, mod L: the swap test.

    Raises:
        BadOption: bursts that do not fill the context, more classes in context than there are, or too few places.
    """

    n_classes: int = 1024
    n_labels: int = 32
    n_pairs: int = 8
    d_item: int = 63
    burst: int = 1
    noise: float = 0.1
    zipf: float = 0.0
    p_bursty: float = 1.0
    asks_context: bool = True
    p_novel: float = 0.0
    n_places: int = 65
    shift: int = 0

    def __post_init__(self) -> None:
        if self.burst < 1 or self.n_pairs % self.burst:
            found = f"bursts of {self.burst} do not fill it"
            raise BadOption(f"a context of {self.n_pairs} pairs", found, next_step="give a divisor of n_pairs")
        if self.n_pairs // self.burst > min(self.n_classes, N_NOVEL):
            found = f"there are {min(self.n_classes, N_NOVEL)} to draw from"
            raise BadOption(f"{self.n_pairs // self.burst} classes in one context", found, next_step="give more classes")
        if self.n_places < self.length:
            step = f"give n_places={self.length} or more"
            raise BadOption(f"n_places={self.n_places}", f"a row has {self.length} tokens", next_step=step)

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return 2 * self.n_pairs + 1

    def spec(self) -> Spec:
        """Reddy's network: two layers of one head each without scale, output projection and norm, then a ReLU MLP."""
        return Spec(
            n_layers=2, n_heads=1, d_model=self.n_places + self.d_item, vocab=1, n_ctx=self.n_places, norm="none",
            positions="one_hot", has_bias=False, d_out=self.n_labels, is_scaled=False, has_output=False, unembed_bias=True,
            head_layers=2,
        )  # fmt: skip

    def world(self, random_seed: int) -> World:
        """Class means and label vectors, all N(0, 1/D)."""
        generator = torch.Generator().manual_seed(random_seed)
        return World(_means(self.n_classes, self.d_item, generator), _means(self.n_labels, self.d_item, generator))

    def draw(self, world: World, n_rows: int, generator: torch.Generator) -> Batch:
        """Rows by these laws."""
        is_novel = torch.rand(n_rows, generator=generator) < self.p_novel
        classes = torch.empty(n_rows, self.n_pairs + 1, dtype=torch.long)
        usual = torch.arange(1.0, self.n_classes + 1) ** -self.zipf
        classes[~is_novel] = self._classes(usual, int((~is_novel).sum()), generator)
        classes[is_novel] = self._classes(torch.ones(N_NOVEL), int(is_novel.sum()), generator) + self.n_classes
        means = torch.cat([world.means, _means(N_NOVEL, self.d_item, generator)])[classes]
        eta = torch.randn(means.shape, generator=generator) / math.sqrt(self.d_item)
        items = (means + self.noise * eta) / (1 + self.noise**2) ** 0.5
        # Novel classes count from 0 again.
        labels = (torch.where(is_novel[:, None], classes - self.n_classes, classes) + self.shift) % self.n_labels
        vectors = torch.stack([items, world.labels[labels]], 2).flatten(1, 2)[:, :-1]
        start = torch.randint(self.n_places - self.length + 1, (n_rows, 1), generator=generator)
        positions = start + torch.arange(self.length)
        return Batch(vectors, positions, labels[:, :-1], (classes[:, :-1] == classes[:, -1:]).long(), labels[:, -1])

    def in_context(self) -> "Bursty":
        """The test IC: new classes, each once in context, of which only the context tells the labels."""
        return replace(self, p_bursty=1.0, p_novel=1.0, burst=1, asks_context=True)

    def in_weights(self) -> "Bursty":
        """The test IWL: trained classes, no bursts: the context says nothing of the query."""
        return replace(self, p_bursty=0.0, p_novel=0.0, burst=1)

    def swapped(self) -> "Bursty":
        """The test IC2: trained classes, each once in context, with the next label each instead of that of training."""
        return replace(self, p_bursty=1.0, p_novel=0.0, burst=1, asks_context=True, shift=self.shift + 1)

    def _classes(self, frequency: Float[Tensor, " class"], n_rows: int, generator: torch.Generator) -> Tensor:
        """[row, N + 1] the context's and the query's."""
        if not n_rows:
            return torch.empty(0, self.n_pairs + 1, dtype=torch.long)
        free = torch.multinomial(frequency, n_rows * (self.n_pairs + 1), True, generator=generator).view(n_rows, -1)
        kinds = _distinct(frequency, n_rows, self.n_pairs // self.burst, generator).repeat(1, self.burst)
        order = torch.rand(kinds.shape, generator=generator).argsort(1)
        context = kinds.gather(1, order)
        asked = context.gather(1, torch.randint(self.n_pairs, (n_rows, 1), generator=generator))
        asked = asked if self.asks_context else free[:, :1]
        is_bursty = torch.rand(n_rows, 1, generator=generator) < self.p_bursty
        return torch.where(is_bursty, torch.cat([context, asked], 1), free)


def network(task: Bursty, random_seed: int = 0) -> Model:
    """Reddy's network with fresh weights: variance 1/d in attention, 2/d in the MLP."""
    return as_model(build(task.spec(), random_seed, init="he"), "in-context classifier")


def read(model: Model, batch: Batch) -> Float[Tensor, "row label"]:
    """Logits of the query's label."""
    output = model(inputs_embeds=batch.vectors, position_ids=batch.positions, logits_to_keep=1)
    logits: Tensor = output.logits[:, -1]
    return logits


def loss(model: Model, batch: Batch) -> Tensor:
    """Cross-entropy at the query, in nats."""
    return torch.nn.functional.cross_entropy(read(model, batch), batch.target)


@torch.no_grad()
def progress(model: Model, batch: Batch) -> dict[str, float]:
    """The progress measures of the paper, and what tells picking any label in context from picking the right one.

    Returns:
        accuracy: share of rows whose query gets its label.
        cla: probability of the labels in context.
        ila1: attention in layer 1 from labels to their own items.
        tila2: attention in layer 2 from the query to the labels after items of its class.
        preference: the right label's share of `cla`, less what it would be if every label in context got the same:
            0 for a random label from the context, (1 - 1/N) or a little less for the right one.
    """
    with recording(model, ["blocks.*.attn.pattern"]) as found:
        logits = read(model, batch)
    first, last = found["blocks.0.attn.pattern"], found["blocks.1.attn.pattern"]
    at_labels = last[:, 0, -1].gather(1, batch.label_pos)
    return {
        "accuracy": float((logits.argmax(-1) == batch.target).float().mean()),
        "cla": context_label_mass(logits, batch.context),
        "ila1": float(item_label_association(first, batch.label_pos, batch.item_pos)[0]),
        "tila2": float((at_labels * batch.is_own).sum(1).mean()),
        "preference": _preference(logits, batch),
    }


def _preference(logits: Float[Tensor, "row label"], batch: Batch) -> float:
    probability = logits.softmax(-1)
    present = torch.zeros_like(probability).scatter_(1, batch.context, 1.0)
    right = probability.gather(1, batch.target[:, None])[:, 0]
    by_chance = (batch.context == batch.target[:, None]).float().mean(1)
    mass = (probability * present).sum(1)
    return float((right / mass - by_chance).mean())


@torch.no_grad()
def accuracy(model: Model, batch: Batch) -> float:
    """Share of rows whose query gets its label."""
    return float((read(model, batch).argmax(-1) == batch.target).float().mean())


def _distinct(weights: Float[Tensor, " class"], n_rows: int, n: int, generator: torch.Generator) -> Tensor:
    """[row, n] classes drawn one after the other without putting back: the first n to arrive, at rates `weights`."""
    arrivals = torch.rand(n_rows, len(weights), generator=generator).log_().div_(-weights)
    chosen: Tensor = arrivals.topk(n, largest=False).indices
    return chosen


def _means(n: int, d: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    return torch.randn(n, d, generator=generator) / math.sqrt(d)
