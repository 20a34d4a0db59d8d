"""Latents of an autoencoder as propositions about a prompt: which latent stands for what, and from what activation on.

Each proposition takes the latent that tells the tokens at which it is told from all others best, by the area under the ROC
curve of its pre-activation; its threshold is half-way between what it seldom falls below there and what it seldom exceeds
elsewhere.
"""

from dataclasses import dataclass
from statistics import median
from typing import Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from optrode.control.sae import SAE, separations
from optrode.gate.openness import Openness
from optrode.model.model import Model
from optrode.site.recording import record
from optrode.study.kit import deduction
from optrode.study.kit.deduction import Prompts

N_PROPOSITIONS: Final = deduction.N_CONCEPTS + deduction.QUESTIONS
_LOW, _HIGH = 0.1, 0.995
_OTHERS: Final = 2000
"""Tokens that a proposition is told from, about."""


@final
@dataclass(frozen=True, eq=False)
class Detector:
    """Propositions by latents.

    Attributes:
        sae: the autoencoder.
        latents: [proposition] the latent of each, concepts first, then questions.
        thresholds: [proposition] of its pre-activation.
    """

    sae: SAE
    latents: Int[Tensor, " proposition"]
    thresholds: Float[Tensor, " proposition"]

    def conditions(self, model: Model) -> dict[str, Openness]:
        """Each proposition by its name: true from the token on at which its latent is above its threshold."""
        names = [deduction.label(ix) for ix in range(deduction.N_CONCEPTS)]
        names += [f"ask{ix + 1}" for ix in range(deduction.QUESTIONS)]
        pairs = zip(self.latents.tolist(), self.thresholds.tolist(), strict=True)
        return {
            name: self.sae.probe(latent, model, above=above, hold=deduction.PLACES)
            for name, (latent, above) in zip(names, pairs, strict=True)
        }


@torch.no_grad()
def states(model: Model, prompts: Prompts, site: str) -> Float[Tensor, "row pos feature"]:
    """The states of all tokens at a site."""
    return record(model, prompts.ids, site)[site]


def detector(sae: SAE, read: Float[Tensor, "row pos feature"], prompts: Prompts) -> Detector:
    """Choose latents and thresholds on prompts that were read."""
    said = sae.pre_activations(read).flatten(0, 1)
    told = deduction.propositions(prompts).flatten()
    areas = torch.stack([separations(*_sides(said, told == ix)) for ix in range(N_PROPOSITIONS)])
    latents = areas.argmax(1)
    thresholds = [_threshold(said[:, latent], told == ix) for ix, latent in enumerate(latents.tolist())]
    return Detector(sae, latents, torch.tensor(thresholds))


def at_random(found: Detector, read: Float[Tensor, "row pos feature"], draw: torch.Generator) -> Detector:
    """Latents drawn at random from those ever active, each above its threshold as often as the one in whose place it is."""
    said = found.sae.pre_activations(read).flatten(0, 1)
    alive = (found.sae.encode(read).flatten(0, 1) > 0).any(0).nonzero()[:, 0]
    drawn = alive[torch.randint(len(alive), (N_PROPOSITIONS,), generator=draw)]
    rates = (said[:, found.latents] > found.thresholds).double().mean(0).tolist()
    thresholds = [float(said[:, latent].quantile(1 - rate)) for latent, rate in zip(drawn.tolist(), rates, strict=True)]
    return Detector(found.sae, drawn, torch.tensor(thresholds))


def area(found: Detector, read: Float[Tensor, "row pos feature"], prompts: Prompts) -> float:
    """Area under the ROC curve of the concepts' latents on other prompts, median over concepts."""
    said = found.sae.pre_activations(read).flatten(0, 1)
    told = deduction.propositions(prompts).flatten()
    sides = (_sides(said[:, [latent]], told == ix) for ix, latent in enumerate(_concepts(found)))
    return median(float(separations(*pair)[0]) for pair in sides)


def _concepts(found: Detector) -> list[int]:
    return [int(latent) for latent in found.latents[: deduction.N_CONCEPTS]]


def _sides(said: Float[Tensor, "token latent"], is_told: Bool[Tensor, " token"]) -> tuple[Tensor, Tensor]:
    others = said[~is_told]
    return said[is_told], others[:: max(1, len(others) // _OTHERS)]


def _threshold(said: Float[Tensor, " token"], is_told: Bool[Tensor, " token"]) -> float:
    return float((said[is_told].quantile(_LOW) + said[~is_told].quantile(_HIGH)) / 2)
