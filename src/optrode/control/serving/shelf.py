"""The shelf: gate sets by name, from artefacts or from functions, checked on the model before anything is served."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from optrode.control.artefact import IN_FOLDER, Artefact, load_artefact
from optrode.control.serving.call import Asked
from optrode.control.serving.fields import shown
from optrode.control.serving.refusal import Refused, refusal_of
from optrode.errors import BadFile, BadOption, OptrodeError, nearest
from optrode.gate.gate import Gate
from optrode.gate.order import check_condition
from optrode.gate.place import check_value
from optrode.model.model import Model
from optrode.records import read_json
from optrode.site.select import select_sites

Make = Callable[[float], Sequence[Gate]]
"""Gates at a dose."""

_STEP: Final = "GET /v1/gates lists them with their doses"


@final
@dataclass(frozen=True, eq=False)
class Entry:
    """One gate set.

    Attributes:
        name: by which requests ask for it.
        behaviour: what it does.
        make: its gates at a dose.
        dose: where a request gives none.
        dose_range: lowest and highest recommended dose, where they are known.
        about: what else the list of gates says of it, as JSON data.
    """

    name: str
    behaviour: str
    make: Make
    dose: float = 1.0
    dose_range: tuple[float, float] | None = None
    about: Mapping[str, Any] | None = None

    def shown(self) -> dict[str, Any]:
        """The entry as JSON data."""
        span = None if self.dose_range is None else list(self.dose_range)
        data = {"name": self.name, "object": "gate", "behaviour": self.behaviour, "dose": self.dose, "dose_range": span}
        return data | {"card": self.about}


@final
@dataclass(frozen=True, eq=False)
class Picked:
    """A gate set at the dose of one request."""

    entry: Entry
    dose: float
    gates: tuple[Gate, ...]

    def shown(self) -> dict[str, Any]:
        """What the answer says of it."""
        data: dict[str, Any] = {"name": self.entry.name, "dose": self.dose}
        if self.entry.dose_range is None or not self.dose:
            return data
        low, high = self.entry.dose_range
        is_usual = low <= self.dose <= high
        return data if is_usual else data | {"note": f"outside of the recommended range {low:g} to {high:g}"}


@final
class Shelf:
    """Gate sets by name, for one model."""

    def __init__(self, model: Model, entries: Sequence[Entry] = ()) -> None:
        names = [entry.name for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            step = "change the name on one of their cards, or serve one of them"
            raise BadOption(f"gates to serve, by the name {twice[0]!r}", "there are two of that name", next_step=step)
        self.model, self.entries = model, {entry.name: entry for entry in entries}

    def pick(self, asked: Sequence[Asked]) -> tuple[Picked, ...]:
        """The gate sets that a request names, at its doses.

        Raises:
            Refused: there is none of that name, or it cannot be had at that dose.
        """
        return tuple(self._pick(one) for one in asked)

    def _pick(self, asked: Asked) -> Picked:
        entry = self.entries.get(asked.name)
        if entry is None:
            near = nearest(asked.name, self.entries)
            found = "there is none of that name" if self.entries else "this server has no gates"
            name = f"gate {shown(asked.name)}"
            raise Refused(400, "unknown_gate", name, found, param="gates", nearest=near, next_step=_STEP)
        dose = entry.dose if asked.dose is None else asked.dose
        try:
            return Picked(entry, dose, made(self.model, entry, dose))
        except OptrodeError as error:
            raise refusal_of(error, param="gates") from error


def shelf_of(
    model: Model, folder: str | Path | None = None, functions: Mapping[str, Make] | None = None, *, allow_other: bool = False
) -> Shelf:
    """A shelf of what is in a folder, and of functions.

    Args:
        folder: of artefacts, one by one or each in a folder of its own. They go by the names on their cards.
        functions: name -> gates at a dose. Each is tried once at dose 1; the first line of its docstring says what it does.
        allow_other: also artefacts that were made on a model with other weights, with a warning.

    Raises:
        BadFile: there is no such folder, no artefact in it, or a broken one.
        BadOption: two gate sets have one name; a function gives no gates.
        BadGate, GateShape, UnknownSite, SiteUnavailable: gates do not fit the model.
    """
    entries = [] if folder is None else [_of_artefact(model, one, allow_other) for one in _artefacts(Path(folder))]
    entries += [_of_function(model, name, make) for name, make in (functions or {}).items()]
    return Shelf(model, entries)


def made(model: Model, entry: Entry, dose: float) -> tuple[Gate, ...]:
    """An entry's gates at a dose, checked on the model.

    Raises:
        BadOption: they are no gates, or gates that cannot be held for one request.
        GateError, SiteError: they do not fit the model.
    """
    asked, found = f"gate {entry.name!r} at dose {dose:g}", entry.make(dose)
    if not isinstance(found, Sequence) or not all(isinstance(gate, Gate) for gate in found):
        step = "return a tuple of gates, like (op.add(site, vector, strength=dose),)"
        raise BadOption(asked, f"its function returned {type(found).__name__}, not gates", next_step=step)
    for gate in found:
        _check_gate(model, asked, gate)
    return tuple(found)


def _check_gate(model: Model, asked: str, gate: Gate) -> None:
    for what, is_there in {"rows": gate.rows is not None, "when": gate.when is not None, "each": bool(gate.each)}.items():
        if is_there:
            found = f"{gate} has {what}=, which means nothing in a single request"
            raise BadOption(asked, found, next_step="leave it out")
    check_condition(model, gate)
    for site in select_sites(model, gate.site):
        check_value(model, gate, site)


def _of_artefact(model: Model, artefact: Artefact, allow_other: bool) -> Entry:
    card, whole = artefact.card, artefact.gates(model, allow_other=allow_other)  # moved to the model once, not per request
    about = asdict(card) | {"fingerprint": artefact.fingerprint}

    def make(dose: float) -> tuple[Gate, ...]:
        return tuple(replace(gate, strength=gate.strength * dose) for gate in whole)

    return _tried(model, Entry(card.name, card.behaviour, make, card.dose, card.dose_range, about))


def _of_function(model: Model, name: str, make: Make) -> Entry:
    if not callable(make):
        step = "give a function of the dose: lambda dose: (op.add(site, vector, strength=dose),)"
        raise BadOption(f"gate {name!r}", f"it is of type {type(make).__name__}, not a function", next_step=step)
    said = (inspect.getdoc(make) or "").partition("\n")[0] if inspect.isroutine(make) else ""
    return _tried(model, Entry(name, said, make))


def _tried(model: Model, entry: Entry) -> Entry:
    made(model, entry, entry.dose)
    return entry


def _artefacts(folder: Path) -> list[Artefact]:
    step = "write one with op.control.save_artefact(path, gates, card)"
    if not folder.is_dir():
        found = "it is no folder" if folder.exists() else "there is none"
        raise BadFile(f"folder of artefacts {folder}", found, next_step=step)
    paths = [path for path in sorted(folder.glob("*.json")) if _is_artefact(path)]
    paths += sorted(path.parent for path in folder.glob(f"*/{IN_FOLDER}"))
    if not paths:
        raise BadFile(f"folder of artefacts {folder}", "there is no artefact in it", next_step=step)
    return [load_artefact(path) for path in paths]


def _is_artefact(path: Path) -> bool:
    """Other records may lie beside artefacts; what is no JSON at all is not passed over."""
    data = read_json(path)
    return isinstance(data, dict) and data.get("kind") == "Artefact"
