"""The networks of the study of RNNs that emulate hidden Markov models: what they are trained on, and how."""

from dataclasses import dataclass
from functools import partial
from typing import Final, final

import torch
from torch import Tensor
from torch.nn.functional import one_hot

import optrode as op
from optrode.model.model import Model
from optrode.nn.recurrent import RecurrentSpec, as_model, build
from optrode.study.kit import fixed_points as fp
from optrode.study.kit import orbits
from optrode.study.kit.hmm import LINEAR_2, sample, sample_memoryless
from optrode.study.kit.sinkhorn import sinkhorn_divergence
from optrode.study.study import Setting

N_SYMBOLS: Final = LINEAR_2.n_symbols
SPEC: Final = RecurrentSpec("relu", d_in=10, d_hidden=50, d_out=N_SYMBOLS, has_bias=False)
SIDES: Final = (0, 2)
"""The two states' own symbols."""


@final
@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        length, rows, n_steps: of the training sequences.
        every: steps between two looks at the network while it trains.
        runs, time: of the generated sequences that are measured; the first `skip` steps are left out.
        states: looked at closely.
        n_random: sets of random units.
    """

    length: int = 100
    rows: int = 192
    n_steps: int = 1000
    every: int = 25
    runs: int = 64
    time: int = 400
    skip: int = 50
    states: int = 400
    n_random: int = 10


QUICK: Final = Size(length=12, rows=16, n_steps=3, every=2, runs=8, time=40, skip=10, states=30, n_random=2)


def one_hots(symbols: Tensor) -> Tensor:
    """[row, time, symbol] as vectors, one a sequence."""
    return one_hot(symbols, N_SYMBOLS).float().flatten(1)


def make_batch(size: Size, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise, first states, Gumbel noise of the emissions, and sequences of the hidden Markov model."""
    shape = size.rows, size.length
    uniform = torch.rand(*shape, N_SYMBOLS, generator=generator).clamp(1e-9, 1 - 1e-7)
    start = torch.randn(size.rows, 1, 1, SPEC.d_hidden, generator=generator)
    noise = torch.randn(*shape, SPEC.d_in, generator=generator)
    return noise, start, -(-uniform.log()).log(), one_hots(sample(LINEAR_2, *shape, generator))


def emit(model: Model, batch: tuple[Tensor, ...]) -> Tensor:
    """Sequences [row, time x symbol] that the network emits: one-hot, with the gradient of the softmax."""
    noise, start, gumbel, _ = batch
    soft = (model(noise, start).logits + gumbel).softmax(-1)
    hard = one_hot(soft.argmax(-1), N_SYMBOLS) + soft - soft.detach()
    found: Tensor = hard.flatten(1)
    return found


def loss(model: Model, batch: tuple[Tensor, ...]) -> Tensor:
    """Sinkhorn divergence of emitted sequences from the model's."""
    return sinkhorn_divergence(emit(model, batch), batch[3])


def eigenvalues(model: Model, states: Tensor) -> Tensor:
    """Eigenvalues [state, unit] of the Jacobian D W at states, D being which units are active."""
    weight = orbits.recurrent_weight(model)
    found: Tensor = torch.linalg.eigvals((states > 0).to(weight)[:, :, None] * weight)
    return found


def watch(model: Model, noise: Tensor, skip: int) -> dict[str, float]:
    """While it trains: how often it switches, and at which share of states some difference would grow."""
    run = orbits.drive(model, noise, skip=skip)
    states = run.states[:, -1]
    is_unstable = fp.n_unstable(eigenvalues(model, states)) > 0
    return {"switch": run.switch_rate, "unstable": float(is_unstable.double().mean())}


def train(setting: Setting, size: Size) -> op.train.Trained:
    """One network, watched."""
    generator = torch.Generator().manual_seed(setting.random_seed + 7)
    noise = torch.randn(size.runs // 2, size.length, SPEC.d_in, generator=generator)
    early = range(0, min(size.n_steps, 200), max(1, size.every // 5))
    plan = op.train.Plan(
        "rnn", lambda seed: as_model(build(SPEC, seed, init="he")), partial(make_batch, size), loss, size.n_steps,
        op.train.adam(1e-3, betas=(0.9, 0.9)), clip_norm=0.9, random_seed=setting.random_seed,
        measures={"seen": op.train.Measure(partial(watch, noise=noise, skip=size.length // 2))},
        measure_at=tuple(sorted({*early, *op.train.evenly(size.n_steps, size.every)})),
    )  # fmt: skip
    return op.train.fit(plan, progress=setting.progress)


def levels_of(size: Size, generator: torch.Generator) -> tuple[float, float]:
    """Divergence of the model's own sequences, and of memoryless ones, from the model's."""
    shape = size.rows, size.length
    own, other, memoryless = (one_hots(draw(LINEAR_2, *shape, generator)) for draw in (sample, sample, sample_memoryless))
    return float(sinkhorn_divergence(own, other)), float(sinkhorn_divergence(memoryless, other))
