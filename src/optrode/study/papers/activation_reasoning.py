"""Rules over latents: facts become propositions, rules chain them forward, and what follows is steered towards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.claims import Line, Measured
from optrode.control.sae import SAE
from optrode.control.sae_training import Recipe, train_sae
from optrode.gate.gate import Gate
from optrode.gate.kinds import add
from optrode.gate.openness import Openness
from optrode.gate.place import gates
from optrode.gate.rules import rules
from optrode.model.model import Model
from optrode.study.kit import deduction, detecting
from optrode.study.kit.deduction import FORMS, LEVELS, N_CONCEPTS, N_NAMES, NAME, Prompts, World
from optrode.study.kit.detecting import Detector
from optrode.study.papers.activation_reasoning_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.activation_reasoning_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit
from optrode.train.plan import Plan, adamw

SITE: Final = "blocks.0.resid_post"
"""Where latents are read."""
STEERED: Final = "blocks.1.resid_mid"
"""Where what follows is steered towards."""
DOSE: Final = 4.0
"""In differences of mean states."""
CHOSEN_ON: Final = tuple(range(FORMS // 2))
"""Words of a concept that its latent is chosen on; the others are for testing."""
OTHERS: Final = tuple(range(FORMS // 2, FORMS))
HOPS: Final = tuple(range(1, LEVELS))
FAR: Final = HOPS[1:]
N_LATENTS: Final = 128
ARMS: Final = ("rules", "alone", "rules off", "other rules", "random latents")


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's world, model and autoencoder."""

    setting: Setting

    @cached_property
    def world(self) -> World:
        """What follows from what."""
        return deduction.world(self.setting.random_seed)

    @cached_property
    def model(self) -> Model:
        """Taught single steps."""
        n_rows = self.setting.pick(256, 40)
        return fit(Plan(
            "single steps", deduction.network, lambda _, draw: deduction.lessons(self.world, n_rows, draw), deduction.loss,
            self.setting.pick(1000, 10), adamw(3e-3, weight_decay=0.05), random_seed=self.setting.random_seed,
        )).model  # fmt: skip

    def draw(self, stream: int) -> torch.Generator:
        """Random numbers of one use."""
        return torch.Generator().manual_seed(1_000 * self.setting.random_seed + stream)

    def sae(self, model: Model) -> SAE:
        """Trained on the states of all tokens of prompts."""
        prompts = deduction.stated(self.setting.pick(4096, 256), self.draw(1))
        states = detecting.states(model, prompts, SITE).flatten(0, 1)
        recipe = Recipe(k=4, n_steps=self.setting.pick(3000, 20), random_seed=self.setting.random_seed)
        return train_sae(states, N_LATENTS, SITE, recipe).sae

    def detector(self, model: Model) -> Detector:
        """Latents of concepts, chosen on half of their words."""
        prompts = deduction.stated(self.setting.pick(2048, 768), self.draw(2), CHOSEN_ON)
        return detecting.detector(self.sae(model), detecting.states(model, prompts, SITE), prompts)

    def area(self, found: Detector, model: Model) -> float:
        """How well latents tell concepts on the other words."""
        prompts = deduction.stated(self.setting.pick(2048, 768), self.draw(3), OTHERS)
        return detecting.area(found, detecting.states(model, prompts, SITE), prompts)

    @cached_property
    def found(self) -> Detector:
        """Of the trained model."""
        return self.detector(self.model)

    @cached_property
    def random(self) -> Detector:
        """With random latents."""
        read = detecting.states(self.model, deduction.stated(self.setting.pick(2048, 768), self.draw(4)), SITE)
        return detecting.at_random(self.found, read, self.draw(5))

    @cached_property
    def directions(self) -> Float[Tensor, "name feature"]:
        """Mean state at the question by answer, of prompts as they are taught, less the mean of these."""
        prompts = deduction.lessons(self.world, self.setting.pick(4096, 1024), self.draw(6))
        last = detecting.states(self.model, prompts, STEERED)[:, -1]
        means = torch.stack([last[prompts.answers == NAME + name].mean(0) for name in range(N_NAMES)])
        return means - means.mean(0)

    def steering(self, found: Detector, world: World) -> tuple[Gate, ...]:
        """A gate for each name: open where rules say it."""
        known = found.conditions(self.model)
        return tuple(
            add(STEERED, self.directions[name], strength=DOSE, openness=_says(known, deduction.rule_texts(world, name)))
            for name in range(N_NAMES)
        )

    def strengthening(self, found: Detector) -> tuple[Gate, ...]:
        """Rules off: where a concept is detected and something is asked, its latent's own direction at an equal norm."""
        known = found.conditions(self.model)
        norm = float(self.directions.norm(dim=1).median())
        asked = " or ".join(f"ask{ix + 1}" for ix in range(deduction.QUESTIONS))
        rows = found.sae.W_dec[found.latents[:N_CONCEPTS]]
        return tuple(
            add(STEERED, norm * row / row.norm(), strength=DOSE,
                openness=_says(known, (f"{deduction.label(ix)} and ({asked}) -> say",)))
            for ix, row in enumerate(rows)
        )  # fmt: skip

    @cached_property
    def arms(self) -> dict[str, tuple[Gate, ...]]:
        """Gates by arm."""
        other = deduction.world(self.setting.random_seed + 500_000)
        return {
            "rules": self.steering(self.found, self.world), "alone": (), "rules off": self.strengthening(self.found),
            "other rules": self.steering(self.found, other), "random latents": self.steering(self.random, self.world),
        }  # fmt: skip

    def right(self, arm: str, prompts: Prompts) -> float:
        """Share of right answers."""
        with gates(self.model, *self.arms[arm]):
            return deduction.accuracy(self.model, prompts)

    def by_hops(self, arm: str, forms: tuple[int, ...] = tuple(range(FORMS))) -> dict[int, float]:
        """Share of right answers by steps; the same prompts in every arm."""
        n = self.setting.pick(512, 32)
        return {
            k: self.right(arm, deduction.chained(self.world, n, self.draw(10 + k), hops=k, forms=forms)) for k in HOPS
        }  # fmt: skip

    @torch.no_grad()
    def open_share(self, prompts: Prompts) -> float:
        """Share of prompts at which any gate of the rules is open."""
        with gates(self.model, *self.arms["rules"], trace=True) as held:
            self.model(prompts.ids)
        return float(torch.stack(tuple(held.trace.values.values())).amax((0, 2)).gt(0).double().mean())


def _says(known: Mapping[str, Openness], texts: Sequence[str]) -> Openness:
    return rules(known, texts, opens="say")


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab = _Lab(setting)
    by_arm = {arm: lab.by_hops(arm) for arm in ARMS}
    on_others = {arm: lab.by_hops(arm, OTHERS) for arm in ("rules", "alone")}
    n = setting.pick(512, 32)
    pairs = deduction.paired(lab.world, n, lab.draw(20), taught=False)
    kinds = deduction.kinds(lab.world, n, lab.draw(21), taught=False)
    untrained = deduction.network(setting.random_seed)
    measured = _of_hops(by_arm, on_others) | {
        "L5": Measured(lab.area(lab.found, lab.model), lab.area(lab.detector(untrained), untrained)),
        "L7": Measured(lab.right("rules", pairs), lab.right("alone", pairs)),
        "L8": Measured(lab.right("rules", kinds), lab.right("alone", kinds)),
        "L9": Measured(
            lab.open_share(deduction.idle(n, lab.draw(22))),
            lab.open_share(deduction.chained(lab.world, n, lab.draw(23), hops=2)),
        ),
    }
    lines = {arm: _line(arm, one) for arm, one in by_arm.items()}
    lines |= {f"{arm}, other words": _line(f"{arm}, other words", one) for arm, one in on_others.items()}
    return Outcome(measured, lines)


def _far(by_hops: Mapping[int, float]) -> float:
    return mean(by_hops[k] for k in FAR)


def _of_hops(by_arm: Mapping[str, Mapping[int, float]], on_others: Mapping[str, Mapping[int, float]]) -> dict[str, Measured]:
    """L1 to L4, and L6."""
    ruled, alone = by_arm["rules"], by_arm["alone"]
    far = {arm: _far(one) for arm, one in by_arm.items()}
    last = HOPS[-1]
    return {
        "L1": Measured(ruled[last], by_arm["rules off"][last]),
        "L2": Measured(ruled[1] - ruled[last], alone[1] - alone[last]),
        "L3": Measured(far["rules"] - far["other rules"], far["other rules"] - far["alone"]),
        "L4": Measured(far["rules"] - far["alone"], far["random latents"] - far["alone"]),
        "L6": Measured(_far(on_others["rules"]), _far(on_others["alone"])),
    }


def _line(name: str, by_hops: Mapping[int, float]) -> Line:
    return Line(name, tuple(float(k) for k in by_hops), tuple(by_hops.values()))


STUDY: Final = Study("activation-reasoning", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
