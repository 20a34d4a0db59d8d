"""Maps of low rank, learned by gradient through the frozen model from whatever loss is asked for.

LoReFT (Wu et al., arXiv 2404.03592): h -> h + R^T (W h + b - R h) at each site, R of orthonormal rows. R starts as a drawn
basis, W = R and b = 0, so that the first step starts from the plain model; R is kept orthonormal by a QR decomposition of
the matrix that is learned.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.control.reading import check_precision, chosen_sites, frozen
from optrode.errors import BadOption, LossNotFinite
from optrode.gate.gate import Gate
from optrode.gate.kinds import gate_of
from optrode.gate.maps import LowRank, low_rank
from optrode.gate.place import gates
from optrode.model.model import Batch, Model
from optrode.model.names import SiteName
from optrode.site.recording import Patterns
from optrode.site.site import Moment, Site
from optrode.site.tap import tapped
from optrode.trial.run import Progress, no_progress

Loss = Callable[[Model], Tensor]
"""Model, with the maps held -> what is to be made small, a scalar with a gradient."""


@final
@dataclass(frozen=True, eq=False)
class LowRankMap:
    """h -> h + R^T (W h + b - R h) at one site.

    Attributes:
        rotation: R [rank, feature], of orthonormal rows.
        weight: W [rank, feature].
        bias: b [rank].
    """

    site: SiteName
    rotation: Float[Tensor, "rank feature"]
    weight: Float[Tensor, "rank feature"]
    bias: Float[Tensor, " rank"]

    def gate(self, strength: float | int = 1.0, **options: Any) -> Gate:
        """The map as a gate."""
        return low_rank(self.site, self.rotation, self.weight, self.bias, strength=float(strength), **options)


@final
@dataclass(frozen=True, eq=False)
class LowRankMaps:
    """Maps of low rank at several sites, learned together.

    Attributes:
        maps: in the order in which their sites were given.
        losses: at each step, and after the last.
    """

    maps: tuple[LowRankMap, ...]
    losses: tuple[float, ...]

    def __repr__(self) -> str:
        rank = len(self.maps[0].bias)
        return f"LowRankMaps({len(self.maps)} sites, rank {rank}, loss {self.losses[0]:.3g} -> {self.losses[-1]:.3g})"

    def gates(self, strength: float | int = 1.0, **options: Any) -> tuple[Gate, ...]:
        """One gate per site; `strength` goes from 0, nothing, to 1, the whole map."""
        return tuple(one.gate(strength, **options) for one in self.maps)


def learn_low_rank(
    model: Model, loss: Loss, sites: Patterns, *, rank: int = 4, n_steps: int = 100, lr: float = 0.01,
    weight_decay: float = 0.0, random_seed: int = 0, progress: Progress = no_progress, **options: Any,
) -> LowRankMaps:  # fmt: skip
    """Maps of low rank at all sites, learned together by Adam; the module is left as it was.

    Args:
        loss: of the model while the maps are held, such as `continuation_loss(prompts, continuations)`.
        sites: names or patterns of whole sites; where there are heads, they share a map.
        rank: number of directions at each site.
        lr: learning rate at first; it falls linearly to 0.
        weight_decay: of W - R and b, which takes maps back to the identity.
        options: of every gate, also while learning: scope, when, openness.

    Raises:
        BadOption: a rank, rate or number out of range, sites that have no such map, or a loss without a gradient.
        LossNotFinite: the loss became NaN or infinite.
    """
    check_precision(model, "maps")
    chosen = chosen_sites(model, sites)
    if n_steps < 1 or not (math.isfinite(lr) and lr > 0):
        raise BadOption(f"n_steps={n_steps}, lr={lr}", "learning takes steps of some size", next_step="try 100 and 0.01")
    generator = torch.Generator().manual_seed(random_seed)
    losses = []
    with frozen(model), torch.enable_grad():
        widths = _widths(model, loss, chosen, rank)
        learners = [_Learner(site.name, width, rank, model, generator) for site, width in zip(chosen, widths, strict=True)]
        parts = [part for one in learners for part in one.parts]
        optimizer = torch.optim.Adam(parts, lr=lr)
        for step in range(n_steps):
            progress("low-rank maps", step, n_steps)
            optimizer.param_groups[0]["lr"] = lr * (1 - step / n_steps)
            value = _held(model, loss, learners, options)
            losses.append(_checked(value, step))
            cost = torch.stack([one.size() for one in learners]).sum()
            for part, gradient in zip(parts, torch.autograd.grad(value + weight_decay * cost, parts), strict=True):
                part.grad = gradient
            optimizer.step()
        losses.append(_checked(_held(model, loss, learners, options), n_steps))
    progress("low-rank maps", n_steps, n_steps)
    return LowRankMaps(tuple(one.map() for one in learners), tuple(losses))


def continuation_loss(prompts: Sequence[str], continuations: Sequence[str]) -> Loss:
    """Mean cross-entropy of continuations given their prompts, nats per token: what LoReFT makes small.

    Raises:
        BadOption: there is none, or not one continuation for each prompt.
    """
    if not prompts or len(prompts) != len(continuations):
        found = f"there are {len(prompts)} prompts and {len(continuations)} continuations"
        raise BadOption("continuations to learn", found, next_step="give one continuation for each prompt")

    def loss(model: Model) -> Tensor:
        batch, starts = _joined(model, prompts, continuations)
        logits = model.module(**batch.arguments()).logits[:, :-1]
        wanted = batch.token_ids[:, 1:]
        place = torch.arange(1, batch.token_ids.shape[1], device=model.device)
        ends = torch.tensor(batch.lengths, device=model.device)
        is_asked = (place >= starts[:, None]) & (place < ends[:, None])
        return cross_entropy(logits[is_asked], wanted[is_asked])

    return loss


def _joined(model: Model, prompts: Sequence[str], continuations: Sequence[str]) -> tuple[Batch, Tensor]:
    """Both, one after another, as token ids, and where the continuations start."""
    firsts, seconds = model.batch(list(prompts)), model.batch(list(continuations))
    rows = [
        first[:n].tolist() + second[:m].tolist()
        for first, n, second, m in zip(firsts.token_ids, firsts.lengths, seconds.token_ids, seconds.lengths, strict=True)
    ]
    return model.batch(rows), torch.tensor(firsts.lengths, device=model.device)


def _held(model: Model, loss: Loss, learners: Sequence["_Learner"], options: dict[str, Any]) -> Tensor:
    with gates(model, *(one.gate(**options) for one in learners)):
        value = loss(model)
    if not isinstance(value, Tensor) or value.dim() or not value.requires_grad:
        found, step = "it is no scalar that depends on the maps", "compute it from what the model returns, with gradients"
        raise BadOption("the loss of low-rank maps", found, next_step=step)
    return value


def _checked(value: Tensor, step: int) -> float:
    number = float(value.detach())
    if not math.isfinite(number):
        raise LossNotFinite(f"low-rank maps at step {step}", f"the loss is {number}", next_step="lower lr")
    return number


def _widths(model: Model, loss: Loss, sites: Sequence[Site], rank: int) -> list[int]:
    """The length of each site's last axis, seen in one pass of the loss."""
    seen: dict[SiteName, int] = {}

    def noting(name: SiteName) -> Callable[[Tensor, Moment], None]:
        return lambda tensor, moment: seen.update({name: tensor.shape[-1]})

    with torch.no_grad(), tapped(model, [(site, noting(site.name)) for site in sites]):
        loss(model)
    for site in sites:
        if not 1 <= rank <= seen.get(site.name, 0):
            found = f"the site has {seen[site.name]} features" if site.name in seen else "the loss did not come by there"
            raise BadOption(f"rank={rank} at {site.name}", found, next_step="give a rank from 1 to the number of features")
    return [seen[site.name] for site in sites]


@final
class _Learner:
    """One site's map: A, whose orthonormal rows are R, D = W - R, and b."""

    def __init__(self, site: SiteName, width: int, rank: int, like: Model, generator: torch.Generator) -> None:
        drawn = torch.randn(rank, width, generator=generator, dtype=like.dtype).to(like.device)
        self.site = site
        self.basis = _orthonormal(drawn).requires_grad_()
        self.change = torch.zeros_like(drawn).requires_grad_()
        self.bias = torch.zeros(rank, dtype=like.dtype, device=like.device).requires_grad_()
        self.parts = [self.basis, self.change, self.bias]

    def gate(self, **options: Any) -> Gate:
        """The map as it is now: R^T (D h + b)."""
        return gate_of(self.site, LowRank(_orthonormal(self.basis), self.change, self.bias), **options)

    def size(self) -> Tensor:
        """How far it is from the identity, squared."""
        return self.change.square().sum() + self.bias.square().sum()

    def map(self) -> LowRankMap:
        """What was learned."""
        with torch.no_grad():
            rotation = _orthonormal(self.basis)
            return LowRankMap(self.site, rotation, rotation + self.change, self.bias.detach().clone())


def _orthonormal(rows: Float[Tensor, "rank feature"]) -> Float[Tensor, "rank feature"]:
    """An orthonormal basis of the rows' span; continuous in them, as signs are fixed."""
    basis, scale = torch.linalg.qr(rows.T)
    found: Tensor = (basis * scale.diagonal().sign()).T
    return found
