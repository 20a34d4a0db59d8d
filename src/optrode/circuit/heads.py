"""Every head's OV and QK matrix as a product of thin factors, with the norms before it folded in, and its singular vectors.

Vectors are rows: a head that attends to x writes norm(x) W_V W_O, and its score of x against y is norm(x) W_Q W_Kᵀ norm(y)ᵀ.
A norm is x -> gain * (x - mean) / size + bias (layer norm) or gain * x / size (RMS norm); gain and centring are linear and
are folded into the weights, the size is left out (Elhage et al., "A mathematical framework for transformer circuits", 2021).
Rotary position embeddings and norms of q and k come between the two factors of QK, and are left out too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.wiring import Wiring
from optrode.errors import BadOption, SiteUnavailable

KINDS: Final = ("ov", "qk")

_LARGE: Final = 1e3
_CLOSE: Final = 1e-3


@dataclass(frozen=True, eq=False)
class Factors:
    """Matrices `left @ right` of some heads.

    Attributes:
        left: [head, d_model, d_head], what reads.
        right: [head, d_head, d_model], what writes (OV), or what reads the other side (QK).
    """

    left: Float[Tensor, "head d_model d_head"]
    right: Float[Tensor, "head d_head d_model"]


@dataclass(frozen=True, eq=False)
class Singular:
    """Singular values and vectors of some heads' matrices, W = sum over i of s_i u_iᵀ v_i for rows u_i and v_i.

    Attributes:
        s: [head, rank], descending.
        u: [head, rank, d_model] input directions.
        v: [head, rank, d_model] output directions.
    """

    s: Float[Tensor, "head rank"]
    u: Float[Tensor, "head rank d_model"]
    v: Float[Tensor, "head rank d_model"]


def factors_of(wiring: Wiring, layer: int, kind: str, *, fold_norm: bool = True, fold_write: bool = True) -> Factors:
    """The OV or QK matrices of a layer's query heads, in at least float32.

    Args:
        kind: "ov" or "qk".
        fold_norm: fold in the norm before the projections.
        fold_write: with `fold_norm`, also fold in the norm of the attention's output, where there is one (Gemma, OLMo 2).

    Raises:
        BadOption: norms that cannot be folded.
        SiteUnavailable: weights that cannot be taken apart by head.
    """
    if fold_norm and wiring.model.table.is_post_norm:
        raise BadOption(
            f"fold_norm for {wiring.model.name}", "its norms stand in the residual stream, not before its readers",
            next_step="set fold_norm=False",
        )  # fmt: skip
    read = linear_part(wiring.input_norm(layer), wiring).fold if fold_norm else wide
    if kind == "qk":
        q, k = (read(_by_query_head(wiring, layer, part)) for part in "qk")
        return Factors(q, k.transpose(-1, -2))
    right = wide(wiring.output_weights(layer))
    if fold_norm and fold_write:
        right = linear_part(wiring.write_norm(layer, "attn"), wiring).through(right)
    return Factors(read(_by_query_head(wiring, layer, "v")), wide(right))


def singular(factors: Factors) -> Singular:
    """The singular value decomposition, by that of a d_head x d_head matrix between orthonormal bases of the factors."""
    q_left, r_left = torch.linalg.qr(factors.left)
    q_right, r_right = torch.linalg.qr(factors.right.transpose(-1, -2))
    u, s, vh = torch.linalg.svd(r_left @ r_right.transpose(-1, -2))
    return Singular(s, (q_left @ u).transpose(-1, -2), vh @ q_right.transpose(-1, -2))


@dataclass(frozen=True, eq=False)
class LinearPart:
    """What is linear in a norm: x -> gain * x, or gain * (x - mean). Without a gain, nothing.

    Attributes:
        gain: [d_model], or None where there is no norm.
        is_centred: whether the mean is taken off.
    """

    gain: Float[Tensor, " d_model"] | None
    is_centred: bool

    def fold(self, weights: Float[Tensor, "head d_model d_head"]) -> Float[Tensor, "head d_model d_head"]:
        """Weights that read what the norm gives, as weights that read what it is given."""
        if self.gain is None:
            return wide(weights)
        scaled = wide(weights) * wide(self.gain)[:, None]
        return scaled - scaled.mean(-2, keepdim=True) if self.is_centred else scaled

    def through(self, vectors: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Vectors that pass through the norm, but for its size."""
        if self.gain is None:
            return vectors
        return self.gain * (vectors - vectors.mean(-1, keepdim=True) if self.is_centred else vectors)


def linear_part(norm: Callable[[Tensor], Tensor], wiring: Wiring) -> LinearPart:
    """The gain of a norm and whether it centres, found by trying it out; the gain is then taken exactly, from its `weight`.

    Raises:
        SiteUnavailable: it is not a layer norm or an RMS norm, plain or with 1 + weight as its gain.
    """
    gain, is_centred = _tried(norm, wiring)
    if gain is None:
        return LinearPart(None, False)
    own = getattr(norm, "__self__", None)
    weight = getattr(own, "weight", None)
    known = [weight.detach(), 1 + weight.detach()] if isinstance(weight, Tensor) and weight.shape == gain.shape else []
    known.append(torch.ones_like(gain))
    tolerance = _CLOSE + 8 * torch.finfo(gain.dtype).eps
    near = [one for one in known if bool(((one - gain).abs() <= tolerance * (1 + gain.abs())).all())]
    if not near:
        raise SiteUnavailable(
            f"gain of a {type(own).__name__} of {wiring.model.name}", "it acts neither as a layer norm nor as an RMS norm",
            next_step="leave norms out: fold_norm=False",
        )  # fmt: skip
    return LinearPart(near[0], is_centred)


@torch.no_grad()
def _tried(norm: Callable[[Tensor], Tensor], wiring: Wiring) -> tuple[Float[Tensor, " d_model"] | None, bool]:
    """The gain of a norm (None where there is no norm) and whether it takes the mean off, from what it does to vectors."""
    model = wiring.model
    even = torch.full((1, 1, model.table.d_model), _LARGE, dtype=model.dtype, device=model.device)
    if norm(even) is even:
        return None, False
    zero = norm(torch.zeros_like(even))
    is_centred = bool((norm(even) - zero).abs().max() < _CLOSE)
    at = even.clone()
    at[..., ::2] *= -1
    standard = at - at.mean() if is_centred else at
    gain = (norm(at) - zero) / (standard / standard.square().mean().sqrt())
    return gain[0, 0].detach(), is_centred


def _by_query_head(wiring: Wiring, layer: int, part: str) -> Float[Tensor, "head d_model d_head"]:
    """Weights of a projection, a group's once for each of its query heads."""
    weight, _ = wiring.input_weights(layer, part)
    return weight.repeat_interleave(wiring.model.table.n_heads // weight.shape[0], 0)


def wide(weights: Tensor) -> Tensor:
    """In float32, unless they are in float64; without gradient."""
    weights = weights.detach()
    return weights if weights.dtype == torch.float64 else weights.float()
