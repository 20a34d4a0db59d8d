"""What a steering effect is compared with: vectors of equal norm that know nothing of the behaviour.

Random vectors show what any push of this size does; shuffled labels, what a vector owes to the texts and not to their
labels. Both are put into the very gates under test, with their sites, scopes, strengths and conditions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from torch import Tensor

from optrode.control.contrast import Contrast
from optrode.control.direction import directions
from optrode.control.records import Kind
from optrode.errors import BadOption
from optrode.gate.actuators import Add, ProjectOut
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.site.select import select_sites

Steer = Callable[[float], Sequence[Gate]]
"""A dose -> the gates that steer with it."""

N_RANDOM: Final = 5


@final
@dataclass(frozen=True, eq=False)
class Control:
    """Something to steer with that should not show the effect.

    Attributes:
        kind: "random", "shuffled" or "other".
        name: as it is shown.
        steer: a dose -> gates.
        random_seed: of what was drawn.
    """

    kind: Kind
    name: str
    steer: Steer
    random_seed: int | None = None


def controls_of(
    model: Model, steer: Steer, contrast: Contrast, random_seed: int = 0, n_random: int = N_RANDOM
) -> tuple[Control, ...]:
    """Random vectors, and one from shuffled labels, for any steering that adds vectors or projects them out.

    Raises:
        BadOption: from the controls' `steer`: the gates hold something else, for which nobody can guess an equal.
    """
    seeds = [random_seed * 1000 + ix for ix in range(n_random)]
    drawn = [Control("random", f"random vector {ix + 1}", _with_random(steer, seed), seed) for ix, seed in enumerate(seeds)]
    return (*drawn, Control("shuffled", "shuffled labels", _with_shuffled(model, steer, contrast, random_seed), random_seed))


def randomised(gates: Sequence[Gate], random_seed: int) -> tuple[Gate, ...]:
    """The same gates with random vectors of equal norm, one draw for each vector.

    Raises:
        BadOption: a gate neither adds a vector nor projects one out.
    """
    generator = torch.Generator().manual_seed(random_seed)
    return tuple(_replaced(gate, lambda vector: _random_like(vector, generator)) for gate in gates)


def shuffled(model: Model, gates: Sequence[Gate], contrast: Contrast, random_seed: int) -> tuple[Gate, ...]:
    """The same gates with vectors of equal norm from the difference of means of shuffled labels at each gate's site.

    Half of the texts of either side change sides, so that nothing of the labels is left.

    Raises:
        BadOption: a gate neither adds a vector nor projects one out, or its vectors are not [feature] of its site.
        BadPairs: a side of the contrast has one text only.
    """
    mixed = contrast.shuffled(random_seed)

    def other(gate: Gate) -> Gate:
        sites = [str(site.name.whole) for site in select_sites(model, gate.site)]
        vectors = [one.vector for one in directions(model, mixed, sites, "difference", held_out=0.0)]
        found = torch.stack(vectors).mean(0)
        return _replaced(gate, lambda vector: _scaled_like(vector, found, gate))

    return tuple(map(other, gates))


def _with_random(steer: Steer, seed: int) -> Steer:
    return lambda dose: randomised(steer(dose), seed)


def _with_shuffled(model: Model, steer: Steer, contrast: Contrast, seed: int) -> Steer:
    return lambda dose: shuffled(model, steer(dose), contrast, seed)


def _replaced(gate: Gate, other: Callable[[Tensor], Tensor]) -> Gate:
    actuator = gate.actuator
    if isinstance(actuator, Add):
        return replace(gate, actuator=Add(other(actuator.vector)))
    if isinstance(actuator, ProjectOut):
        rows = [other(row) for row in torch.atleast_2d(actuator.directions)]
        return replace(gate, actuator=ProjectOut(torch.stack(rows)))
    found = "it neither adds a vector nor projects one out, so that a random one of equal norm has no meaning"
    step = "pass controls of your own: controls=[Control('random', name, steer)]"
    raise BadOption(f"a control for {gate}", found, next_step=step)


def _random_like(vector: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(vector.shape, generator=generator, dtype=torch.float64)
    found: Tensor = (drawn / drawn.norm()).to(vector) * vector.norm()
    return found


def _scaled_like(vector: Tensor, found: Tensor, gate: Gate) -> Tensor:
    if found.shape != vector.shape:
        step = "pass controls of your own: controls=[Control('shuffled', name, steer)]"
        raise BadOption(f"a control for {gate}", f"its vector is {tuple(vector.shape)}, not one of the site", next_step=step)
    scaled: Tensor = (found / found.norm()).to(vector) * vector.norm()
    return scaled
