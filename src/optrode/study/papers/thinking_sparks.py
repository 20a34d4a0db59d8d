"""Emergent attention heads: circuits at checkpoints of fine-tuning, distillation and training by reward."""

import random
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Final, final

import torch
from torch import Tensor

from optrode.circuit.nodes import ablate, all_nodes, is_head
from optrode.claims import Line, Map, Measured
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.study.kit import arithmetic as sums
from optrode.study.kit.arithmetic import Numbers, Written
from optrode.study.kit.births import Census, Heads, Losses, census, jaccard, losses_of, mean_births, mean_jaccard
from optrode.study.kit.curves import line
from optrode.study.kit.heads import rank_correlation
from optrode.study.kit.reward import exact_match, reward_loss
from optrode.study.papers.thinking_sparks_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.thinking_sparks_figures import ARMS, figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.checkpoints import along
from optrode.train.loop import Trained, fit
from optrode.train.plan import Loss, MakeBatch, MakeModel, Measure, Plan, Stop, adamw, evenly

NUMBERS: Final = Numbers(5)
N_ROWS: Final = 96
CHAIN_SHARE: Final = 0.5
"""Of the rows of pretraining; the rest are single sums."""
N_QUESTIONS: Final = 32
N_STEPS: Final = 280
SHARES: Final = (0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
"""Of the gap, from which on heads count as active, of the last figure."""


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's base model, its teacher, and what is trained from them."""

    setting: Setting

    @cached_property
    def chains(self) -> Tensor:
        """Chains to test with, [row, 7]."""
        return sums.draw_chains(NUMBERS, self.setting.pick(256, 8), self.generator(1))

    @cached_property
    def base(self) -> Trained:
        """Pretrained from scratch on single sums and chains, until it answers half of the chains."""
        n_rows = self.setting.pick(N_ROWS, 8)
        n_chains = round(CHAIN_SHARE * n_rows)

        def batch(_: int, draw: torch.Generator) -> Written:
            drawn = sums.draw_chains(NUMBERS, n_rows, draw)
            return sums.joined(sums.written_chains(drawn[:n_chains]), sums.written_sums(NUMBERS, drawn[n_chains:]))

        return self.until("pretraining", self.network, batch, 0.5, self.setting.pick(2000, 2))

    @cached_property
    def teacher(self) -> Trained:
        """The base model, trained on chains until it answers nine of ten."""
        return self.until("teacher", self.start, self.examples, 0.9, self.setting.pick(1000, 2))

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of one use."""
        return torch.Generator().manual_seed(1_000 * self.setting.random_seed + stream)

    def until(self, name: str, make: MakeModel, batch: MakeBatch, ability: float, n_steps: int) -> Trained:
        """Train by examples until a share of the chains is answered."""
        look = Measure(lambda model: sums.accuracy(model, self.chains))
        return fit(Plan(
            name, make, batch, sums.loss, n_steps, adamw(2e-3, weight_decay=0.01), measures={"accuracy": look},
            measure_at=evenly(n_steps, self.setting.pick(20, 1)), stop=Stop("accuracy", above=ability),
            random_seed=self.setting.random_seed,
        ))  # fmt: skip

    def start(self, _: int) -> Model:
        """A copy of the base model."""
        return Model(deepcopy(self.base.model.module), self.base.model.table, name="base")

    def examples(self, _: int, draw: torch.Generator) -> Written:
        """Chains with their answers."""
        return sums.written_chains(sums.draw_chains(NUMBERS, self.setting.pick(N_ROWS, 8), draw))

    def network(self, seed: int) -> Model:
        """An untrained network."""
        n_layers, n_heads = self.setting.pick(3, 2), self.setting.pick(8, 2)
        return sums.network(NUMBERS, seed, n_layers=n_layers, n_heads=n_heads, d_model=8 * n_heads)

    def post_train(self, arm: str) -> Trained:
        """Train the base model on, one of three ways, and keep checkpoints."""
        pick = self.setting.pick
        n_steps = pick(N_STEPS, 2)
        asked = lambda _, draw: sums.questions(sums.draw_chains(NUMBERS, pick(N_QUESTIONS, 2), draw))  # noqa: E731
        ways: dict[str, tuple[MakeBatch, Loss]] = {
            "fine-tuning": (self.examples, sums.loss),
            "distillation": (self.examples, sums.distillation_loss(self.teacher.model)),
            "reward": (asked, reward_loss(exact_match, group=8)),
        }
        measures = {
            "accuracy": Measure(lambda model: sums.accuracy(model, self.chains)),
            "reward": Measure(lambda model: sums.expected_reward(model, self.chains)),
        }
        at = evenly(n_steps, pick(28, 1))
        return fit(Plan(
            arm, self.start, *ways[arm], n_steps, adamw(5e-4, weight_decay=0.0), measures=measures, measure_at=at,
            keep_at=at, random_seed=self.setting.random_seed,
        ))  # fmt: skip

    def losses(self, ran: Trained) -> dict[int, Losses]:
        """What each head is worth at each checkpoint."""
        task = sums.chain_task(NUMBERS, self.setting.pick(256, 6), self.setting.random_seed)
        return along(ran, lambda model: losses_of(model, task))


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab = _Lab(setting)
    runs = {arm: lab.post_train(arm) for arm in ARMS}
    losses = {arm: lab.losses(ran) for arm, ran in runs.items()}
    counted = {arm: census(found) for arm, found in losses.items()}
    lost = ablations(lab, runs["fine-tuning"].model, counted["fine-tuning"])
    measured = _claims(runs, counted, losses["reward"][0].resampled(random_seed=setting.random_seed))
    lines = _lines(runs, losses, counted) | {"lost": Line("lost", (0.0, 1.0, 2.0), lost)}
    maps = {arm: _map(found) for arm, found in losses.items()}
    return Outcome(measured | {"T7": Measured(lost[0], lost[1])}, lines, maps, notes=_notes(lab))


def _claims(runs: Mapping[str, Trained], counted: Mapping[str, Census], floor: tuple[Heads, ...]) -> dict[str, Measured]:
    tuned, distilled, rewarded = (counted[arm] for arm in ARMS)
    good = _end(runs["reward"], "accuracy")
    at = {arm: _first_as_good(runs[arm], good) for arm in ARMS}
    born = {arm: counted[arm].n_born()[at[arm]] for arm in ARMS}
    by_chance = mean_births(floor)
    change = _changes(runs["reward"].run.measures["reward"].values)
    return {
        "T1": Measured(len(tuned.born()), by_chance),
        "T2": Measured(len(distilled.born()), by_chance),
        "T3": Measured(jaccard(tuned.active[0], tuned.active[-1]), mean_jaccard(floor)),
        "T4": Measured(rewarded.pruned_share(), tuned.pruned_share()),
        "T5": Measured(born["fine-tuning"] - len(rewarded.born()), born["distillation"] - born["fine-tuning"]),
        "T6": Measured(*(correlation(change, _changes(one.n_born())) for one in (rewarded, tuned))),
    }


def ablations(lab: _Lab, tuned: Model, counted: Census) -> tuple[float, float, float]:
    """Accuracy lost with heads ablated: emergent ones, as many that are never active, and the emergent ones in the base.

    As many are ablated as there are of either; where there are more, the mean of random draws is taken.
    """
    emergent = sorted(counted.born())
    others = sorted({node for node in all_nodes(tuned) if is_head(node)} - counted.active[0] - counted.active[-1])
    draw, n_draws = random.Random(lab.setting.random_seed), lab.setting.pick(20, 2)
    n = min(len(emergent), len(others))
    sets = [(draw.sample(emergent, n), draw.sample(others, n)) for _ in range(n_draws)]
    return (
        mean(_lost(lab, tuned, born) for born, _ in sets), mean(_lost(lab, tuned, other) for _, other in sets),
        mean(_lost(lab, lab.base.model, born) for born, _ in sets),
    )  # fmt: skip


def _lost(lab: _Lab, model: Model, heads: list[str]) -> float:
    if not heads:
        return 0.0
    whole = sums.accuracy(model, lab.chains)
    with gates(model, *ablate(heads, "zero")):
        return whole - sums.accuracy(model, lab.chains)


def correlation(a: list[float], b: list[float]) -> float:
    """Spearman's, 0 where one of them never changes."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return 0.0
    return rank_correlation(torch.tensor(a), torch.tensor(b))


def _changes(values: tuple[float | int, ...]) -> list[float]:
    return [float(after - before) for before, after in zip(values, values[1:], strict=False)]


def _first_as_good(ran: Trained, good: float) -> int:
    """The first checkpoint at which a run answers as well; its last where it never does."""
    values = ran.run.measures["accuracy"].values
    return next((at for at, value in enumerate(values) if value >= good), len(values) - 1)


def _end(ran: Trained, name: str) -> float:
    return ran.run.measures[name].values[-1]


def _lines(
    runs: Mapping[str, Trained], losses: Mapping[str, Mapping[int, Losses]], counted: Mapping[str, Census]
) -> dict[str, Line]:  # fmt: skip
    lines: dict[str, Line] = {}
    for arm, one in counted.items():
        steps = tuple(map(float, one.steps))
        lines[f"{arm}.born"] = Line(arm, steps, tuple(map(float, one.n_born())))
        lines[f"{arm}.died"] = Line(arm, steps, tuple(float(len(one.died(at))) for at in range(len(steps))))
        lines |= {f"{arm}.{name}": line(arm, runs[arm].run.measures[name]) for name in ("accuracy", "reward")}
        ends = {step: losses[arm][step] for step in (one.steps[0], one.steps[-1])}
        lines[f"{arm}.bounds"] = Line(arm, SHARES, tuple(float(len(census(ends, share).born())) for share in SHARES))
    return lines


def _map(found: Mapping[int, Losses]) -> Map:
    """What each head is worth at each checkpoint, as a share of the gap."""
    steps = sorted(found)
    heads, shares = found[steps[0]].heads, [found[step].shares() for step in steps]
    cells = tuple(tuple(one[head] for one in shares) for head in heads)
    return Map("", "head", "updates", tuple(map(_short, heads)), tuple(map(str, steps)), cells, "share of the gap", True)


def _short(head: str) -> str:
    """As "2.5": layer and head."""
    numbers = [part for part in head.replace("[head=", ".").rstrip("]").split(".") if part.isdigit()]
    return ".".join(numbers)


def _notes(lab: _Lab) -> tuple[str, ...]:
    if lab.setting.profile == "quick":
        return ()
    late = [ran.run.name for ran in (lab.base, lab.teacher) if not ran.run.is_stopped]
    seed = lab.setting.random_seed
    return tuple(f"From seed {seed}, {name} ended before the model was as able as asked." for name in late)


STUDY: Final = Study("thinking-sparks", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
