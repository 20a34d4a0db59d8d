"""A trial's key: the hash of everything that its numbers depend on."""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor

from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.records import content_hash
from optrode.trial.metric import Metric
from optrode.trial.prompts import Task
from optrode.trial.trial import Trial


def bench_key(model: Model, task: Task, metric: Metric) -> str:
    """Hash of what all trials of a bench share: weights, prompts, answers, and the metric with its code."""
    pairs = [(p.clean, p.corrupt, p.right, p.wrong, p.targets) for p in task.pairs]
    return content_hash([model.weights_hash, _plain(pairs), metric.name, _code(getattr(metric.function, "__code__", None))])


def trial_key(bench: str, trial: Trial) -> str:
    """Hash of a trial on a bench, 64 hexadecimal digits."""
    return content_hash([bench, trial.world, [_gate(gate) for gate in trial.gates]])


def _gate(gate: Gate) -> list[Any]:
    return [str(gate.site), type(gate.actuator).__name__, _plain(gate.actuator), gate.strength, gate.scope]


def _plain(value: Any) -> Any:
    """A value as JSON, with tensors as hashes of their bytes."""
    if isinstance(value, Tensor):
        held = value.detach().cpu().contiguous()
        digest = hashlib.sha256(held.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()
        return [str(held.dtype), list(held.shape), digest]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return list(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _code(code: CodeType | None) -> Any:
    """What a function computes: its instructions and constants, nested functions included, but not where it stands."""
    if code is None:
        return None
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names)]
