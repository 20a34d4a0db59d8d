"""TransformerLens 4: the bridge on the local folder, raw weights, `transformer_lens.patching` for grids."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import pandas
from jobs import N_LAYERS, Cell
from prompts import Prompts
from torch import Tensor
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from contenders.base import Base

GENERIC = "transformer_lens.patching"
LOOP = "loop over run_with_hooks"
LAST = "loop over run_with_hooks, logits_to_keep=1"
CACHE = "run_with_cache with names_filter"
SITES = {"grid": "hook_resid_pre", "heads": "attn.hook_z"}


class Contender(Base):
    """The bridge forces eager attention, as its hooks need it; no weight processing."""

    packages: ClassVar = ("transformer-lens",)
    ways: ClassVar = {"grid": (GENERIC, LOOP), "heads": (GENERIC, LOOP), "record": (CACHE,)}
    by_hand: ClassVar = {"grid": (LAST,), "heads": (LAST,)}

    def __init__(self, prompts: Prompts) -> None:
        super().__init__(prompts)
        self.bridge = TransformerBridge.boot_transformers(prompts.folder, device="cpu")
        self._clean: Mapping[str, Tensor] = {}

    def prepare(self, job: str) -> None:
        if job != "record":
            self._clean = self._cache([SITES[job]])

    def run(self, job: str, way: str, cells: Sequence[Cell]) -> Sequence[Tensor]:
        if job == "record":
            kinds = ("hook_resid_pre", "attn.hook_z", "hook_mlp_out")
            cache = self._cache(kinds)
            return [cache[f"blocks.{layer}.{kind}"] for kind in kinds for layer in range(N_LAYERS)]
        if way == GENERIC:
            return self._generic(job, cells)
        more = {"logits_to_keep": 1} if way == LAST else {}
        return [self._cell(job, cell, more) for cell in cells]

    def _cache(self, kinds: Sequence[str]) -> Any:
        names = [f"blocks.{layer}.{kind}" for kind in kinds for layer in range(N_LAYERS)]
        return self.bridge.run_with_cache(self.prompts.clean, names_filter=names)[1]

    def _generic(self, job: str, cells: Sequence[Cell]) -> Tensor:
        sweep = patching.get_act_patch_resid_pre if job == "grid" else patching.get_act_patch_attn_head_out_all_pos
        index = pandas.DataFrame(cells, columns=["layer", "pos" if job == "grid" else "head"])
        found: Tensor = sweep(
            self.bridge, self.prompts.corrupt, self._clean, self.prompts.metric, index_axis_names=None, index_df=index,
            reduce="none",
        ).values  # fmt: skip
        return found

    def _cell(self, job: str, cell: Cell, more: Mapping[str, Any]) -> Tensor:
        layer, column = cell
        hook = partial(_patch_position if job == "grid" else _patch_head, column, self._clean)
        name = f"blocks.{layer}.{SITES[job]}"
        return self.prompts.metric(self.bridge.run_with_hooks(self.prompts.corrupt, fwd_hooks=[(name, hook)], **more))


def _patch_position(pos: int, clean: Mapping[str, Tensor], activation: Tensor, hook: Any) -> Tensor:
    activation[:, pos] = clean[hook.name][:, pos]
    return activation


def _patch_head(head: int, clean: Mapping[str, Tensor], activation: Tensor, hook: Any) -> Tensor:
    activation[:, :, head] = clean[hook.name][:, :, head]
    return activation
