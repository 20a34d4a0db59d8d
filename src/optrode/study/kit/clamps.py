"""Gates that hold a part of the induction circuit at what it is to become, so that only the rest is left to be learnt.

Singh et al., arXiv 2404.07129, "artificial optogenetics". The circuit has five steps: (1) a head of layer 1 attends to the
previous token, (2) copies it forward; (3) layer 2 reads it into queries, keys and values, (4) matches query and key, (5)
copies the label out. They form three subcircuits, A = {1, 2}, B = {3 for queries and keys, 4}, C = {3 for values, 5}.

    `previous_token`   holds step 1           leaves 2 to 5
    `layer_one`        holds A                leaves B and C
    `match`            holds A and B          leaves C
    `copy`             holds C                leaves A and B
    `layer_one_copy`   holds A and C          leaves B

Each is a tuple of gates, for `Plan.gates` or `op.gates(model, *gates)`. Layers count from 0 in site names: the paper's layer
1 is `blocks.0`. All are of two-layer models and of sequences as `icl.draw` makes them. Gradients flow through what is
computed.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.gate.gate import Gate
from optrode.gate.kinds import clamp, compute, first_pass, patch, zero
from optrode.site.site import Around
from optrode.study.kit.icl import Vocabulary

Heads = int | Sequence[int]


def previous_token(heads: Heads, n_pos: int = 5, *, back: int = 1, strength: float = 1.0) -> tuple[Gate, ...]:
    """Heads of layer 1 attend to the token before (position 0 to itself).

    Args:
        back: so many tokens before; 1 is the claim, others are controls. The first `back` positions attend to themselves.
        strength: share of the held pattern; the rest is the head's own.
    """
    held = torch.zeros(n_pos, n_pos)
    for pos in range(n_pos):
        held[pos, pos - back if pos >= back else pos] = 1.0
    return (clamp(f"blocks.0.attn.pattern[{_of(heads)}]", held, strength=strength),)


def disallow_previous(heads: Heads) -> tuple[Gate, ...]:
    """Heads of layer 1 cannot attend to the token before."""

    def closed(scores: Tensor, around: Around) -> Tensor:
        before = torch.ones_like(scores[0, 0], dtype=torch.bool).tril(-1).triu(-1)
        return scores.masked_fill(before, -1e9)

    return (compute(f"blocks.0.attn.scores[{_of(heads)}]", closed),)


def layer_one() -> tuple[Gate, ...]:
    """Patterns of layer 2 are those that a perfect layer 1 would give; its values read the embedding, without layer 1.

    A perfect layer 1 puts each token's embedding, and nothing else, where the next token is; the query keeps its own.
    """
    perfect = first_pass(compute("blocks.0.resid_post", _shifted, reads="embed"))
    return zero("blocks.0.attn_out"), patch("blocks.1.attn.pattern", perfect)


def match(head: int, words: Vocabulary) -> tuple[Gate, ...]:
    """A head of layer 2 attends from the query to the right label. Silence the others with `only(head)`."""
    return induction_strength(head, 1.0, words)


def copy(head: int) -> tuple[Gate, ...]:
    """Logits of labels in context are a head's attention scores at them, before the softmax; those of others -1e9."""

    def copied(logits: Tensor, around: Around) -> Tensor:
        labels = _ids(around)[:, 1:-1:2]
        scores = around["blocks.1.attn.scores"][:, head, -1, 1:-1:2]
        absent = torch.full_like(logits[:, -1], -1e9)
        return absent.scatter(1, labels, scores)[:, None].expand_as(logits)

    return (compute("logits", copied, reads="blocks.1.attn.scores"),)


def layer_one_copy(head: int) -> tuple[Gate, ...]:
    """`layer_one` and `copy`: scores are those of the perfect layer 1, and go straight to the logits."""
    return compute("blocks.0.resid_post", _shifted, reads="embed"), *copy(head)


def induction_strength(head: int, strength: float, words: Vocabulary) -> tuple[Gate, ...]:
    """A head of layer 2 divides the query's attention between the labels in context.

    Args:
        strength: attention to the right label minus that to the others together, in -1..1; -1 is an anti-induction head.
    """

    def divided(pattern: Tensor, around: Around) -> Tensor:
        ids = _ids(around)
        is_right = words.classes_of(ids[:, :-1:2]) == words.classes_of(ids[:, -1:])
        n_others = is_right.shape[1] - 1
        share = torch.where(is_right, (1 + strength) / 2, (1 - strength) / (2 * n_others)).to(pattern)
        new = pattern.clone()
        new[:, :, -1] = 0.0
        new[:, head, -1, 1:-1:2] = share
        return new

    return (compute(f"blocks.1.attn.pattern[head={head}]", divided),)


def only(head: int | None, layer: int = 1, n_heads: int = 8) -> tuple[Gate, ...]:
    """All heads of a layer but one are silent; with None, all."""
    silent = [other for other in range(n_heads) if other != head]
    return ablated(silent, layer)


def ablated(heads: Heads, layer: int) -> tuple[Gate, ...]:
    """Heads are silent: what they would write is 0."""
    return (zero(f"blocks.{layer}.attn.z[{_of(heads)}]"),) if isinstance(heads, int) or heads else ()


def keeping_patterns(*held: Gate) -> tuple[Gate, ...]:
    """Gates, and layer 2 attends as it would without them: what is left is their effect through values."""
    return *held, patch("blocks.1.attn.pattern", first_pass())


def keeping_values(*held: Gate) -> tuple[Gate, ...]:
    """Gates, and layer 2 has the values that it would have without them: their effect is through queries and keys."""
    return *held, patch("blocks.1.attn.v", first_pass())


def _of(heads: Heads) -> str:
    return f"head={heads}" if isinstance(heads, int) else "head=" + "|".join(map(str, heads))


def _ids(around: Around) -> Int[Tensor, "batch pos"]:
    ids: Tensor = around.inputs["input_ids"]
    return ids


def _shifted(stream: Tensor, around: Around) -> Float[Tensor, "batch pos d_model"]:
    """Each embedding one position on; the first and the query's stay."""
    embedded = around["embed"]
    return torch.cat([embedded[:, :1], embedded[:, :-2], embedded[:, -1:]], 1)
