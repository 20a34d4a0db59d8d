"""A small trainer of sparse autoencoders on recorded states.

The loss is the squared error of a state, divided by the data's variance, plus l1 times the mean of the latents' activations
(relu, Bricken et al. 2023, decoder rows kept at unit norm), or plus a small share of the error of the topk autoencoder's
remainder as told by its dead latents (topk, Gao et al., arXiv 2406.04093), which brings these back.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from optrode.control.sae import SAE
from optrode.errors import BadOption, LossNotFinite, nearest

Progress = Callable[[str, int, int], None]
KINDS: Final = ("topk", "relu")
_AUX: Final = 1 / 32
"""Weight of what dead latents tell, as in Gao et al."""


@final
@dataclass(frozen=True)
class Recipe:
    """How an autoencoder is trained.

    Attributes:
        kind: "topk" with `k` active latents, or "relu" with the penalty `l1`.
        n_steps, batch_size, lr: of Adam; a batch is so many tokens.
        dead_after: steps without being active after which a latent of "topk" is taught what the others leave over.
        random_seed: of the first weights and the batches.

    Raises:
        BadOption: no such kind, or a number out of range.
    """

    kind: Literal["topk", "relu"] = "topk"
    k: int = 8
    l1: float = 0.03
    n_steps: int = 2000
    batch_size: int = 256
    lr: float = 1e-3
    dead_after: int = 200
    random_seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            close = nearest(self.kind, KINDS) or KINDS
            raise BadOption(f"kind {self.kind!r} of an autoencoder", "no such kind", nearest=close)
        counts = ("k", "n_steps", "batch_size", "dead_after")
        bad = [name for name in counts if getattr(self, name) < 1]
        bad += [] if 0 < self.lr < math.inf else ["lr"]
        bad += [] if 0 <= self.l1 < math.inf else ["l1"]
        if bad:
            found = f"{bad[0]}={getattr(self, bad[0])} is out of range"
            raise BadOption("training an autoencoder", found, next_step="give a positive number")


@final
@dataclass(frozen=True, eq=False)
class TrainedSAE:
    """An autoencoder with what is known of its training.

    Attributes:
        sae: in the type of the states, for states in their own unit.
        losses: of every step, in units of the data's variance.
        explained: share of the states' variance that it explains.
        n_active: mean number of active latents of a state (L0).
        dead: latents that are active for none of the states.
        recipe: how it was trained.
    """

    sae: SAE
    losses: tuple[float, ...]
    explained: float
    n_active: float
    dead: tuple[int, ...]
    recipe: Recipe

    def __str__(self) -> str:
        dead = f"{len(self.dead)} of {self.sae.n_latents} latents dead"
        return f"{self.sae!r}: {self.explained:.2f} of the variance by {self.n_active:.1f} latents, {dead}"


def train_sae(
    states: Float[Tensor, "token feature"], n_latents: int, site: str, recipe: Recipe | None = None, *,
    progress: Progress = lambda name, done, of: None,
) -> TrainedSAE:  # fmt: skip
    """Train an autoencoder on states of tokens, as `token_states` gives them. The same seed gives the same bits.

    Args:
        states: without position 0, which would be all that is explained where it is a sink; in float32 it is faster.
        n_latents: directions to look for.
        site: that the states are of.
        progress: called with the site, the steps done and their number.

    Raises:
        BadOption: fewer latents than may be active at once, or states that are not finite or do not differ.
        LossNotFinite: the loss is NaN or infinite.
    """
    recipe = recipe or Recipe()
    _check(states, n_latents, recipe)
    learner = _Learner(states, n_latents, recipe)
    for step in range(recipe.n_steps):
        learner.step()
        progress(site, step + 1, recipe.n_steps)
    return _judged(learner.autoencoder(site), states, learner.losses, recipe)


@torch.no_grad()
def _judged(sae: SAE, states: Float[Tensor, "token feature"], losses: list[float], recipe: Recipe) -> TrainedSAE:
    latents = sae.encode(states)
    error = (sae.decode(latents) - states).square().sum()
    spread = (states - states.mean(0)).square().sum()
    is_active = latents > 0
    dead = tuple((~is_active.any(0)).nonzero()[:, 0].tolist())
    n_active = float(is_active.sum(1).double().mean())
    return TrainedSAE(sae, tuple(losses), 1 - float(error / spread), n_active, dead, recipe)


def _check(states: Float[Tensor, "token feature"], n_latents: int, recipe: Recipe) -> None:
    asked = "training an autoencoder"
    least = recipe.k if recipe.kind == "topk" else 1
    if n_latents < least:
        raise BadOption(asked, f"n_latents={n_latents}", next_step=f"give at least {least}")
    if not bool(torch.isfinite(states).all()):
        raise BadOption(asked, "the states hold NaN or infinity", next_step="record them again")
    if len(states) < 2 or float((states - states.mean(0)).square().sum()) == 0:
        raise BadOption(asked, f"its {len(states)} states do not differ", next_step="give states of more tokens")


@final
class _Learner:
    """Weights under training, for states that are centred and divided by the root of their mean variance."""

    def __init__(self, states: Tensor, n_latents: int, recipe: Recipe) -> None:
        self.recipe, self.losses = recipe, list[float]()
        self.generator = torch.Generator().manual_seed(recipe.random_seed)
        self.centre = states.mean(0)
        self.scale = float((states - self.centre).square().mean().sqrt())
        self.inputs = (states - self.centre) / self.scale
        drawn = torch.randn(n_latents, states.shape[1], generator=self.generator).to(states)
        decoder = nn.functional.normalize(drawn, dim=-1)
        first = (decoder.T.clone(), decoder.new_zeros(n_latents), decoder, self.centre.new_zeros(states.shape[1]))
        self.weights = [nn.Parameter(tensor) for tensor in first]
        self.optimizer = torch.optim.Adam(self.weights, lr=recipe.lr)
        self.idle = torch.zeros(n_latents, dtype=torch.long, device=states.device)

    def step(self) -> None:
        """One step of Adam; decoder rows are then brought back to unit norm."""
        chosen = torch.randint(len(self.inputs), (self.recipe.batch_size,), generator=self.generator)
        x = self.inputs[chosen.to(self.inputs.device)]
        with torch.enable_grad():
            sae = self._sae()
            latents = sae.encode(x)
            error = x - sae.decode(latents)
            loss = error.square().mean()
            total = loss + self._extra(sae, x, latents, error.detach(), self.idle >= self.recipe.dead_after)
            self.optimizer.zero_grad()
            total.backward()
        if not math.isfinite(float(total.detach())):
            found = f"the loss is {float(total.detach())} at step {len(self.losses)}"
            raise LossNotFinite("training an autoencoder", found, next_step="lower the learning rate")
        self.optimizer.step()
        with torch.no_grad():
            self.weights[2].copy_(nn.functional.normalize(self.weights[2], dim=-1))
        self.losses.append(float(loss.detach()))
        self.idle = torch.where((latents.detach() > 0).any(0), 0, self.idle + 1)

    def _extra(self, sae: SAE, x: Tensor, latents: Tensor, error: Tensor, is_dead: Bool[Tensor, " latent"]) -> Tensor:
        """The penalty of relu, or the loss of topk's dead latents on the remainder."""
        if self.recipe.kind == "relu":
            return self.recipe.l1 * latents.sum(-1).mean()
        n_dead = int(is_dead.sum())
        if n_dead == 0:
            return x.new_zeros(())
        pre = torch.where(is_dead, sae.pre_activations(x), -torch.inf)
        best = pre.topk(min(n_dead, max(self.recipe.k, x.shape[-1] // 2)), dim=-1)
        told = torch.zeros_like(pre).scatter(-1, best.indices, best.values) @ sae.W_dec  # no relu: it would block them
        return _AUX * (error - told).square().mean()

    def _sae(self) -> SAE:
        return self._made("embed", *self.weights)

    def _made(self, site: str, w_enc: Tensor, b_enc: Tensor, w_dec: Tensor, b_dec: Tensor) -> SAE:
        if self.recipe.kind == "relu":
            return SAE(site, w_enc, b_enc, w_dec, b_dec)
        return SAE(site, w_enc, b_enc, w_dec, b_dec, "topk", k=self.recipe.k)

    def autoencoder(self, site: str) -> SAE:
        """The autoencoder for states in their own unit: activations are in that unit too."""
        w_enc, b_enc, w_dec, b_dec = (tensor.detach().clone() for tensor in self.weights)
        return self._made(site, w_enc, b_enc * self.scale, w_dec, b_dec * self.scale + self.centre)
