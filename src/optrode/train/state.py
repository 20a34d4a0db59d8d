"""The state of a training run on disk: weights, optimiser and random numbers in one safetensors file, numbers in JSON.

Both files are written whole or not at all, and the JSON, which names the tensor file, last: a run killed in between goes on
from the state before. Nothing is pickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from optrode.errors import BadFile, BadOption, nearest
from optrode.records import read_json, write_bytes, write_text

FILE: Final = "state.json"


@final
@dataclass(frozen=True)
class State:
    """Where a run is.

    Attributes:
        step: steps made.
        tensors: of the model ("model.<name>"), the optimiser ("optimizer.<parameter>.<name>") and the random state.
        notes: everything else, as JSON data.
    """

    step: int
    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any]


def capture(
    module: nn.Module, optimizer: Optimizer, step: int, notes: Mapping[str, Any],
    made: list[dict[str, Any]] | None = None,
) -> State:  # fmt: skip
    """The state of a run now.

    Args:
        made: the optimiser's options (`options_of`) when it was made.
    """
    held = optimizer.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    plain: dict[str, Any] = {}
    for ix, entries in held["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, Tensor) else plain)[f"optimizer.{ix}.{name}"] = value
    tensors["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    options = {"groups": options_of(optimizer), "made": made, "plain": plain}
    return State(step, tensors, {**notes, "optimizer": options})


def restore_into(state: State, module: nn.Module, optimizer: Optimizer) -> None:
    """Put a model, its optimiser and torch's random numbers into a state.

    The optimiser has just been made. Its options (the learning rate, ...) become those of the state, except where it was
    made with others than the optimiser that the state was taken from: those are the ones that the caller has changed.

    Raises:
        BadFile: it is the state of another architecture, or of an optimiser of other parameters.
    """
    load_weights(module, {k.removeprefix("model."): v for k, v in state.tensors.items() if k.startswith("model.")})
    entries: dict[int, dict[str, Any]] = {}
    held = {k: v for k, v in state.tensors.items() if k.startswith("optimizer.")} | state.notes["optimizer"]["plain"]
    for key, value in held.items():
        _, ix, name = key.split(".", 2)
        entries.setdefault(int(ix), {})[name] = value
    fresh = optimizer.state_dict()["param_groups"]
    _check_groups(fresh, state)
    optimizer.load_state_dict({"state": entries, "param_groups": _groups(fresh, state)})
    torch.set_rng_state(state.tensors["random"].cpu())
    if "random.cuda" in state.tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.tensors["random.cuda"].cpu())


def options_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of each parameter group, as JSON data."""
    groups = optimizer.state_dict()["param_groups"]
    return [{k: v for k, v in group.items() if not isinstance(v, Tensor)} for group in groups]


def _check_groups(fresh: list[dict[str, Any]], state: State) -> None:
    here, there = ([len(group["params"]) for group in groups] for groups in (fresh, state.notes["optimizer"]["groups"]))
    if here != there:
        found = f"it is that of an optimiser of {there} parameters by group, the plan's has {here}"
        step = "freeze and group the same parameters as in the first part of the run, or give another folder"
        raise BadFile("state of the optimiser", found, next_step=step)


def _groups(fresh: list[dict[str, Any]], state: State) -> list[dict[str, Any]]:
    """The options of each group, by the rule of `restore_into`."""
    held = state.notes["optimizer"]
    made = held.get("made") or [{} for _ in fresh]
    merged = []
    for mine, saved, before in zip(fresh, held["groups"], made, strict=True):
        changed = {k for k in before if k in mine and _as_json(mine[k]) != before[k]}
        taken = {k: tuple(v) if k == "betas" else v for k, v in saved.items() if k not in changed}
        merged.append(mine | taken)
    return merged


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: str = "checkpoint") -> None:
    """Put weights into a module, all or none.

    Raises:
        BadFile: they are those of another architecture; the message names the first that does not fit.
    """
    own = module.state_dict()
    odd = sorted(set(own) ^ set(tensors))
    if odd:
        has = "is not in it" if odd[0] in own else "is in it, and not in the model"
        near = nearest(odd[0], tensors if odd[0] in own else own)
        found = f"of another architecture: {odd[0]} {has}"
        raise BadFile(where, found, nearest=near, next_step="load it into the architecture that it was trained with")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            found = f"of another architecture: {name} is {list(tensors[name].shape)}, the model's is {list(tensor.shape)}"
            raise BadFile(where, found, next_step="load it into the architecture that it was trained with")
    module.load_state_dict(dict(tensors))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, whole or not at all; shared memory is written once per name."""
    write_bytes(path, save_tensors({k: v.detach().contiguous().clone() for k, v in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        BadFile: it is missing or torn.
    """
    try:
        return dict(load_tensors(path.read_bytes()))
    except FileNotFoundError:
        there = sorted(str(p.name) for p in path.parent.glob("*.safetensors")) if path.parent.is_dir() else []
        raise BadFile(f"checkpoint {path}", "no such file", nearest=nearest(path.name, there) or there[:3]) from None
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        found = f"not safetensors, or torn ({error})"
        raise BadFile(f"checkpoint {path}", found, next_step="take another checkpoint, or train again") from error


def save_state(folder: Path, state: State) -> None:
    """Write a state; the one before stays until this one is whole."""
    file = f"state-{state.step}.safetensors"
    write_tensors(folder / file, state.tensors)
    write_text(folder / FILE, json.dumps({"step": state.step, "file": file, "notes": state.notes}, allow_nan=False))
    for old in folder.glob("state-*.safetensors"):
        if old.name != file:
            old.unlink()


def clear_halves(folder: Path) -> None:
    """Remove what a writer left that was killed while it wrote; to be called by the one who may write there."""
    for half in (*folder.glob(".*.safetensors.*"), *folder.glob(".*.json.*")):
        half.unlink(missing_ok=True)


def load_state(folder: Path) -> State | None:
    """The state that a folder holds, or None.

    Raises:
        BadFile: it is damaged.
    """
    if not (folder / FILE).exists():
        return None
    data = read_json(folder / FILE)
    if not isinstance(data, dict) or not {"step", "file", "notes"} <= set(data):
        raise BadFile(f"state {folder / FILE}", "not the state of a training run", next_step="give another folder")
    return State(int(data["step"]), read_tensors(folder / data["file"]), data["notes"])


def check_same(asked: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare what two plans have in common.

    Raises:
        BadOption: they differ; the message names the first difference.
    """
    step = "give another folder, or the plan that the run was begun with"
    for name in now:
        if name == "values" and before.get(name, now[name]) != now[name]:
            found = "the folder holds a run whose gates have other values, or pass on gradients where these do not"
            raise BadOption(asked, found, next_step=step)
        if name != "values" and before.get(name) != now[name]:
            found = f"the folder holds a run with {name}={before.get(name)!r}, and the plan has {now[name]!r}"
            raise BadOption(asked, found, next_step=step)
