"""Adapters that the package PEFT loads, of gates that weights can do: `peft.PeftModel.from_pretrained(module, folder)`.

Gates that only multiply the inputs or the outputs of Linears become an (IA)3 adapter (Liu et al. 2022, arXiv 2205.05638).
All others become a LoRA adapter (Hu et al. 2021, arXiv 2106.09685) whose product B A is the change of each weight, in as
many ranks as that change has, and whose `lora_bias` is what is added.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from optrode.control.adapter_import import CONFIG, WEIGHTS
from optrode.control.merging import WeightChange, is_transposed, merge, weight_changes
from optrode.errors import BadFile, BadGate
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.records import write_bytes, write_text
from optrode.site.recording import Inputs

_NEGLIGIBLE: Final = 1e-14
"""Singular values of a change below this part of the weight's norm are rounding of float64."""


def export_adapter(folder: str | Path, gates: Sequence[Gate], model: Model, *, inputs: Inputs | None = None) -> Path:
    """Write gates as an adapter for PEFT; with it, the module's logits are the gated ones up to rounding.

    PEFT before 0.14 cannot read the part that adds (`lora_bias`), and warns where the Linear had no bias that it could not
    be merged later.

    Args:
        folder: to write `adapter_config.json` and `adapter_model.safetensors` into.
        inputs: on which it is proven that weights can do what the gates do; random tokens when None.

    Returns:
        The folder.

    Raises:
        BadGate, BadOption, CheckFailed, GateShape, GateDtype, GateNotFinite, UnknownSite, SiteUnavailable: as from `merge`.
        BadFile: the files cannot be written.
    """
    changes = weight_changes(model, gates)
    for change in changes:
        if change.is_embedding:
            found = "an adapter here is one of Linears, and what writes there is an embedding"
            raise BadGate(f"adapter for {change.path} of {model.name}", found, next_step="use merge")
    merge(model, gates, inputs=inputs)
    is_scaling = all(change.is_scaling for change in changes)
    config, tensors = _scaling(changes) if is_scaling else _low_rank(changes)
    turned = {is_transposed(model.submodule(change.path)) for change in changes}
    config |= {"base_model_name_or_path": model.name, "fan_in_fan_out": turned == {True}, "inference_mode": True}
    return _write(Path(folder), config, {key: part.to(model.dtype).contiguous() for key, part in tensors.items()})


def _scaling(changes: Sequence[WeightChange]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(IA)3: `feedforward_modules` are those whose inputs are multiplied, others have their outputs multiplied."""
    on_inputs = [change.path for change in changes if not _is_one(change.scale_in)]
    factors = {
        change.path: change.scale_in[None] if change.path in on_inputs else change.scale_out[:, None]
        for change in changes if change.scale_in is not None and change.scale_out is not None
    }  # fmt: skip
    config = {"peft_type": "IA3", "target_modules": list(factors), "feedforward_modules": on_inputs}
    return config, {f"{_key(path)}.ia3_l": part for path, part in factors.items()}


def _low_rank(changes: Sequence[WeightChange]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    factors = {change.path: _factors(change) for change in changes}
    ranks = {path: len(down) for path, (_, down) in factors.items()}
    top, adds = max(ranks.values()), {change.path: _added(change) for change in changes}
    has_bias = any(bool(part.any()) for part in adds.values())
    config = {
        "peft_type": "LORA", "target_modules": list(ranks), "r": top, "lora_alpha": top, "lora_dropout": 0.0, "bias": "none",
        "lora_bias": has_bias, "rank_pattern": ranks, "alpha_pattern": ranks,
    }  # fmt: skip
    tensors = {f"{_key(path)}.lora_A.weight": down for path, (_, down) in factors.items()}
    tensors |= {f"{_key(path)}.lora_B.weight": up for path, (up, _) in factors.items()}
    return config, tensors | ({f"{_key(path)}.lora_B.bias": part for path, part in adds.items()} if has_bias else {})


def _factors(change: WeightChange) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank inside"]]:
    """B and A of the change of a weight, of its own rank; of rank 1 and zero where it does not change."""
    moved = change.new_weight - change.weight
    if not bool(moved.any()):
        return torch.zeros(len(moved), 1, dtype=moved.dtype), torch.zeros(1, moved.shape[1], dtype=moved.dtype)
    left, sizes, right = torch.linalg.svd(moved, full_matrices=False)
    least = _NEGLIGIBLE * float(torch.linalg.matrix_norm(change.weight)) + 1e-12 * float(sizes[0])
    rank = max(1, int((sizes > least).sum()))
    root = sizes[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _added(change: WeightChange) -> Float[Tensor, " out"]:
    new = torch.zeros(len(change.weight), dtype=torch.float64) if change.new_bias is None else change.new_bias
    return new if change.bias is None else new - change.bias


def _is_one(factors: Tensor | None) -> bool:
    return factors is None or bool((factors == 1).all())


def _key(path: str) -> str:
    return f"base_model.model.{path}"


def _write(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
        write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    except OSError as error:
        found = f"it cannot be written ({error.strerror})"
        raise BadFile(f"adapter {folder}", found, next_step="give another folder, or make room") from error
    return folder
