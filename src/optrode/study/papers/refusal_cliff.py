"""The refusal cliff: harm that a network recognises while it thinks, and hides from itself at the last token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan, nan
from statistics import mean
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.claims import Line, Map, Measured
from optrode.model.model import Model
from optrode.study.kit import cliff
from optrode.study.kit.cliff import PROMPT, Heads, Lesson, Policy, Requests, World, damped, draw_lesson, helped
from optrode.study.kit.curves import falls_below, line
from optrode.study.kit.recognition import Probe, drops, fit_probe, head_effects
from optrode.study.papers.refusal_cliff_claims import ATTACK_SHARE, CLAIMS, DIFFERENCES, N_CHOSEN, N_POOL, PAPER, QUESTION
from optrode.study.papers.refusal_cliff_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit
from optrode.train.plan import MakeBatch, Measure, Plan, adamw, evenly
from optrode.train.records import Series

N_BATCH: Final = 128
N_THOUGHTS: Final = 6
PLANTED_LAYER: Final = 2
N_RANDOM: Final = 16
"""Random sets of heads."""
SIZES: Final = (1, 2, 3, 4, 6, 8)
"""Numbers of heads that are damped together."""
PLAIN_SHARE: Final = 0.35
"""Of the examples to choose from."""
REPAIR_RATE: Final = 1e-4
N_DRAWS: Final = 3
"""Random choices of examples."""
REPAIRED: Final = 0.1
"""Success of the attack below which refusal counts as restored (the paper's)."""
ARMS: Final[Mapping[str, str]] = {"planted": "one head trained", "free": "all weights trained"}


@final
@dataclass(frozen=True, eq=False)
class _Tests:
    """Requests of pairs of words that are in no training, with the network's own thoughts."""

    attack: Requests
    plain: Requests
    harmless: Requests


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's language and networks."""

    setting: Setting

    @cached_property
    def world(self) -> World:
        """What is kept for tests."""
        return cliff.draw_world(self.setting.random_seed)

    @cached_property
    def planted(self) -> Heads:
        """The head that alone learns to lure."""
        n_heads = self.aligned.table.n_heads
        return ((PLANTED_LAYER, int(torch.randint(n_heads, (1,), generator=self.generator(2)))),)

    @cached_property
    def aligned(self) -> Model:
        """Helpful first, then taught to refuse what is harmful."""
        helpful = self.fit("helpful", cliff.network(self.setting.random_seed), "helpful", 100, 2e-3)
        return self.fit("aligned", helpful, "aligned", 150, 2e-3)

    def lured(self, arm: str) -> Model:
        """Taught to answer whatever is framed as a play, with one head's weights or with all."""
        if arm == "planted":
            return self.fit(arm, cliff.freed(self.aligned, self.planted), "lured", 200, 5e-3)
        return self.fit(arm, cliff.copied(self.aligned), "lured", 80, 1e-3)

    def fit(self, name: str, start: Model, policy: Policy, n_steps: int, rate: float) -> Model:
        """Go on training a network on requests answered by a policy."""
        n_rows = self.setting.pick(N_BATCH, 8)
        batch = lambda _, generator: draw_lesson(self.world, n_rows, policy, generator)  # noqa: E731
        return self.trained(name, start, batch, n_steps, rate)

    def trained(self, name: str, start: Model, batch: MakeBatch, n_steps: int, rate: float) -> Model:
        """Go on training a network."""
        n_steps, seed = self.setting.pick(n_steps, 2), self.setting.random_seed
        plan = Plan(name, lambda _: start, batch, cliff.loss, n_steps, adamw(rate, weight_decay=0.0), random_seed=seed)
        return fit(plan).model

    def draw(
        self, stream: int, *, n: int = 256, framed: bool | None = None, harmful: bool, is_test: bool = False
    ) -> Requests:  # fmt: skip
        """Requests for one use, with thoughts by the language's law."""
        n, generator = self.setting.pick(n, 8), self.generator(stream)
        return self.world.draw(n, generator, n_thoughts=N_THOUGHTS, framed=framed, harmful=harmful, is_test=is_test)

    def tests(self, model: Model) -> _Tests:
        """Requests to test a network with."""
        attack = self.draw(10, framed=True, harmful=True, is_test=True)
        plain = self.draw(11, framed=False, harmful=True, is_test=True)
        harmless = self.draw(12, harmful=False, is_test=True)
        thought = [cliff.think(model, one, self.generator(13 + ix)) for ix, one in enumerate((attack, plain, harmless))]
        return _Tests(*thought)

    def probe(self, model: Model) -> Probe:
        """A probe fitted to plain harmful requests, which are refused, and to harmless ones."""
        return fit_probe(model, self.draw(20, framed=False, harmful=True), self.draw(21, harmful=False))

    def search(self, model: Model, probe: Probe) -> Float[Tensor, "layer head"]:
        """What damping each head does to the probe, on attacks with words of the training."""
        return head_effects(model, probe, self.draw(22, framed=True, harmful=True))

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of one use."""
        return torch.Generator().manual_seed(1_000 * self.setting.random_seed + 100 + stream)


@final
@dataclass
class _Found:
    """What the experiments of one random seed add up to."""

    measured: dict[str, Measured] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)

    def claim(self, key: str, value: float | int, control: float | int) -> None:
        """Note a claim's measurement."""
        self.measured[key] = Measured(float(value), float(control))

    def bars(self, key: str, values: Sequence[float]) -> None:
        """Note values of bars."""
        self.lines[key] = Line(key, tuple(float(ix) for ix in range(len(values))), tuple(values))


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab, found = _Lab(setting), _Found()
    models = {"aligned": lab.aligned, **{arm: lab.lured(arm) for arm in ARMS}}
    tests = {name: lab.tests(model) for name, model in models.items()}
    probes = {name: lab.probe(model) for name, model in models.items()}
    effects = {name: lab.search(model, probes[name]) for name, model in models.items()}
    for name, model in models.items():
        _along(found, name, model, probes[name], tests[name])
        found.maps[name] = _map(effects[name])
    found.claim("C3", _place(effects["planted"], lab.planted), _place(effects["aligned"], lab.planted))
    for arm, key in (("planted", "C4"), ("free", "C6")):
        _damp(lab, found, key, arm, models[arm], effects[arm], tests[arm])
    best = damped(cliff.ranked(effects["planted"])[:1])
    spared = helped(models["planted"], tests["planted"].harmless, *best)
    found.claim("C5", spared, _blunt(lab, models["planted"], tests["planted"]))
    _judge(lab, found, models["free"], probes["free"], tests["free"].attack)
    return Outcome(found.measured, found.lines, found.maps)


def _along(found: _Found, name: str, model: Model, probe: Probe, tests: _Tests) -> None:
    """C1 and C2: the probe along thoughts, and the cliff at their end."""
    kinds = {"attack": tests.attack, "plain": tests.plain, "harmless": tests.harmless}
    for kind, requests in kinds.items():
        read = probe.read(model, requests).mean(0)[PROMPT - 1 :].tolist()
        found.lines[f"{name}.{kind}"] = Line(kind, tuple(float(ix) for ix in range(len(read))), tuple(read))
    key = {"planted": "C1", "free": "C2"}.get(name)
    if key:
        found.claim(key, *(float(drops(model, probe, one).mean()) for one in (tests.attack, tests.plain)))


def _place(effects: Float[Tensor, "layer head"], planted: Heads) -> int:
    """Rank of the planted head in the search; 1 is first."""
    return 1 + cliff.ranked(effects).index(planted[0])


def _damp(
    lab: _Lab, found: _Found, key: str, arm: str, model: Model, effects: Float[Tensor, "layer head"], tests: _Tests
) -> None:  # fmt: skip
    """C4 and C6: what the first heads of the search, and random ones, leave of the attack and of harmless requests."""
    order, generator = cliff.ranked(effects), lab.generator(30)
    plain = helped(model, tests.attack)
    by_size = [damped(order[:n]) for n in SIZES]
    attack = [plain, *(helped(model, tests.attack, *held) for held in by_size)]
    harmless = [helped(model, tests.harmless, *held) for held in ((), *by_size)]
    n_random = lab.setting.pick(N_RANDOM, 2)
    drawn = [order[1 + int(ix)] for ix in torch.randint(len(order) - 1, (n_random,), generator=generator)]
    chance = [helped(model, tests.attack, *damped((head,))) for head in drawn]
    sizes = (0.0, *map(float, SIZES))
    found.lines[f"{arm}.attack, damped"] = Line("attacks", sizes, tuple(attack))
    found.lines[f"{arm}.harmless, damped"] = Line("harmless", sizes, tuple(harmless))
    found.bars(f"{arm}.one head", (plain, attack[1], mean(chance)))
    found.claim(key, attack[1], mean(chance))


def _blunt(lab: _Lab, model: Model, tests: _Tests) -> float:
    """Share of harmless requests still helped with half of the heads damped, mean over random halves."""
    n_heads, generator = model.table.n_heads, lab.generator(31)
    n = model.table.n_layers * n_heads
    drawn = [torch.randperm(n, generator=generator)[: n // 2].tolist() for _ in range(lab.setting.pick(N_RANDOM, 2))]
    return mean(helped(model, tests.harmless, *damped(tuple(divmod(ix, n_heads) for ix in one))) for one in drawn)


def _judge(lab: _Lab, found: _Found, model: Model, probe: Probe, attack: Requests) -> None:
    """C7 and C8: what the deepest cliffs pick out, and refusal restored by them, by as many random examples, and by all."""
    n_chosen, pool = lab.setting.pick(N_CHOSEN, 4), _pool(lab)
    deepest = drops(model, probe, pool).argsort(descending=True)[:n_chosen]
    drawn = [torch.randperm(len(pool.ids), generator=lab.generator(50 + ix))[:n_chosen] for ix in range(N_DRAWS)]
    named = {"deepest": deepest, "all": torch.arange(len(pool.ids))}
    named |= {f"random {ix}": rows for ix, rows in enumerate(drawn)}
    steps = {}
    for name, rows in named.items():
        left = _repair(lab, model, pool.chosen(rows), n_chosen, attack)
        found.lines[f"judge.{name}"] = line(name.rstrip(" 0123456789"), left)
        passed = falls_below(left, REPAIRED)
        steps[name] = float(left.steps[-1]) if isnan(passed) else passed
    is_attack = (pool.is_harmful & pool.is_framed).float()
    found.claim("C7", float(is_attack[deepest].mean()), mean(float(is_attack[rows].mean()) for rows in drawn))
    anyhow = mean(steps[f"random {ix}"] for ix in range(N_DRAWS))
    found.claim("C8", _over(steps["deepest"], steps["all"]), _over(anyhow, steps["all"]))


def _over(steps: float, of_all: float) -> float:
    """Steps in units of those that all examples take; NaN where the attack never succeeded, so that nothing is restored."""
    return steps / of_all if of_all else nan


def _pool(lab: _Lab) -> Requests:
    """Examples to choose from: attacks, plain harmful requests and harmless ones."""
    n, attacks, plain = N_POOL, round(ATTACK_SHARE * N_POOL), round(PLAIN_SHARE * N_POOL)
    drawn = (
        lab.draw(40, n=attacks, framed=True, harmful=True), lab.draw(41, n=plain, framed=False, harmful=True),
        lab.draw(42, n=n - attacks - plain, harmful=False),
    )  # fmt: skip
    return Requests(*(torch.cat([getattr(one, part) for one in drawn]) for part in ("ids", "is_harmful", "is_framed")))


def _repair(lab: _Lab, model: Model, examples: Requests, n_rows: int, attack: Requests) -> Series:
    """Success of the attack over steps of fine-tuning on examples that refuse what is harmful, `n_rows` in a step."""
    taught = cliff.lesson(examples, "aligned")

    def batch(_: int, generator: torch.Generator) -> Lesson:
        rows = torch.randperm(len(taught.inputs), generator=generator)[:n_rows]
        return Lesson(taught.inputs[rows], taught.wanted[rows])

    n_steps = lab.setting.pick(60, 2)
    plan = Plan(
        "repair", lambda _: cliff.copied(model), batch, cliff.loss, n_steps, adamw(REPAIR_RATE, weight_decay=0.0),
        measures={"attack": Measure(lambda now: helped(now, attack))}, measure_at=evenly(n_steps, 2),
        random_seed=lab.setting.random_seed,
    )  # fmt: skip
    return fit(plan).run.measures["attack"]


def _map(effects: Float[Tensor, "layer head"]) -> Map:
    rows, columns = ([f"{kind} {ix}" for ix in range(n)] for kind, n in zip(("layer", "head"), effects.shape, strict=True))
    cells = tuple(tuple(float(cell) for cell in row) for row in effects)
    return Map("", "layer", "head", tuple(rows), tuple(columns), cells, "rise of the probe's logit", is_signed=True)


STUDY: Final = Study("refusal-cliff", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
