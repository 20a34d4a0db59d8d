"""In-context learning strategies emerge rationally: when a network memorises its tasks, predicted by loss and complexity."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optrode.claims import Line, Measured
from optrode.model.model import Model
from optrode.study.kit import urns as task
from optrode.study.kit.curves import falls_below, line
from optrode.study.kit.posterior import START, Cell, Pair, Posterior, fit_posterior, held_out, nodes, slope
from optrode.study.kit.urns import Predictions, Rows, Urns
from optrode.study.papers.rational_icl_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.rational_icl_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit
from optrode.train.plan import Measure, Plan, adamw, log_spaced
from optrode.train.records import Series

N_SYMBOLS: Final = 8
N_DRAWS: Final = 32
N_BATCH: Final = 32
STEPS: Final[Mapping[int, int]] = {4: 256, 8: 724, 16: 1448, 32: 1448, 64: 2048, 256: 724}
"""Urns -> training steps: few for few urns, which are memorised at once, and for many, which are not in any time."""
SHOWN: Final = 16
"""Urns of the run that is looked at for forgetting what it could."""
SWITCHING: Final = (8, 16, 32, 64)
"""Numbers of urns that a network begins to memorise within the run, and not at once."""
FRESH: Final = "fresh urns in each row"
WIDE: Final = (16, 64, 256, 1024, 4096)
"""Numbers of urns at which the time of the switch is computed, with rows of 128 draws, as published."""
STARTS: Final = (START, (0.6, 0.2, 20.0), (0.3, 0.2, 3.0))
Trained = Mapping[int, Mapping[str, Series]]
"""Number of urns -> measure -> its course."""
SETTLED: Final = 0.15
"""A network is one of the mixtures once its misfit is below this share of an untrained one's."""


@final
@dataclass(frozen=True, eq=False)
class _Look:
    """Rows to test with, and what the two predictors say of them.

    Attributes:
        rows: of the set of urns.
        others: of other urns.
        memory, law: the memorising and the generalising predictor's predictions of the set's rows.
        of_others: the same of the others.
        logs: [node] of their mixtures' logarithms, at the weights `nodes()`.
    """

    rows: Rows
    others: Rows
    memory: Predictions
    law: Predictions
    of_others: tuple[Predictions, Predictions]
    logs: Float[Tensor, "node row pos symbol"]

    def __call__(self, model: Model) -> dict[str, float]:
        """Relative distance, divergence from the truth on other urns, and misfit of each mixture."""
        found = task.predictions(model, self.rows)
        entropy = float((found * found.log()).sum(-1).mean())
        misfit = [entropy - float((found * log).sum(-1).mean()) for log in self.logs]
        return {
            "relative": task.relative_distance(found, self.memory, self.law),
            "others": task.divergence(truth(self.others), task.predictions(model, self.others)),
            "misfit": min(misfit),
            **{f"misfit{ix}": value for ix, value in enumerate(misfit)},
        }


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    sets = tuple(STEPS) if setting.profile == "measured" else (4, 8, 16, 32)
    looks = {n: _look(setting, _urns(setting, n)) for n in sets}
    trained = {n: _train(setting, n, _urns(setting, n), looks[n]) for n in sets}
    look = looks[SHOWN]
    fresh = _train(setting, SHOWN, None, look)
    cells = [cell for n, series in trained.items() for cell in _cells(setting, n, series)]
    lines = {f"others.{n}": line(f"{n} urns", series["others"]) for n, series in trained.items()}
    lines["others.fresh"] = line(FRESH, fresh["others"])
    lines |= {f"relative.{n}": line(f"{n} urns", series["relative"]) for n, series in trained.items()}
    found = _agreement(cells, trained, lines) | _computed(setting, lines) | _seen(trained, fresh, look, lines)
    return Outcome(found, lines)


def _generator(setting: Setting, number: int) -> torch.Generator:
    return torch.Generator().manual_seed((setting.random_seed << 20) + number)


def _urns(setting: Setting, n_urns: int) -> Urns:
    return task.draw_urns(n_urns, N_SYMBOLS, _generator(setting, n_urns))


def truth(rows: Rows) -> Predictions:
    """What the predictions should be: each row's urn, at every position."""
    return rows.truth[:, None].expand(-1, rows.draws.shape[1] + 1, -1)


def both(rows: Rows, urns: Urns) -> tuple[Predictions, Predictions]:
    """The memorising predictor's predictions, and the generalising one's."""
    return task.memorising(rows.draws, urns), task.generalising(rows.draws, N_SYMBOLS)


def _look(setting: Setting, urns: Urns) -> _Look:
    generator, n_rows = _generator(setting, 1_000_003 + len(urns)), setting.pick(256, 8)
    rows = task.draw_rows(urns, n_rows, N_DRAWS, generator)
    others = task.draw_rows(task.draw_urns(n_rows, N_SYMBOLS, generator), n_rows, N_DRAWS, generator)
    memory, law = both(rows, urns)
    logs = torch.stack([(weight * memory + (1 - weight) * law).log() for weight in map(float, nodes())])
    return _Look(rows, others, memory, law, both(others, urns), logs)


def _train(setting: Setting, n_urns: int, urns: Urns | None, look: _Look) -> dict[str, Series]:
    """A network that learns from a set of urns, or from urns that never come again."""
    n_steps, n_rows = setting.pick(STEPS[n_urns], 6), setting.pick(N_BATCH, 4)

    def batch(_: int, generator: torch.Generator) -> Rows:
        now = task.draw_urns(n_rows, N_SYMBOLS, generator) if urns is None else urns
        return task.draw_rows(now, n_rows, N_DRAWS, generator)

    name, first = FRESH if urns is None else f"{n_urns} urns", setting.pick(16, 1)
    ran = fit(Plan(
        name, lambda seed: task.network(N_SYMBOLS, N_DRAWS, seed), batch, task.loss, n_steps, adamw(2e-3, fused=True),
        measures={"look": Measure(look)}, measure_at=log_spaced(n_steps, 2, first), clip_norm=1.0,
        random_seed=setting.random_seed,
    ), progress=setting.progress)  # fmt: skip
    return {name.removeprefix("look."): series for name, series in ran.run.measures.items()}


def _pair(urns: Urns, losses: tuple[float, float]) -> Pair:
    memory, law = task.complexity(urns)
    return Pair(float(memory), float(law), *losses)


def _cells(setting: Setting, n_urns: int, series: Mapping[str, Series]) -> list[Cell]:
    """The network at its checkpoints, from the first on at which it is near to one of the mixtures."""
    urns = _urns(setting, n_urns)
    losses = task.mean_divergences(urns, setting.pick(2048, 8), N_DRAWS, _generator(setting, 2_000_003 + n_urns))
    by_node = [series[f"misfit{ix}"].values for ix in range(len(nodes()))]
    start, pair = settled(series["misfit"].values), _pair(urns, losses)
    cells = [Cell(n_urns, pair, float(step), tuple(by)) for step, *by in zip(series["misfit"].steps, *by_node, strict=True)]
    return cells[start:]


def settled(misfits: Sequence[float]) -> int:
    """The number of the first checkpoint at which a network is one of the mixtures; that of the last where it never is."""
    near = [ix for ix, misfit in enumerate(misfits) if misfit < SETTLED * misfits[0]]
    return near[0] if near else len(misfits) - 1


def _agreement(cells: Sequence[Cell], trained: Trained, lines: dict[str, Line]) -> dict[str, Measured]:
    """W1: weights that are predicted from other numbers of urns, against where the network is."""
    at = {(n, step): value for n, series in trained.items() for step, value in points(series["relative"])}
    seen = np.array([at[cell.group, int(cell.step)] for cell in cells])
    predicted, fitted = np.array(held_out(cells, STARTS)), fit_posterior(cells, STARTS)
    for n in trained:
        here = [(cell.step, float(predicted[ix]), float(seen[ix])) for ix, cell in enumerate(cells) if cell.group == n]
        steps, weights, values = zip(*here, strict=True)
        lines[f"predicted.{n}"] = Line(f"{n} urns", steps, weights, dashed=True)
        lines[f"pairs.{n}"] = Line(f"{n} urns", weights, values)
    lines["parameters"] = Line("alpha, beta, gamma", (0.0, 1.0, 2.0), (fitted.alpha, fitted.beta, fitted.gamma))
    error, constant = abs(predicted - seen), abs(seen - np.median(seen))
    return {
        "W1a": Measured(correlation(predicted, seen), correlation(mirrored(cells, predicted), seen)),
        "W1b": Measured(float(error.mean()), float(constant.mean())),
    }


def _computed(setting: Setting, lines: dict[str, Line]) -> dict[str, Measured]:
    """W2a: the time of the switch, from losses and complexities at the code's initial guesses of the parameters.

    The control lets complexity alone grow with the number of urns, and holds the loss that memorising saves.
    """
    posterior, generator = Posterior(*START), _generator(setting, 4_000_037)
    wide = WIDE if setting.profile == "measured" else WIDE[:2]
    pairs = []
    for n in wide:
        urns = task.draw_urns(n, N_SYMBOLS, generator)
        pairs.append(_pair(urns, task.mean_divergences(urns, setting.pick(256, 16), 128, generator, every=8)))
    saved = pairs[0].loss_g - pairs[0].loss_m
    switch = [posterior.switch_step(pair) for pair in pairs]
    alone = [posterior.switch_step(replace(pair, loss_m=pair.loss_g - saved)) for pair in pairs]
    xs = tuple(map(float, wide))
    lines["computed"] = Line("loss and complexity", xs, tuple(switch))
    lines["alone"] = Line("complexity alone", xs, tuple(alone), dashed=True)
    return {"W2a": Measured(slope(xs, switch), slope(xs, alone))}


def _seen(trained: Trained, fresh: Mapping[str, Series], look: _Look, lines: dict[str, Line]) -> dict[str, Measured]:
    """W2b: when networks switch; W2c: how much worse they then do on other urns."""
    sets = [n for n in SWITCHING if n in trained]
    crossed = [rises_above(trained[n]["relative"], 0.5) for n in sets]
    formed = [falls_below(trained[n]["misfit"], SETTLED * trained[n]["misfit"].values[0]) for n in sets]
    lines["switched"] = Line("networks", *_known(sets, crossed))
    lines["formed"] = Line("networks: a mixture at all", *_known(sets, formed), dashed=True)
    memory, law = (task.divergence(truth(look.others), predicted) for predicted in look.of_others)
    lines["levels"] = Line("memorising, generalising", (0.0, 1.0), (memory, law))
    lost = [worsened(series["others"]) / (memory - law) for series in (trained[SHOWN], fresh)]
    return {"W2b": Measured(slope(sets, crossed), slope(sets, formed)), "W2c": Measured(*lost)}


def worsened(series: Series, n_last: int = 3) -> float:
    """How far a divergence ends above its least, by the median of the last measurements."""
    return float(np.median(series.values[-n_last:])) - min(series.values)


def rises_above(series: Series, bound: float) -> float:
    """The step at which a curve last rises above a bound for good, straight between two measurements on a logarithmic axis.

    NaN where it ends below, or was above from its first step on.
    """
    pairs = points(series)
    last = max((ix for ix, (_, value) in enumerate(pairs) if value <= bound), default=-1)
    if last in (-1, len(pairs) - 1):
        return math.nan
    (before, low), (after, high) = pairs[last : last + 2]
    share = (bound - low) / (high - low)
    return float(math.exp((1 - share) * math.log(max(before, 1)) + share * math.log(after)))


def points(series: Series) -> list[tuple[int, float]]:
    """(step, value) of each measurement."""
    return list(zip(series.steps, series.values, strict=True))


def _known(xs: Sequence[int], ys: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Points whose y is known."""
    known = [(float(x), y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    return tuple(x for x, _ in known), tuple(y for _, y in known)


def correlation(one: Float[np.ndarray, " cell"], two: Float[np.ndarray, " cell"]) -> float:
    """Pearson's; NaN where one of them does not vary."""
    return float(np.corrcoef(one, two)[0, 1]) if min(np.std(one), np.std(two)) > 0 else math.nan


def mirrored(cells: Sequence[Cell], predicted: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """[cell] what is predicted, at the nearest step, for the number of urns that is as far from the other end."""
    groups = sorted({cell.group for cell in cells})
    other = dict(zip(groups, reversed(groups), strict=True))
    found = []
    for cell in cells:
        there = [ix for ix, one in enumerate(cells) if one.group == other[cell.group]]
        found.append(predicted[min(there, key=lambda ix: abs(math.log(cells[ix].step / cell.step)))])
    return np.array(found)


STUDY: Final = Study("rational-icl", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
