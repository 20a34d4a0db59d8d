"""The path not taken: whether reward moves a policy's weights elsewhere than example does, at equal reward."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from optrode.claims import Line, Measured
from optrode.study.kit import moves, policy, weight_laws
from optrode.study.kit.curves import line
from optrode.study.kit.moves import Move
from optrode.study.kit.policy import Book, Size, Tuned, Tuning, Weights
from optrode.study.papers.rlvr_off_principals_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.rlvr_off_principals_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.masks import ETA, low_mask, principal_mask

RANK: Final = 16
TURNED: Final = 1
"""Layer whose coordinates are turned."""
SIZES: Final = tuple(float(size) for size in np.geomspace(1e-4, 1.0, 25))
UNCHANGED: Final = 0.6
"""Share of weights left as they were at which updates of different makers are compared."""
QUICK: Final = Size(
    d_model=16, n_layers=2, n_heads=2, n_pretrain=12, rows=16, n_questions=4, group=4, most_steps=4, every=2
)  # fmt: skip


@final
@dataclass(frozen=True, eq=False)
class Runs:
    """The pretrained policy, and what was made of it.

    Attributes:
        base: its weights.
        names: of its tuned matrices.
        tuned: by name of the run.
        rank: of principal subspaces.
    """

    base: Weights
    names: tuple[str, ...]
    tuned: Mapping[str, Tuned]
    rank: int

    def move(self, name: str) -> Move:
        """How far a run went."""
        return moves.move(self.base, self.tuned[name].weights, self.names, self.rank)

    def most(self, name: str) -> moves.Masks:
        """What a run changed most."""
        return moves.moved_most(self.base, self.tuned[name].weights, self.names)

    def updates(self, name: str) -> dict[str, Tensor]:
        """What a run added."""
        return moves.updates(self.base, self.tuned[name].weights, self.names)


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    size = Size() if setting.profile == "measured" else QUICK
    numbers = torch.Generator().manual_seed((setting.random_seed << 16) + 1)
    book = policy.write(setting.pick(12, 5), numbers)
    base = policy.pretrain(book, size, setting.random_seed)
    runs = _tune(book, size, base, setting)
    turned_from = policy.turned(base, TURNED if size.n_layers > TURNED else 0, size.n_heads, numbers)
    turned = policy.tune(book, size, turned_from, "reward", _seed(setting, 2))
    masked = _masked(book, size, runs, setting, numbers)
    found: dict[str, Measured] = {}
    lines: dict[str, Line] = {}
    for part in (
        _exact(runs, setting, numbers), _turning(runs, turned_from, turned, lines), _distances(runs, lines),
        _places(runs, numbers), _sparsity(runs, lines), _agreement(runs, numbers, lines), _masks(runs, masked, lines),
    ):  # fmt: skip
        found |= part
    lines |= {f"reward/{name}": line(name, one.reward) for name, one in runs.tuned.items()}
    return Outcome(found, lines)


def _seed(setting: Setting, which: int) -> int:
    """Of the questions of one run."""
    return 1000 + 16 * setting.random_seed + which


def _tune(book: Book, size: Size, base: Weights, setting: Setting) -> Runs:
    """By reward twice, by example twice, and by example towards other answers; the second example takes reward's steps."""
    tuned = {"reward": policy.tune(book, size, base, "reward", _seed(setting, 1))}
    tuned["reward again"] = policy.tune(book, size, base, "reward", _seed(setting, 2))
    tuned["example"] = policy.tune(book, size, base, "example", _seed(setting, 1))
    same = Tuning(n_steps=tuned["reward"].n_steps)
    tuned["example again"] = policy.tune(book, size, base, "example", _seed(setting, 2), same)
    tuned["other answers"] = policy.tune(book, size, base, "example", _seed(setting, 1), Tuning(is_other=True))
    return Runs(base, policy.matrices(base), tuned, min(RANK, size.d_model // 4))


def _masked(
    book: Book, size: Size, runs: Runs, setting: Setting, numbers: torch.Generator
) -> dict[str, Tuned]:  # fmt: skip
    """By reward, for as many steps as without a mask, where only some of each matrix's weights may change."""
    n_steps = runs.tuned["reward"].n_steps
    by_mask = masks_of({name: runs.base[name] for name in runs.names}, runs.rank, numbers)
    return {
        name: policy.tune(book, size, runs.base, "reward", _seed(setting, 1), Tuning(n_steps=n_steps, masks=masks))
        for name, masks in by_mask.items()
    }


def masks_of(
    weights: Weights, rank: int, numbers: torch.Generator
) -> dict[str, dict[str, Bool[Tensor, "row column"]]]:  # fmt: skip
    """Masks by name: low or not principal, as many at random; principal, low, and two random halves."""
    principal = {name: principal_mask(weight, rank, moves.ALPHA) for name, weight in weights.items()}
    low = {name: low_mask(weight, moves.ALPHA) for name, weight in weights.items()}
    safe = {name: low[name] | ~principal[name] for name in weights}
    return {
        "low or not principal": safe, "as many at random": {name: _as_many(mask, numbers) for name, mask in safe.items()},
        "principal half": principal, "low half": low,
        "random half": {name: _as_many(mask, numbers) for name, mask in low.items()},
        "other random half": {name: _as_many(mask, numbers) for name, mask in low.items()},
    }  # fmt: skip


def _as_many(mask: Bool[Tensor, "row column"], numbers: torch.Generator) -> Bool[Tensor, "row column"]:
    order = torch.randperm(mask.numel(), generator=numbers)
    return mask.flatten()[order].view(mask.shape)


def _exact(runs: Runs, setting: Setting, numbers: torch.Generator) -> dict[str, Measured]:
    """P1a to P1c: what holds of any update."""
    n = setting.pick(200_000, 500)
    crossing = [weight_laws.crossing(8, numbers) for _ in range(setting.pick(50, 2))]
    drawn = [weight_laws.perturbed(8, numbers) for _ in range(setting.pick(200, 2))]
    tuned = [(runs.base[name].double(), one.weights[name].double()) for one in runs.tuned.values() for name in runs.names]
    over = max(weight_laws.over_bounds([*crossing, *drawn], 1), weight_laws.over_bounds(tuned, runs.rank))
    free, aimed = (
        fmean(weight_laws.overlaps(runs.base[name], runs.rank, setting.pick(5, 1), numbers, is_aimed=is_aimed)
              for name in runs.names) for is_aimed in (False, True)
    )  # fmt: skip
    return {
        "P1a": Measured(*(weight_laws.mismatches(n, eta, numbers) for eta in (ETA, 2.0**-7))),
        "P1b": Measured(over, weight_laws.over_wrong_bound(crossing, 1)),
        "P1c": Measured(abs(free - 0.5), abs(aimed - 0.5)),
    }


def _turning(runs: Runs, start: Weights, turned: Tuned, lines: dict[str, Line]) -> dict[str, Measured]:
    """P1d: overlap of a run with one from turned weights, beside that with the same run from weights that are not."""
    first, again = runs.most("reward"), runs.most("reward again")
    other = moves.moved_most(start, turned.weights, runs.names)
    plain = {name: moves.above_chance(first, again, [name]) for name in runs.names}
    after = {name: moves.above_chance(first, other, [name]) for name in runs.names}
    there = [name for name in runs.names if torch.any(start[name] != runs.base[name])]
    rest = [name for name in runs.names if name not in there]
    places = tuple(float(ix) for ix in range(len(runs.names)))
    for key, found in (("as it was", plain), ("one layer turned", after)):
        lines[f"turned/{key}"] = Line(key, places, tuple(found[name] for name in runs.names))
    return {"P1d": Measured(*(_over(sum(after[n] for n in part), sum(plain[n] for n in part)) for part in (there, rest)))}


def _distances(runs: Runs, lines: dict[str, Line]) -> dict[str, Measured]:
    """P2a to P2c, P2l, P2m: how far the spectra and subspaces moved."""
    by_run = {name: runs.move(name) for name in runs.tuned}
    example, reward, other = (by_run[name] for name in ("example", "reward", "other answers"))
    for name, one in by_run.items():
        values = (one.shift, one.shift_per_norm, one.angle, one.energy, one.norm)
        lines[f"move/{name}"] = Line(name, tuple(map(float, range(len(values)))), values)
        turned = moves.angles(runs.base, runs.tuned[name].weights, runs.names, runs.rank)
        lines[f"angles/{name}"] = Line(name, tuple(map(float, range(1, len(turned) + 1))), turned)
    along = moves.changed_to(runs.base, moves.along_weights(runs.base, runs.updates("reward")), runs.names)
    longer = moves.move(runs.base, along, runs.names, runs.rank)
    again, by_way = by_run["example again"], _over(reward.shift, example.shift)
    return {
        "P2a": Measured(_over(example.shift, reward.shift), _over(again.shift, example.shift)),
        "P2b": Measured(*(_over(one.shift_per_norm, example.shift_per_norm) for one in (reward, longer))),
        "P2c": Measured(_over(example.angle, reward.angle), _over(again.angle, example.angle)),
        "P2l": Measured(_over(other.shift, example.shift), by_way),
        "P2m": Measured(_over(other.energy, example.energy), _over(reward.energy, example.energy)),
    }


def _places(runs: Runs, numbers: torch.Generator) -> dict[str, Measured]:
    """P2d, P2e: where the updated weights are."""
    reward = runs.move("reward")
    moved = moves.changed_to(runs.base, moves.shuffled(runs.updates("reward"), numbers), runs.names)
    chance = moves.move(runs.base, moved, runs.names, runs.rank)
    return {"P2d": Measured(-reward.principal, -chance.principal), "P2e": Measured(reward.low, chance.low)}


def _sparsity(runs: Runs, lines: dict[str, Line]) -> dict[str, Measured]:
    """P2f to P2h: how many weights stay as they are in bfloat16, and how that depends on the size of the update."""
    by_maker = {name: runs.updates(name) for name in ("reward", "example", "other answers")}
    by_maker["a tenth of the weights"] = moves.concentrated(by_maker["reward"])
    seen = {name: moves.unchanged_by_size(runs.base, made, SIZES) for name, made in by_maker.items()}
    for name, points in seen.items():
        norms, shares = zip(*points, strict=True)
        lines[f"unchanged/{name}"] = Line(name, norms, shares, dashed=name.startswith("a tenth"))
    at = norm_at(seen["example"], UNCHANGED)
    shares_at = [share_at(seen[name], at) for name in ("reward", "a tenth of the weights")]
    reward, example = seen["reward"][-1][1], seen["example"][-1][1]
    small = moves.unchanged_by_size(runs.base, by_maker["reward"], [1e-3])[0][1]
    return {
        "P2f": Measured(reward, example),
        "P2g": Measured(1 - reward, 1 - small),
        "P2h": Measured(*(abs(share - UNCHANGED) for share in shares_at)),
    }


def norm_at(points: Sequence[tuple[float, float]], share: float) -> float:
    """The norm at which an update leaves a share of weights as they were, between points as the logarithm goes."""
    norms, shares = zip(*points, strict=True)
    return float(np.exp(np.interp(share, shares[::-1], np.log(norms)[::-1])))


def share_at(points: Sequence[tuple[float, float]], norm: float) -> float:
    """The share of weights that an update of a norm leaves as they were."""
    norms, shares = zip(*points, strict=True)
    return float(np.interp(math.log(norm), np.log(norms), shares))


def _agreement(runs: Runs, numbers: torch.Generator, lines: dict[str, Line]) -> dict[str, Measured]:
    """P2i to P2k: whether runs change the same weights."""
    names, again = runs.names, runs.tuned["reward again"].weights
    moved = moves.changed_to(runs.base, moves.shuffled(runs.updates("reward again"), numbers), names)
    visible = [moves.visibly(runs.base, one, names) for one in (runs.tuned["reward"].weights, again, moved)]
    first = runs.most("reward")
    most = {name: runs.most(name) for name in runs.tuned} | {"shuffled": moves.moved_most(runs.base, moved, names)}
    common = {name: moves.above_chance(first, masks, names) for name, masks in most.items() if name != "reward"}
    lines["common"] = Line("with reward", tuple(map(float, range(len(common)))), tuple(common.values()))
    by_reward = common["reward again"]
    return {
        "P2i": Measured(*(moves.above_chance(visible[0], other, names) for other in visible[1:])),
        "P2j": Measured(by_reward, common["shuffled"]),
        "P2k": Measured(_over(common["example again"], by_reward), _over(common["other answers"], by_reward)),
    }


def _masks(runs: Runs, masked: Mapping[str, Tuned], lines: dict[str, Line]) -> dict[str, Measured]:
    """P3: what reward reaches where only some weights may change."""
    whole = runs.tuned["reward"].reward.values
    gain = {name: _over(one.reward.values[-1] - whole[0], whole[-1] - whole[0]) for name, one in masked.items()}
    lines |= {f"masked/{name}": line(name, one.reward, dashed="random" in name) for name, one in masked.items()}
    return {
        "P3a": Measured(gain["low or not principal"], gain["as many at random"]),
        "P3b": Measured(gain["low half"] - gain["principal half"], gain["random half"] - gain["other random half"]),
    }


def _over(one: float, two: float) -> float:
    return one / two if two else math.nan


STUDY: Final = Study("rlvr-off-principals", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
