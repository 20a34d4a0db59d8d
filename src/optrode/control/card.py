"""The card of an artefact: what its gates do and on which model, how they were made and measured, and at which dose."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from optrode.errors import BadOption, nearest
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.provenance import Provenance

ENTRIES: Final = ("data", "method", "dose", "dose_range", "evaluation", "licence", "version", "provenance")
"""What a card can say besides its name and behaviour, and the model."""


@final
@dataclass(frozen=True)
class Card:
    """What people and programs should know of an artefact before they use it.

    Attributes:
        name: what it is called, e.g. by a server.
        behaviour: what it does, in a sentence.
        model: name of the model that it was made on.
        weights_hash: SHA-256 of that model's weights.
        d_model: width of that model's residual stream; 0 where no family describes the model.
        n_layers: of that model; 0 likewise.
        sites: where its gates are, in their order.
        data: the data that it was made from.
        method: how it was made.
        dose: recommended factor on the strengths of the gates.
        dose_range: lowest and highest recommended dose.
        evaluation: what was measured with it, by name.
        licence: of the artefact, and of the data if that binds it.
        version: of the artefact.
        provenance: seed, versions and command of whatever made it.
    """

    name: str
    behaviour: str
    model: str
    weights_hash: str
    d_model: int
    n_layers: int
    sites: tuple[str, ...]
    data: str = ""
    method: str = ""
    dose: float = 1.0
    dose_range: tuple[float, float] = (0.0, 1.0)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    licence: str = ""
    version: str = "1"
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        asked = f"card of {self.name!r}"
        if not self.name.strip() or not self.behaviour.strip():
            raise BadOption(asked, "it has no name, or does not say what it does", next_step="give name= and behaviour=")
        numbers = {"dose": self.dose, "dose_range": sum(self.dose_range), **self.evaluation}
        bad = [name for name, number in numbers.items() if not math.isfinite(number)]
        if bad:
            raise BadOption(asked, f"{bad[0]} is not a finite number", next_step="leave out what was not measured")
        low, high = self.dose_range
        if not low <= self.dose <= high:
            found = f"the recommended dose {self.dose:g} is outside of its range {low:g} to {high:g}"
            raise BadOption(asked, found, next_step="give dose_range=(low, high) around it")

    def __str__(self) -> str:
        low, high = self.dose_range
        lines = [f"{self.name} {self.version}: {self.behaviour}", f"made on {self.model} at {', '.join(self.sites)}"]
        lines += [f"dose {self.dose:g} ({low:g} to {high:g})"]
        lines += [f"{label}: {text}" for label, text in (("data", self.data), ("method", self.method)) if text]
        lines += [f"{name} = {value:g}" for name, value in self.evaluation.items()]
        return "\n".join(lines + ([f"licence: {self.licence}"] if self.licence else []))


def card_of(model: Model, gates: Sequence[Gate], *, name: str, behaviour: str, **rest: Any) -> Card:
    """The card of gates that were made on a model.

    Args:
        rest: what else there is to say, by the names that `Card` has: data, method, dose, dose_range, evaluation, licence,
            version, provenance.

    Raises:
        BadOption: it has no name or behaviour, a number is not finite, the dose is outside of its range, or the card has no
            such entry.
    """
    for entry in rest:
        if entry not in ENTRIES:
            raise BadOption(f"card entry {entry}=", "no such entry", nearest=nearest(entry, ENTRIES) or ENTRIES)
    low, high = rest.pop("dose_range", (0.0, 1.0))
    numbers = {key: float(value) for key, value in rest.pop("evaluation", {}).items()}
    sites = tuple(str(gate.site) for gate in gates)
    return Card(
        name=name, behaviour=behaviour, model=model.name, weights_hash=model.weights_hash, d_model=model.table.d_model,
        n_layers=model.table.n_layers, sites=sites, dose=float(rest.pop("dose", 1.0)), dose_range=(float(low), float(high)),
        evaluation=numbers, **rest,
    )  # fmt: skip
