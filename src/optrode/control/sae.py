"""Sparse autoencoders: a site's states as sums of few directions out of many, and files in SAELens's format.

With x = h - b_dec (or h, if the bias is not subtracted from the input):

    a = act(x W_enc + b_enc),        h ≈ a W_dec + b_dec,

where act is relu, jumprelu (a latent is its pre-activation where that is above its own threshold, else 0), or topk (the k
largest of each state, those of them that are positive). Bricken et al. 2023; Rajamanoharan et al., arXiv 2407.14435; Gao et
al., arXiv 2406.04093.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.control.contrast import Contrast, Sample
from optrode.control.direction import Direction
from optrode.control.probing import chance_level, separation
from optrode.control.states import Read, read_states, typical_norm
from optrode.errors import BadOption, GateNotFinite, nearest
from optrode.gate.conditions import Observed, probe
from optrode.model.model import Model
from optrode.model.names import parse

Activation = Literal["relu", "jumprelu", "topk"]
ACTIVATIONS: Final = ("relu", "jumprelu", "topk")


@final
@dataclass(frozen=True, eq=False)
class SAE:
    """A sparse autoencoder of one site.

    Attributes:
        site: its name.
        W_enc: [feature, latent].
        b_enc: [latent].
        W_dec: [latent, feature]; each row is the direction that a latent writes.
        b_dec: [feature].
        activation: "relu", "jumprelu" or "topk".
        threshold: [latent] of jumprelu, else None.
        k: latents that may be active at once, of topk, else None.
        centres_input: whether b_dec is subtracted from what is encoded.

    Raises:
        BadOption: shapes that do not fit, no such activation, or one without its threshold or k.
        GateNotFinite: a number is NaN or infinite.
    """

    site: str
    W_enc: Float[Tensor, "feature latent"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent feature"]
    b_dec: Float[Tensor, " feature"]
    activation: Activation = "relu"
    threshold: Float[Tensor, " latent"] | None = None
    k: int | None = None
    centres_input: bool = True

    def __post_init__(self) -> None:
        parse(self.site)
        if self.activation not in ACTIVATIONS:
            close = nearest(self.activation, ACTIVATIONS) or ACTIVATIONS
            raise BadOption(f"activation {self.activation!r} of an autoencoder", "no such one", nearest=close)
        self._check_shapes()
        if (self.activation == "jumprelu") != (self.threshold is not None):
            found = "jumprelu has a threshold for each latent, and the others have none"
            raise BadOption(f"a {self.activation} autoencoder", found, next_step="give the threshold with jumprelu alone")
        if (self.activation == "topk") != (self.k is not None) or self.k is not None and not 1 <= self.k <= self.n_latents:
            found = f"k is {self.k}, of {self.n_latents} latents"
            raise BadOption(f"a {self.activation} autoencoder", found, next_step="give topk, and it alone, a k >= 1")
        for name, tensor in self.tensors().items():
            if not bool(torch.isfinite(tensor).all()):
                found = f"{name} holds NaN or infinity"
                raise GateNotFinite(f"an autoencoder of {self.site}", found, next_step="load or train it again")

    def _check_shapes(self) -> None:
        fault = shape_fault(self.tensors())
        if fault:
            asked = f"an autoencoder of {self.site}"
            raise BadOption(asked, fault, next_step="give W_enc as [feature, latent], W_dec as [latent, feature]")

    def __repr__(self) -> str:
        few = f", k={self.k}" if self.k is not None else ""
        return f"SAE({self.site!r}, {self.activation}{few}, {self.n_latents} latents of {self.W_enc.shape[0]} features)"

    @property
    def n_latents(self) -> int:
        """How many directions there are."""
        return int(self.W_enc.shape[1])

    def tensors(self) -> dict[str, Tensor]:
        """Its numbers by name."""
        held = {name: getattr(self, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}
        return {name: tensor for name, tensor in held.items() if tensor is not None}

    def to(self, like: Tensor | Model) -> "SAE":
        """The same in the type and on the device of a tensor or model."""
        moved = {name: tensor.to(device=like.device, dtype=like.dtype) for name, tensor in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]

    def encode(self, h: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows latent"]:
        """What each latent says of states: 0 for nearly all. In the autoencoder's own type."""
        pre = self.pre_activations(h)
        if self.activation == "topk":
            best: Int[Tensor, ...] = pre.topk(int(self.k or 0), dim=-1).indices
            pre = torch.zeros_like(pre).scatter(-1, best, pre.gather(-1, best))
        if self.threshold is not None:
            pre = torch.where(pre > self.threshold, pre, 0.0)
        return pre.relu()

    def pre_activations(self, h: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows latent"]:
        """What the encoder gives before its activation."""
        x = h.to(self.W_enc)
        found: Tensor = (x - self.b_dec if self.centres_input else x) @ self.W_enc + self.b_enc
        return found

    def decode(self, latents: Float[Tensor, "*rows latent"]) -> Float[Tensor, "*rows feature"]:
        """The states that latents stand for."""
        found: Tensor = latents @ self.W_dec + self.b_dec
        return found

    def score(self, h: Float[Tensor, "*rows feature"], latent: int) -> Float[Tensor, "*rows"]:
        """What one latent says of states.

        Raises:
            BadOption: there is no such latent.
        """
        self._check_latent(latent)
        return self.encode(h)[..., latent]

    def direction(self, latent: int, model: Model, texts: Sequence[Sample]) -> Direction:
        """The direction that a latent writes, as a unit vector, with doses in the typical norm of some texts.

        Raises:
            BadOption: there is no such latent, or it writes nothing.
            As `read_states`.
        """
        self._check_latent(latent)
        row = self.W_dec[latent].double()
        if float(row.norm()) == 0:
            raise BadOption(f"latent {latent} of {self!r}", "it writes nothing", next_step="take another latent")
        vector = (row / row.norm()).to(device=model.device, dtype=model.dtype)
        return Direction(self.site, vector, typical_norm(model, texts, self.site), f"latent {latent}")

    def probe(self, latent: int, model: Model, *, above: float | int | None = None, **options: Any) -> Observed:
        """How open a gate is, by whether a latent is active: by its pre-activation, which needs no other latent.

        Args:
            above: the gate is open where the pre-activation is; by default 0, or the latent's own threshold. Of topk it
                must be given, as a latent is active there if it is larger than others.
            options: of `op.probe`: read, pool, source, hold.

        Raises:
            BadOption: there is no such latent, or no threshold for topk.
        """
        self._check_latent(latent)
        if self.activation == "topk" and above is None:
            found = "whether a latent of topk is active depends on all others"
            raise BadOption(f"a probe by latent {latent}", found, next_step="give the pre-activation from which it is open")
        row = self.W_enc[:, latent].double()
        bias = float(self.b_enc[latent]) - (float(self.b_dec.double() @ row) if self.centres_input else 0.0)
        own = 0.0 if self.threshold is None else max(0.0, float(self.threshold[latent]))
        weight = row.to(device=model.device, dtype=model.dtype)
        return probe(self.site, weight, bias, above=own if above is None else above, link="linear", **options)

    def _check_latent(self, latent: int) -> None:
        if not 0 <= latent < self.n_latents:
            raise BadOption(f"latent {latent}", f"there are latents 0 to {self.n_latents - 1}", next_step="give one of them")


def shape_fault(tensors: Mapping[str, Tensor]) -> str | None:
    """What of an autoencoder's tensors does not fit its encoder, in words; None if all do."""
    shape = tuple(tensors["W_enc"].shape)
    if len(shape) != 2:
        return f"W_enc has the shape {shape}, and should have two axes"
    wanted = {"b_enc": shape[1:], "W_dec": shape[::-1], "b_dec": shape[:1], "threshold": shape[1:]}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != wanted.get(name, shape):
            return f"{name} has the shape {tuple(tensor.shape)}, and W_enc {shape}"
    return None


@final
@dataclass(frozen=True)
class LatentScore:
    """How well one latent tells the sides of a contrast apart.

    Attributes:
        latent: its number.
        separation: area under the ROC curve of its activations on `held` texts that it was not chosen on; NaN without any.
        chance: what one latent of no information exceeds in one of twenty cases.
        gap: mean activation on positive minus negative texts, of those that it was chosen on.
    """

    latent: int
    separation: float
    chance: float
    gap: float


def rank_latents(
    model: Model, sae: SAE, contrast: Contrast, n: int = 10, *, read: Read = "mean", held_out: float = 0.25,
    random_seed: int = 0,
) -> tuple[LatentScore, ...]:  # fmt: skip
    """The latents that tell positive from negative texts best, chosen on part of the texts and judged on the others.

    Of thousands of latents some tell a few texts apart by chance: what counts is the separation of held-out texts.

    Args:
        n: how many; those that are never active on the texts are left out.
        read: "last" token, or "mean" of the activations over tokens.

    Raises:
        BadOption: n below 1, or a share out of range.
        BadPairs: too few texts.
    """
    if n < 1:
        raise BadOption(f"n={n}", "at least one latent is ranked", nearest=("n=10",))
    fitted, held = contrast.split(held_out, random_seed)
    parts = [_latents(model, sae, side, read) for part in (fitted, held) if part for side in (part.positive, part.negative)]
    gaps = parts[0].mean(0) - parts[1].mean(0)
    areas = separations(parts[0], parts[1])
    order = sorted(range(sae.n_latents), key=lambda ix: (-float(areas[ix]), -float(gaps[ix])))
    active = [ix for ix in order if bool((parts[0][:, ix] > 0).any()) and float(gaps[ix]) > 0][:n]
    judged = [separation(parts[2][:, ix], parts[3][:, ix]) if held else math.nan for ix in active]
    chance = chance_level(len(held.positive), len(held.negative)) if held else 1.0
    return tuple(LatentScore(ix, area, chance, float(gaps[ix])) for ix, area in zip(active, judged, strict=True))


def separations(
    positive: Float[Tensor, "positive latent"], negative: Float[Tensor, "negative latent"]
) -> Float[Tensor, " latent"]:
    """The separation by each latent alone."""
    above = [((row > negative).double() + (row == negative).double() / 2).mean(0) for row in positive]
    return torch.stack(above).mean(0)


def _latents(model: Model, sae: SAE, texts: Sequence[Sample], read: Read) -> Float[Tensor, "text latent"]:
    """Activations of each text, at its last token or as the mean over tokens."""
    return read_states(model, texts, sae.site, read=read, through=lambda h: sae.encode(h).cpu().double())[0].pooled
