"""Optrode: one sweep per grid, one `record` for recordings."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jobs import GRID, HEADS, N_LAYERS, Cell
from prompts import Prompts
from torch import Tensor

import optrode as op
from contenders.base import Base

SWEEP = "sweep"
RECORD = "record"
KINDS = ("resid_pre", "attn.z", "mlp_out")


class Contender(Base):
    """Everything that a sweep needs, its recordings too, is inside its time."""

    packages: ClassVar = ("optrode",)
    ways: ClassVar = {"grid": (SWEEP,), "grid-all": (SWEEP,), "heads": (SWEEP,), "record": (RECORD,)}

    def __init__(self, prompts: Prompts) -> None:
        super().__init__(prompts)
        self.model = op.load(prompts.folder)
        self.task = op.Task("bench", "The benchmark's prompts.", "logit_gap", tuple(_pairs(prompts)))
        self._grid: Any = None

    def run(self, job: str, way: str, cells: Sequence[Cell]) -> Any:
        if job == "record":
            found = op.record(self.model, self.prompts.clean, [f"blocks.*.{kind}" for kind in KINDS])
            return [found[f"blocks.{layer}.{kind}"] for kind in KINDS for layer in range(N_LAYERS)]
        self._grid = op.sweep(self.model, self.task, _gate(job, cells), skip_null=job != "grid-all")
        return self._grid

    def values(self, job: str, result: Any) -> list[list[float]]:
        return super().values(job, result) if job == "record" else [list(cell) for cell in result.values]

    def more(self, job: str) -> dict[str, Any]:
        """Counted work of the last sweep, and how many weights one token meets in it."""
        work = getattr(self._grid, "work", None)
        if job == "record" or work is None:
            return {}
        names = [name for name in dir(work) if not name.startswith("_")]
        counts = {name: getattr(work, name) for name in names if isinstance(getattr(work, name), int | float)}
        return {"work": counts, "weights": self._weights()}

    def _weights(self) -> dict[str, int]:
        """Weights of the linear layers of one block, of those of its keys and values, and of one logit."""
        module = self.model.module
        block = module.model.layers[0]
        keys_values = (block.self_attn.k_proj, block.self_attn.v_proj)
        return {
            "block": sum(weight.numel() for weight in block.parameters() if weight.dim() == 2),
            "keys_values": sum(linear.weight.numel() for linear in keys_values),
            "per_logit": module.lm_head.weight.shape[1],
        }


def _gate(job: str, cells: Sequence[Cell]) -> Any:
    """The gate whose grid has these cells: all, or a rectangle of them."""
    kind, axis, shape = ("attn.z", "head", HEADS.shape) if job == "heads" else ("resid_pre", "pos", GRID.shape)
    rows, columns = (sorted({cell[side] for cell in cells}) for side in (0, 1))
    if len(cells) != len(rows) * len(columns):
        raise ValueError("the cells of a sweep fill a rectangle")
    layers = "*" if len(rows) == shape[0] else "|".join(map(str, rows))
    select = "" if len(columns) == shape[1] else f"[{axis}={'|'.join(map(str, columns))}]"
    return op.patch(f"blocks.{layers}.{kind}{select}", each=("layer", axis))


def _pairs(prompts: Prompts) -> list[op.Pair]:
    def ids(tokens: Tensor) -> tuple[int, ...]:
        return tuple(int(token) for token in tokens)

    sides = zip(prompts.clean, prompts.corrupt, prompts.right, prompts.wrong, strict=True)
    return [op.Pair(ids(clean), ids(corrupt), (int(right),), (int(wrong),)) for clean, corrupt, right, wrong in sides]
