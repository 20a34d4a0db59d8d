"""Adapters of the package PEFT as gates: held on any rows, positions or conditions, at any dose, and saved as artefacts.

LoRA (Hu et al. 2021, arXiv 2106.09685) becomes one `Adapted` gate for each Linear, (IA)3 (Liu et al. 2022, arXiv 2205.05638)
one `rescale` gate. PEFT itself is not needed.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from optrode.errors import BadFile, BadGate, GateShape
from optrode.gate.gate import Actuator, Gate
from optrode.gate.kinds import gate_of
from optrode.gate.maps import rescale
from optrode.model.model import Model
from optrode.model.names import SiteName, parse
from optrode.records import read_json
from optrode.site.site import Moment, Site

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_KEY: Final = re.compile(r"^base_model\.model\.(?P<path>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|ia3_l)$")
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "use_dora": (None, False), "modules_to_save": (None, []), "bias": (None, "none"), "layer_replication": (None,),
    "trainable_token_indices": (None,), "target_parameters": (None, []), "use_qalora": (None, False),
    "init_lora_weights": (None, True, False, "gaussian"), "alora_invocation_tokens": (None,), "arrow_config": (None,),
}  # fmt: skip
"""Entries of a configuration with the values under which an adapter is nothing but what is read here."""


@final
@dataclass(frozen=True, eq=False)
class Adapted(Actuator):
    """f(h) = h + B A x + c: a LoRA adapter, at the output h of the Linear that reads x.

    Attributes:
        up: B, with the adapter's scaling in it, [out, rank].
        down: A [rank, inside].
        reads_at: the site of x.
        bias: c [out], or None.
    """

    up: Float[Tensor, "out rank"]
    down: Float[Tensor, "rank inside"]
    reads_at: SiteName
    bias: Float[Tensor, " out"] | None = None

    def __str__(self) -> str:
        return f"adapter of rank {len(self.down)}"

    @property
    def reads(self) -> tuple[SiteName, ...]:
        return (self.reads_at,)

    def tensors(self, site: Site) -> tuple[Tensor, ...]:
        # what it reads has a width of its own, shown as one that fits every other
        found = (self.up.T, self.down.reshape(-1, 1))
        return found if self.bias is None else (*found, self.bias)

    def target(self, h: Tensor, site: Site, moment: Moment) -> Tensor:
        if moment.around is None:
            found = "what it reads is known only of a pass under way, not of a trial"
            raise BadGate(f"{self} at {site.name}", found, next_step="hold it with op.gates and run the model")
        x = moment.around[str(self.reads_at)]
        moved: Tensor = torch.nn.functional.linear(torch.nn.functional.linear(x, self.down), self.up, self.bias)
        return h + moved


def load_adapter(folder: str | Path, model: Model, **options: Any) -> tuple[Gate, ...]:
    """The adapter in a folder that PEFT wrote (`save_pretrained`), or `export_adapter`, as gates.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`; other formats of tensors are not read, as loading
            them may run code.
        options: of every gate: strength, scope, openness, ...

    Raises:
        BadFile: a file is missing or torn, the adapter is of another type than LORA and IA3, or holds more than is read.
        GateShape, SiteUnavailable: the model has no such module, or one of another width.
        BadGate: no such option.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise _bad(folder, f"there is no {CONFIG}", "give the folder that PEFT's save_pretrained wrote")
    config = read_json(folder / CONFIG)
    parts = _parts(folder, _tensors(folder))
    _check_config(folder, config)
    moved = {
        path: {name: tensor.to(model.device, model.dtype) for name, tensor in held.items()} for path, held in parts.items()
    }
    if config["peft_type"] == "IA3":
        return tuple(_scaling(model, path, held["ia3_l"], options) for path, held in moved.items())
    try:
        factors = {path: _factor(config, path, held) for path, held in moved.items()}
    except (re.error, ValueError, TypeError, AttributeError) as error:
        raise _bad(folder, f"its alphas cannot be read ({error})", "save it again") from error
    return tuple(_low_rank(model, path, held, factors[path], options) for path, held in moved.items())


def _check_config(folder: Path, config: Any) -> None:
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind not in ("LORA", "IA3"):
        raise _bad(folder, f"its peft_type is {kind!r}", "give one of type LORA or IA3")
    for entry, neutral in _NEUTRAL.items():
        if config.get(entry) not in neutral:
            found = f"it has {entry}={config[entry]!r}, which does more than add to a Linear's output"
            raise _bad(folder, found, "merge it with PEFT, and load the module")


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        there = sorted(one.name for one in folder.glob("adapter_model*"))
        found = f"there is no {WEIGHTS}" + (f", only {', '.join(there)}" if there else "")
        raise _bad(folder, found, "save it with PEFT's save_pretrained(folder, safe_serialization=True)")
    try:
        found_tensors: dict[str, Tensor] = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise _bad(folder, f"{WEIGHTS} is torn ({error})", "save it again") from error
    return found_tensors


def _parts(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by the path of their module and what they are of it."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise _bad(folder, f"it holds {key!r}, which belongs to no adapter of a Linear", "merge it with PEFT")
        if not bool(torch.isfinite(tensor).all()):
            raise _bad(folder, f"{key} holds NaN or infinity", "find out where they come from")
        found.setdefault(match["path"], {})[match["part"]] = tensor
    for path, held in found.items():
        if not ({"lora_A.weight", "lora_B.weight"} <= set(held) or set(held) == {"ia3_l"}):
            raise _bad(folder, f"of {path} it holds only {', '.join(held)}", "save it again")
    if not found:
        raise _bad(folder, "it adapts no module", "save it again")
    return found


def _factor(config: Mapping[str, Any], path: str, held: Mapping[str, Tensor]) -> float:
    """What PEFT multiplies B A x by: alpha / rank, or alpha / sqrt(rank) (rsLoRA)."""
    patterns = (config.get("alpha_pattern") or {}).items()
    fitting = [value for key, value in patterns if re.match(rf"(.*\.)?({key})$", path)]  # as PEFT looks for it
    alpha, rank = [*fitting, config.get("lora_alpha", 8)][0], len(held["lora_A.weight"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _low_rank(model: Model, path: str, held: Mapping[str, Tensor], factor: float, options: dict[str, Any]) -> Gate:
    up, down, bias = held["lora_B.weight"], held["lora_A.weight"], held.get("lora_B.bias")
    outside, inside = _shape(model, path)
    if (len(up), down.shape[1]) != (outside, inside) or up.shape[1] != len(down):
        raise _misfit(model, path, f"{len(up)} by {down.shape[1]}, at rank {up.shape[1]} and {len(down)}", outside, inside)
    actuator = Adapted(factor * up, down, parse(f"module:{path}.in"), None if bias is None else factor * bias)
    return gate_of(f"module:{path}.out", actuator, **options)


def _scaling(model: Model, path: str, factors: Tensor, options: dict[str, Any]) -> Gate:
    """[1, inside] multiplies what the module reads, [out, 1] what it writes."""
    outside, inside = _shape(model, path)
    if tuple(factors.shape) not in ((1, inside), (outside, 1)):
        raise _misfit(model, path, " by ".join(map(str, factors.shape)), outside, inside)
    is_input = len(factors) == 1
    weight = factors.reshape(-1)
    return rescale(f"module:{path}.{'in' if is_input else 'out'}", weight, torch.zeros_like(weight), **options)


def _shape(model: Model, path: str) -> tuple[int, int]:
    """(out, in) of the Linear at a path, GPT-2's way of storing it included."""
    module: Any = model.submodule(path)
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        found = f"module {path} is a {type(module).__name__}, and no Linear"
        raise GateShape(f"adapter of {path} on {model.name}", found, next_step="load the model that it was made for")
    outside, inside = weight.shape if isinstance(module, torch.nn.Linear) else weight.shape[::-1]
    return outside, inside


def _misfit(model: Model, path: str, found: str, outside: int, inside: int) -> GateShape:
    found = f"it is {found}, and the module {outside} by {inside}"
    return GateShape(f"adapter of {path} on {model.name}", found, next_step="load the model that it was made for")


def _bad(folder: Path, found: str, step: str) -> BadFile:
    return BadFile(f"adapter {folder}", found, next_step=step)
