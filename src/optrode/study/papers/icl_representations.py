"""Learning in context beyond simple functions: a representation that is computed first, and regression done after."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.claims import Line, Measured
from optrode.model.model import Model
from optrode.nn.transformer import Spec, Transformer, as_model, build
from optrode.site.recording import record
from optrode.study.kit import regression as task
from optrode.study.kit.curves import falls_below, line
from optrode.study.kit.pasting import pasted
from optrode.study.kit.regression import Features, Points, Prompts, Representation, probe
from optrode.study.papers.icl_representations_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.icl_representations_figures import figures
from optrode.study.study import Outcome, Setting, Study
from optrode.train.loop import Trained, fit
from optrode.train.plan import Measure, Plan, adam, evenly
from optrode.train.records import Series

D_X: Final = 4
N_POINTS: Final = 12
LATE: Final = slice(N_POINTS // 2, None)
"""Points that come after enough others for regression to be possible."""
NOISE: Final = 0.1
SPEC: Final = Spec(5, 4, 64, 1, 2 * N_POINTS, d_mlp=128, d_in=D_X + 1, d_out=1)
WINDOWS: Final = ((0, 1, 2), (1, 2, 3), (2, 3, 4))
"""Neighbouring blocks that are pasted, three by three."""
LOWER, UPPER = WINDOWS[0], WINDOWS[-1]
LEVEL: Final = 0.9
"""Share of the way from embedding to peak at which a probe counts as having come."""
PENALTIES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Of which ridge regression on x takes the best, with the test rows in sight."""


_LINEAR: Final = task.draw_representation(D_X, 0, torch.Generator())


@final
@dataclass(frozen=True, eq=False)
class _Exam:
    """Rows to test with, and how well they can be predicted.

    Attributes:
        best: by ridge regression on the features that y is linear in.
    """

    rows: Prompts
    best: Points

    def missed(self, predicted: Points) -> float:
        """Share of the variance at later points that is missed, of what the best prediction explains."""
        error, least = (task.risk(one, self.rows.ys)[LATE].mean() for one in (predicted, self.best))
        total = self.rows.ys[:, LATE].square().mean()
        return float((error - least) / (total - least))

    def risks(self, name: str, predicted: Points, *, dashed: bool = False) -> Line:
        """Mean squared error against the number of points before."""
        values = task.risk(predicted, self.rows.ys).tolist()
        return Line(name, tuple(float(ix) for ix in range(len(values))), tuple(values), dashed=dashed)


def run(setting: Setting) -> Outcome:
    """All claims from one random seed."""
    phi = task.draw_representation(D_X, 1, _generator(setting, 1))
    exam, plain = _exam(setting, phi, 2), _exam(setting, _LINEAR, 3, is_paired=True)
    free, blank = _train(setting, phi, exam), _network(setting.random_seed + 1_000_003)
    arms = {named(window): _paste(setting, plain, named(window), free.model, window) for window in WINDOWS}
    arms |= {name: _paste(setting, plain, name, blank, at) for name, at in (("random", UPPER), ("other random", LOWER))}
    lines = {"missed.free": line("network", free.run.measures["missed"])}
    lines |= {f"missed.{name}": line(name, arm.run.measures["missed"]) for name, arm in arms.items()}
    measured = _risk(exam, free.model, lines) | _depth(exam, free.model, blank, lines)
    return Outcome(measured | _pasting(plain, arms, lines), lines)


def _generator(setting: Setting, number: int) -> torch.Generator:
    return torch.Generator().manual_seed((setting.random_seed << 20) + number)


def _network(random_seed: int) -> Model:
    return as_model(build(SPEC, random_seed, init="torch"), "regression")


def named(window: Sequence[int]) -> str:
    """Blocks as the figures name them, counted from 1."""
    return f"blocks {window[0] + 1} to {window[-1] + 1}"


def _exam(setting: Setting, phi: Representation, number: int, *, is_paired: bool = False) -> _Exam:
    generator = _generator(setting, 100 + number)
    rows = task.draw_prompts(phi, setting.pick(600, 32), N_POINTS, NOISE, generator, is_paired=is_paired)
    return _Exam(rows, task.ridge(rows.features, rows.ys, NOISE**2))


def _plan(setting: Setting, name: str, phi: Representation, exam: _Exam, n_steps: int, every: int) -> Plan:
    n_rows, is_paired = setting.pick(64, 4), exam.rows.is_paired

    @torch.no_grad()
    def missed(model: Model) -> float:
        return exam.missed(task.predictions(model, exam.rows))

    return Plan(
        name, _network,
        lambda _, generator: task.draw_prompts(phi, n_rows, N_POINTS, NOISE, generator, is_paired=is_paired), task.loss,
        n_steps, adam(1e-3, fused=True), measures={"missed": Measure(missed)}, measure_at=evenly(n_steps, every),
        clip_norm=1.0, random_seed=setting.random_seed,
    )  # fmt: skip


def _train(setting: Setting, phi: Representation, exam: _Exam) -> Trained:
    plan = _plan(setting, "network", phi, exam, setting.pick(2000, 4), setting.pick(100, 2))
    return fit(plan, progress=setting.progress)


def _paste(setting: Setting, exam: _Exam, name: str, source: Model, blocks: Sequence[int]) -> Trained:
    """Train a linear embedding and a readout around blocks that stay as they are, on plain linear regression."""
    plan = _plan(setting, name, _LINEAR, exam, setting.pick(600, 4), setting.pick(50, 2))
    assert isinstance(module := source.module, Transformer)
    make = lambda seed: pasted(module, blocks, seed + 7, d_in=2 * D_X + 1)  # noqa: E731
    return fit(plan.but(make=make, optimizer=adam(1e-2, fused=True)), progress=setting.progress)


def _risk(exam: _Exam, model: Model, lines: dict[str, Line]) -> dict[str, Measured]:
    """I1: the network against ridge regression, on Phi and on x."""
    with torch.no_grad():
        predicted = task.predictions(model, exam.rows)
    linear = _best_linear(exam)
    lines["risk.network"] = exam.risks("network", predicted)
    lines["risk.phi"] = exam.risks("ridge on Phi(x)", exam.best, dashed=True)
    lines["risk.x"] = exam.risks("ridge on x", linear, dashed=True)
    return {"I1": Measured(exam.missed(predicted), exam.missed(linear))}


def _best_linear(exam: _Exam) -> Points:
    """Ridge regression on x and a constant, with the best of some penalties."""
    wide = torch.cat([exam.rows.xs, torch.ones_like(exam.rows.xs[..., :1])], -1)
    tried = [task.ridge(wide, exam.rows.ys, penalty) for penalty in PENALTIES]
    return min(tried, key=exam.missed)


def _streams(model: Model, rows: Prompts) -> list[Float[Tensor, "row token d_model"]]:
    """The residual stream after the embedding and after each block."""
    found = record(model, {"inputs_embeds": rows.read}, ["blocks.0.resid_pre", "blocks.*.resid_post"])
    return [found["blocks.0.resid_pre"], *(found[f"blocks.{layer}.resid_post"] for layer in range(SPEC.n_layers))]


def _depth(exam: _Exam, model: Model, blank: Model, lines: dict[str, Line]) -> dict[str, Measured]:
    """I2 to I4: what can be read out of the stream after each block."""
    rows, streams = exam.rows, _streams(model, exam.rows)
    at_x, at_y = [stream[:, ::2] for stream in streams], [stream[:, 1::2] for stream in streams]
    late, fixed = [stream[:, LATE] for stream in at_x], rows.features @ torch.ones(D_X, 1)
    probes = {
        "Phi(x) at x": _probes(at_x, rows.features),
        "Phi(x) at y": _probes(at_y, rows.features),
        "x at y": _probes(at_y, rows.xs),
        "ridge prediction at x": _probes(late, exam.best[:, LATE, None]),
        "fixed readout of Phi(x) at x": _probes(late, fixed[:, LATE]),
        "next Phi(x) at y": _probes([stream[:, :-1] for stream in at_y], rows.features[:, 1:]),
        "Phi(x) at x, untrained": _probes([stream[:, ::2] for stream in _streams(blank, rows)], rows.features),
    }
    lines |= {f"probe.{name}": Line(name, _counted(found), tuple(found)) for name, found in probes.items()}
    come = {name: arrival(found, LEVEL) for name, found in probes.items()}
    phi = come["Phi(x) at x"]
    return {
        "I2": Measured(max(probes["Phi(x) at x"]), max(probes["Phi(x) at x, untrained"])),
        "I3": Measured(max(probes["Phi(x) at y"]), max(probes["next Phi(x) at y"])),
        "I4": Measured(come["ridge prediction at x"] - phi, come["fixed readout of Phi(x) at x"] - phi),
    }


def _probes(streams: Sequence[Features], target: Float[Tensor, "row point wanted"]) -> list[float]:
    return [probe(stream, target) for stream in streams]


def _counted(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(ix) for ix in range(len(values)))


def arrival(values: Sequence[float], level: float) -> float:
    """The depth, in blocks, at which a curve has first come so far from its start to its peak, straight between blocks."""
    bound = values[0] + level * (max(values) - values[0])
    after = next(ix for ix, value in enumerate(values) if value >= bound)
    if after == 0:
        return 0.0
    return after - 1 + (bound - values[after - 1]) / (values[after] - values[after - 1])


@torch.no_grad()
def _pasting(exam: _Exam, arms: dict[str, Trained], lines: dict[str, Line]) -> dict[str, Measured]:
    """I5 to I7: what pasted blocks make of plain linear regression."""
    predicted = {name: task.predictions(arm.model, exam.rows) for name, arm in arms.items()}
    lines |= {f"pasted.{name}": exam.risks(name, found) for name, found in predicted.items()}
    lines["pasted.ridge"] = exam.risks("ridge", exam.best, dashed=True)
    missed = {name: exam.missed(found) for name, found in predicted.items()}
    windows = [missed[named(window)] for window in WINDOWS]
    lines["windows"] = Line("of the trained network", _counted(windows), tuple(windows))
    upper, lower, random, other = (missed[name] for name in (named(UPPER), named(LOWER), "random", "other random"))
    lines["windows.random"] = Line("random", (0.0, len(windows) - 1.0), (other, random), dashed=True)
    speed = {name: learnt(arm.run.measures["missed"]) for name, arm in arms.items()}
    return {
        "I5": Measured(upper, random),
        "I6": Measured(lower / upper, other / random),
        "I7": Measured(speed["random"] / speed[named(UPPER)], speed["random"] / speed["other random"]),
    }


def learnt(missed: Series) -> float:
    """Updates until half is missed; where that is never, those that there were."""
    found = falls_below(missed, 0.5)
    return float(missed.steps[-1]) if math.isnan(found) else max(found, 1.0)


STUDY: Final = Study("icl-representations", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
