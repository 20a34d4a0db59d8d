"""pyvene 0.1: an intervenable model per cell, as in its tutorial, with the clean representations handed in once."""

from collections.abc import Sequence
from typing import Any, ClassVar

import pyvene
from jobs import N_HEADS, N_LAYERS, N_POSITIONS, Cell
from prompts import Prompts
from torch import Tensor

from contenders.base import Base, load_llama

CELL = "an IntervenableModel per cell, with source_representations"
COLLECT = "CollectIntervention"
COMPONENTS = {"grid": "block_input", "heads": "attention_value_output"}


class Contender(Base):
    """Its hooks write in place; without `source_representations` each cell would also run the clean prompts."""

    packages: ClassVar = ("pyvene",)
    ways: ClassVar = {"grid": (CELL,), "heads": (CELL,), "record": (COLLECT,)}

    def __init__(self, prompts: Prompts) -> None:
        super().__init__(prompts)
        self.module = load_llama(prompts)
        self._clean: list[Tensor] = []
        self._collector: Any = None

    def prepare(self, job: str) -> None:
        kinds = ["block_input", "attention_value_output", "mlp_output"] if job == "record" else [COMPONENTS[job]]
        sites = [(kind, layer) for kind in kinds for layer in range(N_LAYERS)]
        self._collector = self._collecting(sites)
        if job != "record":
            self._clean = self._collect(self._collector)

    def run(self, job: str, way: str, cells: Sequence[Cell]) -> list[Tensor]:
        if job == "record":
            return self._collect(self._collector)
        return [self._position(*cell) if job == "grid" else self._head(*cell) for cell in cells]

    def _collecting(self, sites: Sequence[tuple[str, int]]) -> Any:
        wanted = [
            {
                "layer": layer, "component": kind, "max_number_of_units": N_POSITIONS,
                "intervention_type": pyvene.CollectIntervention,
            }
            for kind, layer in sites
        ]  # fmt: skip
        return pyvene.IntervenableModel(wanted, self.module)

    def _collect(self, collector: Any) -> list[Tensor]:
        everywhere = [list(range(N_POSITIONS))] * len(self.prompts.clean)
        units = {"base": [everywhere] * len(collector.interventions)}
        (_, found), _ = collector({"input_ids": self.prompts.clean}, unit_locations=units)
        return list(found)

    def _position(self, layer: int, pos: int) -> Tensor:
        wanted = {"layer": layer, "component": "block_input", "intervention_type": pyvene.VanillaIntervention}
        return self._patched(wanted, self._clean[layer][:, [pos]], pos)

    def _head(self, layer: int, head: int) -> Tensor:
        wanted = {
            "layer": layer, "component": "head_attention_value_output", "unit": "h",
            "intervention_type": pyvene.VanillaIntervention,
        }  # fmt: skip
        per_head = self._clean[layer].unflatten(2, (N_HEADS, -1)).transpose(1, 2)
        return self._patched(wanted, per_head[:, [head]], head)

    def _patched(self, wanted: dict[str, Any], source: Tensor, unit: int) -> Tensor:
        model = pyvene.IntervenableModel([wanted], self.module)
        (key,) = model.interventions
        _, output = model(
            {"input_ids": self.prompts.corrupt}, source_representations={key: source},
            unit_locations={"sources->base": unit},
        )  # fmt: skip
        return self.prompts.metric(output.logits)
