"""Explicit chains of thought: two-hop questions learned with the bridge entity written out, and without."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.claims import Line, Map, Measured
from optrode.gate.kinds import patch
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.study.kit import hops
from optrode.study.kit.curves import line
from optrode.study.kit.hops import ANSWER_AT, BRIDGE_AT, Lessons, Questions, World
from optrode.study.papers.cot_training_claims import CLAIMS, DIFFERENCES, MUCH_NOISE, NOISE, PAPER, QUESTION
from optrode.study.papers.cot_training_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import Trained, fit
from optrode.train.plan import Measure, Plan, adamw, evenly

N_ROWS: Final = 128
FACT_SHARE: Final = 0.4
PHI: Final = 7.2
NOISES: Final = {
    "answers noisy": (NOISE, (ANSWER_AT,)),
    "both noisy": (NOISE, (BRIDGE_AT, ANSWER_AT)),
    "most answers noisy": (MUCH_NOISE, (ANSWER_AT,)),
}
"""Share of the questions, and positions after which a random entity is taught."""
ARMS: Final = ("steps", "no steps", "fewer questions", *NOISES)
TESTS: Final[Mapping[str, str]] = {"in distribution": "id_test", "out of distribution": "ood_test"}


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's world and its runs."""

    setting: Setting

    @cached_property
    def world(self) -> World:
        """The facts."""
        pick = self.setting.pick
        ood_share = pick(7, 30) / 100
        return hops.draw_world(pick(100, 16), pick(10, 4), pick(10, 3), ood_share, self.generator(1))

    @cached_property
    def questions(self) -> Questions:
        """What is asked of them."""
        return hops.ask(self.world, PHI, self.setting.pick(200, 10), self.generator(2))

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of one use."""
        return torch.Generator().manual_seed(1_000 * self.setting.random_seed + stream)

    def lessons(self, arm: str) -> Lessons:
        """What an arm learns."""
        asked = self.questions.train
        if arm == "fewer questions":
            asked = asked[torch.rand(len(asked), generator=self.generator(3)) >= NOISE]
        made = hops.lessons(self.world, self.questions.facts, asked, has_bridge=arm != "no steps")
        if arm not in NOISES:
            return made
        share, at = NOISES[arm]
        return hops.with_noise(made, share, self.world.n_entities, self.generator(3), at=at)

    def fit(self, arm: str) -> Trained:
        """Train an arm, and test it meanwhile."""
        learned, pick = self.lessons(arm), self.setting.pick
        n_steps, n_rows = pick(900, 2), pick(N_ROWS, 8)
        answer = hops.answer_directly if arm == "no steps" else hops.answer_by_bridge
        tests = {name: getattr(self.questions, rows) for name, rows in TESTS.items()}
        look = lambda model: {name: hops.accuracy(model, asked, answer) for name, asked in tests.items()}  # noqa: E731
        return fit(Plan(
            arm, lambda seed: hops.network(self.world, seed), lambda _, draw: learned.batch(n_rows, FACT_SHARE, draw),
            hops.loss, n_steps, adamw(2e-3, weight_decay=0.01), measures={"accuracy": Measure(look)},
            measure_at=evenly(n_steps, pick(50, 1)), random_seed=self.setting.random_seed,
        ))  # fmt: skip


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab = _Lab(setting)
    runs = {arm: lab.fit(arm) for arm in ARMS}
    ends = {arm: {test: _end(ran, test) for test in TESTS} for arm, ran in runs.items()}
    lines = {f"{arm}.{test}": _curve(ran, arm, test, setting.pick(N_ROWS, 8)) for arm, ran in runs.items() for test in TESTS}
    moved = {column: follows(runs["steps"].model, lab, column) for column in (3, 0)}
    lines["moved"] = Line("moved", (0.0, 1.0), (moved[3], moved[0]))
    read = {arm: {other: _read(runs[arm].model, lab, other) for other in (False, True)} for arm in ("steps", "no steps")}
    maps = {arm: _map(both[False]) for arm, both in read.items()}
    later = {other: float(_depth(read["no steps"][other]) - _depth(read["steps"][other])) for other in (False, True)}
    measured = _accuracies(ends) | {"C2": Measured(moved[3], moved[0]), "C4": Measured(later[False], later[True])}
    return Outcome(measured, lines, maps)


def _accuracies(ends: Mapping[str, Mapping[str, float]]) -> dict[str, Measured]:
    inside, outside = TESTS
    lost = {arm: {test: ends["steps"][test] - found[test] for test in TESTS} for arm, found in ends.items()}
    return {
        "C1a": Measured(ends["steps"][outside], ends["no steps"][outside]),
        "C1b": Measured(ends["steps"][inside], ends["no steps"][inside]),
        "C3a": Measured(*(lost[arm][outside] - lost[arm][inside] for arm in ("answers noisy", "fewer questions"))),
        "C3b": Measured(ends["answers noisy"][inside], ends["most answers noisy"][inside]),
        "C3c": Measured(lost["both noisy"][inside] - lost["answers noisy"][inside], lost["fewer questions"][inside]),
    }


def follows(model: Model, lab: _Lab, column: int) -> float:
    """Share of left-out questions whose answer follows another entity, patched in at one position of the written sequence.

    Args:
        column: 3 for the bridge, 0 for the question's first entity.
    """
    asked, other, wanted = hops.other_entities(lab.world, lab.questions.id_test, column, lab.generator(4 + column))
    embedded = model.module.get_parameter("embed.weight").detach()[other][:, None]
    with gates(model, patch(f"embed[pos={column}]", embedded)):
        found = hops.answer_given_bridge(model, asked)
    return float((found == wanted).float().mean())


def _read(model: Model, lab: _Lab, other: bool) -> Float[Tensor, "layer pos"]:
    """How well the bridge, or another entity, can be read after each layer, at r1 and r2."""
    asked = lab.questions.id_test
    shift = torch.randint(1, lab.world.n_entities, (len(asked),), generator=lab.generator(9)) if other else 0
    return hops.readability(model, asked, (asked[:, 3] + shift) % lab.world.n_entities)


def _depth(read: Float[Tensor, "layer pos"]) -> Float[Tensor, ""]:
    """Layers until it can be read, at the position where it can be read best."""
    return (1 - read.max(1).values).sum()


def _map(read: Float[Tensor, "layer pos"]) -> Map:
    rows = tuple(f"after layer {layer + 1}" for layer in range(len(read)))
    cells = tuple(tuple(float(cell) for cell in row) for row in read)
    return Map("", "stream", "position", rows, ("r1", "r2"), cells, "mean reciprocal rank")


def _curve(ran: Trained, arm: str, test: str, n_rows: int) -> Line:
    return line(arm, ran.run.measures[f"accuracy.{test}"], n_rows)


def _end(ran: Trained, test: str) -> float:
    return ran.run.measures[f"accuracy.{test}"].values[-1]


STUDY: Final = Study("cot-training", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
