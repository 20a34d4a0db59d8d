"""Nodes and tokens as people read them: "18.6" for a head, "MLP 4", "·John" for a token."""

import re
from dataclasses import dataclass
from typing import Final

LAYER: Final = re.compile(r"^blocks\.(\d+)\.")
HEAD: Final = re.compile(r"^blocks\.\d+\.attn\.\w+\[(?:[^\]]*,\s*)?head=(\d+)\b[^\]]*\]$")
MLP: Final = re.compile(r"^blocks\.\d+\.mlp(?:_out|\.\w+)")
WHITESPACE: Final = {"\n": "⏎", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True, slots=True)
class NodeName:
    """A site name taken apart.

    Attributes:
        site: the full name.
        layer: None for sites outside the blocks.
        head: None when it is not one attention head.
        is_mlp: whether it is an MLP.
    """

    site: str
    layer: int | None
    head: int | None
    is_mlp: bool

    @property
    def label(self) -> str:
        """The short name: "18.6", "MLP 4", or the site itself."""
        if self.head is not None:
            return f"{self.layer}.{self.head}"
        return f"MLP {self.layer}" if self.is_mlp else self.site

    @property
    def kind(self) -> str:
        """What it is, in words."""
        if self.head is not None:
            return "attention head"
        return "MLP" if self.is_mlp else "site"


def node_name(site: str) -> NodeName:
    """Take a site name apart; names of no known form keep their text as label."""
    layer, head = LAYER.match(site), HEAD.match(site)
    return NodeName(site, int(layer[1]) if layer else None, int(head[1]) if head else None, bool(MLP.match(site)))


def token_label(token: str, longest: int = 14) -> str:
    """A token for an axis: outer spaces dropped, line breaks made visible, long ones cut."""
    text = "".join(WHITESPACE.get(char, char) for char in token)
    text = text.strip(" ") or ("␣" if text else "∅")
    return text if len(text) <= longest else text[: longest - 1] + "…"
