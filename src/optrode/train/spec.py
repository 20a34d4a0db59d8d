"""Plans from a Python file of the user's: `optrode train FILE`."""

import re
import runpy
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from optrode.errors import BadFile, OptrodeError, nearest
from optrode.gate.gate import Gate
from optrode.train.emergence import Prompt
from optrode.train.plan import Plan

_STEP = "define PLAN = op.train.Plan(...), or PLANS = (plan, plan.but(name=..., gates=...))"


@final
@dataclass(frozen=True)
class Spec:
    """What a file asks for.

    Attributes:
        plans: to be trained, one after another.
        prompts: whose attention is watched at every checkpoint that is kept; see `op.train.watch`.
        looks: name -> function of the model: measured at every checkpoint that is kept.
    """

    plans: tuple[Plan, ...]
    prompts: tuple[Prompt, ...] = ()
    looks: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def is_watched(self) -> bool:
        """Whether checkpoints are to be looked at."""
        return bool(self.prompts or self.looks)

    def always(self, plan: Plan) -> tuple[Gate, ...]:
        """The gates that a run is looked at with: those that it was trained with from beginning to end."""
        return tuple(gate for gate in plan.gates if gate.when is None)


def read_spec(path: Path) -> Spec:
    """What a Python file, which is executed, asks for: its PLAN or PLANS, and its PROMPTS and LOOKS if it has any.

    Raises:
        BadFile: there is no such file, it fails, or it defines no plans, or two of one name.
    """
    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else [])
        raise BadFile(f"training spec {path}", "no such file", nearest=near, next_step=_STEP)
    try:
        names = runpy.run_path(str(path))
    except OptrodeError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        found = f"{type(error).__name__}: {error}" + (f" (line {lines[-1]})" if lines else "")
        raise BadFile(f"training spec {path}", found, next_step="run it with Python to see where it fails") from error
    plans = _checked(path, names.get("PLANS", (names["PLAN"],) if "PLAN" in names else ()))
    prompts = tuple(names.get("PROMPTS", ()))
    if not all(isinstance(prompt, Prompt) for prompt in prompts):
        step = "write PROMPTS = (op.train.Prompt([1, 2, 3]),)"
        raise BadFile(f"training spec {path}", "one of its PROMPTS is no op.train.Prompt", next_step=step)
    return Spec(plans, prompts, names.get("LOOKS", {}))


def _checked(path: Path, plans: object) -> tuple[Plan, ...]:
    if not isinstance(plans, (list, tuple)) or not plans or not all(isinstance(plan, Plan) for plan in plans):
        raise BadFile(f"training spec {path}", "it defines no plan", next_step=_STEP)
    names = [folder_name(plan.name) for plan in plans]
    if len(set(names)) < len(names):
        found = f"two of its plans are called {max(names, key=names.count)!r}"
        raise BadFile(f"training spec {path}", found, next_step="give each a name: plan.but(name=...)")
    return tuple(plans)


def folder_name(name: str) -> str:
    """A plan's name as that of a folder: words joined by hyphens."""
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "run"
