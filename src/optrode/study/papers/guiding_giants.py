"""Guiding giants: a controller that reads a prompt's activations, and decides how much to steer and at which layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from optrode.claims import Line, Measured
from optrode.control.contrast import Contrast
from optrode.control.controller import Controller, controller_for, controller_gates
from optrode.control.controller_records import ControllerTraining, Objective, Recipe
from optrode.control.controller_training import train_controller
from optrode.control.direction import Direction, directions
from optrode.control.probing import logistic, separation
from optrode.control.reading import frozen
from optrode.control.states import read_states
from optrode.errors import BadGate
from optrode.gate.conditions import by_row, probe
from optrode.gate.gate import Aside, Gate
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.study.kit import triggers
from optrode.study.kit.triggers import Requests, World
from optrode.study.papers.guiding_giants_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.guiding_giants_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit
from optrode.train.plan import Plan, adamw

READ: Final = "blocks.3.resid_post"
"""What the controller reads: the last layer, after every layer that it steers."""
BLIND: Final = "blocks.0.resid_pre"
"""Where the last token says nothing of the tokens before it."""
DOSES: Final = (0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.9)
AIM: Final = Objective(kl=1.0, l1=0.1)
FORBIDDEN: Final = 0.35
"""Share of the requests with an order not to answer, in the training of the network and without the trigger in tests."""


@final
@dataclass(frozen=True)
class Judged:
    """What gates do, at the response's first token.

    Attributes:
        refused: share of the requests with the trigger that are refused.
        effect: cross-entropy of refusing those, nats.
        harm: KL of the steered from the plain model, after requests without the trigger, nats.
        kept: share of the forbidden requests without the trigger that are still refused.
        cost: mean of how open gates are.
    """

    refused: float
    effect: float
    harm: float
    kept: float
    cost: float

    @property
    def total(self) -> float:
        """The objective."""
        return self.effect + AIM.kl * self.harm + AIM.l1 * self.cost


@final
@dataclass(frozen=True, eq=False)
class Arm:
    """A trained controller with its gates."""

    controller: Controller
    gates: tuple[Gate, ...]
    training: ControllerTraining


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's network, requests and directions."""

    setting: Setting

    @cached_property
    def world(self) -> World:
        """Which pairs of words are for tests."""
        return triggers.draw_world(self.setting.random_seed)

    @cached_property
    def model(self) -> Model:
        """The network, which refuses where it is ordered to, and else answers."""
        n_rows = self.setting.pick(128, 8)
        return fit(Plan(
            "answers and obeys", triggers.network,
            lambda _, draw: triggers.answered(self.world.draw(n_rows, draw, forbidden=FORBIDDEN)), triggers.loss,
            self.setting.pick(600, 2), adamw(3e-3, weight_decay=0.01), random_seed=self.setting.random_seed,
        )).model  # fmt: skip

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of one use."""
        return torch.Generator().manual_seed(1_000 * self.setting.random_seed + stream)

    @cached_property
    def taught(self) -> Requests:
        """What controllers are trained on: pairs of words that are not kept for tests."""
        return self.requests(2, self.setting.pick(400, 24), is_test=False)

    @cached_property
    def test(self) -> Requests:
        """Fresh prompts of all pairs of words."""
        return self.requests(3, self.setting.pick(1000, 24))

    @cached_property
    def unseen(self) -> Requests:
        """Prompts of pairs that no controller was trained on."""
        return self.requests(4, self.setting.pick(1000, 24), is_test=True)

    def requests(self, stream: int, n: int, is_test: bool | None = None) -> Requests:
        """Half with the trigger, and of those without, some that are forbidden."""
        draw = self.generator(stream)
        bad = self.world.draw(n // 2, draw, trigger=1.0, is_test=is_test)
        good = self.world.draw(n - n // 2, draw, forbidden=FORBIDDEN, trigger=0.0, is_test=is_test)
        return triggers.joined(bad, good)

    @cached_property
    def right(self) -> tuple[Direction, ...]:
        """Towards refusing, at each layer, from orders alone."""
        n, draw = self.setting.pick(64, 8), self.generator(1)
        sides = [self.world.draw(n, draw, forbidden=share, trigger=0.25) for share in (1.0, 0.0)]
        return directions(self.model, Contrast(*(side.prompts() for side in sides)), random_seed=self.setting.random_seed)

    @cached_property
    def is_right(self) -> tuple[bool, ...]:
        """Which layers keep their direction: the last, and one of the others."""
        one = int(torch.randint(len(self.right) - 1, (1,), generator=self.generator(5)))
        return tuple(ix in (one, len(self.right) - 1) for ix in range(len(self.right)))

    @cached_property
    def mixed(self) -> tuple[Direction, ...]:
        """The same with random ones of equal norm at the other layers."""
        seed = 100 * self.setting.random_seed
        pairs = enumerate(zip(self.right, self.is_right, strict=True))
        return tuple(one if keep else one.random(seed + ix) for ix, (one, keep) in pairs)

    def dose(self, steer: Sequence[Direction]) -> float:
        """The least at which steering always refuses 99 % of the triggers of training."""
        asked = self.taught.where(self.taught.is_trigger)
        for dose in DOSES:
            with gates(self.model, *(one.gate(dose) for one in steer)):
                if float((triggers.said(self.model, asked) == triggers.REFUSE).float().mean()) >= 0.99:
                    return dose
        return DOSES[-1]

    def trained(self, steer: Sequence[Direction], dose: float, *, weights: str = "learned", read: str = READ) -> Arm:
        """A controller trained through the frozen network."""
        seed, rows = self.setting.random_seed, self.taught
        is_trigger = rows.is_trigger
        made = controller_for(self.model, steer, read, weights=weights, random_seed=seed)
        held = controller_gates(made, steer, dose)
        recipe = Recipe(AIM, n_epochs=self.setting.pick(30, 1), batch_size=32, lr=1e-2)
        training = train_controller(
            self.model, made, held, rows.prompts(is_trigger), triggers.REFUSAL, rows.prompts(~is_trigger), recipe=recipe,
            random_seed=seed,
        )  # fmt: skip
        return Arm(made, held, training)

    def features(self, rows: Requests, read: str = READ) -> Float[Tensor, "row feature"]:
        """What controllers read."""
        (found,) = read_states(self.model, rows.prompts(), read, batch_size=256)
        return found.pooled.float()

    def judged(self, held: Sequence[Gate], dose: float) -> Judged:
        """What gates do on test requests; how open they are is counted in parts of a dose."""
        asked = self.test
        plain = triggers.chances(self.model, asked)
        with gates(self.model, *held, trace=True) as now:
            steered = triggers.chances(self.model, asked)
            traced = now.trace.values
        opened = torch.stack([traced[ix][:, triggers.PROMPT - 1] * one.strength / dose for ix, one in enumerate(held)], -1)
        bad, obeyed = asked.is_trigger, ~asked.is_trigger & asked.is_forbidden
        is_refused = (steered.argmax(-1) == triggers.REFUSE).float()
        harm = (steered.exp() * (steered - plain)).sum(-1)[~bad].mean()
        return Judged(
            float(is_refused[bad].mean()), -float(steered[bad, triggers.REFUSE].mean()), float(harm),
            float(is_refused[obeyed].mean()), float(opened.abs().sum(1).mean()) / len(self.right),
        )  # fmt: skip


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab = _Lab(setting)
    dose = lab.dose(lab.mixed)
    ours = lab.trained(lab.mixed, dose)
    arms: dict[str, Sequence[Gate]] = {
        "controller": ours.gates, "always on": [one.gate(dose) for one in lab.mixed],
        "at random": _at_random(lab, ours, dose), "published": _published_gates(lab, dose),
        "probe": _probe_gates(lab, lab.mixed, dose),
        "probe, tuned": _probe_gates(lab, lab.mixed, dose, _mean_opening(lab, ours.controller)),
        "one weight": lab.trained(lab.mixed, dose, weights="uniform").gates,
    }  # fmt: skip
    judged = {name: lab.judged(held, dose) for name, held in arms.items()}
    measured = _opening(lab, ours, dose) | _behaviour(judged) | _weights(lab, ours, judged)
    return Outcome(measured | {"W8": _reach(lab, ours.controller, dose)}, _lines(lab, ours, judged))


def _opening(lab: _Lab, ours: Arm, dose: float) -> dict[str, Measured]:
    """W1 and W2: the amounts of requests with the trigger and without."""
    blind = lab.trained(lab.mixed, dose, read=BLIND)
    found = [_separates(lab, arm.controller, lab.unseen) for arm in (ours, blind)]
    amounts = _amounts(lab, ours.controller, lab.test)
    sides = [float(amounts[chosen].mean()) for chosen in (lab.test.is_trigger, ~lab.test.is_trigger)]
    return {"W1": Measured(*found), "W2": Measured(*sides)}


@torch.no_grad()
def _amounts(lab: _Lab, controller: Controller, rows: Requests) -> Float[Tensor, " row"]:
    return controller.amounts(lab.features(rows, *controller.sites))


def _separates(lab: _Lab, controller: Controller, rows: Requests) -> float:
    amounts = _amounts(lab, controller, rows).double()
    return separation(amounts[rows.is_trigger], amounts[~rows.is_trigger])


def _behaviour(judged: dict[str, Judged]) -> dict[str, Measured]:
    """W3, W4, W9 and W10: what is done by the controller and by others."""
    ours, always = judged["controller"], judged["always on"]
    kept = [one.refused / always.refused if always.refused else torch.nan for one in (ours, judged["at random"])]
    over = [judged["probe"].total / one.total - 1 for one in (ours, judged["one weight"])]
    return {
        "W3": Measured(ours.harm, always.harm), "W4": Measured(*kept),
        "W9": Measured(ours.kept, judged["published"].kept), "W10": Measured(*over),
    }  # fmt: skip


def _weights(lab: _Lab, ours: Arm, judged: dict[str, Judged]) -> dict[str, Measured]:
    """W5, W6 and W7: weights of layers."""
    dose = lab.dose(lab.right)
    alike, learned = (lab.judged(lab.trained(lab.right, dose, weights=kind).gates, dose) for kind in ("uniform", "learned"))
    worse = [judged["one weight"].total / judged["controller"].total - 1, alike.total / learned.total - 1]
    published, slope = published_controller(lab)
    chosen = [_preference(lab, one) for one in (ours.controller, published)]
    return {
        "W5": Measured(*worse), "W6": Measured(*chosen), "W7": Measured(ours.training.weight_gradients[0], slope),
    }  # fmt: skip


@torch.no_grad()
def _mean_weights(lab: _Lab, controller: Controller) -> tuple[float, ...]:
    """Of layers, over requests with the trigger."""
    found = controller.layer_weights(lab.features(lab.test.where(lab.test.is_trigger)))
    return tuple(float(one) for one in found.mean(0))


@torch.no_grad()
def _mean_opening(lab: _Lab, controller: Controller) -> tuple[float, ...]:
    """How open each layer's gate is, over requests with the trigger."""
    found = controller(lab.features(lab.test.where(lab.test.is_trigger)))
    return tuple(float(one) for one in found.mean(0))


def _preference(lab: _Lab, controller: Controller) -> float:
    weights = _mean_weights(lab, controller)
    sides = [[one for one, keep in zip(weights, lab.is_right, strict=True) if keep is want] for want in (True, False)]
    right, random = (sum(side) / len(side) for side in sides)
    return right - random


def _at_random(lab: _Lab, ours: Arm, dose: float) -> tuple[Gate, ...]:
    """Gates that are as far open as the controller's, in as many rows, drawn by chance."""
    amounts = _amounts(lab, ours.controller, lab.test)
    drawn = amounts[torch.randperm(len(amounts), generator=lab.generator(7))]
    weights = _mean_weights(lab, ours.controller)
    return tuple(
        one.gate(dose, openness=by_row(drawn * weight)) for one, weight in zip(lab.mixed, weights, strict=True)
    )  # fmt: skip


def _probe_gates(
    lab: _Lab, steer: Sequence[Direction], dose: float, opening: Sequence[float] | None = None
) -> tuple[Gate, ...]:
    """Gates behind a logistic probe of what the controller reads, open where the trigger is likelier than not."""
    rows = lab.taught
    features = lab.features(rows).double()
    axis = logistic(features[rows.is_trigger], features[~rows.is_trigger])
    opened = probe(READ, axis.vector.float(), -axis.midpoint, above=0.0, link="linear", read="prompt", source=Aside())
    each = opening or [1.0] * len(steer)
    return tuple(one.gate(dose * share, openness=opened) for one, share in zip(steer, each, strict=True))


def _reach(lab: _Lab, controller: Controller, dose: float) -> Measured:
    """W8: how many of the declared sites a controller can open."""
    shares = []
    for two_pass in (True, False):
        held = controller_gates(controller, lab.mixed, dose, two_pass=two_pass)
        shares.append(sum(_acts(lab, one) for one in held) / len(held))
    return Measured(*shares)


def _acts(lab: _Lab, gate: Gate) -> bool:
    """Whether a gate can be held, and changes what the network says."""
    asked = lab.test.where(lab.test.is_trigger)
    plain = triggers.chances(lab.model, asked)
    try:
        with gates(lab.model, gate):
            return not torch.equal(triggers.chances(lab.model, asked), plain)
    except BadGate:
        return False


def published_controller(lab: _Lab) -> tuple[Controller, float]:
    """A controller trained as published, and the gradient of its task's loss into the layer weights.

    The loss is the cross-entropy of the label on the raw score, and on positives 0.1 (mean |w - 1/2| + 0.01 mean w), with
    AdamW. Nothing passes through the model.
    """
    rows, seed = lab.taught, lab.setting.random_seed
    made = controller_for(lab.model, lab.mixed, READ, amount="linear", random_seed=seed)
    features, labels = lab.features(rows), rows.is_trigger.float()
    made.standardise(features)
    optimizer, slopes = torch.optim.AdamW(made.parameters(), lr=5e-3), []
    with frozen(lab.model):
        for _ in range(lab.setting.pick(150, 2)):
            task = binary_cross_entropy_with_logits(made.amounts(features), labels)
            found: tuple[Any, ...] = torch.autograd.grad(task, made.weight_parameters, retain_graph=True, allow_unused=True)
            slopes.append(sum(0.0 if one is None else float(one.norm()) for one in found))
            weights = made.raw_weights(features[rows.is_trigger])
            optimizer.zero_grad()
            (task + 0.1 * ((weights - 0.5).abs().mean() + 0.01 * weights.mean())).backward()
            optimizer.step()
    return made, sum(slopes) / len(slopes)


def _published_gates(lab: _Lab, dose: float) -> tuple[Gate, ...]:
    """Of the layers that are declared, the one that such a controller can still steer."""
    made, _ = published_controller(lab)
    held = controller_gates(made, lab.mixed, dose, two_pass=False)
    return held[-1:]


def _lines(lab: _Lab, ours: Arm, judged: dict[str, Judged]) -> dict[str, Line]:
    """For the figures: how open, which layers, effect and harm, and the training."""
    seen = ours.training.validation
    steps = tuple(float(ix) for ix in range(len(seen)))
    layers = tuple(float(ix) for ix in range(len(lab.mixed)))
    published, _ = published_controller(lab)
    return {
        "open.trigger": Line("with the trigger", steps, tuple(one.open_positive for one in seen)),
        "open.others": Line("without", steps, tuple(one.open_negative for one in seen), dashed=True),
        "weights.ours": Line("learned", layers, _mean_weights(lab, ours.controller)),
        "weights.right": Line("right direction", layers, tuple(float(one) for one in lab.is_right), dashed=True),
        "weights.published": Line("published loss", layers, _mean_weights(lab, published)),
        **{f"arm.{name}": Line(name, (one.harm,), (one.refused,)) for name, one in judged.items()},
        **{f"total.{name}": Line(name, (0.0,), (one.total,)) for name, one in judged.items()},
    }


STUDY: Final = Study("guiding-giants", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
