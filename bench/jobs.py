"""The jobs that every contender is timed on. Standard library only: every environment imports it."""

from dataclasses import dataclass
from typing import Final

Cell = tuple[int, int]

N_LAYERS: Final = 30
N_POSITIONS: Final = 14
N_HEADS: Final = 9
N_PAIRS: Final = 16
RANDOM_SEED: Final = 0
"""Of the drawn prompts."""

STRIDE: Final = 11
"""Later rounds take every 11th cell. It shares no factor with 14 positions or 9 heads, so that all of them come up."""

WAYS_STRIDE: Final = 41
"""The same for trying out ways: about ten cells."""

WAYS_PASSES: Final = 2
"""Each way is tried this often, in turn with the others; its best time counts."""


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to measure.

    Attributes:
        words: what is done, for the page.
        shape: rows and columns of cells; (1, 1) for what is not a grid.
        quick: the rows and columns that a trial run takes.
        same_as: the job whose measurement of the peers also holds for this one.
    """

    name: str
    words: str
    shape: tuple[int, int]
    quick: tuple[tuple[int, ...], tuple[int, ...]]
    same_as: str | None = None

    @property
    def cells(self) -> list[Cell]:
        """All cells in row-major order."""
        return [(row, column) for row in range(self.shape[0]) for column in range(self.shape[1])]

    @property
    def quick_cells(self) -> list[Cell]:
        """The cells of a trial run, a rectangle."""
        rows, columns = self.quick
        return [(row, column) for row in rows for column in columns]


GRID: Final = Job(
    "grid", "the residual stream before each of 30 blocks, at each of 14 positions, patched from clean into corrupt runs",
    (N_LAYERS, N_POSITIONS), ((0, 20), (8, 9, 13)),
)  # fmt: skip
GRID_ALL: Final = Job(
    "grid-all", "the same, every cell run although those that change nothing need no run",
    GRID.shape, GRID.quick, same_as="grid",
)  # fmt: skip
HEADS: Final = Job(
    "heads", "the output of each of 270 attention heads, before the output projection, patched at all positions",
    (N_LAYERS, N_HEADS), ((10, 18), (2, 6)),
)  # fmt: skip
RECORD: Final = Job(
    "record", "all residual streams, head outputs and MLP outputs (90 tensors) of the clean prompts recorded in one pass",
    (1, 1), ((0,), (0,)),
)  # fmt: skip
JOBS: Final = {job.name: job for job in (GRID, GRID_ALL, HEADS, RECORD)}
REPEATS: Final = {"record": 9}
"""How often a short job is repeated within a round."""

PEERS: Final = ("transformer_lens", "nnsight", "pyvene")
CONTENDERS: Final = ("optrode", "hooks", *PEERS)
RIVALS: Final = ("transformer_lens", "nnsight")
"""Targets are ratios to the faster of these."""

LABELS: Final = {
    "optrode": "Optrode", "hooks": "PyTorch hooks", "transformer_lens": "TransformerLens", "nnsight": "nnsight",
    "pyvene": "pyvene",
}  # fmt: skip


def sample(cells: list[Cell], round_number: int) -> list[Cell]:
    """The cells of a round after the first: every 11th, others in every round."""
    return cells[round_number % STRIDE :: STRIDE]
