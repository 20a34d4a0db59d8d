"""Maps of activations learned together through the frozen model, or fitted site by site (Rodriguez et al. 2025)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

import torch
from torch import Tensor

from optrode.claims import Line, Measured
from optrode.control.end_to_end import lineas
from optrode.control.transport import Map, Maps, distance, linear_act
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.study.kit import coupled, dialects
from optrode.study.kit.coupled import Coupled
from optrode.study.kit.dialects import OURS, THEIRS, Dialects
from optrode.study.papers.lineas_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.lineas_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit

Sides = tuple[Tensor, Tensor]
"""Rows of the source, rows of the target."""

GAINS: Final = (0.0, 0.5, 1.0, 2.0, 4.0)
COSTS: Final = (0.0, 1e-3, 1e-2, 3e-2)
COST: Final = 1e-2
"""The l1 that the claims are about."""
SIZES: Final = (8, 32, 128)
FEW: Final = 32
STRENGTHS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
SITES: Final = "blocks.*.mlp_out"
"""Of the language model."""
RATE: Final = 0.05


@final
@dataclass
class _Found:
    """What the experiments of one random seed add up to."""

    measured: dict[str, Measured] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)

    def claim(self, key: str, value: float, control: float) -> None:
        """Note a claim's measurement."""
        self.measured[key] = Measured(float(value), float(control))

    def line(self, name: str, points: Mapping[float, float]) -> None:
        """Note a line."""
        self.lines[name] = Line(name, tuple(float(x) for x in points), tuple(float(y) for y in points.values()))


def gates_of(maps: Maps, strength: float = 1.0) -> tuple[Gate, ...]:
    """Of all sites, those left untouched too."""
    return tuple(one.gate(strength) for one in maps.maps)


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One network of coupled blocks, with rows to fit on and rows to test on."""

    setting: Setting
    law: Coupled
    n: int = 256

    @property
    def net(self) -> Model:
        """Its weights are those of the random seed."""
        return coupled.network(self.law, self.setting.random_seed)

    def sides(self, n: int, stream: int) -> Sides:
        """Fresh rows of both sides."""
        generator = torch.Generator().manual_seed(self.setting.random_seed * 1000 + stream)
        return coupled.draw(self.law, "source", n, generator), coupled.draw(self.law, "target", n, generator)

    @property
    def fitted(self) -> Sides:
        """Rows that maps are fitted on."""
        return self.sides(self.n, 1)

    def unlabelled(self) -> Sides:
        """The same rows without their labels."""
        one, other = coupled.mixed(*self.fitted)
        return one, other

    def together(self, sides: Sides | None = None, l1: float = 0.0) -> Maps:
        """LinEAS."""
        steps = self.setting.pick(300, 3)
        return lineas(self.net, *(sides or self.fitted), coupled.SITES, l1=l1, n_steps=steps, lr=RATE)

    def by_site(self, sides: Sides | None = None) -> Maps:
        """Linear-AcT, without a support: rows from beyond it are mapped too."""
        return linear_act(self.net, *(sides or self.fitted), coupled.SITES, support=None)

    def left(self, *held: Gate) -> float:
        """Summed W2^2 over all sites, on rows that nothing was fitted on."""
        unseen = self.sides(self.setting.pick(2000, 50), 2)
        return sum(float(one.sum()) for one in distance(self.net, *unseen, coupled.SITES, *held).values())


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    found = _Found()
    _coupling(setting, found)
    _sparsity(setting, found)
    _few(setting, found)
    _language(setting, found)
    return Outcome(found.measured, found.lines)


def _coupling(setting: Setting, found: _Found) -> None:
    """L1: what is left under maps learned together, over what is left under maps fitted site by site."""
    labs = {gain: _Lab(setting, Coupled(gain)) for gain in GAINS}
    plain = {gain: lab.left() for gain, lab in labs.items()}
    by_site = {gain: lab.left(*gates_of(lab.by_site())) for gain, lab in labs.items()}
    together = {gain: lab.left(*gates_of(lab.together())) for gain, lab in labs.items()}
    found.claim("L1", together[GAINS[-1]] / by_site[GAINS[-1]], together[0.0] / by_site[0.0])
    for name, left in {"fitted site by site": by_site, "learned together": together}.items():
        found.line(f"gain.{name}", {gain: left[gain] / plain[gain] for gain in GAINS})


def _sparsity(setting: Setting, found: _Found) -> None:
    """L2, L3: how many features need a map at all, and what is lost with the others."""
    lab = _Lab(setting, Coupled(2.0, n_idle=112))
    maps = {l1: lab.together(l1=l1) for l1 in COSTS}
    free, sparse = maps[0.0], maps[COST]
    left = {l1: lab.left(*gates_of(one)) for l1, one in maps.items()}
    found.claim("L2", sparse.identity_share, free.identity_share)
    generator = torch.Generator().manual_seed(setting.random_seed)
    random = {l1: lab.left(*gates_of(at_random(free, one, generator))) for l1, one in maps.items()}
    found.claim("L3", left[COST] / left[0.0], random[COST] / left[0.0])
    for name, points in {"left": left, "random": random}.items():
        found.line(f"l1.{name}", {maps[l1].identity_share: points[l1] / left[0.0] for l1 in COSTS})


def _few(setting: Setting, found: _Found) -> None:
    """L4: how many rows it takes."""
    sizes = {n: _Lab(setting, Coupled(2.0), n) for n in SIZES}
    plain = sizes[FEW].left()
    left = {n: lab.left(*gates_of(lab.together())) / plain for n, lab in sizes.items()}
    wrong = {n: lab.left(*gates_of(lab.together(lab.unlabelled()))) / plain for n, lab in sizes.items()}
    found.claim("L4", left[FEW], wrong[FEW])
    found.line("n.right", {float(n): share for n, share in left.items()})
    found.line("n.unlabelled", {float(n): share for n, share in wrong.items()})


def at_random(maps: Maps, like: Maps, generator: torch.Generator) -> Maps:
    """The maps of as many features at each site as other maps change, chosen at random; the rest left alone."""
    parts = []
    for one, other in zip(maps.maps, like.maps, strict=True):
        keep = torch.zeros(one.weight.numel(), dtype=torch.bool)
        keep[torch.randperm(len(keep), generator=generator)[: int(other.changed.sum())]] = True
        keep = keep.reshape(one.weight.shape)
        parts.append(Map(one.site, torch.where(keep, one.weight, 1.0), torch.where(keep, one.bias, 0.0)))
    return replace(maps, maps=tuple(parts))


def with_features_shuffled(maps: Maps, generator: torch.Generator) -> Maps:
    """The same weights and biases, each at another feature of its site."""
    parts = []
    for one in maps.maps:
        order = torch.randperm(len(one.weight), generator=generator)
        parts.append(Map(one.site, one.weight[order], one.bias[order]))
    return replace(maps, maps=tuple(parts))


@final
@dataclass(frozen=True, eq=False)
class _Writer:
    """A language model of two dialects, and what it writes after prompts of ours."""

    setting: Setting
    law: Dialects
    model: Model

    def generator(self, stream: int) -> torch.Generator:
        """Of one purpose."""
        return torch.Generator().manual_seed(self.setting.random_seed * 1000 + stream)

    def texts(self, n: int) -> Sides:
        """Rows of ours, rows of theirs."""
        generator = self.generator(11)
        return dialects.draw(self.law, n, generator, OURS), dialects.draw(self.law, n, generator, THEIRS)

    def unlabelled(self, n: int) -> Sides:
        """The same without their labels."""
        one, other = coupled.mixed(*self.texts(n))
        return one, other

    def together(self, texts: Sides, l1: float = 0.0) -> Maps:
        """LinEAS."""
        return lineas(self.model, *texts, SITES, l1=l1, n_steps=self.setting.pick(300, 3), lr=RATE)

    def writes(self, held: Sequence[Gate] = ()) -> dialects.Said:
        """What the model goes on with while gates are held."""
        prompts = dialects.draw(self.law, self.setting.pick(256, 8), self.generator(13), OURS, length=12)
        n_words = self.setting.pick(12, 2)
        return dialects.read(self.law, dialects.go_on(self.model, prompts, n_words, self.generator(14), *held), 13)


def _language(setting: Setting, found: _Found) -> None:
    """L5 to L8: what a language model writes."""
    law = Dialects(random_seed=setting.random_seed)
    trained = fit(dialects.plan(law, setting.random_seed, setting.pick(500, 2)))
    writer = _Writer(setting, law, trained.model)
    texts = writer.texts(FEW)
    maps, by_site = writer.together(texts), linear_act(trained.model, *texts, SITES, support=None)
    sparse, unlabelled = writer.together(texts, COST), writer.together(writer.unlabelled(FEW))
    held = (
        maps, by_site, unlabelled, with_features_shuffled(maps, writer.generator(15)), sparse,
        at_random(maps, sparse, writer.generator(16)),
    )  # fmt: skip
    _note_words([writer.writes(), *(writer.writes(gates_of(one)) for one in held)], found)
    found.line("sparse.untouched", {COST: sparse.identity_share})
    for name, one in {"learned together": maps, "fitted site by site": by_site}.items():
        said = {strength: writer.writes(gates_of(one, strength)) for strength in STRENGTHS}
        found.line(f"theirs.{name}", {strength: each.theirs for strength, each in said.items()})
        found.line(f"follows.{name}", {strength: each.follows for strength, each in said.items()})
    kept = dict(zip(STRENGTHS, found.lines["follows.learned together"].y, strict=True))
    found.claim("L6", kept[1.0] / kept[0.0], kept[STRENGTHS[-1]] / kept[0.0])


def _note_words(said: Sequence[dialects.Said], found: _Found) -> None:
    """Of the conditions, in the order of the figure's bars."""
    _, steered, closed, unlabelled, _, sparse, random = said
    found.claim("L5", steered.theirs, unlabelled.theirs)
    found.claim("L7", sparse.theirs, random.theirs)
    found.claim("L8", steered.theirs - closed.theirs, steered.follows - closed.follows)
    found.line("said.theirs", {float(ix): each.theirs for ix, each in enumerate(said)})
    found.line("said.follows", {float(ix): each.follows for ix, each in enumerate(said)})


STUDY: Final = Study("lineas", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
