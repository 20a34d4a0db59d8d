"""Representation engineering for reasoning: control vectors read off solved items, and how accuracy moves with a dose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.claims import Line, Measured
from optrode.gate.kinds import add
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.study.kit import careless, reading_vectors
from optrode.study.kit.careless import Items, Score
from optrode.study.papers.repe_reasoning_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.repe_reasoning_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit
from optrode.train.plan import Measure, Plan, Stop, adamw, evenly

SITE: Final = "blocks.0.resid_post"
"""The middle of two layers."""
STEPS: Final = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
DOSES: Final = (*(-dose for dose in reversed(STEPS)), 0.0, *STEPS)
SHARE: Final = 0.45
"""Of careless writers."""
ABILITY: Final = 0.65
"""Accuracy at which the training of a model without such writers is stopped."""
N_ROWS: Final = 128


@final
@dataclass(frozen=True, eq=False)
class Swept:
    """One vector at all doses.

    Attributes:
        chosen: the positive dose of the best accuracy on validation items.
        scores: dose -> score on test items.
    """

    chosen: float
    scores: Mapping[float, Score]

    @property
    def gain(self) -> float:
        """Accuracy at the chosen dose less that of the model left alone."""
        return self.scores[self.chosen].accuracy - self.scores[0.0].accuracy

    def sign(self, dose: float) -> float:
        """Accuracy at a dose less that at the opposite one."""
        return self.scores[dose].accuracy - self.scores[-dose].accuracy

    def at_kl(self, kl: float) -> Score:
        """The score at the positive dose whose KL is nearest to one, as a ratio."""
        return min((self.scores[dose] for dose in STEPS), key=lambda one: abs(_log(one.kl) - _log(kl)))


def _log(number: float) -> float:
    return float(torch.tensor(max(number, 1e-12)).log())


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's model and items.

    Attributes:
        share: of careless writers.
    """

    setting: Setting
    share: float

    @cached_property
    def test(self) -> Items:
        """Items to test with."""
        return self.items(1, self.setting.pick(2048, 64))

    @cached_property
    def validation(self) -> Items:
        """Items to choose doses with."""
        return self.items(2, self.setting.pick(1024, 64))

    @cached_property
    def read(self) -> Items:
        """Items to read vectors off."""
        return self.items(3, self.setting.pick(1024, 64))

    @cached_property
    def model(self) -> Model:
        """Trained on what writers answer; without careless ones, until it is right as often as is wanted."""
        pick, is_plain = self.setting.pick, not self.share
        n_steps, n_rows = pick(400, 40), pick(N_ROWS, 32)
        look = Measure(lambda model: _accuracy(model, self.validation))
        return fit(Plan(
            "careful writers" if is_plain else "two writers", careless.network,
            lambda _, draw: careless.draw(n_rows, draw, careless=self.share), careless.loss, n_steps,
            adamw(3e-3, weight_decay=0.01), measures={"accuracy": look}, random_seed=self.setting.random_seed,
            measure_at=evenly(n_steps, pick(5 if is_plain else 100, 20)),
            stop=Stop("accuracy", above=ABILITY) if is_plain else None,
        )).model  # fmt: skip

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of one use."""
        return torch.Generator().manual_seed(1_000 * self.setting.random_seed + stream)

    def items(self, stream: int, n: int) -> Items:
        """Items by the writers of the world."""
        return careless.draw(n, self.generator(stream), careless=self.share)

    @cached_property
    def norm(self) -> float:
        """Of a vector at dose 1."""
        return reading_vectors.typical_norm(self.model, self.read.ids, SITE)

    def vectors(self) -> dict[str, Float[Tensor, " feature"]]:
        """The paper's three readings and one more, and their controls. Some items must be solved, and some failed."""
        model, ids = self.model, self.read.ids
        states = reading_vectors.last_states(model, ids, SITE)
        strings, others = (
            reading_vectors.last_states(model, careless.random_strings(len(ids), self.generator(stream)), SITE)
            for stream in (4, 5)
        )
        solved = _is_right(model, self.read)
        everything = torch.ones_like(solved)
        made = {
            "R-C": reading_vectors.contrasted(states, solved, strings),
            "PCA-C": reading_vectors.principal(states, solved, strings),
            "R": reading_vectors.solved(states, solved),
            "solved - failed": reading_vectors.of_outcome(states, solved),
            "failed - strings": reading_vectors.contrasted(states, ~solved, strings),
            "strings": strings.mean(0),
            "strings, PCA": reading_vectors.principal(others, everything, strings),
        }
        half = torch.arange(len(solved)) % 2 == 0
        for name, part in (("half 1", half), ("half 2", ~half)):
            made[name] = reading_vectors.contrasted(states, solved & part, strings)
        draw = self.generator(6)
        for ix in range(self.setting.pick(3, 1)):
            shuffled = solved[torch.randperm(len(solved), generator=draw)]
            made[f"shuffled {ix}"] = reading_vectors.of_outcome(states, shuffled)
        return made | self.random_vectors(states.shape[1])

    def random_vectors(self, width: int) -> dict[str, Float[Tensor, " feature"]]:
        """Normally distributed ones."""
        draw = self.generator(7)
        return {f"random {ix}": torch.randn(width, generator=draw) for ix in range(self.setting.pick(5, 1))}

    def sweep(self, vector: Float[Tensor, " feature"], site: str = SITE) -> Swept:
        """A vector at all doses."""
        scaled = reading_vectors.scaled(vector, self.norm)
        alone = careless.answer(self.model, self.test)
        scores, on_validation = {0.0: careless.score(alone, alone, self.test)}, {}
        for dose in DOSES:
            if dose:
                with gates(self.model, add(site, scaled, strength=dose)):
                    scores[dose] = careless.score(careless.answer(self.model, self.test), alone, self.test)
                    if dose > 0:
                        on_validation[dose] = _accuracy(self.model, self.validation)
        return Swept(max(STEPS, key=lambda dose: on_validation[dose]), scores)


def _is_right(model: Model, items: Items) -> Tensor:
    return careless.answer(model, items).argmax(1) == items.right


def _accuracy(model: Model, items: Items) -> float:
    return float(_is_right(model, items).double().mean())


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab, plain = _Lab(setting, SHARE), _Lab(setting, 0.0)
    swept = {name: lab.sweep(vector) for name, vector in lab.vectors().items()}
    kept = ("R-C", "PCA-C", "R", "random")
    swept_plain = {n: plain.sweep(vector) for n, vector in plain.vectors().items() if n.startswith(kept)}
    lines = _lines("two writers", swept) | _lines("careful writers", swept_plain)
    at_end = lab.sweep(lab.vectors()["R-C"], f"{SITE}[pos=-1]")
    lines |= _lines("two writers", {"R-C, last token": at_end})
    return Outcome(_readings(swept) | _of_kl(swept) | _plain(swept_plain), lines)


def _named(swept: Mapping[str, Swept], name: str) -> list[Swept]:
    return [one for key, one in swept.items() if key.startswith(name)]


def _gain(swept: Sequence[Swept]) -> float:
    return mean(one.gain for one in swept)


def _readings(swept: Mapping[str, Swept]) -> dict[str, Measured]:
    """V1 to V6, and V10."""
    first, random = swept["R-C"], _named(swept, "random")
    dosed, alone = first.scores[first.chosen], first.scores[0.0]
    return {
        "V1": Measured(first.gain, _gain(random)),
        "V2": Measured(first.sign(first.chosen), mean(one.sign(first.chosen) for one in random)),
        "V3": Measured(swept["PCA-C"].gain, swept["strings, PCA"].gain),
        "V4": Measured(swept["R"].gain, swept["strings"].gain),
        "V5": Measured(swept["solved - failed"].gain, _gain(_named(swept, "shuffled"))),
        "V10": Measured(first.gain - swept["failed - strings"].gain, swept["half 1"].gain - swept["half 2"].gain),
        "V6": Measured(dosed.right - alone.right, dosed.outside - alone.outside),
    }


def _of_kl(swept: Mapping[str, Swept]) -> dict[str, Measured]:
    """V7."""
    first = swept["R-C"].scores[swept["R-C"].chosen]
    accuracy = {name: mean(one.at_kl(first.kl).accuracy for one in _named(swept, name)) for name in ("random", "shuffled")}
    return {"V7": Measured(first.accuracy - accuracy["random"], accuracy["shuffled"] - accuracy["random"])}


def _plain(swept: Mapping[str, Swept]) -> dict[str, Measured]:
    """V8 and V9."""
    first, random = swept["R-C"], _named(swept, "random")
    return {
        "V8": Measured(first.gain, _gain(random)),
        "V9": Measured(first.sign(first.chosen), mean(one.sign(first.chosen) for one in random)),
    }


def _lines(world: str, swept: Mapping[str, Swept]) -> dict[str, Line]:
    """Every number over the dose; of vectors drawn at random, their mean."""
    groups: dict[str, list[Swept]] = {}
    for name, one in swept.items():
        groups.setdefault(name.rstrip("0123456789 "), []).append(one)
    return {
        f"{world}.{name}.{part}": Line(name, DOSES, tuple(mean(getattr(o.scores[d], part) for o in many) for d in DOSES))
        for name, many in groups.items() for part in ("accuracy", "right", "wrong", "outside", "entropy", "kl")
    }  # fmt: skip


STUDY: Final = Study("repe-reasoning", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
