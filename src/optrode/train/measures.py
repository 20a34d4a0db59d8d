"""Progress measures: one number, or one for each head or layer, that says how far a mechanism has formed.

All are functions of what a recording holds, so that they can be swept over checkpoints like any other score. Patterns are
attention probabilities [batch, head, pos, src] of one layer. Rows of a pattern have one length: padding is not told apart,
so give rows without it. Positions may be counted from the end, as in Python. Half precision is computed with in float32,
other numbers in their own type; what is returned as a tensor keeps its gradient. Measures of the residual stream are in
`streams`, those of weights in `geometry`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from optrode.errors import BadOption


def attention_to(
    pattern: Float[Tensor, "batch head pos src"], query: int | Int[Tensor, "batch query"],
    targets: Int[Tensor, "batch target"] | Int[Tensor, "batch query target"],
) -> Float[Tensor, " head"]:  # fmt: skip
    """Attention from query positions to target positions, added up over targets; mean over rows and queries.

    Args:
        query: one position for all rows, or those of each row.
        targets: the same for all queries of a row, or those of each query. One named twice counts once.

    Raises:
        BadOption: a position that the pattern does not have, or as many rows of positions as it has not.
    """
    queries = torch.full((len(pattern), 1), query, device=pattern.device) if isinstance(query, int) else query
    targets = targets if targets.dim() == 3 else targets[:, None].expand(-1, queries.shape[1], -1)
    if targets.shape[:2] != queries.shape:
        found = f"the queries are {tuple(queries.shape)} (rows, positions of each)"
        raise BadOption(f"targets of {tuple(targets.shape)}", found, next_step="give targets of each query of each row")
    attention = _from(pattern, queries)
    chosen = torch.zeros(*queries.shape, pattern.shape[3], dtype=torch.bool, device=pattern.device)
    chosen.scatter_(2, _within(targets, pattern.shape[3], "target"), True)
    return (attention * chosen[:, None]).sum(-1).mean((0, 2))


def induction_strength(
    pattern: Float[Tensor, "batch head pos src"], right: Int[Tensor, " batch"], wrong: Int[Tensor, " batch"], query: int = -1
) -> Float[Tensor, " head"]:  # fmt: skip
    """Mean of attention from the query to the right position minus attention to the wrong one, in -1..1.

    Singh et al., arXiv 2404.07129: right and wrong are the labels in context after the query's class and after
    the other class; 0 is no preference.

    Raises:
        BadOption: as `attention_to`.
    """
    return attention_to(pattern, query, right[:, None]) - attention_to(pattern, query, wrong[:, None])


def induction_correctness(
    pattern: Float[Tensor, "batch head pos src"], labels: Int[Tensor, "batch label"], is_same: Bool[Tensor, "batch label"],
    query: int = -1,
) -> Float[Tensor, " head"]:  # fmt: skip
    """Attention from the query to labels in context that are its own, minus attention to the others; mean over rows.

    Revisiting the ICL inference circuit, arXiv 2410.04468. Where one label in context is right and one is wrong, this is the
    induction strength.

    Args:
        labels: positions of the labels in context.
        is_same: which of them are the query's label.

    Raises:
        BadOption: as `attention_to`.
    """
    if not len(pattern) == len(labels) == len(is_same) or labels.shape != is_same.shape:
        found = f"{len(pattern)} rows of the pattern, of labels {tuple(labels.shape)}, of sameness {tuple(is_same.shape)}"
        raise BadOption("induction correctness", found, next_step="give every row its labels, and say of each what it is")
    queries = torch.full((len(pattern), 1), query, device=pattern.device)
    places = _within(labels, pattern.shape[3], "label")
    at_labels = _from(pattern, queries)[:, :, 0].gather(2, places[:, None].expand(-1, pattern.shape[1], -1))
    return (at_labels * torch.where(is_same, 1.0, -1.0)[:, None].to(at_labels)).sum(-1).mean(0)


def previous_token_score(pattern: Float[Tensor, "batch head pos src"]) -> Float[Tensor, " head"]:
    """Mean attention to the previous position, from all positions that have one, in 0..1.

    Raises:
        BadOption: prompts of one token.
    """
    _check_pos(pattern, 1, "a previous position")
    return wide(pattern).diagonal(-1, 2, 3).mean((0, 2))


def sink_share(pattern: Float[Tensor, "batch head pos src"], skip: int = 1) -> Float[Tensor, " head"]:
    """Mean attention to position 0 from positions `skip` and on, in 0..1 (attention sinks, Xiao et al., arXiv 2309.17453).

    Raises:
        BadOption: no position is left, or position 0 itself is not skipped: it can look nowhere else.
    """
    if skip < 1:
        raise BadOption(f"skip={skip}", "position 0 has nowhere else to look", next_step="skip at least 1 position")
    _check_pos(pattern, skip, f"a position after the {skip} that are skipped")
    return wide(pattern)[:, :, skip:, 0].mean((0, 2))


def item_label_association(
    pattern: Float[Tensor, "batch head pos src"], labels: Int[Tensor, "batch pair"], items: Int[Tensor, "batch pair"]
) -> Float[Tensor, " head"]:  # fmt: skip
    """ILA1 of Reddy, arXiv 2312.03002: attention in layer 1 from each label in context to its own item (as recalled).

    Raises:
        BadOption: as `attention_to`.
    """
    return attention_to(pattern, labels, items[:, :, None])


def target_item_label_association(
    pattern: Float[Tensor, "batch head pos src"], right: Int[Tensor, " batch"], query: int = -1
) -> Float[Tensor, " head"]:  # fmt: skip
    """TILA2 of Reddy, arXiv 2312.03002: attention in layer 2 from the target to its right label in context (as recalled).

    Raises:
        BadOption: as `attention_to`.
    """
    return attention_to(pattern, query, right[:, None])


def target_label_association(
    pattern: Float[Tensor, "batch head pos src"], labels: Int[Tensor, "batch pair"], query: int = -1
) -> Float[Tensor, " head"]:  # fmt: skip
    """TLA2 of Reddy, arXiv 2312.03002: attention in layer 2 from the target to all labels in context (as recalled).

    Raises:
        BadOption: as `attention_to`.
    """
    return attention_to(pattern, query, labels)


def context_label_mass(logits: Float[Tensor, "batch label"], context_labels: Int[Tensor, "batch context"]) -> float:
    """Probability of the labels that are in the context, each counted once; mean over rows (CLA of Reddy, as recalled).

    The probabilities are those of all columns of the logits: give the labels' own columns where a vocabulary has more.

    Raises:
        BadOption: a label without a logit.
    """
    n = logits.shape[1]
    if bool(((context_labels < 0) | (context_labels >= n)).any()):
        raise BadOption(f"labels {_range(context_labels)}", f"the logits have the columns 0 to {n - 1}")
    present = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, context_labels, True)
    return float((wide(logits).softmax(-1) * present).sum(-1).mean())


def kernel_alignment(a: Float[Tensor, "n d"], b: Float[Tensor, "n e"], k: int = 64) -> float:
    """Mean share of common nearest neighbours: |N_a(i) & N_b(i)| / k over rows i, in 0..1.

    N(i) are the k rows of largest cosine similarity with row i, which is left out itself; of equal similarities the row that
    comes first is nearer. Unrelated vectors get k / (n - 1) (mutual k-nearest neighbours, Huh et al., arXiv 2405.07987).

    Raises:
        BadOption: not as many rows on both sides, or not 1 to n - 1 neighbours.
    """
    n = len(a)
    if len(b) != n:
        raise BadOption(f"alignment of {n} rows with {len(b)}", "row i of both stands for the same input")
    if not 1 <= k < n:
        step = "take fewer neighbours, or more rows"
        raise BadOption(f"k={k} neighbours", f"each of {n} rows has {n - 1} others", next_step=step)
    both = torch.stack([_is_near(a, k), _is_near(b, k).to(a.device)])
    return float(both.all(0).sum()) / (n * k)


def wide(numbers: Tensor) -> Tensor:
    """The numbers, in float32 at least."""
    return numbers.float() if numbers.element_size() < 4 else numbers


def _from(pattern: Tensor, queries: Int[Tensor, "batch query"]) -> Float[Tensor, "batch head query src"]:
    """The rows of the pattern that belong to the queries."""
    if len(queries) != len(pattern):
        raise BadOption(f"positions of {len(queries)} rows", f"the pattern has {len(pattern)} rows")
    places = _within(queries, pattern.shape[2], "query")[:, None, :, None]
    return wide(pattern).gather(2, places.expand(-1, pattern.shape[1], -1, pattern.shape[3]))


def _within(positions: Tensor, n: int, noun: str) -> Tensor:
    """Positions counted from the start."""
    if bool(((positions < -n) | (positions >= n)).any()):
        found = f"the pattern has the positions 0 to {n - 1}"
        raise BadOption(f"{noun} positions {_range(positions)}", found, next_step="count from 0, or from the end with -1")
    return positions.long() % n


def _range(numbers: Tensor) -> str:
    return f"from {int(numbers.min())} to {int(numbers.max())}"


def _check_pos(pattern: Tensor, n: int, wanted: str) -> None:
    if pattern.shape[2] <= n:
        found = f"the prompts have {pattern.shape[2]} positions"
        raise BadOption(f"attention from {wanted}", found, next_step="take longer prompts")


def _is_near(vectors: Tensor, k: int) -> Bool[Tensor, "n n"]:
    """Whose k nearest neighbours are whose."""
    unit = normalize(wide(vectors.detach()), dim=1)
    similar = (unit @ unit.T).fill_diagonal_(-torch.inf)
    near = similar.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(similar, dtype=torch.bool).scatter_(1, near, True)
