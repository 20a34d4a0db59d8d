"""Emotion circuits: directions of feelings, the heads and neurons that write them, and stories told with them turned up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from optrode.claims import Line, Map, Measured
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.study.kit import feeling_circuits as circuits
from optrode.study.kit import feelings
from optrode.study.kit.feeling_circuits import OUTS, SITES, STREAMS, Centred, Parts
from optrode.study.kit.feelings import N_FEELINGS, NEUTRAL, Part, World
from optrode.study.papers.emotion_circuits_claims import CLAIMS, DIFFERENCES, N_HEADS, N_NEURONS, PAPER, QUESTION
from optrode.study.papers.emotion_circuits_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit
from optrode.train.plan import Plan, adamw

STRENGTHS: Final = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
"""Of heads and neurons, in units of what they do for the feeling."""
DOSES: Final = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0)
"""Of a steering vector, in units of the stream's size."""
N_RANDOM: Final = 3
"""Random circuits."""
N_STORIES: Final[Mapping[Part, int]] = {"validation": 2, "test": 4}
"""Stories of each scenario and feeling."""

Hold = Callable[[Tensor], tuple[Gate, ...]]
"""The gates for rows of these feelings."""


@final
@dataclass(frozen=True)
class _Told:
    """What came of stories.

    Attributes:
        felt: share of the asked feeling.
        well: share of well told stories.
        both: share of stories that are both.
    """

    felt: float
    well: float
    both: float


@final
@dataclass(frozen=True, eq=False)
class _Lab:
    """One random seed's grammar and network."""

    setting: Setting

    @cached_property
    def world(self) -> World:
        """The scenarios."""
        return feelings.draw_world(self.setting.random_seed)

    @cached_property
    def model(self) -> Model:
        """A network that tells stories of feelings."""
        n_rows = self.setting.pick(128, 8)
        return fit(Plan(
            "stories", feelings.network, lambda _, generator: feelings.draw_batch(n_rows, generator), feelings.loss,
            self.setting.pick(700, 2), adamw(2e-3, weight_decay=0.01), random_seed=self.setting.random_seed,
        )).model  # fmt: skip

    def scenarios(self, part: Part) -> Int[Tensor, "scenario 2"]:
        """Of a part, few in a quick run."""
        return self.world.parts[part][: self.setting.pick(32, 3)]

    def grouped(self, part: Part, sites: tuple[str, ...]) -> dict[str, Tensor]:
        """Mean activations by scenario and feeling."""
        return circuits.grouped(self.model, self.scenarios(part), sites, self.generator(1))

    @cached_property
    def known(self) -> dict[str, Tensor]:
        """The activations that directions and circuits are found from."""
        return self.grouped("fit", (*SITES, *STREAMS))

    @cached_property
    def centred(self) -> Centred:
        """Directions of feelings, and what heads and neurons do for them."""
        return circuits.centred(self.known)

    @cached_property
    def weights(self) -> Float[Tensor, "layer half feeling"]:
        """The importance of sublayers, on stories of no feeling."""
        rows = self.scenarios("fit")
        ids = feelings.stories(rows, torch.full((len(rows),), NEUTRAL), self.generator(2))
        return circuits.importance(self.model, ids, self.centred)

    @cached_property
    def scores(self) -> dict[str, Tensor]:
        """Of heads and neurons."""
        return circuits.scores(self.model, self.centred, self.weights)

    def random(self, draw: int) -> dict[str, Tensor]:
        """A random circuit."""
        return circuits.random_like(self.scores, N_HEADS, N_NEURONS, self.generator(10 + draw))

    def told(self, part: Part, hold: Hold, *, is_prompted: bool = False) -> _Told:
        """Stories of each scenario of a part with gates for each feeling; told to feel it, or left neutral."""
        scenarios = self.scenarios(part).repeat_interleave(self.setting.pick(N_STORIES[part], 1), 0)
        rows, asked = scenarios.repeat_interleave(N_FEELINGS, 0), torch.arange(N_FEELINGS).repeat(len(scenarios))
        started = feelings.prompts(rows, asked if is_prompted else torch.full_like(asked, NEUTRAL))
        story = feelings.tell(self.model, started, self.generator(3), *hold(asked))
        felt, well = feelings.felt(story) == asked, feelings.is_well_told(story, rows)
        return _Told(*(float(one.float().mean()) for one in (felt, well, felt & well)))

    def without(self, parts: Parts) -> float:
        """Share of the asked feeling, told to feel it, with each feeling's own parts held at their means."""
        scenarios, shares = self.scenarios("test").repeat_interleave(self.setting.pick(N_STORIES["test"], 1), 0), []
        for feeling in range(N_FEELINGS):
            asked = torch.full((len(scenarios),), feeling)
            held = circuits.turned_off(self.centred.middles, parts, feeling)
            story = feelings.tell(self.model, feelings.prompts(scenarios, asked), self.generator(4), *held)
            shares.append(float((feelings.felt(story) == feeling).float().mean()))
        return mean(shares)

    def up(self, parts: Parts, strength: float | int) -> Hold:
        """Gates that turn parts up."""
        return lambda asked: circuits.turned_up(self.centred.values, parts, asked, strength)

    def steer(self, layer: int, dose: float | int) -> Hold:
        """Gates that add a direction after a layer."""
        return lambda asked: circuits.steered(self.centred, (layer,), asked, dose)

    def generator(self, stream: int) -> torch.Generator:
        """Random numbers of one use."""
        return torch.Generator().manual_seed(1_000 * self.setting.random_seed + 100 + stream)


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    lab = _Lab(setting)
    chosen = circuits.selected(lab.scores, N_HEADS, N_NEURONS)
    drawn = [lab.random(draw) for draw in range(setting.pick(N_RANDOM, 1))]
    tries = _tries(lab, chosen, drawn[0])
    seen = {name: {key: lab.told("validation", hold) for key, hold in some.items()} for name, some in tries.items()}
    best = {name: _best(some) for name, some in seen.items()}
    test, twice = _test(lab, tries, best, chosen, drawn)
    off = {"told to feel": test["told to feel"].felt, "circuit": lab.without(chosen)}
    off["random"] = mean(lab.without(one) for one in drawn)
    measured = {
        "E2": Measured(off["circuit"], off["random"]),
        "E3": Measured(test["circuit"].felt, test["random, same strength"].felt),
        "E4": Measured(*(test[name].both - test["steering"].both for name in ("circuit", "random, its best"))),
        "E5": Measured(*(one.well - test["as it is"].well for one in (test["circuit"], twice))),
    }
    notes = (f"Seed {setting.random_seed}: strength {best['circuit']}, steering after layer and dose {best['steering']}.",)
    lines = {f"{name}.{axis}": _curve(some, axis) for name, some in seen.items() for axis in ("felt", "well")}
    lines |= {f"test.{axis}": _bars([getattr(one, axis) for one in test.values()]) for axis in ("felt", "well", "both")}
    lines["off"] = _bars(list(off.values()))
    return Outcome(_directions(lab) | measured, lines, _maps(lab), notes=notes)


def _tries(lab: _Lab, chosen: Parts, random: Parts) -> dict[str, dict[str, Hold]]:
    """What is tried on validation scenarios."""
    strengths, doses = STRENGTHS[: lab.setting.pick(len(STRENGTHS), 2)], DOSES[: lab.setting.pick(len(DOSES), 2)]
    layers = range(lab.model.table.n_layers)
    return {
        "circuit": {str(strength): lab.up(chosen, strength) for strength in strengths},
        "random": {str(strength): lab.up(random, strength) for strength in strengths},
        "steering": {f"{layer} {dose}": lab.steer(layer, dose) for layer in layers for dose in doses},
    }


def _best(seen: Mapping[str, _Told]) -> str:
    """The try with most stories that are of the asked feeling and well told."""
    return max(seen, key=lambda key: seen[key].both)


def _test(
    lab: _Lab, tries: Mapping[str, Mapping[str, Hold]], best: Mapping[str, str], chosen: Parts, drawn: Sequence[Parts]
) -> tuple[dict[str, _Told], _Told]:  # fmt: skip
    """What is told on test scenarios with the best tries, in the order of `figures.HELD`, and at twice the strength."""
    strength = float(best["circuit"])
    found = {"as it is": lab.told("test", _nothing), "told to feel": lab.told("test", _nothing, is_prompted=True)}
    found |= {name: lab.told("test", tries[name][best[name]]) for name in ("circuit", "steering")}
    for name, size in (("random, same strength", strength), ("random, its best", float(best["random"]))):
        found[name] = _average([lab.told("test", lab.up(one, size)) for one in drawn])
    return found, lab.told("test", lab.up(chosen, 2 * strength))


def _nothing(_: Tensor) -> tuple[Gate, ...]:
    return ()


def _average(several: Sequence[_Told]) -> _Told:
    return _Told(*(mean(getattr(one, axis) for one in several) for axis in ("felt", "well", "both")))


def _directions(lab: _Lab) -> dict[str, Measured]:
    """E1: whether directions say the feeling in other scenarios, and are the same in other scenarios."""
    sites = [f"blocks.{layer}.{stream}" for layer in range(lab.model.table.n_layers) for stream in STREAMS]
    test, known = lab.grouped("test", STREAMS), lab.known
    shuffled = circuits.centred({site: _shuffled(known[site], lab.generator(5)) for site in sites})
    read, chance = (
        mean(circuits.is_read(test, directions, site) for site in sites) for directions in (lab.centred, shuffled)
    )
    half = len(lab.scenarios("fit")) // 2
    one, two = (circuits.centred({site: known[site][part] for site in sites}) for part in (slice(half), slice(half, None)))
    return {
        "E1a": Measured(read, chance),
        "E1b": Measured(*(mean(_alike(one, two, site, shift) for site in sites) for shift in (0, 1))),
    }


def _shuffled(found: Float[Tensor, "scenario feeling d"], generator: torch.Generator) -> Float[Tensor, "scenario feeling d"]:
    """Feelings exchanged within each scenario."""
    order = torch.rand(found.shape[:2], generator=generator).argsort(1)
    return found.gather(1, order[..., None].expand_as(found))


def _alike(one: Centred, two: Centred, site: str, shift: int) -> float:
    """Mean cosine of directions of the same feeling, or of the feeling `shift` further."""
    return float(cosine_similarity(one.direction(site), two.direction(site).roll(shift, 0), dim=-1).mean())


def _curve(seen: Mapping[str, _Told], axis: str) -> Line:
    """Over tries: strengths or doses, of a steering vector after one layer after the other."""
    return Line(axis, tuple(float(ix) for ix in range(len(seen))), tuple(getattr(one, axis) for one in seen.values()))


def _bars(values: Sequence[float]) -> Line:
    return Line("", tuple(float(ix) for ix in range(len(values))), tuple(values))


def _maps(lab: _Lab) -> dict[str, Map]:
    rows = tuple(f"layer {layer}" for layer in range(lab.model.table.n_layers))
    heads = [lab.scores[f"blocks.{layer}.attn.z"].mean(0).tolist() for layer in range(len(rows))]
    columns = tuple(f"head {head}" for head in range(lab.model.table.n_heads))
    weights = lab.weights.mean(-1).tolist()
    return {
        "heads": Map("", "layer", "head", rows, columns, tuple(map(tuple, heads)), "score", is_signed=True),
        "importance": Map("", "layer", "sublayer", rows, OUTS, tuple(map(tuple, weights)), "importance", is_signed=True),
    }


STUDY: Final = Study("emotion-circuits", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
