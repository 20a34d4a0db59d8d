"""How open each gate is in the pass under way: schedule times condition times rows, once for gates that share them."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.gate.deciding import Decider
from optrode.gate.gate import Gate
from optrode.gate.held import Held
from optrode.gate.trace import Tape

Open = float | Float[Tensor, "rows _"]  # one column where it is the same for all


@final
class Opener:
    """Tells how open gates are; `begin` makes it forget what it computed in the pass before."""

    def __init__(self, keeper: Held, decider: Decider, tape: Tape | None) -> None:
        self.keeper, self.decider, self.tape = keeper, decider, tape
        self._found: dict[tuple[object, ...], Open] = {}
        self._pass = -1

    def openness(self, ix: int, gate: Gate, n_rows: int, pass_ix: int, like: Tensor) -> Open:
        """G of a gate: a number, or by row and column.

        Args:
            ix: number of the gate, as they are held.
            n_rows: of the tensor that came by.
            like: what it is to be on the device of.
        """
        if pass_ix != self._pass:
            self._found.clear()
            self._pass = pass_ix
        scheduled = 1.0 if gate.when is None else self.keeper.openness(gate.when)
        key = (id(gate.openness), gate.rows, scheduled, n_rows)
        if key not in self._found:
            self._found[key] = self._open(gate, scheduled, n_rows, like)
        found = self._found[key]
        if self.tape is not None:
            self.tape.note(ix, found)
        return found

    def _open(self, gate: Gate, scheduled: float, n_rows: int, like: Tensor) -> Open:
        if scheduled == 0 or gate.openness is None and gate.rows is None:
            return scheduled
        values = torch.full((n_rows, 1), scheduled, device=like.device)
        if gate.rows is not None:
            values = values * self.decider.row_mask(gate.rows, n_rows, like.device)
        return values if gate.openness is None else values * self.decider.value(gate.openness).to(like.device)
