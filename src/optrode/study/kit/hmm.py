"""Hidden Markov models with few states, and what their emissions obey exactly."""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.errors import BadOption

Rows = tuple[tuple[float, ...], ...]


@final
@dataclass(frozen=True)
class Hmm:
    """A hidden Markov model, started from its stationary distribution.

    Attributes:
        transition: [state][next state] probabilities.
        emission: [state][symbol] probabilities.

    Raises:
        BadOption: rows that are no distributions, or not one of each kind for every state.
    """

    transition: Rows
    emission: Rows

    def __post_init__(self) -> None:
        n = len(self.transition)
        are_square = len(self.emission) == n and all(len(row) == n for row in self.transition)
        if not are_square or len({len(row) for row in self.emission}) != 1:
            found = f"{n} rows of transitions, {len(self.emission)} of emissions"
            raise BadOption("a hidden Markov model", found, next_step="give [state][state] and [state][symbol] tables")
        wrong = [row for row in (*self.transition, *self.emission) if min(row) < 0 or abs(sum(row) - 1) > 1e-9]
        if wrong:
            raise BadOption("a hidden Markov model", f"row {wrong[0]} is no distribution", next_step="let it sum to 1")

    @property
    def n_symbols(self) -> int:
        """Number of different emissions."""
        return len(self.emission[0])


LINEAR_2: Final = Hmm(((0.95, 0.05), (0.05, 0.95)), ((0.99, 0.01, 0.0), (0.0, 0.01, 0.99)))
"""Two states that stay for 20 steps on average; each has a symbol of its own, and both share a rare one (Torre et al.)."""


def stationary(hmm: Hmm) -> Float[Tensor, " state"]:
    """The distribution over states that a step leaves as it is."""
    transition = torch.tensor(hmm.transition, dtype=torch.float64)
    found: Tensor = torch.linalg.matrix_power(transition, 2**20)[0]
    return found


def sample(hmm: Hmm, n: int, length: int, generator: torch.Generator) -> Int[Tensor, "n time"]:
    """Symbols emitted."""
    after, out = (torch.tensor(rows).cumsum(1) for rows in (hmm.transition, hmm.emission))
    draws = torch.rand(length, 2, n, 1, generator=generator)
    state = _pick(stationary(hmm).float().cumsum(0).expand(n, -1), draws[0, 0])
    states = [state]
    for draw in draws[1:, 0]:
        states.append(state := _pick(after[state], draw))
    return _pick(out[torch.stack(states)], draws[:, 1]).T.contiguous()


def sample_memoryless(hmm: Hmm, n: int, length: int, generator: torch.Generator) -> Int[Tensor, "n time"]:
    """Symbols as frequent as those of the model, each drawn by itself: what a generator without memory can do at best."""
    frequency = stationary(hmm).float() @ torch.tensor(hmm.emission)
    return torch.multinomial(frequency, n * length, replacement=True, generator=generator).view(n, length)


def emission_transitions(hmm: Hmm) -> Float[Tensor, "symbol next_symbol"]:
    """Exact probability of each symbol after each: sum over states s, s' of P(s, o) P(s' | s) P(o' | s') / P(o)."""
    transition, emission = (torch.tensor(rows, dtype=torch.float64) for rows in (hmm.transition, hmm.emission))
    joint: Tensor = (stationary(hmm)[:, None] * emission).T @ transition @ emission
    found: Tensor = joint / joint.sum(1, keepdim=True)
    return found


def count_transitions(symbols: Int[Tensor, "n time"], n_symbols: int) -> Float[Tensor, "symbol next_symbol"]:
    """Share of each symbol after each; NaN in the row of a symbol that never came."""
    pairs = symbols[:, :-1] * n_symbols + symbols[:, 1:]
    counts = torch.bincount(pairs.flatten(), minlength=n_symbols**2).view(n_symbols, n_symbols).double()
    return counts / counts.sum(1, keepdim=True)


def _pick(cumulative: Tensor, draw: Tensor) -> Tensor:
    """The index whose share of [0, 1) a draw falls into."""
    return (draw >= cumulative[..., :-1]).sum(-1)
