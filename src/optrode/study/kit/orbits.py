"""Noise-driven recurrent networks: how they turn, how long they stay, and which units push them on.

The networks are ReLU networks without biases: h' = relu(W h + U x). They are homogeneous, F(c h) = c F(h) for c > 0, so that
by Euler's theorem a noise-free readout is exactly the sum over units of activity times its gradient: `pushes`.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optrode.model.model import Model
from optrode.nn.recurrent import Recurrent


@final
@dataclass(frozen=True, eq=False)
class Run:
    """A network under noise.

    Attributes:
        states: [run, time, unit].
        choice: [run, time] the symbol of the greatest logit.
        surety: [run, time] its probability.
    """

    states: Tensor
    choice: Tensor
    surety: Tensor

    @property
    def switch_rate(self) -> float:
        """Share of steps at which the choice is another than before."""
        return float((self.choice[:, 1:] != self.choice[:, :-1]).double().mean())

    def crossing_rate(self, surety: float = 0.8) -> float:
        """Crossings a step from one choice made with some surety to the next other one, however unsure between."""
        last, n = torch.full_like(self.choice[:, 0], -1), 0
        for choice, sure in zip(self.choice.unbind(1), (self.surety > surety).unbind(1), strict=True):
            n += int((sure & (last >= 0) & (choice != last)).sum())
            last = torch.where(sure, choice, last)
        return n / self.choice.numel()


def network(model: Model) -> Recurrent:
    """The module of a recurrent model."""
    assert isinstance(model.module, Recurrent)
    return model.module


def recurrent_weight(model: Model) -> Float[Tensor, "unit from_unit"]:
    """W of a network of one layer, without gradients."""
    found: Tensor = network(model).cells[0].get_parameter("recur.weight").detach()
    return found


@torch.no_grad()
def drive(model: Model, noise: Float[Tensor, "run time d_in"], start: Tensor | None = None, skip: int = 0) -> Run:
    """Run a network from states [run, unit], or from 0, without its first `skip` steps. Gates that are held act."""
    found = model(noise, None if start is None else start[:, None, None])
    logits = found.logits[:, skip:]
    surety, choice = logits.softmax(-1).max(-1)
    return Run(found.states[:, skip:, 0, 0], choice, surety)


@torch.no_grad()
def residency(
    model: Model, states: Float[Tensor, "state unit"], generator: torch.Generator, n_draws: int = 20, cap: int = 50
) -> Float[Tensor, " state"]:  # fmt: skip
    """Mean number of steps, under fresh noise, until the choice is another than at a state; `cap` where it stays."""
    module, found = network(model), []
    for part in states.split(250):
        now = module.readout(part).argmax(-1).repeat_interleave(n_draws)
        noise = torch.randn(len(now), cap, module.config.d_in, generator=generator)
        left = drive(model, noise, part.repeat_interleave(n_draws, 0)).choice != now[:, None]
        first = torch.where(left.any(1), left.int().argmax(1) + 1, cap)
        found.append(first.double().view(-1, n_draws).mean(1))
    return torch.cat(found)


@torch.no_grad()
def leaves_alone(model: Model, states: Float[Tensor, "state unit"], n_steps: int = 30) -> Bool[Tensor, " state"]:
    """Whether the choice changes within some steps without any noise."""
    noise = states.new_zeros(len(states), n_steps, network(model).config.d_in)
    now = network(model).readout(states).argmax(-1)
    found: Tensor = (drive(model, noise, states).choice != now[:, None]).any(1)
    return found


def zones(
    stay: Float[Tensor, " state"], surety: Float[Tensor, " state"], cluster: float = 8.0, passing: float = 2.0
) -> dict[str, Bool[Tensor, " state"]]:  # fmt: skip
    """Torre et al.'s three zones: clusters (stay > 8 steps and surety > 0.8), kick zones (2 to 8 steps), transitions."""
    return {
        "cluster": (stay > cluster) & (surety > 0.8), "kick": (stay >= passing) & (stay <= cluster),
        "transition": stay < passing,
    }  # fmt: skip


def plane(states: Float[Tensor, "run time unit"]) -> tuple[Float[Tensor, " unit"], Float[Tensor, "2 unit"]]:
    """Mean of all states, and the two directions in which they vary most."""
    flat = states.flatten(0, 1)
    mean = flat.mean(0)
    directions = torch.linalg.eigh((flat - mean).T @ (flat - mean)).eigenvectors
    return mean, directions[:, -2:].flip(1).T


def turns(points: Float[Tensor, "run time 2"]) -> Float[Tensor, " run"]:
    """Times that each path winds around the origin, anticlockwise."""
    angle = torch.atan2(points[..., 1], points[..., 0])
    steps = (angle.diff(dim=1) + math.pi) % (2 * math.pi) - math.pi
    return steps.sum(1) / (2 * math.pi)


def pushes(
    model: Model, states: Float[Tensor, "state unit"], own: Int[Tensor, " state"], other: Int[Tensor, " state"],
    n_steps: int = 5,
) -> Float[Tensor, "state unit"]:  # fmt: skip
    """What each unit adds to the logit of `other` minus that of `own`, `n_steps` later and without noise."""
    weight, readout = recurrent_weight(model), network(model).readout.weight.detach()
    with torch.enable_grad():
        start = states.detach().clone().requires_grad_()
        later = start
        for _ in range(n_steps):
            later = torch.relu(later @ weight.T)
        (slope,) = torch.autograd.grad((later * (readout[other] - readout[own])).sum(), start)
    return states * slope
