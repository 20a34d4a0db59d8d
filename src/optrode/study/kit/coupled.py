"""A network whose later blocks depend on how earlier features go together, which no feature shows by itself.

Three residual blocks h + tanh(gain * h A) C. The first reads the sums of pairs of features; in the source the two of a pair
go against each other, in the target along with each other, so that the sums, and all that follows from them, differ in the
shape of their distribution, although the pairs' own features differ by a shift only. Maps that are fitted site by site
cannot know; the gain says how much hangs on it, and at gain 0 the blocks add nothing.
"""

from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from optrode.model.model import Model

Side = Literal["source", "target"]
N_BLOCKS: Final = 3
N_HIDDEN: Final = 8
SITES: Final = ("module:entry.out", *(f"module:blocks.{ix}.out" for ix in range(N_BLOCKS)))
"""The residual stream before the first block and after each."""


@final
@dataclass(frozen=True)
class Coupled:
    """What differs between source and target, and how much hangs on it.

    Attributes:
        gain: within the blocks' nonlinearity.
        n_pairs: pairs of features that the first block reads.
        n_written: features that blocks write to, and that later blocks read.
        n_idle: features that nothing reads, and that have one distribution on both sides.
        correlation: within a pair: so much in the target, the negative of it in the source.
        shift: of the pairs' features in the target.
    """

    gain: float
    n_pairs: int = 4
    n_written: int = 8
    n_idle: int = 0
    correlation: float = 0.9
    shift: float = 0.5

    @property
    def d_stream(self) -> int:
        """Number of features of the residual stream."""
        return 2 * self.n_pairs + self.n_written + self.n_idle


@final
class Block(nn.Module):
    """h + tanh(gain * h A) C."""

    def __init__(self, read: Float[Tensor, "d hidden"], write: Float[Tensor, "hidden d"], gain: float) -> None:
        super().__init__()
        self.read, self.write, self.gain = nn.Parameter(read), nn.Parameter(write), gain

    def forward(self, stream: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """The residual stream after the block."""
        after: Tensor = stream + torch.tanh(self.gain * stream @ self.read) @ self.write
        return after


@final
class Network(nn.Module):
    """Three blocks on a residual stream of vectors."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.entry, self.blocks = nn.Identity(), nn.ModuleList(blocks)

    def forward(self, stream: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """The residual stream after the last block."""
        stream = self.entry(stream)
        for block in self.blocks:
            stream = block(stream)
        return stream


def network(law: Coupled, random_seed: int = 0) -> Model:
    """A network with pairs in order, drawn weights, and drawn pairs of written features for the later blocks."""
    generator = torch.Generator().manual_seed(random_seed)
    blocks = [Block(*_weights(law, ix, generator), law.gain) for ix in range(N_BLOCKS)]
    return Model(Network(blocks).eval(), name="coupled blocks")


def _weights(law: Coupled, ix: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    read, write = torch.zeros(law.d_stream, N_HIDDEN), torch.zeros(N_HIDDEN, law.d_stream)
    first = 2 * law.n_pairs
    for unit in range(N_HIDDEN):
        pair = 2 * (unit % law.n_pairs) + torch.arange(2)
        drawn = first + torch.randperm(law.n_written, generator=generator)[:2]
        read[pair if ix == 0 else drawn, unit] = 1.0
        write[unit, first + unit % law.n_written] = 1 + torch.rand((), generator=generator)
    return read, write


def draw(law: Coupled, side: Side, n: int, generator: torch.Generator) -> Float[Tensor, "row d"]:
    """Rows of one side."""
    r = law.correlation if side == "target" else -law.correlation
    one, other = torch.randn(2, n, law.n_pairs, generator=generator)
    both = torch.stack([one, r * one + (1 - r * r) ** 0.5 * other], -1).flatten(1)
    shifted = both + (law.shift if side == "target" else 0.0)
    quiet = 0.3 * torch.randn(n, law.n_written, generator=generator)
    return torch.cat([shifted, quiet, torch.randn(n, law.n_idle, generator=generator)], 1)


def mixed(source: Shaped[Tensor, "row d"], target: Shaped[Tensor, "row d"]) -> tuple[Shaped[Tensor, "row d"], ...]:
    """Both sides without their labels: on each, half of the source's rows and half of the target's."""
    halves = [side.chunk(2) for side in (source, target)]
    return tuple(torch.cat([half[ix] for half in halves]) for ix in range(2))
