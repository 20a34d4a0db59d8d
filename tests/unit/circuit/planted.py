"""A hand-set model whose heads are known: two carry a position together, one fetches the token that stands there.

Prompts are `N_SLOTS` content tokens, one pointer token (its id says which slot), and the query token. Heads 0.1 and 0.3
copy half of the pointer's address each from the pointer to the last position; head 1.2 asks with their sum for the slot and
copies its token to the logits. All other heads write noise where nobody reads it.
"""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from optrode.model.adapter import PATTERN, Place, Table, heads
from optrode.model.model import Model
from optrode.trial.prompts import Pair, Task

N_SLOTS, N_CONTENT, N_HEADS, D_HEAD, N_JUNK = 5, 7, 4, 8, 9
QUERY = N_CONTENT + N_SLOTS
LENGTH = N_SLOTS + 2
POSITIONAL = ("blocks.0.attn.z[head=1]", "blocks.0.attn.z[head=3]")
FETCH = "blocks.1.attn.z[head=2]"

# The residual stream: token one-hot, slot one-hot, "is last", "is pointer", address, answer, noise that nobody reads.
_WIDTHS = {"token": N_CONTENT, "slot": N_SLOTS, "last": 1, "pointer": 1, "points": N_SLOTS, "address": N_SLOTS,
           "answer": N_CONTENT, "noise": N_JUNK}  # fmt: skip
_ENDS = torch.tensor([0, *_WIDTHS.values()]).cumsum(0).tolist()
PART = {name: slice(start, stop) for name, start, stop in zip(_WIDTHS, _ENDS, _ENDS[1:], strict=False)}
WIDTH = _ENDS[-1]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("q", "k", "v"):
            setattr(self, name, nn.Linear(WIDTH, N_HEADS * D_HEAD, bias=False))
        self.o = nn.Linear(N_HEADS * D_HEAD, WIDTH, bias=False)
        self.soft = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (N_HEADS, D_HEAD)).transpose(1, 2) for part in (self.q, self.k, self.v))
        n = x.shape[1]
        seen = torch.ones(n, n, dtype=torch.bool).tril()
        pattern = self.soft((q @ k.transpose(-1, -2)).masked_fill(~seen, float("-inf")))
        return self.o((pattern @ v).transpose(1, 2).flatten(-2))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x)


class Planted(nn.Module):
    """Token ids -> logits over the content tokens and, at 0, all others."""

    def __init__(self, random_seed: int = 0) -> None:
        super().__init__()
        self.embed, self.pos = nn.Embedding(QUERY + 1, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(WIDTH, QUERY + 1, bias=False)
        torch.manual_seed(random_seed)
        with torch.no_grad():
            self._plant()

    def _plant(self) -> None:
        for parameter in self.parameters():
            parameter.zero_()
        eye = torch.eye(WIDTH)
        self.embed.weight[:N_CONTENT] = eye[PART["token"]]
        self.embed.weight[N_CONTENT:QUERY] = eye[PART["points"]] + eye[PART["pointer"]]
        self.pos.weight[:N_SLOTS] = eye[PART["slot"]]
        self.pos.weight[-1] = eye[PART["last"]]
        for layer, block in enumerate(self.blocks):
            for head in range(N_HEADS):
                self._noise(block.attn, head) if (layer, head) not in ((0, 1), (0, 3), (1, 2)) else None
        for head in (1, 3):
            self._wire(self.blocks[0].attn, head, ("last", "pointer", 8.0), ("points", "address", 0.5))
        self._wire(self.blocks[1].attn, 2, ("address", "slot", 5.0), ("token", "answer", 1.0))
        self.head.weight[:N_CONTENT] = 10 * eye[PART["answer"]]

    def _wire(self, attn: Attention, head: int, looks: tuple, copies: tuple) -> None:
        """A head that looks from one part to another, and copies one part of what it finds into another."""
        rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
        eye = torch.eye(WIDTH)
        for part, projection, gain in ((looks[0], attn.q, looks[2]), (looks[1], attn.k, 1.0), (copies[0], attn.v, 1.0)):
            n = _WIDTHS[part]
            projection.weight[rows][:n] = gain * eye[PART[part]]
        n = _WIDTHS[copies[1]]
        attn.o.weight[:, rows][:, :n] = copies[2] * eye[PART[copies[1]]].T

    def _noise(self, attn: Attention, head: int) -> None:
        rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
        for projection in (attn.q, attn.k, attn.v):
            projection.weight[rows] = torch.randn(D_HEAD, WIDTH)
        attn.o.weight[PART["noise"], rows] = torch.randn(N_JUNK, D_HEAD)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        x = self.embed(input_ids) + self.pos(torch.arange(input_ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return SimpleNamespace(logits=self.head(x))


def planted_model(random_seed: int = 0) -> Model:
    """The planted model, in float64, with a table of its sites."""
    attn = "blocks.{L}.attn"
    by_head = heads(N_HEADS)
    places = {
        "embed": Place("embed"), "resid_pre": Place("blocks.{L}", "in"), "attn_in": Place(attn, "in"),
        "attn.q": Place(f"{attn}.q", view=by_head), "attn.k": Place(f"{attn}.k", view=by_head),
        "attn.v": Place(f"{attn}.v", view=by_head), "attn.z": Place(f"{attn}.o", "in", by_head),
        "attn.pattern": Place(f"{attn}.soft", view=PATTERN),
        "attn.result": Place(f"{attn}.o", "in", by_head, how="result"), "attn_out": Place(attn),
        "resid_post": Place("blocks.{L}"), "logits": Place("", how="logits"),
    }  # fmt: skip
    table = Table("planted", 2, WIDTH, N_HEADS, N_HEADS, D_HEAD, True, False, places)
    return Model(Planted(random_seed).double().eval(), table, name="planted")


def prompts(n: int, expected: str, random_seed: int = 0) -> Task:
    """Base and source prompts that differ in tokens and pointer.

    Args:
        expected: after the patch: the base's token at the source's slot ("position"), or what the source says ("token").
    """
    rng = torch.Generator().manual_seed(random_seed)
    pairs = []
    while len(pairs) < n:
        base, source = torch.randperm(N_CONTENT, generator=rng)[:N_SLOTS], torch.randperm(N_CONTENT, generator=rng)[:N_SLOTS]
        at, other = torch.randperm(N_SLOTS, generator=rng)[:2].tolist()
        answers = {"base": int(base[at]), "position": int(base[other]), "token": int(source[other])}
        if len(set(answers.values())) == 3:
            right = answers[expected]
            clean, corrupt = ((*row.tolist(), N_CONTENT + slot, QUERY) for row, slot in ((base, at), (source, other)))
            wrong = tuple(token for token in range(N_CONTENT) if token != right)
            pairs.append(Pair(clean, corrupt, (right,), wrong, marks={"end": LENGTH - 1, "pointer": N_SLOTS, "slot": at}))
    return Task(expected, "", "logit_gap", tuple(pairs), random_seed)
