"""What single heads of a two-layer in-context classifier do, and through which paths.

Singh et al., arXiv 2404.07129, section 3. Layers count from 0 in site names: layer 1 is `blocks.0`, layer 2 `blocks.1`. A
head is silenced where what it would write is replaced by 0 (`clamps.ablated`).
"""

from collections.abc import Sequence
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.compose import composition
from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.site.recording import record
from optrode.study.kit import clamps, icl
from optrode.train.measures import attention_to, induction_strength

Path = Literal["key", "value"]
"""Through what layer 2 may depend on layer 1: queries and keys, or values."""
PATHS: Final[tuple[Path, ...]] = ("key", "value")


def patterns(model: Model, rows: icl.Sequences) -> Float[Tensor, "layer batch head pos src"]:
    """Attention of both layers."""
    return record(model, {"input_ids": rows.ids}, "blocks.*.attn.pattern").stack("attn.pattern")


def strengths(model: Model, rows: icl.Sequences) -> Float[Tensor, " head"]:
    """Induction strength of each head of layer 2, in -1..1."""
    return induction_strength(patterns(model, rows)[1], rows.right, rows.wrong)


def previous_scores(model: Model, rows: icl.Sequences) -> Float[Tensor, " head"]:
    """Attention of each head of layer 1 from labels in context to the item before, in 0..1."""
    labels = torch.tensor([[1, 3]]).expand(len(rows.ids), -1)
    return attention_to(patterns(model, rows)[0], labels, labels[:, :, None] - 1)


def accuracy(model: Model, rows: icl.Sequences, *held: Gate) -> float:
    """Accuracy with gates held."""
    with gates(model, *held):
        return icl.accuracy(model, rows)


@torch.no_grad()
def loss(model: Model, rows: icl.Sequences, *held: Gate) -> float:
    """Loss in nats with gates held."""
    with gates(model, *held):
        return float(icl.loss(model, rows))


def costs(model: Model, rows: icl.Sequences, layer: int = 1) -> list[float]:
    """What accuracy loses when each head alone of a layer is silent."""
    n_heads, whole = model.table.n_heads, accuracy(model, rows)
    return [whole - accuracy(model, rows, *clamps.ablated(head, layer)) for head in range(n_heads)]


def ladder(model: Model, rows: icl.Sequences, order: Sequence[int]) -> list[float]:
    """Loss with no head of layer 2, with the first of an order, with the first two, and so on to all."""
    return [loss(model, rows, *clamps.ablated(list(order[n:]), 1)) for n in range(len(order) + 1)]


def dissociation(model: Model, rows: icl.Sequences, group: Sequence[int]) -> dict[str, float]:
    """Accuracy without a group of heads of layer 1, or without the others, where layer 2 keeps its patterns or its values.

    Table 1 of the paper. Returns it for "group, patterns", "group, values", "others, patterns" and "others, values".
    """
    others = [head for head in range(model.table.n_heads) if head not in group]
    found = {}
    for name, heads in (("group", list(group)), ("others", others)):
        silent = clamps.ablated(heads, 0)
        found[f"{name}, patterns"] = accuracy(model, rows, *clamps.keeping_patterns(*silent))
        found[f"{name}, values"] = accuracy(model, rows, *clamps.keeping_values(*silent))
    return found


def double_dissociation(found: dict[str, float]) -> float:
    """By how much more a group acts through keys, and the others through values, than the other way round; in -1..1.

    0 where both sets of heads do either alike; .475 in Table 1 of the paper.
    """
    through_keys = found["group, patterns"] - found["group, values"]
    through_values = found["others, values"] - found["others, patterns"]
    return (through_keys + through_values) / 2


def wiring(model: Model, rows: icl.Sequences, path: Path) -> Float[Tensor, "reader writer"]:
    """Accuracy with one head of layer 2 (reader) and one of layer 1 (writer), which reaches it through one path alone.

    Fig. 11 of the paper: along the other path layer 2 has what it would have with all of layer 1.
    """
    n = model.table.n_heads
    keeping = clamps.keeping_values if path == "key" else clamps.keeping_patterns
    found = torch.zeros(n, n)
    for reader in range(n):
        for writer in range(n):
            gated = keeping(*clamps.only(writer, 0, n))
            found[reader, writer] = accuracy(model, rows, *gated, *clamps.only(reader, 1, n))
    return found


def without_writers(model: Model, rows: icl.Sequences, path: Path) -> Float[Tensor, " reader"]:
    """As `wiring`, with no head of layer 1 at all: what each reader can do without."""
    n = model.table.n_heads
    keeping = clamps.keeping_values if path == "key" else clamps.keeping_patterns
    held = keeping(*clamps.only(None, 0, n))
    return torch.tensor([accuracy(model, rows, *held, *clamps.only(reader, 1, n)) for reader in range(n)])


def fan(is_wired: Tensor) -> int:
    """The smaller of: how many readers one writer serves at most, how many writers serve one reader at most."""
    return int(min(is_wired.sum(0).max(), is_wired.sum(1).max()))


def composes(model: Model, kind: str = "k") -> Float[Tensor, "reader writer"]:
    """Composition scores of heads of layer 2 with heads of layer 1, from weights alone."""
    n = model.table.n_heads
    return torch.from_numpy(composition(model, [kind]).scores[0, n:, :n]).float()


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's correlation of all entries; ties have their mean rank."""
    ranks = torch.stack([_ranks(a.flatten()), _ranks(b.flatten())])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    below = (values[:, None] > values).sum(1)
    same = (values[:, None] == values).sum(1)
    return below + (same - 1) / 2
