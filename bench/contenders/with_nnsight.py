"""nnsight 0.8: traces on the wrapped module, one per cell or several cells as invokes of one trace."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jobs import N_HEADS, N_LAYERS, Cell
from nnsight import TransformersModel
from prompts import Prompts
from torch import Tensor
from transformers import AutoTokenizer

from contenders.base import Base, load_llama

TRACE = "one trace per cell"
BATCHED = {"4 cells per trace, as invokes": 4, "8 cells per trace, as invokes": 8}
LAST = "one trace per cell, logits_to_keep=1"
SKIP = "one trace per cell, logits_to_keep=1, earlier blocks skipped with saved residuals"
SAVES = "one trace with saves"
CACHE = "tracer.cache"


class Contender(Base):
    """Attention as transformers picks it (sdpa)."""

    packages: ClassVar = ("nnsight",)
    ways: ClassVar = {"grid": (TRACE, *BATCHED), "heads": (TRACE, *BATCHED), "record": (SAVES, CACHE)}
    by_hand: ClassVar = {"grid": (LAST, SKIP), "heads": (LAST, SKIP)}

    def __init__(self, prompts: Prompts) -> None:
        super().__init__(prompts)
        self.model = TransformersModel(load_llama(prompts), tokenizer=AutoTokenizer.from_pretrained(prompts.folder))
        self.layers = self.model.model.layers
        self._clean: list[Any] = []
        self._before: list[Any] = []

    def prepare(self, job: str) -> None:
        if job != "record":
            self._clean = self._inputs(job, self.prompts.clean)
            self._before = []

    def run(self, job: str, way: str, cells: Sequence[Cell]) -> Sequence[Tensor]:
        if job == "record":
            return self._saves() if way == SAVES else self._cached()
        if way in BATCHED:
            size = BATCHED[way]
            parts = [self._batch(job, cells[start : start + size]) for start in range(0, len(cells), size)]
            return [cell for part in parts for cell in part]
        if way == SKIP:
            self._before = self._inputs("grid", self.prompts.corrupt)
            return [self._skipping(job, *cell) for cell in cells]
        more = {"logits_to_keep": 1} if way == LAST else {}
        return [self._cell(job, cell, more) for cell in cells]

    def _inputs(self, job: str, tokens: Tensor) -> list[Tensor]:
        with self.model.trace(tokens):
            found = [].save()
            for layer in range(N_LAYERS):
                found.append(self.layers[layer].input if job == "grid" else self.layers[layer].self_attn.o_proj.input)
        return found

    def _where(self, job: str, column: int) -> tuple[Any, ...]:
        if job == "grid":
            return (slice(None), column)
        width = self._clean[0].shape[2] // N_HEADS
        return (..., slice(column * width, column * width + width))

    def _cell(self, job: str, cell: Cell, more: dict[str, Any]) -> Tensor:
        layer, column = cell
        where = self._where(job, column)
        site = self.layers[layer] if job == "grid" else self.layers[layer].self_attn.o_proj
        with self.model.trace(self.prompts.corrupt, **more):
            site.input[where] = self._clean[layer][where]
            value = self.prompts.metric(self.model.output.logits).save()
        return value

    def _batch(self, job: str, cells: Sequence[Cell]) -> list[Tensor]:
        with self.model.trace() as tracer:
            values = [].save()
            for layer, column in cells:
                where = self._where(job, column)
                site = self.layers[layer] if job == "grid" else self.layers[layer].self_attn.o_proj
                with tracer.invoke(self.prompts.corrupt):
                    site.input[where] = self._clean[layer][where]
                    values.append(self.prompts.metric(self.model.output.logits))
        return values

    def _skipping(self, job: str, layer: int, column: int) -> Tensor:
        where = self._where(job, column)
        site = self.layers[layer] if job == "grid" else self.layers[layer].self_attn.o_proj
        with self.model.trace(self.prompts.corrupt, logits_to_keep=1):
            for earlier in range(layer):
                self.layers[earlier].skip(self._before[earlier + 1].clone())
            site.input[where] = self._clean[layer][where]
            value = self.prompts.metric(self.model.output.logits).save()
        return value

    def _saves(self) -> list[Tensor]:
        with self.model.trace(self.prompts.clean):
            inputs, heads, mlps = [].save(), [].save(), [].save()
            for layer in range(N_LAYERS):
                inputs.append(self.layers[layer].input)
                heads.append(self.layers[layer].self_attn.o_proj.input)
                mlps.append(self.layers[layer].mlp.output)
        return inputs + heads + mlps

    def _cached(self) -> list[Tensor]:
        blocks = [self.layers[layer] for layer in range(N_LAYERS)]
        outputs = [block.self_attn.o_proj for block in blocks]
        mlps = [block.mlp for block in blocks]
        with self.model.trace(self.prompts.clean) as tracer:
            ins = tracer.cache(modules=blocks + outputs, include_output=False, include_inputs=True, device=None)
            outs = tracer.cache(modules=mlps, device=None)
        return [ins[site.path].input for site in blocks + outputs] + [outs[site.path].output for site in mlps]
