"""A global workspace: a controller chooses, step by step, whose output the others read (Chateau-Laurent and VanRullen).

This is a reconstruction from the paper's abstract (arXiv 2503.01906), not from its equations. The workspace w is a
distribution over the numbers 0 .. n_values - 1, the answer y is another, and at each step three gates that sum to 1 route:

    w <- g_input x + g_increment S w + g_output w        x: the first addend; S: the Increment module, n -> n + 1
    y <- (1 - g_output) y + g_output w                   the Output module takes what is in the workspace

A hand chain that adds b is: Input, Increment b times, Output until the end. The gates come from an LSTM that reads both
addends at every step. Each gate passes through a module of its own and so is a site, [batch, 1] at every step:
`module:gates.input.out`, `module:gates.increment.out`, `module:gates.output.out`; `module:board.out` is the workspace.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.recurrent import LstmCell, RecurrentSpec

GATES: Final = ("input", "increment", "output")
SITES: Final = tuple(f"module:gates.{name}.out" for name in GATES)


@final
@dataclass(frozen=True)
class WorkspaceSpec:
    """The architecture; it also stands in as the module's `config`.

    Attributes:
        n_digits: addends are 0 .. n_digits - 1, one-hot, so that sums have 2 n_digits - 1 values.
        d_hidden: of the controller.
        d_pixels: width of an image, where addends are images that a learned encoder reads; 0 for one-hot addends.
        has_learned_increment: whether Increment is a learned matrix of transitions rather than the shift by one.

    Raises:
        BadOption: fewer than two digits, or no hidden unit.
    """

    n_digits: int = 10
    d_hidden: int = 32
    d_pixels: int = 0
    has_learned_increment: bool = False

    def __post_init__(self) -> None:
        if self.n_digits < 2 or self.d_hidden < 1 or self.d_pixels < 0:
            found = f"n_digits={self.n_digits}, d_hidden={self.d_hidden}, d_pixels={self.d_pixels}"
            raise BadOption("a workspace", found, next_step="give two digits or more, and at least one hidden unit")

    @property
    def n_values(self) -> int:
        """Numbers that the workspace can hold."""
        return 2 * self.n_digits - 1

    @property
    def n_steps(self) -> int:
        """As many as the longest hand chain has: one Input, n_digits - 1 increments, one Output."""
        return self.n_digits + 1


@dataclass
class WorkspaceOutput:
    """What the network returns.

    Attributes:
        logits: [batch, value] log-probabilities of the answer.
        gates: [batch, step, gate] as they acted, in the order of `GATES`.
        boards: [batch, step, value] the workspace after each step.
    """

    logits: Tensor
    gates: Tensor
    boards: Tensor


@final
class Shift(nn.Module):
    """Increment by hand: n -> n + 1; what is at the last number leaves."""

    def forward(self, board: Float[Tensor, "batch value"]) -> Float[Tensor, "batch value"]:
        """The distribution of the number plus one."""
        return nn.functional.pad(board, (1, 0))[:, :-1]


@final
class LearnedIncrement(nn.Module):
    """Increment learned: each number has a distribution over the numbers that follow it."""

    def __init__(self, n_values: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(0.1 * torch.randn(n_values, n_values))

    def forward(self, board: Float[Tensor, "batch value"]) -> Float[Tensor, "batch value"]:
        """The distribution of the number that follows."""
        return board @ self.scores.softmax(1)


@final
class Workspace(nn.Module):
    """The network of the module's docstring.

    Attributes:
        config: the spec, under the name that transformers gives it.
        gates: an identity for each gate, through which it passes.
    """

    def __init__(self, spec: WorkspaceSpec) -> None:
        super().__init__()
        self.config = spec
        width, d_in = spec.d_hidden, 2 * spec.n_digits
        self.encoder: nn.Module = nn.Identity()
        if spec.d_pixels:
            into, out = nn.Linear(spec.d_pixels, 32), nn.Linear(32, spec.n_digits)
            self.encoder = nn.Sequential(into, nn.ReLU(), out, nn.Softmax(-1))
        self.increment: nn.Module = LearnedIncrement(spec.n_values) if spec.has_learned_increment else Shift()
        self.controller = LstmCell(RecurrentSpec("lstm", d_in, width, len(GATES)), d_in)
        self.choose = nn.Linear(width, len(GATES))
        self.gates = nn.ModuleDict({name: nn.Identity() for name in GATES})
        self.board = nn.Identity()

    def forward(self, first: Float[Tensor, "batch d_in"], second: Float[Tensor, "batch d_in"]) -> WorkspaceOutput:
        """The answer to first + second, each [batch, n_digits] one-hot or [batch, pixel]."""
        spec, n = self.config, len(first)
        a, b = self.encoder(first), self.encoder(second)
        addend = nn.functional.pad(a, (0, spec.n_values - spec.n_digits))
        board = answer = addend.new_full((n, spec.n_values), 1 / spec.n_values)
        state = addend.new_zeros(2, n, spec.d_hidden).unbind(0)
        acted, boards = [], []
        for _ in range(spec.n_steps):
            state = self.controller(torch.cat([a, b], 1), *state)
            raw = self.choose(state[0]).softmax(-1).split(1, 1)
            take, step, give = (self.gates[name](gate) for name, gate in zip(GATES, raw, strict=True))
            answer = (1 - give) * answer + give * board
            board = self.board(take * addend + step * self.increment(board) + give * board)
            acted.append(torch.cat([take, step, give], 1))
            boards.append(board)
        return WorkspaceOutput(answer.clamp(min=1e-6).log(), torch.stack(acted, 1), torch.stack(boards, 1))


def build(spec: WorkspaceSpec, random_seed: int = 0) -> Workspace:
    """A workspace with weights drawn from a seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed)
        return Workspace(spec).eval()


def as_model(module: Workspace, name: str = "workspace") -> Model:
    """The module, ready to be recorded and gated at `SITES`."""
    return Model(module.eval(), name=name)


def hand_chain(second: Int[Tensor, " batch"], n_digits: int) -> Float[Tensor, "batch step gate"]:
    """Gates, 0 or 1, of the chain that adds `second`: Input, that many increments, then Output to the end."""
    step = torch.arange(n_digits + 1).expand(len(second), -1)
    chosen = torch.where(step == 0, 0, torch.where(step <= second[:, None], 1, 2))
    return nn.functional.one_hot(chosen, len(GATES)).float()


def chain_lengths(gates: Float[Tensor, "batch step gate"]) -> Int[Tensor, " batch"]:
    """Increments between the last Input and the first Output after it, by the widest gate of each step; -1 for no chain."""
    chosen, step = gates.argmax(-1), torch.arange(gates.shape[1])
    last_input = torch.where(chosen == 0, step, -1).amax(1)
    after = step > last_input[:, None]
    first_output = torch.where(after & (chosen == 2), step, gates.shape[1]).amin(1)
    between = after & (step < first_output[:, None]) & (chosen == 1)
    is_chain = (last_input >= 0) & (first_output < gates.shape[1])
    return torch.where(is_chain, between.sum(1), -1)


def by_site(gates: Float[Tensor, "batch step gate"]) -> Mapping[str, Float[Tensor, "batch step 1"]]:
    """Gates as they are held: site -> [batch, step, 1]."""
    return {site: gates[:, :, ix : ix + 1] for ix, site in enumerate(SITES)}
