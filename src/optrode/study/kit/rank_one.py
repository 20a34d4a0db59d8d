"""A model of subcircuits that depend on each other: three vectors whose outer product is to be a given tensor.

Singh et al., arXiv 2404.07129, section 4: T = a (x) b (x) c, loss half the mean squared error, gradient descent. Each factor
learns only as fast as the product of the others lets it, so that the loss first hardly falls and then drops; with factors
held at the truth it drops at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optrode.gate.gate import Gate
from optrode.gate.kinds import clamp
from optrode.model.model import Model
from optrode.train.plan import Plan, Stop, sgd

FACTORS: Final = ("a", "b", "c")


@final
class Factor(nn.Module):
    """A vector that is learnt, as a module, so that it can be held."""

    def __init__(self, value: Float[Tensor, " n"]) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self) -> Float[Tensor, " n"]:
        """The vector."""
        return self.value


@final
class RankOne(nn.Module):
    """The outer product of three vectors."""

    def __init__(self, start: Mapping[str, Float[Tensor, " n"]]) -> None:
        super().__init__()
        self.a, self.b, self.c = (Factor(start[name].clone()) for name in FACTORS)

    def forward(self) -> Float[Tensor, "n n n"]:
        """The product of the three."""
        return outer({"a": self.a(), "b": self.b(), "c": self.c()})


@final
@dataclass(frozen=True, eq=False)
class Draw:
    """True vectors, where learning starts, and others that are as wrong as the start."""

    true: Mapping[str, Float[Tensor, " n"]]
    start: Mapping[str, Float[Tensor, " n"]]
    other: Mapping[str, Float[Tensor, " n"]]

    def first_loss(self) -> float:
        """Loss before the first step, of nothing held."""
        return float(_loss(outer(self.start), outer(self.true)))

    def held(self, names: str, *, at: str = "true") -> tuple[Gate, ...]:
        """Factors held, at the truth or at other vectors of the same length: `draw.held("bc")`."""
        values = {"true": self.true, "other": self.other}[at]
        return tuple(clamp(f"module:{name}.out", values[name]) for name in names)

    def plan(self, name: str, gates: tuple[Gate, ...] = (), n_steps: int = 1000, share: float = 0.02) -> Plan:
        """Gradient descent at rate 1, until a share of the first loss is left."""
        truth = outer(self.true)
        return Plan(
            name, lambda seed: Model(RankOne(self.start), name="rank one"), lambda step, generator: truth,
            lambda model, target: _loss(model(), target), n_steps, optimizer=sgd(1.0), gates=gates,
            stop=Stop("loss", below=share * self.first_loss()),
        )  # fmt: skip


def draw(random_seed: int, n: int = 20) -> Draw:
    """Standard normal vectors, true ones and starts; `other` has the length of the true ones."""
    generator = torch.Generator().manual_seed(random_seed)
    true, start, other = ({name: torch.randn(n, generator=generator) for name in FACTORS} for _ in range(3))
    return Draw(true, start, {name: v * true[name].norm() / v.norm() for name, v in other.items()})


def outer(factors: Mapping[str, Float[Tensor, " n"]]) -> Float[Tensor, "n n n"]:
    """The outer product of the factors a, b and c."""
    return torch.einsum("i,j,k->ijk", *(factors[name] for name in FACTORS))


def _loss(found: Float[Tensor, "n n n"], wanted: Float[Tensor, "n n n"]) -> Float[Tensor, ""]:
    return 0.5 * (found - wanted).square().mean()
