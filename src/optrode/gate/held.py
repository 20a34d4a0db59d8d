"""What is known of gates while they are held: the training step that their schedules are at."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

from optrode.errors import BadOption, nearest
from optrode.gate.gate import Gate
from optrode.gate.openness import Schedule
from optrode.gate.trace import Tape, Trace
from optrode.site.tap import aside


@final
class Held:
    """The training step of gates that are held, and the measures that they wait for.

    Attributes:
        gates: as they are held.
        step_ix: optimiser steps counted so far.
    """

    def __init__(self, gates: tuple[Gate, ...], tape: Tape | None = None) -> None:
        self.gates, self.step_ix = gates, 0
        self._tape = tape
        self._passed: dict[Schedule, int] = {}
        self._best: dict[str, float] = {}
        self._acted: set[int] = set()
        self._acted_before: set[int] = set()

    @property
    def trace(self) -> Trace:
        """How open each gate was, since the last prompt.

        Raises:
            BadOption: nobody asked for it when the gates were held.
        """
        if self._tape is None:
            raise BadOption("trace of gates", "it was not kept", next_step="hold them with op.gates(..., trace=True)")
        return self._tape.develop()

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """Of the gates that have one."""
        return tuple(gate.when for gate in self.gates if gate.when is not None)

    def step(self, n: int = 1) -> None:
        """Count so many optimiser steps."""
        self.step_ix += n

    def tell(self, **measures: float) -> None:
        """Say what was measured now: `held.tell(loss=0.4)`. Schedules that wait for a measure start where it passes.

        Raises:
            BadOption: schedules wait for measures, and none of these is one of them.
        """
        waiting = {schedule.measure for schedule in self.schedules if schedule.measure is not None}
        if waiting and not waiting & set(measures):
            asked = f"measures {', '.join(measures)}"
            words = sorted(map(str, waiting))
            near = [name for told in measures for name in nearest(told, words)] or words
            raise BadOption(asked, "no schedule waits for any of them", nearest=near, next_step="use one name for both")
        self.note(measures)

    def note(self, measures: Mapping[str, float]) -> None:
        """The same, where it is not known who waits for what."""
        for schedule in self.schedules:
            name = schedule.measure
            if name is None or not math.isfinite(measures.get(name, math.nan)):
                continue  # what is not a number passes no threshold, and is no best value either
            better = min if schedule.below is not None else max
            self._best[name] = better(self._best.get(name, measures[name]), measures[name])
            if schedule not in self._passed and schedule.is_passed(measures):
                self._passed[schedule] = self.step_ix

    def openness(self, schedule: Schedule) -> float:
        """The openness of a schedule at the present step."""
        if schedule.measure is None:
            return schedule.openness(self.step_ix)
        passed = self._passed.get(schedule)
        return 0.0 if passed is None else schedule.openness(self.step_ix - passed)

    def is_open(self, gate: Gate) -> bool:
        """Whether a gate does anything at the present step."""
        return gate.when is None or self.openness(gate.when) > 0

    def acted(self, ix: int) -> None:
        """Note that the gate of that number did something."""
        self._acted.add(ix)

    def has_acted_before(self, ix: int) -> bool:
        """Whether the gate of that number did something in an earlier part of a run that was taken up again."""
        return ix in self._acted_before

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, the model runs as if these gates were not held: to measure what it does without them."""
        with aside():
            yield

    def state(self) -> dict[str, Any]:
        """What to keep in order to go on later, as JSON data."""
        passed = [self._passed.get(schedule) for schedule in self.schedules]
        acted = sorted(self._acted | self._acted_before)
        return {"step": self.step_ix, "passed": passed, "best": dict(self._best), "acted": acted}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that the same gates had.

        Raises:
            BadOption: the state is that of other gates.
        """
        passed = state["passed"]
        if len(passed) != len(self.schedules):
            found = f"the state has {len(passed)}"
            raise BadOption(f"resume {len(self.schedules)} schedule(s)", found, next_step="hold the gates of the first run")
        self.step_ix, self._best = int(state["step"]), dict(state["best"])
        self._acted_before = {int(ix) for ix in state["acted"]}
        self._passed = {s: int(at) for s, at in zip(self.schedules, passed, strict=True) if at is not None}

    def why_closed(self, schedule: Schedule) -> tuple[str, str]:
        """What was found, and what to do, when a schedule never opened its gate."""
        if schedule.measure is not None and schedule not in self._passed:
            best = self._best.get(schedule.measure)
            if best is None:
                step = f"say what it is: held.tell({schedule.measure}=value)"
                return f"its schedule ({schedule}) waits for a measure that nobody told", step
            return f"its schedule ({schedule}) never opened it: {schedule.measure} came to {best:g}", "train on, or move it"
        found = f"its schedule ({schedule}) never opened it in {self.step_ix} step(s)"
        hint = "train on, or start it earlier"
        return found, hint if self.step_ix else "count steps: op.gates(..., optimizer=optimizer), or held.step()"
