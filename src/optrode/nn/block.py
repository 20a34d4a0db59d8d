"""A block of the transformer: attention and MLP, each of which reads the normed residual stream and adds to it."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from optrode.nn.spec import Spec


@final
class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_head)) v, with separate projections; each K/V head serves a group of query heads.

    The spec can leave out the scale and the output projection.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        wide, narrow = spec.n_heads * spec.head_width, spec.n_kv * spec.head_width
        self.q = nn.Linear(spec.d_model, wide, bias=spec.has_bias)
        self.k = nn.Linear(spec.d_model, narrow, bias=spec.has_bias)
        self.v = nn.Linear(spec.d_model, narrow, bias=spec.has_bias)
        self.scores, self.pattern = nn.Identity(), nn.Identity()
        self.o = nn.Linear(wide, spec.d_model, bias=spec.has_bias) if spec.has_output else SideBySide(wide)
        self.scale = spec.head_width**-0.5 if spec.is_scaled else 1.0

    def forward(
        self, hidden: Float[Tensor, "batch pos d_model"], closed: Bool[Tensor, "#batch 1 pos src"],
        turn: Float[Tensor, "2 #batch pos half"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:  # fmt: skip
        """What attention adds to the residual stream.

        Args:
            closed: true where a position may not look. No gate at the scores can open it.
            turn: cosine and sine of each position's angles, for rotary positions.
        """
        q, k, v = (project(hidden).unflatten(-1, (-1, self.spec.head_width)) for project in (self.q, self.k, self.v))
        if turn is not None:
            q, k = _turned(q, turn), _turned(k, turn)
        group = self.spec.n_heads // self.spec.n_kv
        k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
        scores = torch.einsum("bphd,bshd->bhps", q, k) * self.scale
        scores = self.scores(scores.masked_fill(closed, -torch.inf))
        pattern = self.pattern(scores.masked_fill(closed, torch.finfo(scores.dtype).min).softmax(-1))
        added: Tensor = self.o(torch.einsum("bhps,bshd->bphd", pattern, v).flatten(2))
        return added


@final
class SideBySide(nn.Module):
    """In place of an output projection: heads' values side by side are what attention adds.

    Attributes:
        weight: the identity, for those who ask what each head writes; not used, not saved and not trained.
    """

    weight: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(width), persistent=False)

    def forward(self, values: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The same values."""
        return values


@final
class Mlp(nn.Module):
    """down(activation(up(x)))."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.up = nn.Linear(spec.d_model, spec.d_mlp, bias=spec.has_bias)
        self.activation = nn.ReLU() if spec.activation == "relu" else nn.GELU()
        self.down = nn.Linear(spec.d_mlp, spec.d_model, bias=spec.has_bias)

    def forward(self, hidden: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP adds to the residual stream."""
        added: Tensor = self.down(self.activation(self.up(hidden)))
        return added


@final
class Block(nn.Module):
    """Attention and, unless the spec leaves it out, an MLP; each reads the normed residual stream and adds to it."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.is_parallel = spec.is_parallel
        self.ln1, self.attn = norm_of(spec), Attention(spec)
        self.ln2 = norm_of(spec) if spec.d_mlp else None
        self.mlp = Mlp(spec) if spec.d_mlp else None

    def forward(
        self, stream: Float[Tensor, "batch pos d_model"], *, closed: Bool[Tensor, "#batch 1 pos src"],
        turn: Float[Tensor, "2 #batch pos half"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:  # fmt: skip
        """The residual stream after the block; see `Attention` for the arguments."""
        middle: Tensor = stream + self.attn(self.ln1(stream), closed, turn)
        if self.ln2 is None or self.mlp is None:
            return middle
        after: Tensor = middle + self.mlp(self.ln2(stream if self.is_parallel else middle))
        return after


def norm_of(spec: Spec) -> nn.Module:
    """The norm before each half of a block and before the unembedding; the identity where the spec has none."""
    if spec.norm == "none":
        return nn.Identity()
    if spec.norm == "rms":
        return nn.RMSNorm(spec.d_model, eps=spec.eps)
    return nn.LayerNorm(spec.d_model, eps=spec.eps, bias=spec.has_bias if spec.norm_bias is None else spec.norm_bias)


def _turned(
    by_head: Float[Tensor, "batch pos head d_head"], turn: Float[Tensor, "2 #batch pos half"]
) -> Float[Tensor, "batch pos head d_head"]:
    """Rotary positions: dimensions i and i + d_head/2 turned as a pair."""
    (cos, sin), (one, two) = turn[:, :, :, None], by_head.chunk(2, -1)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)
