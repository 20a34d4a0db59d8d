"""Which gates are data that a file can hold, and how: tables of kinds, each by the fields of its dataclass.

Only the classes of these tables are ever made from a file, each by its own constructor with its own checks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from optrode.control.adapter_import import Adapted
from optrode.control.controller import Controller
from optrode.errors import BadGate, GateNotFinite
from optrode.gate.actuators import Add, Affine, Clamp, Compute, Mean, Patch, ProjectOut, Scale, Zero
from optrode.gate.conditions import Observed, PerRow, Reading, Replayed
from optrode.gate.gate import Aside, Gate
from optrode.gate.maps import LowRank, Rescale, ScaleHeads
from optrode.gate.rules import Rule, Rules, rules
from optrode.gate.scorers import Chance, Cosine, Disagreement, Linear, Network, Scorer
from optrode.model.names import SiteName, parse

Tensors = dict[str, NDArray[Any]]

ACTUATORS: Final[dict[str, type]] = {
    "adapter": Adapted, "add": Add, "affine": Affine, "clamp": Clamp, "low_rank": LowRank, "project_out": ProjectOut,
    "rescale": Rescale, "scale": Scale, "scale_heads": ScaleHeads, "zero": Zero,
}  # fmt: skip
"""Kinds of actuators that can be written, by their name in the file."""

OPENNESS: Final[dict[str, type]] = {"observed": Observed, "rules": Rules}
"""Kinds of openness that can be written."""

PARTS: Final[dict[str, type]] = {
    "chance": Chance, "cosine": Cosine, "disagreement": Disagreement, "first_pass": Aside, "linear": Linear,
    "network": Network, "reading": Reading, "rule": Rule,
}  # fmt: skip
"""What an openness is made of."""

_BATCH: Final = ("its numbers are those of one batch's rows", "give them when it is used")
REFUSED: Final[dict[type, tuple[str, str]]] = {
    Compute: ("its function is code, and an artefact holds only data", "write what it does as an affine gate, if it is one"),
    Patch: ("its values belong to one run's rows and positions", "op.clamp(site, vector) holds one vector everywhere"),
    Mean: ("its values come from a recording", "take the mean of it yourself, and write op.clamp(site, mean)"),
    Network: ("its module is code, and an artefact holds only data", "use a Controller, or a linear probe"),
    PerRow: _BATCH,
    Replayed: _BATCH,
}
"""What cannot be written: the reason, and what to do."""

_NAMES: Final = {kind: name for table in (ACTUATORS, OPENNESS, PARTS) for name, kind in table.items()}
_DTYPES: Final = {name: getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16", "int64", "bool")}
_KIND, _ID, _SAME = "kind", "id", "$same"
_TENSOR, _SITE, _TUPLE, _MAP = "$tensor", "$site", "$tuple", "$map"
_CONTROLLER, _STATE = "controller", "state"


@final
@dataclass(frozen=True)
class GateRecord:
    """One gate as JSON can say it; its tensors stand apart, under the keys that it names.

    Attributes:
        site: name or pattern.
        strength, scope, detach: as of the gate.
        actuator: its kind and fields.
        openness: likewise; None for a gate that is always open.
    """

    site: str
    strength: float
    scope: str
    detach: bool
    actuator: Mapping[str, Any]
    openness: Mapping[str, Any] | None = None


@final
@dataclass
class Writer:
    """Turns gates into records. Passes aside and scorers that gates share stay shared.

    Attributes:
        tensors: those of the gates that were written, by key.
    """

    tensors: Tensors = field(default_factory=dict)
    _n_gates: int = 0
    _seen: dict[int, int] = field(default_factory=dict)

    def record(self, gate: Gate) -> GateRecord:
        """A gate as a record; its tensors go to `tensors`.

        Raises:
            BadGate: it is not data, or data of one batch, sweep or training run; the message says which and why.
            GateNotFinite: a number or a tensor of it is NaN or infinite.
        """
        _refuse_bound(gate)
        key, self._n_gates = str(self._n_gates), self._n_gates + 1
        strength = self._plain(gate, float(gate.strength), f"{key}.strength")
        actuator = self._object(gate, gate.actuator, f"{key}.actuator")
        openness = None if gate.openness is None else self._object(gate, gate.openness, f"{key}.openness")
        return GateRecord(str(gate.site), strength, gate.scope, gate.detach, actuator, openness)

    def _object(self, gate: Gate, value: Any, key: str) -> dict[str, Any]:
        if type(value) not in _NAMES:
            known = f"{type(value).__name__} is no kind of gate that can be written"
            reason, step = REFUSED.get(type(value), (known, "write one of those"))
            raise BadGate(f"write {gate}", reason, nearest=tuple(ACTUATORS) if reason == known else (), next_step=step)
        if isinstance(value, Aside) and (value.gates or value.model is not None):
            step = "use a first pass without gates, or a probe in the pass itself"
            raise BadGate(f"write {gate}", f"it needs {value}, which no file can hold", next_step=step)
        if isinstance(value, Network) and type(value.module) is not Controller:
            raise BadGate(f"write {gate}", REFUSED[Network][0], next_step=REFUSED[Network][1])
        if id(value) in self._seen:
            return {_SAME: self._seen[id(value)]}
        own = {}
        if isinstance(value, (Aside, Scorer)):
            own = {_ID: self._seen.setdefault(id(value), len(self._seen))}
        inside = () if isinstance(value, Aside) else fields(value)
        parts = {f.name: self._plain(gate, getattr(value, f.name), f"{key}.{f.name}") for f in inside}
        return {_KIND: _NAMES[type(value)], **own, **parts}

    def _plain(self, gate: Gate, value: Any, key: str) -> Any:
        if isinstance(value, Tensor):
            return self._put(gate, value, key)
        if isinstance(value, SiteName):
            return {_SITE: str(value)}
        if isinstance(value, (tuple, list)):
            return {_TUPLE: [self._plain(gate, one, f"{key}.{ix}") for ix, one in enumerate(value)]}
        if isinstance(value, Mapping):
            return {_MAP: {str(name): self._plain(gate, one, f"{key}.{name}") for name, one in value.items()}}
        if isinstance(value, Controller):
            state = {name: self._put(gate, tensor, f"{key}.{name}") for name, tensor in value.state_dict().items()}
            return {_KIND: _CONTROLLER, **_sizes(value), _STATE: {_MAP: state}}
        what = key.rpartition(".")[2]
        if isinstance(value, float) and not math.isfinite(value):
            raise GateNotFinite(f"write {gate}", f"its {what} is {value}", next_step="give a finite number")
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if is_dataclass(value):
            return self._object(gate, value, key)
        step = "write gates whose fields are numbers, texts, tensors and sites"
        raise BadGate(f"write {gate}", f"its {what} is of type {type(value).__name__}, which is no data", next_step=step)

    def _put(self, gate: Gate, tensor: Tensor, key: str) -> dict[str, str]:
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _DTYPES or tensor.is_meta:
            found = f"its tensor is of type {dtype} on {tensor.device}"
            raise BadGate(f"write {gate}", found, nearest=tuple(_DTYPES), next_step="give numbers of a common type")
        if not bool(torch.isfinite(tensor).all()):
            step = "find out where they come from"
            raise GateNotFinite(f"write {gate}", "a tensor of it has NaN or infinity", next_step=step)
        whole = tensor.detach().cpu()
        # NumPy has no bfloat16; each of its numbers is a float32 too, so that they come back to the bit.
        self.tensors[key] = (whole.float() if whole.dtype == torch.bfloat16 else whole).numpy().copy()
        return {_TENSOR: key, "dtype": dtype}


@final
@dataclass
class Reader:
    """Turns records into gates again, with tensors on the CPU, in the type that they had.

    Attributes:
        tensors: by the keys in the records.
    """

    tensors: Mapping[str, NDArray[Any]]
    _made: dict[int, Any] = field(default_factory=dict)

    def gate(self, record: GateRecord) -> Gate:
        """The gate of a record.

        Raises:
            ValueError, TypeError, LookupError, AttributeError: this is no such record.
            BadName, BadGate, GateNotFinite: a site, scope or condition in it is none.
        """
        actuator = self._object(record.actuator, ACTUATORS)
        openness = None if record.openness is None else self._object(record.openness, OPENNESS)
        scope: Any = record.scope
        return Gate(parse(record.site), actuator, record.strength, scope, record.detach, openness=openness)

    def _object(self, data: Any, table: Mapping[str, type]) -> Any:
        if _SAME in data:
            return self._made[data[_SAME]]
        kind = table[data[_KIND]]
        parts = {name: self._value(part) for name, part in data.items() if name not in (_KIND, _ID)}
        made = rules(**parts) if kind is Rules else kind(**parts)  # the dataclass itself would not check its rules
        if _ID in data:
            self._made[data[_ID]] = made
        return made

    def _value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if _TENSOR in data:
            return torch.from_numpy(self.tensors[data[_TENSOR]].copy()).to(_DTYPES[data["dtype"]])
        if _SITE in data:
            return parse(data[_SITE])
        if _TUPLE in data:
            return tuple(self._value(one) for one in data[_TUPLE])
        if data.get(_KIND) == _CONTROLLER:
            return self._controller(data)
        if _MAP in data:
            return {name: self._value(one) for name, one in data[_MAP].items()}
        return self._object(data, OPENNESS | PARTS)


    def _controller(self, data: Mapping[str, Any]) -> Controller:
        parts = {name: self._value(part) for name, part in data.items() if name not in (_KIND, _STATE)}
        made = Controller(**parts)
        made.load_state_dict(self._value(data[_STATE]), assign=True)
        return made.requires_grad_(False)


def _sizes(controller: Controller) -> dict[str, Any]:
    """What a controller of the same form is made with."""
    weights = "uniform" if controller.to_weights is None else "learned"
    return {
        "sites": {_TUPLE: list(controller.sites)}, "n_features": controller.n_features, "n_gates": controller.n_gates,
        "n_hidden": controller.hidden.out_features, "amount": controller.amount, "weights": weights,
    }  # fmt: skip


@final
@dataclass
class Fitter:
    """Puts the tensors of gates on a device, and those with fractions into a type; what gates share stays shared."""

    device: torch.device
    dtype: torch.dtype
    _made: dict[int, Any] = field(default_factory=dict)

    def fit(self, value: Any) -> Any:
        """A gate, or a part of one, with its tensors moved."""
        if isinstance(value, Tensor):
            return value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
        if isinstance(value, Controller):
            return value.to(self.device)  # it computes in a type of its own
        if isinstance(value, tuple):
            return tuple(self.fit(one) for one in value)
        if isinstance(value, Mapping):
            return {name: self.fit(one) for name, one in value.items()}
        if not isinstance(value, Gate) and type(value) not in _NAMES or isinstance(value, Aside):
            return value
        if id(value) not in self._made:
            self._made[id(value)] = type(value)(**{f.name: self.fit(getattr(value, f.name)) for f in fields(value)})
        return self._made[id(value)]


def _refuse_bound(gate: Gate) -> None:
    """Refuse what means something only within one sweep, training run or batch."""
    bound = {
        "each": (gate.each or None, "a sweep makes a trial of each", "name one site a gate: gate.at(site)"),
        "when": (gate.when, "a schedule counts the steps of a training run", "leave it out"),
        "rows": (gate.rows, "rows are those of one batch", "leave it out, and give rows when it is used"),
    }
    for name, (value, reason, step) in bound.items():
        if value is not None:
            raise BadGate(f"write {gate}", f"it has {name}=, and {reason}", next_step=step)
