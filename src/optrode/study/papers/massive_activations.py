"""Hidden dynamics of massive activations: the law of their growth, fitted while two small transformers learn text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Final, final

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from optrode.claims import Line, Measured
from optrode.model.model import Model
from optrode.site.recording import record
from optrode.study.kit import text
from optrode.study.kit.curve_fits import Fitted, fitted, made_by, numerical_peak
from optrode.study.kit.curves import line
from optrode.study.papers.massive_activations_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.massive_activations_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import fit
from optrode.train.measures import sink_share
from optrode.train.plan import Measure, Plan, adam, evenly
from optrode.train.records import Series
from optrode.train.streams import massive_ratio

KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Pythia's kind": {"norm": "layer", "has_bias": True, "is_parallel": True},
    "Llama's kind": {"norm": "rms", "has_bias": False, "is_parallel": False},
}
LENGTH: Final = 48
EARLY: Final = 60 / 143
"""Before which share of the run a peak is early."""
FAR: Final = 10.0
"""Runs' lengths beyond which a law is so flat that no peak can be looked for."""


@final
@dataclass(frozen=True, eq=False)
class Look:
    """What is measured of a network on the same rows each time."""

    rows: Int[Tensor, "row pos"]

    def __call__(self, model: Model) -> dict[str, float]:
        """Each layer's ratio; the largest activation; where it sits; attention to the first and to the second token."""
        found = record(model, {"input_ids": self.rows}, ["blocks.*.resid_post", "blocks.*.attn.pattern"])
        streams, patterns = found.stack("resid_post"), found.stack("attn.pattern")
        at_first = (streams.abs().amax(-1).argmax(-1) == 0).float().mean()
        return {f"ratio{layer}": massive_ratio(stream) for layer, stream in enumerate(streams)} | {
            "size": float(streams.abs().max()),
            "first": float(at_first),
            "sink": max(float(sink_share(pattern).max()) for pattern in patterns),
            "second": float(patterns[..., 2:, 1].mean((1, 3)).max()),
        }


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    words = text.corpus() if setting.profile == "measured" else text.corpus(("getopt", "queue"), 1)
    rows = text.draw(words.unseen, setting.pick(40, 2), LENGTH - 1, _numbers(setting, 0))
    trained = {kind: _train(setting, kind, words, Look(rows)) for kind in tuple(KINDS)[: setting.pick(2, 1)]}
    curves = [fitted(f"{kind}, layer {layer}", series[f"ratio{layer}"].steps, series[f"ratio{layer}"].values)
              for kind, series in trained.items() for layer in range(_n_layers(setting))]  # fmt: skip
    still = _untrained(setting, words, [float(step) for step in curves[0].steps])
    by_chance = curves[: setting.pick(len(curves), 1)]
    found = _fits(curves, by_chance, still, np.random.default_rng(setting.random_seed))
    found |= _peaks(curves, _n_layers(setting)) | _sizes(curves, still, trained)
    return Outcome(found, _lines(curves, trained))


def _n_layers(setting: Setting) -> int:
    return setting.pick(4, 1)


def _numbers(setting: Setting, which: int) -> torch.Generator:
    """Random numbers of the setting's seed, and of one purpose."""
    return torch.Generator().manual_seed((setting.random_seed << 20) + which)


def _train(setting: Setting, kind: str, words: text.Corpus, look: Look) -> dict[str, Series]:
    """Measures of a network that learns the text."""
    n_steps, n_rows = setting.pick(1600, 7), setting.pick(8, 2)

    def batch(index: int, _: torch.Generator) -> Tensor:
        return text.draw(words.seen, n_rows, LENGTH, _numbers(setting, index + 1))

    ran = fit(Plan(
        kind, lambda _: _network(setting, kind), batch, text.loss, n_steps, adam(4e-3), clip_norm=1.0,
        measures={"look": Measure(look)}, measure_at=evenly(n_steps, setting.pick(40, 1)), random_seed=setting.random_seed,
    ), progress=setting.progress)  # fmt: skip
    return {name.removeprefix("look."): series for name, series in ran.run.measures.items()} | {"loss": ran.run.loss}


def _network(setting: Setting, kind: str) -> Model:
    return text.network(setting.random_seed, init="torch", n_layers=_n_layers(setting), n_ctx=LENGTH, **KINDS[kind])


def _untrained(setting: Setting, words: text.Corpus, steps: Sequence[float]) -> list[Fitted]:
    """A network that never learns, each time on other rows: what the law makes of chance."""
    model, numbers = _network(setting, "Pythia's kind"), _numbers(setting, (1 << 20) - 1)
    n_rows = setting.pick(40, 2)
    looks = [Look(text.draw(words.unseen, n_rows, LENGTH - 1, numbers))(model) for _ in steps]
    by_layer = [[look[f"ratio{layer}"] for look in looks] for layer in range(_n_layers(setting))]
    return [fitted("untrained", steps, ratios) for ratios in by_layer]


def _fits(
    curves: Sequence[Fitted], some: Sequence[Fitted], still: Sequence[Fitted], draws: np.random.Generator
) -> dict[str, Measured]:
    """M1a to M1c: how well the law fits, and beside others. Of `some` curves, what chance would have made."""
    shuffled = [fitted(one.name, one.steps, draws.permutation(one.ratios)) for one in some]
    by_response = [fitted(one.name, one.steps, made_by(one.response.law.at(one.steps), one.ratios, draws)) for one in some]
    by_plain = [fitted(one.name, one.steps, made_by(one.plain_at, one.ratios, draws)) for one in some]
    chance = max(fmean(one.law.r2 for one in group) for group in (shuffled, still))
    return {
        "M1a": Measured(fmean(one.law.r2 for one in curves), chance),
        "M1b": Measured(*(median(one.over_responses for one in group) for group in (curves, by_response))),
        "M1c": Measured(*(median(one.over_plain for one in group) for group in (curves, by_plain))),
    }


def _peaks(curves: Sequence[Fitted], n_layers: int) -> dict[str, Measured]:
    """M1d, M1e, M2: where the law turns by its formula, by looking, and in what was measured."""
    turns = [(one, one.turn, one.turn_seen()) for one in curves]
    last = float(curves[0].steps[-1])
    away = [abs(turn - seen) / last for _, turn, seen in turns if turn is not None]
    blind = [seen / last for _, turn, seen in turns if turn is not None]
    return {
        "M1d": Measured(*formula_errors(curves)),
        "M1e": Measured(_middle(away), _middle(blind)),
        "M2": Measured(*(share_of_classes(curves, n_layers, is_swapped) for is_swapped in (False, True))),
    }


def formula_errors(curves: Sequence[Fitted]) -> tuple[float, float]:
    """Relative differences of the peak's formula from where the law is largest, NaN where no law has a peak.

    The largest difference, and the least with 1/lambda in place of e^W(1/lambda).
    """
    right, wrong = [], []
    for one in curves:
        law, last = one.shape, float(one.steps[-1])
        peak = law.peak_step()
        seen = numerical_peak(law, last) if peak is not None and peak < FAR * last else None
        if peak is not None and seen:
            right.append(abs(peak - seen) / seen)
            wrong.append(abs((1 / law.decay - law.offset) / law.rate - seen) / seen)
    return (max(right), min(wrong)) if right else (math.nan, math.nan)


def share_of_classes(curves: Sequence[Fitted], n_layers: int, is_swapped: bool = False) -> float:
    """Share of layers that peak early at either end of a network, and do not in between; or the other way round."""
    early = [one.peak is not None and one.peak < EARLY * one.steps[-1] for one in curves]
    at_ends = [ix % n_layers in (0, n_layers - 1) for ix in range(len(curves))]
    return fmean(float(is_early == (is_end != is_swapped)) for is_early, is_end in zip(early, at_ends, strict=True))


def _sizes(
    curves: Sequence[Fitted], still: Sequence[Fitted], trained: Mapping[str, Mapping[str, Series]]
) -> dict[str, Measured]:
    """M3 to M6: how far the largest activations grew, where they are, and who looks there."""
    grown = [float(one.ratios[-1] / one.ratios[0]) for one in curves]
    chance = [float(one.ratios.max() / one.ratios.min()) for one in still]
    ends = {name: [series[name].values[-1] for series in trained.values()] for name in ("first", "sink", "second")}
    return {
        "M3": Measured(max(float(one.ratios[-1]) for one in curves), max(float(one.ratios[0]) for one in curves)),
        "M4": Measured(median(grown), median(chance)),
        "M5": Measured(fmean(ends["first"]), fmean(series["first"].values[0] for series in trained.values())),
        "M6": Measured(max(ends["sink"]), max(ends["second"])),
    }


def _middle(values: Sequence[float]) -> float:
    return median(values) if values else math.nan


def _lines(curves: Sequence[Fitted], trained: Mapping[str, Mapping[str, Series]]) -> dict[str, Line]:
    """What the figures are drawn from."""
    lines = {}
    for one in curves:
        kind, _, layer = one.name.partition(", ")
        steps = tuple(map(float, one.steps))
        lines[f"ratio/{one.name}"] = Line(layer, steps, tuple(map(float, one.ratios)))
        lines[f"law/{one.name}"] = Line(layer, steps, tuple(map(float, one.shape.at(one.steps))), dashed=True)
        lines[f"fit/{one.name}"] = Line(kind, (0.0, 1.0, 2.0), (one.law.r2, one.over_responses, one.over_plain))
        if one.turn is not None:
            lines[f"turn/{one.name}"] = Line(kind, (one.turn,), (one.turn_seen(),))
    for kind, series in trained.items():
        lines |= {f"{name}/{kind}": line(kind, series[name]) for name in ("first", "sink", "size")}
    return lines


STUDY: Final = Study("massive-activations", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
