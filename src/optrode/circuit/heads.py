"""Every head's OV and QK matrix as a product of thin factors, with the norms before it folded in, and its singular vectors.

Vectors are rows: a head that attends to x writes norm(x) W_V W_O, and its score of x against y is norm(x) W_Q W_Kᵀ norm(y)ᵀ.
A norm is x -> gain * (x - mean) / size + bias (layer norm) or gain * x / size (RMS norm); gain and centring are linear and
are folded into the weights, the size is left out (Elhage et al., "A mathematical framework for transformer circuits", 2021).
Rotary position embeddings and norms of q and k come between the two factors of QK, and are left out too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.wiring import Wiring
from optrode.errors import BadOption, SiteUnavailable

Kind = Literal["ov", "qk"]
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


def factors_of(wiring: Wiring, layer: int, kind: Kind, *, fold_norm: bool = True, fold_write: bool = True) -> Factors:
    """The OV or QK matrices of a layer's query heads, in at least float32.

    Args:
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
    read = folding(wiring.input_norm(layer), wiring) if fold_norm else _wide
    if kind == "qk":
        q, k = (read(_by_query_head(wiring, layer, part)) for part in "qk")
        return Factors(q, k.transpose(-1, -2))
    write = folding(wiring.write_norm(layer, "attn"), wiring) if fold_norm and fold_write else _wide
    right = write(wiring.output_weights(layer).transpose(-1, -2)).transpose(-1, -2)
    return Factors(read(_by_query_head(wiring, layer, "v")), right)


def singular(factors: Factors) -> Singular:
    """The singular value decomposition, by that of a d_head x d_head matrix between orthonormal bases of the factors."""
    q_left, r_left = torch.linalg.qr(factors.left)
    q_right, r_right = torch.linalg.qr(factors.right.transpose(-1, -2))
    u, s, vh = torch.linalg.svd(r_left @ r_right.transpose(-1, -2))
    return Singular(s, (q_left @ u).transpose(-1, -2), vh @ q_right.transpose(-1, -2))


def folding(norm: Callable[[Tensor], Tensor], wiring: Wiring) -> Callable[[Tensor], Tensor]:
    """The linear part of a norm, applied to weights [..., d_model, d_head] that read its output.

    Gain and centring are found by trying the norm out; the gain is then taken exactly, from its `weight`.

    Raises:
        SiteUnavailable: it is not a layer norm or an RMS norm, plain or with 1 + weight as its gain.
    """
    gain, is_centred = _tried(norm, wiring)
    if gain is None:
        return _wide
    own = getattr(norm, "__self__", None)
    weight = getattr(own, "weight", None)
    known = [weight, 1 + weight] if isinstance(weight, Tensor) and weight.shape == gain.shape else []
    tolerance = _CLOSE + 8 * torch.finfo(gain.dtype).eps
    known.append(torch.ones_like(gain))
    near = [one for one in known if bool(((one - gain).abs() <= tolerance * (1 + gain.abs())).all())]
    if not near:
        raise SiteUnavailable(
            f"gain of a {type(own).__name__} of {wiring.model.name}", "it acts neither as a layer norm nor as an RMS norm",
            next_step="set fold_norm=False",
        )  # fmt: skip
    scale = _wide(near[0])[:, None]

    def fold(weights: Tensor) -> Tensor:
        scaled = _wide(weights) * scale
        return scaled - scaled.mean(-2, keepdim=True) if is_centred else scaled

    return fold


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


def _wide(weights: Tensor) -> Tensor:
    """In float32, unless they are in float64; without gradient."""
    weights = weights.detach()
    return weights if weights.dtype == torch.float64 else weights.float()
