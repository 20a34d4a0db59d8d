"""A trial's key: the hash of everything that its numbers depend on.

A function counts by its instructions, constants, defaults and closure, an object of the user's by its class's code and its
attributes. What a function reads from its module's globals does not count: give such a metric another name when it changes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from importlib.metadata import version
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

import torch
from torch import Tensor

from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.records import content_hash
from optrode.trial.metric import Metric
from optrode.trial.prompts import Task
from optrode.trial.trial import Trial

_UNIMPORTANT: Final = ("transformers_version", "name_or_path", "architectures")
"""Config fields that say where a model came from, not what it computes."""


def bench_key(model: Model, task: Task, metric: Metric) -> str:
    """Hash of what all trials of a bench share: this library's version, the model, prompts, answers, and the metric."""
    pairs = [(p.clean, p.corrupt, p.right, p.wrong, p.targets, p.marks) for p in task.pairs]
    return content_hash([
        version("optrode"), model.weights_hash, _config(model), str(model.dtype), _plain(pairs), _plain(metric)
    ])  # fmt: skip


def trial_key(bench: str, trial: Trial) -> str:
    """Hash of a trial on a bench, 64 hexadecimal digits."""
    return content_hash([bench, trial.world, [_gate(gate) for gate in trial.gates]])


def fingerprint(value: Any) -> str:
    """Hash of anything that makes up a measurement: records, tensors, functions (see the module's text)."""
    return content_hash(_plain(value))


def _config(model: Model) -> Any:
    config: Any = getattr(model.module, "config", None)
    held = config.to_dict() if hasattr(config, "to_dict") else {}
    return {key: repr(value) for key, value in held.items() if key[0] != "_" and key not in _UNIMPORTANT}


def _gate(gate: Gate) -> list[Any]:
    return [str(gate.site), _plain(gate.actuator), gate.strength, gate.scope]


def _plain(value: Any, inside: frozenset[int] = frozenset()) -> Any:
    """A value as JSON: tensors as hashes of their bytes, functions and objects as what makes them behave as they do.

    Args:
        inside: ids of what this value is a part of, so that what refers to itself comes to an end.
    """
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if id(value) in inside:
        return "itself"
    deeper = inside | {id(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(part, deeper) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_plain(part, deeper)) for part in value)
    if isinstance(value, Mapping) and not is_dataclass(value):
        return {str(key): _plain(part, deeper) for key, part in value.items()}
    return _object(value, deeper)


def _object(value: Any, inside: frozenset[int]) -> Any:
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, CodeType):
        return _code(value, inside)
    if isinstance(value, (FunctionType, MethodType, partial)):
        return _function(value, inside)
    if isinstance(value, type):
        return _class(value, inside)
    if type(value).__module__ == "builtins":  # a float among them: JSON has no NaN
        return repr(value)
    names = [field.name for field in fields(value)] if is_dataclass(value) else list(getattr(value, "__dict__", {}))
    return [_class(type(value), inside), {name: _plain(getattr(value, name), inside) for name in names}]


def _tensor(value: Tensor) -> list[Any]:
    held = value.detach().cpu().contiguous()
    digest = hashlib.sha256(held.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
    return [str(held.dtype), list(held.shape), digest]


def _class(kind: type, inside: frozenset[int]) -> list[Any]:
    """A class's name; with the code of its methods where it is not a library's own."""
    module = kind.__module__
    if module.split(".")[0] in ("optrode", "builtins", "torch", "numpy", "transformers"):
        return [f"{module}.{kind.__qualname__}"]
    deeper = inside | {id(kind)}
    methods = {name: _plain(part, deeper) for name, part in vars(kind).items() if isinstance(part, FunctionType)}
    return [kind.__qualname__, methods]


def _function(value: Any, inside: frozenset[int]) -> list[Any]:
    if isinstance(value, partial):
        return [_plain(part, inside) for part in (value.func, value.args, value.keywords)]
    function = value.__func__ if isinstance(value, MethodType) else value
    parts = (function.__code__, function.__defaults__, function.__kwdefaults__, getattr(value, "__self__", None))
    cells = [_plain(cell.cell_contents, inside) for cell in function.__closure__ or ()]
    return [*(_plain(part, inside) for part in parts), cells]


def _code(code: CodeType, inside: frozenset[int]) -> list[Any]:
    """Instructions and constants, nested functions included, but not where they stand."""
    return [code.co_code.hex(), [_plain(constant, inside) for constant in code.co_consts], list(code.co_names)]
