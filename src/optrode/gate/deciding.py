"""What conditions need to know while gates are held: the pass under way, and what earlier passes of its rows showed.

Everything is kept by column, that is by index along the K/V cache, and follows beams when they change places. Nothing is
counted relative to a pass: a step with the cache decides what a pass over everything would decide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.errors import BadGate
from optrode.gate.conditions import Observed, Reading, observations, pooled
from optrode.gate.openness import Openness
from optrode.site.tap import Clock

Values = Float[Tensor, "rows columns"]


@final
@dataclass(eq=False)
class _Memory:
    """What was decided over the columns so far. Keys are ids of conditions.

    Attributes:
        latched: what a prompt decided, [rows, 1].
        by_column: what was decided at each column before holding on, for those that look back, [rows, columns].
    """

    latched: dict[int, Tensor] = field(default_factory=dict)
    by_column: dict[int, Tensor] = field(default_factory=dict)


@final
class Decider:
    """Decides openness in the pass under way; one for all gates that are held together (a `Desk` for conditions).

    Args:
        conditions: of the gates.
        find: (reading, pass) -> features [rows, columns, feature] that came by.
    """

    def __init__(self, conditions: Sequence[Openness], find: Callable[[Reading], Tensor]) -> None:
        everything = [one for condition in conditions for one in _all_parts(condition)]
        self._find = find
        self._lagged = {id(c): c for one in conditions for c in observations(one) if c.read == "previous"}
        self._looks_back = {id(c) for c in everything if c.hold and id(c) not in self._lagged}
        self._memory = _Memory()
        self._values: dict[int, Tensor] = {}
        self._plain: dict[int, Tensor] = {}
        self._scores: dict[tuple[int, ...], Tensor] = {}
        self.row_pos: Int[Tensor, "rows columns"] | None = None
        self.lengths: Int[Tensor, " rows"] | None = None
        self.n_past, self.n_prompts = 0, 0
        self.is_under_way = False

    def begin(self, clock: Clock) -> None:
        """A pass begins; the one before it, if there was one, is over."""
        self.finish()
        if clock.is_first:
            self._memory = _Memory()
        self.row_pos, self.lengths, self.n_past = clock.row_pos, clock.prompt_len, clock.n_past
        self.n_prompts = clock.n_prompts or (0 if clock.row_pos is None else len(clock.row_pos))
        self.is_under_way = True

    def finish(self) -> None:
        """Remember what the pass showed that later ones will ask for."""
        if self.is_under_way:
            for key, lagged in self._lagged.items():
                shown = [self._find(reading) for reading in lagged.readings]
                self._remember(key, lagged.opened(lagged.scorer.scores(*shown)[..., lagged.index]))
            for key in self._looks_back & self._plain.keys():
                self._remember(key, self._plain[key])
        self._values, self._plain, self._scores = {}, {}, {}
        self.is_under_way = False

    def reorder(self, rows: Int[Tensor, " rows"]) -> None:
        """Beams change places: the row that is now at `ix` was at `rows[ix]`."""
        self.finish()
        for held in (self._memory.latched, self._memory.by_column):
            for key, value in held.items():
                held[key] = value.index_select(0, rows.to(value.device)) if len(value) > 1 else value

    def _remember(self, key: int, values: Tensor) -> None:
        values = self._closed_at_padding(values.detach())
        n_known = self.n_past + self._n_now(values) - values.shape[1]  # columns before those that came by
        before = self._memory.by_column.get(key)
        past = values.new_zeros(len(values), n_known)
        if before is not None:
            past[:, : before.shape[1]] = before[:, :n_known]
        self._memory.by_column[key] = torch.cat([past, values], 1)

    def _closed_at_padding(self, values: Tensor) -> Tensor:
        if self.row_pos is None:
            return values
        return torch.where(self.row_pos[:, -values.shape[1] :] >= 0, values, torch.zeros_like(values))

    def value(self, openness: Openness) -> Values:
        """G at the pass's rows and columns; one column where it is the same for all of them."""
        key = id(openness)
        if key not in self._values:
            plain = openness.decide(self)
            self._plain[key] = plain
            self._values[key] = self._held_on(key, plain, openness.hold)
        return self._values[key]

    def _held_on(self, key: int, plain: Tensor, hold: int) -> Tensor:
        """The most open of this column and the `hold` columns before it."""
        if not hold or plain.shape[1] < self._n_now(plain):
            return plain
        plain = self._closed_at_padding(plain)
        before = self._memory.by_column.get(key)
        past = plain.new_zeros(len(plain), hold)
        if before is not None:
            known = before[:, max(0, self.n_past - hold) : self.n_past]
            past[:, hold - known.shape[1] :] = known
        return torch.cat([past, plain], 1).unfold(1, hold + 1, 1).amax(-1)

    def _n_now(self, values: Tensor) -> int:
        return values.shape[1] if self.row_pos is None else self.row_pos.shape[1]

    def observed(self, openness: Openness) -> Values:
        """What a condition on readings decides, in the mode in which it reads."""
        assert isinstance(openness, Observed)
        if openness.read == "token":
            found = openness.opened(self._scored(openness)[..., openness.index])
            unseen = self._n_now(found) - found.shape[1]  # logits of the last positions only, say: closed before them
            return torch.nn.functional.pad(found, (unseen, 0)) if unseen > 0 else found
        return self._latched(openness) if openness.read == "prompt" else self._before(openness)

    def _scored(self, one: Observed) -> Tensor:
        """Scores at every column; computed once for all conditions that share scorer and readings."""
        key = (id(one.scorer), *(id(r.source) for r in one.readings), *(hash(r.site) for r in one.readings))
        if key not in self._scores:
            self._scores[key] = one.scorer.scores(*(self._find(reading) for reading in one.readings))
        return self._scores[key]

    def _latched(self, one: Observed) -> Tensor:
        held = self._memory.latched.get(id(one))
        if self.n_past and held is None:
            found = "the pass goes on from a K/V cache, and the prompt was processed before the gate was held"
            raise BadGate(f"gate open {one}", found, next_step="hold the gate when the prompt is processed")
        if not self.n_past or held is None:
            pool = (1 if one.pool == "last" else 2, *(id(r.source) for r in one.readings))
            key = (id(one.scorer), *pool, *(hash(r.site) for r in one.readings))
            if key not in self._scores:
                self._scores[key] = one.scorer.scores(*(self._pool(self._find(r), one) for r in one.readings))
            held = one.opened(self._scores[key][..., one.index])
            self._memory.latched[id(one)] = held
        return held

    def _pool(self, features: Tensor, one: Observed) -> Tensor:
        n_rows, n_columns = features.shape[:2]
        if self.row_pos is None or self.lengths is None:
            positions = torch.arange(n_columns, device=features.device).expand(n_rows, n_columns)
            return pooled(features, positions, torch.full((n_rows,), n_columns, device=features.device), one.pool)
        return pooled(features, self.row_pos[:, -n_columns:], self.lengths, one.pool)

    def _before(self, one: Observed) -> Tensor:
        """What the column before decided; closed throughout the prompt."""
        if self.row_pos is None or self.lengths is None:
            raise BadGate(f"gate open {one}", "the pass has no positions", next_step='decide it at once: read="token"')
        n_rows, n_now = self.row_pos.shape
        found = self._memory.by_column.get(id(one))
        values = torch.zeros(n_rows, n_now, device=self.row_pos.device, dtype=None if found is None else found.dtype)
        if found is not None:
            first = max(self.n_past, 1)
            known = found[:, first - 1 : self.n_past + n_now - 1]
            values[:, first - self.n_past : first - self.n_past + known.shape[1]] = known
        return torch.where(self.row_pos >= self.lengths[:, None], values, torch.zeros_like(values))

    def recorded(self, values: Float[Tensor, "rows pos"]) -> Values:
        """Values by row (prompts, where beams make several rows of one) and position."""
        n_rows = len(values) if self.row_pos is None else len(self.row_pos)
        n_beams, rest = divmod(n_rows, len(values))
        if rest:
            found = f"it has values for {len(values)} rows, and the pass has {n_rows}"
            raise BadGate("gate open by row", found, next_step="give one value for each prompt")
        by_row = values.repeat_interleave(n_beams, 0)
        if values.shape[1] == 1 or self.row_pos is None:
            return by_row
        by_row = torch.cat([by_row, by_row.new_zeros(len(by_row), 1)], 1)  # the last column: closed
        at = torch.where((self.row_pos >= 0) & (self.row_pos < values.shape[1]), self.row_pos, values.shape[1])
        return by_row.gather(1, at)

    def row_mask(self, rows: tuple[int, ...], n_rows: int, device: Any) -> Float[Tensor, "rows 1"]:
        """1 for the rows of the pass that belong to these rows of the batch.

        Raises:
            BadGate: the batch has no such row.
        """
        n_prompts = self.n_prompts if self.n_prompts and not n_rows % self.n_prompts else n_rows
        if max(rows) >= n_prompts:
            raise BadGate(f"gate at row {max(rows)}", f"the batch has {n_prompts} row(s)", next_step="rows count from 0")
        mask = torch.zeros(n_prompts, 1, device=device)
        mask[list(rows)] = 1
        return mask.repeat_interleave(n_rows // n_prompts, 0)


def _all_parts(openness: Openness) -> list[Openness]:
    return [openness, *(one for part in openness.parts for one in _all_parts(part))]
