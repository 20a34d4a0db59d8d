"""The plain module with PyTorch's own hooks: the reference for all values, and the bar for recording."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from jobs import N_HEADS, Cell
from prompts import Prompts
from torch import Tensor

from contenders.base import PLAIN, Base, load_llama

REFERENCES = "hooks that keep references"
CLONES = "hooks that keep clones"


class Contender(Base):
    """A forward pre-hook per patch, a full forward pass per cell."""

    ways: ClassVar = {"grid": (PLAIN,), "heads": (PLAIN,), "record": (REFERENCES,)}
    by_hand: ClassVar = {"record": (CLONES,)}

    def __init__(self, prompts: Prompts) -> None:
        super().__init__(prompts)
        self.module = load_llama(prompts)
        self._clean: dict[str, list[Tensor]] = {}

    def prepare(self, job: str) -> None:
        if job != "record":
            recorded = self._record(Tensor.clone)
            n = len(recorded) // 3
            self._clean = {"grid": recorded[:n], "heads": recorded[n : 2 * n]}

    def run(self, job: str, way: str, cells: Sequence[Cell]) -> list[Tensor]:
        if job == "record":
            return self._record(Tensor.clone if way == CLONES else lambda tensor: tensor)
        return [self._cell(job, *cell) for cell in cells]

    def _cell(self, job: str, layer: int, column: int) -> Tensor:
        clean = self._clean[job][layer]
        block = self.module.model.layers[layer]
        width = clean.shape[2] // N_HEADS
        where = (slice(None), column) if job == "grid" else (..., slice(column * width, column * width + width))

        def patch(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            patched = args[0].clone()
            patched[where] = clean[where]
            return (patched, *args[1:])

        with (block if job == "grid" else block.self_attn.o_proj).register_forward_pre_hook(patch):
            return self.prompts.metric(self.module(self.prompts.corrupt).logits)

    def _record(self, keep: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Inputs of blocks, inputs of output projections, outputs of MLPs."""
        inputs: list[Tensor] = []
        heads: list[Tensor] = []
        mlps: list[Tensor] = []
        held = []
        for block in self.module.model.layers:
            held.append(block.register_forward_pre_hook(lambda _, args: inputs.append(keep(args[0]))))
            held.append(block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: heads.append(keep(args[0]))))
            held.append(block.mlp.register_forward_hook(lambda _, args, out: mlps.append(keep(out))))
        self.module(self.prompts.clean)
        for handle in held:
            handle.remove()
        return inputs + heads + mlps
