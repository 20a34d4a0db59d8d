"""A trace: how open each gate was at each row and position. What audits look at, and what a replay must reproduce."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.errors import BadOption
from optrode.gate.conditions import Replayed
from optrode.gate.gate import Gate
from optrode.site.tap import Clock


@final
@dataclass(frozen=True, eq=False)
class Trace:
    """How open gates were.

    Attributes:
        values: number of the gate, as they were held -> g by row and position in the row; 0 beyond the row's end.
        lengths: prompt tokens of each row.
    """

    values: Mapping[int, Float[Tensor, "rows pos"]]
    lengths: tuple[int, ...]

    def row(self, ix: int) -> "Trace":
        """The trace of one row."""
        return Trace({key: values[ix : ix + 1] for key, values in self.values.items()}, self.lengths[ix : ix + 1])

    def gates(self, held: Sequence[Gate]) -> tuple[Gate, ...]:
        """The same gates, as open as they were, whatever the pass shows.

        Raises:
            BadOption: these are not the gates that the trace is of.
        """
        if len(held) <= max(self.values, default=-1):
            found = f"it is of {max(self.values) + 1} gate(s) or more"
            raise BadOption(f"trace for {len(held)} gate(s)", found, next_step="give the gates that were held")
        return tuple(
            replace(gate, openness=Replayed(self.values[ix]), rows=None, when=None) if ix in self.values else gate
            for ix, gate in enumerate(held)
        )


@final
class Tape:
    """Notes openness by column while gates are held, follows beams, and develops a trace."""

    def __init__(self) -> None:
        self._by_column: dict[int, Tensor] = {}
        self._now: dict[int, Tensor] = {}
        self._row_pos: Int[Tensor, "rows columns"] | None = None
        self._now_pos: Int[Tensor, "rows columns"] | None = None
        self._lengths: Int[Tensor, " rows"] | None = None
        self._n_past = 0

    def begin(self, clock: Clock) -> None:
        """A pass begins; the one before it, if there was one, is over."""
        self.finish()
        if clock.is_first:
            self._by_column, self._row_pos = {}, None
        self._now_pos, self._lengths, self._n_past = clock.row_pos, clock.prompt_len, clock.n_past

    def note(self, ix: int, openness: "float | Float[Tensor, 'rows columns']") -> None:
        """A gate is this open in the pass under way."""
        if self._now_pos is None:
            return
        values = torch.as_tensor(openness, device=self._now_pos.device, dtype=torch.float32).detach()
        values = values.expand(self._now_pos.shape) if values.dim() < 2 or values.shape[1] == 1 else values
        unseen = self._now_pos.shape[1] - values.shape[1]
        self._now[ix] = torch.nn.functional.pad(values, (unseen, 0)) if unseen > 0 else values

    def finish(self) -> None:
        """The pass under way is over."""
        if self._now_pos is None:
            return
        before = self._now_pos[:, :0] if self._row_pos is None else self._row_pos[:, : self._n_past]
        self._row_pos = torch.cat([before, self._now_pos], 1)
        for ix, values in self._now.items():
            past = values.new_zeros(len(values), self._n_past)
            if ix in self._by_column:
                known = self._by_column[ix][:, : self._n_past]
                past[:, : known.shape[1]] = known
            self._by_column[ix] = torch.cat([past, values], 1)
        self._now, self._now_pos = {}, None

    def reorder(self, rows: Int[Tensor, " rows"]) -> None:
        """Beams change places."""
        self.finish()
        self._by_column = {ix: values.index_select(0, rows.to(values.device)) for ix, values in self._by_column.items()}
        if self._row_pos is not None:
            self._row_pos = self._row_pos.index_select(0, rows.to(self._row_pos.device))

    def develop(self) -> Trace:
        """What was noted since the last prompt."""
        self.finish()
        if self._row_pos is None or self._lengths is None:
            return Trace({}, ())
        n_rows, n_pos = len(self._row_pos), int(self._row_pos.max()) + 1
        at = torch.where(self._row_pos >= 0, self._row_pos, n_pos)  # padding goes to a column that is cut off
        found = {}
        for ix, values in self._by_column.items():
            aligned = values.new_zeros(n_rows, n_pos + 1)
            found[ix] = aligned.scatter(1, at[:, : values.shape[1]], values)[:, :n_pos]
        return Trace(found, tuple(int(n) for n in self._lengths))
