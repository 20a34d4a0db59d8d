"""Artefacts: gates with their card, in one JSON file and one safetensors file, to be loaded anywhere.

Nothing in them is code, and nothing is unpickled. What repeng's `ControlVector` holds is an artefact of `add` gates at
`resid_post`; for llama.cpp's file format (its `export_gguf` and `import_gguf`) see `control_vector.py`.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from numpy.typing import NDArray

from optrode.arrays import AGAIN
from optrode.control.card import Card
from optrode.control.kinds_of_gate import Fitter, GateRecord, Reader, Writer
from optrode.errors import BadFile, BadGate, BadOption, GateNotFinite, GateShape, OptrodeError, OtherModel
from optrode.gate.gate import Gate
from optrode.gate.place import check_value
from optrode.model.model import Model
from optrode.records import content_hash, read_named, write_named
from optrode.site.select import select_sites

IN_FOLDER: Final = "artefact.json"
"""Name of the JSON file of an artefact that is a folder."""


@final
@dataclass(frozen=True)
class Artefact:
    """Gates and their card, as they were written.

    Attributes:
        card: what the gates do, and on which model.
        records: of the gates, in their order.
        tensors: of the gates, by the keys in the records.
    """

    card: Card
    records: tuple[GateRecord, ...]
    tensors: Mapping[str, NDArray[Any]]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the gates and the bytes of their tensors, without the card: the same for gates that act the same."""
        return content_hash({"records": self.records, "tensors": self.tensors})

    def stored_gates(self) -> tuple[Gate, ...]:
        """The gates as they were written: for no model in particular, on the CPU, at dose 1."""
        reader = Reader(self.tensors)
        return tuple(reader.gate(record) for record in self.records)

    def gates(self, model: Model, dose: float | int = 1.0, *, allow_other: bool = False) -> tuple[Gate, ...]:
        """The gates, to be held on a model.

        Args:
            dose: factor on their strengths; `card.dose` is the recommended one.
            allow_other: also for a model with other weights than they were made on, with a warning (`OtherModel`). Their
                numbers are then rounded to the model's type.

        Raises:
            GateNotFinite: the dose is NaN or infinite.
            GateShape: the model has another width or number of layers; a tensor does not fit its site.
            BadGate: the model has other weights, and that was not allowed.
            UnknownSite, SiteUnavailable: the model has no such site.
        """
        if not math.isfinite(dose):
            found = "that is not a finite number"
            raise GateNotFinite(f"{self.card.name} at dose {dose}", found, next_step="give a finite one")
        _check_sizes(self.card, model)
        _check_weights(self.card, model, allow_other)
        moved: tuple[Gate, ...] = Fitter(model.device, model.dtype).fit(self.stored_gates())
        for gate in moved:
            for site in select_sites(model, gate.site):
                check_value(model, gate, site)
        return tuple(replace(gate, strength=gate.strength * dose) for gate in moved)


def artefact_of(gates: Sequence[Gate], card: Card) -> Artefact:
    """Gates and their card as one record.

    Raises:
        BadGate, GateNotFinite: a gate cannot be written; the message names it and says why.
        BadOption: there is no gate, or the card names other sites.
    """
    sites = tuple(str(gate.site) for gate in gates)
    if not gates or card.sites != sites:
        found = f"the card is for gates at {', '.join(card.sites) or 'no site'}" if gates else "there is no gate"
        step = "make the card from the gates: card_of(model, gates, name=..., behaviour=...)"
        raise BadOption(f"artefact {card.name} of gates at {', '.join(sites) or 'no site'}", found, next_step=step)
    writer = Writer()
    records = tuple(writer.record(gate) for gate in gates)
    return Artefact(card, records, writer.tensors)


def save_artefact(path: str | Path, gates: Sequence[Gate], card: Card) -> Path:
    """Write gates and their card to `<path>.json` and `<path>.safetensors`, or into the folder `path` if there is one.

    Returns:
        Path of the JSON file.

    Raises:
        BadGate, GateNotFinite, BadOption: as from `artefact_of`.
        BadFile: the files cannot be written.
    """
    target, artefact = _json(path), artefact_of(gates, card)
    try:
        return write_named(target, artefact)
    except OSError as error:
        found = f"it cannot be written ({error.strerror})"
        raise BadFile(f"artefact {target}", found, next_step="give another path, or make room") from error


def load_artefact(path: str | Path) -> Artefact:
    """What `save_artefact` wrote, to the bit.

    Args:
        path: of the JSON file, whose suffix may be left out, or of a folder.

    Raises:
        BadFile: a file is missing, torn, of another kind, or not written together with the other.
    """
    target = _json(path)
    if not target.is_file():
        there = sorted(one.name for one in target.parent.glob("*.json")) if target.parent.is_dir() else []
        step = "give the path that save_artefact returned"
        raise BadFile(f"artefact {target}", "no such file", nearest=there[:3], next_step=step)
    artefact: Artefact = read_named(target, {"Artefact": Artefact})
    try:
        gates = artefact.stored_gates()
    except (OptrodeError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        why = " ".join(str(error).split())
        found = f"a gate in it is none that this version knows ({type(error).__name__}: {why})"
        raise BadFile(f"artefact {target}", found, next_step=AGAIN) from error
    if artefact.card.sites != tuple(str(gate.site) for gate in gates):
        raise BadFile(f"artefact {target}", "its card names other sites than its gates have", next_step=AGAIN)
    return artefact


def _json(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        return path / IN_FOLDER
    return path.with_name(path.name.removesuffix(".safetensors").removesuffix(".json") + ".json")


def _check_sizes(card: Card, model: Model) -> None:
    """Gates for other sizes are refused even where their tensors would fit: their layers mean something else."""
    pairs = {"width": (card.d_model, model.table.d_model), "number of layers": (card.n_layers, model.table.n_layers)}
    for what, (made_for, found) in pairs.items():
        if made_for != found:
            raise GateShape(
                f"{card.name} on {model.name}, at {', '.join(card.sites)}",
                f"it was made on {card.model} with {what} {made_for}, and this model's is {found}",
                next_step=f"load {card.model}, or make the gates anew on this model",
            )  # fmt: skip


def _check_weights(card: Card, model: Model, allow_other: bool) -> None:
    if model.weights_hash == card.weights_hash:
        return
    asked = f"{card.name} on {model.name}"
    found = f"it was made on {card.model} with weights {card.weights_hash[:12]}, and these are {model.weights_hash[:12]}"
    if not allow_other:
        step = "load the model that it was made on, or say allow_other=True and measure its effect again"
        raise BadGate(asked, found, next_step=step)
    warnings.warn(OtherModel(f"{asked}: {found}. What its card says was not measured on this model."), stacklevel=3)
