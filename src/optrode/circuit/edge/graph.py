"""The graph that edge methods score: who writes to the residual stream, and who reads it. No model, no torch.

Senders, in the order of the computation: `embed` (all that enters the first block), then layer by layer the attention
heads `a5.h1` and the MLP `m5`. Receivers: the q, k and v input of every head, `a5.h1.q`, every MLP's input `m5`, and
`logits`. With grouped K/V a k or v input is that of a group, `a5.g0.k`, unless each query head is given its own (Hanna
et al., arXiv 2403.17806, whose `a5.h1<k>`, `input` and `a3.h2->m5` are understood too).

A receiver sees every sender before it, and senders stand in order, so that an edge exists where sender < `n_seen[receiver]`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from optrode.errors import BadName, nearest

ARROW: Final = " -> "
EMBED: Final = "embed"
LOGITS: Final = "logits"
KEYS: Final[tuple[Literal["k", "v"], ...]] = ("k", "v")
Kind = Literal["embed", "head", "mlp", "q", "k", "v", "logits"]

_ARROW: Final = re.compile(r"\s*(?:->|→)\s*")
_ANGLE: Final = re.compile(r"<([qkv])>$")


class End(NamedTuple):
    """One end of edges: a sender or a receiver.

    Attributes:
        kind: what it is.
        layer: of heads and MLPs; -1 for `embed`, n_layers for `logits`.
        head: index of the head, or of the K/V group; -1 where there is none.
    """

    kind: Kind
    layer: int
    head: int = -1


@dataclass(frozen=True)
class Graph:
    """The graph of one architecture.

    Attributes:
        n_layers, n_heads: of the model.
        n_kv: k inputs (and v inputs) of a layer: as many as K/V heads, or as query heads.
        has_mlps: whether blocks have an MLP.
        is_parallel: attention and MLP both read the block's input.
    """

    n_layers: int
    n_heads: int
    n_kv: int
    has_mlps: bool = True
    is_parallel: bool = False

    @cached_property
    def sender_ends(self) -> tuple[End, ...]:
        """Every sender, in the order of the computation."""
        found = [End("embed", -1)]
        for layer in range(self.n_layers):
            found += [End("head", layer, head) for head in range(self.n_heads)]
            found += [End("mlp", layer)] if self.has_mlps else []
        return tuple(found)

    @cached_property
    def receiver_ends(self) -> tuple[End, ...]:
        """Every receiver: layer by layer all q, all k, all v, the MLP; then the logits."""
        found: list[End] = []
        for layer in range(self.n_layers):
            found += [End("q", layer, head) for head in range(self.n_heads)]
            found += [End(part, layer, head) for part in KEYS for head in range(self.n_kv)]
            found += [End("mlp", layer)] if self.has_mlps else []
        return (*found, End("logits", self.n_layers))

    @cached_property
    def senders(self) -> tuple[str, ...]:
        """Names of the senders."""
        return tuple(self._name(end) for end in self.sender_ends)

    @cached_property
    def receivers(self) -> tuple[str, ...]:
        """Names of the receivers."""
        return tuple(self._name(end) for end in self.receiver_ends)

    def _name(self, end: End) -> str:
        if end.kind in ("embed", "logits"):
            return end.kind
        if end.kind == "mlp":
            return f"m{end.layer}"
        is_group = end.kind in ("k", "v") and self.n_kv != self.n_heads
        name = f"a{end.layer}.{'g' if is_group else 'h'}{end.head}"
        return name if end.kind == "head" else f"{name}.{end.kind}"

    def n_before(self, layer: int, *, within: bool = False) -> int:
        """How many senders stand before a layer's attention, or (`within`) before its MLP."""
        per_layer = self.n_heads + self.has_mlps
        return 1 + layer * per_layer + (self.n_heads if within and not self.is_parallel else 0)

    def receivers_of(self, layer: int) -> dict[str, slice]:
        """Where a layer's receivers stand: "q", "k", "v" and, if there is one, "mlp"."""
        at = layer * (self.n_heads + 2 * self.n_kv + self.has_mlps)
        sizes = {"q": self.n_heads, "k": self.n_kv, "v": self.n_kv} | ({"mlp": 1} if self.has_mlps else {})
        found = {}
        for part, size in sizes.items():
            found[part] = slice(at, at := at + size)
        return found

    @cached_property
    def n_seen(self) -> Int[np.ndarray, " receiver"]:
        """How many senders each receiver sees."""
        return np.array([self.n_before(end.layer, within=end.kind == "mlp") for end in self.receiver_ends])

    @cached_property
    def is_edge(self) -> Bool[np.ndarray, "receiver sender"]:
        """Which pairs are edges."""
        return np.arange(len(self.sender_ends)) < self.n_seen[:, None]

    @cached_property
    def ends(self) -> Int[np.ndarray, "edge 2"]:
        """(receiver, sender) of every edge, in the order in which edges are counted: receiver by receiver."""
        return np.argwhere(self.is_edge)

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return int(self.n_seen.sum())

    def name(self, edge: int) -> str:
        """An edge as text, "a3.h2 -> a5.h1.k"."""
        receiver, sender = self.ends[edge]
        return f"{self.senders[sender]}{ARROW}{self.receivers[receiver]}"

    def edge(self, name: str) -> int:
        """The index of an edge.

        Raises:
            BadName: there is no such sender, receiver, or edge; the message names the nearest.
        """
        parts = _ARROW.split(name.strip())
        if len(parts) != 2:
            raise BadName(f"edge {name!r}", "it has no sender and receiver", next_step="write it like a3.h2 -> a5.h1.k")
        sender = _find("sender", parts[0], self.senders)
        receiver = _find("receiver", _ANGLE.sub(r".\1", parts[1]), self.receivers)
        if not self.is_edge[receiver, sender]:
            raise BadName(
                f"edge {name!r}", f"{parts[0]} comes after {parts[1]} reads the residual stream",
                next_step="an edge goes forward; swap its ends",
            )  # fmt: skip
        return int(self.n_seen[:receiver].sum()) + sender

    def edges(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """[edge] true for the edges of these names."""
        chosen = np.zeros(self.n_edges, dtype=bool)
        chosen[[self.edge(name) for name in names]] = True
        return chosen

    def matrix(self, values: NDArray[np.generic], fill: float = 0.0) -> NDArray[np.generic]:
        """[..., edge] values as [..., receiver, sender], with `fill` where there is no edge."""
        found = np.full((*values.shape[:-1], *self.is_edge.shape), fill, dtype=values.dtype)
        found[..., self.is_edge] = values
        return found

    def nodes_of(self, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        """Heads and MLPs that some chosen edge touches, in the order of the computation."""
        touched = {self.senders[sender] for _, sender in self.ends[chosen]}
        touched |= {node for receiver, _ in self.ends[chosen] for node in self.heads_of(int(receiver))}
        return tuple(name for name in self.senders if name in touched)

    def heads_of(self, receiver: int) -> tuple[str, ...]:
        """The senders that a receiver belongs to: its head (all heads of its K/V group), its MLP; none for the logits."""
        end = self.receiver_ends[receiver]
        if end.kind == "logits":
            return ()
        if end.kind == "mlp":
            return (f"m{end.layer}",)
        group = self.n_heads // self.n_kv if end.kind in ("k", "v") else 1
        return tuple(f"a{end.layer}.h{head}" for head in range(end.head * group, (end.head + 1) * group))


def _find(what: str, name: str, known: Sequence[str]) -> int:
    name = EMBED if name == "input" else name
    if name not in known:
        found = f"the model has no such {what}"
        raise BadName(f"{what} {name!r}", found, nearest=nearest(name, known) or tuple(known[:3]))
    return known.index(name)


def site_of(sender: End) -> str:
    """The site where a sender's output is read, before a head's output projection: "blocks.3.attn.z[head=2]"."""
    if sender.kind == "embed":
        return "blocks.0.resid_pre"
    return f"blocks.{sender.layer}.attn.z[head={sender.head}]" if sender.kind == "head" else f"blocks.{sender.layer}.mlp_out"
