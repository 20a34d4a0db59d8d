"""Plans from a Python file of the user's: `optrode train FILE`."""

import re
import runpy
import traceback
from pathlib import Path

from optrode.errors import BadFile, OptrodeError, nearest
from optrode.train.plan import Plan

_STEP = "define PLAN = op.train.Plan(...), or PLANS = (plan, plan.but(name=..., gates=...))"


def read_plans(path: Path) -> tuple[Plan, ...]:
    """The plans of a Python file, which is executed: its PLAN, or its PLANS.

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
    return _checked(path, names.get("PLANS", (names["PLAN"],) if "PLAN" in names else ()))


def _checked(path: Path, plans: object) -> tuple[Plan, ...]:
    if not isinstance(plans, (list, tuple)) or not plans or not all(isinstance(plan, Plan) for plan in plans):
        raise BadFile(f"training spec {path}", "it defines no plan", next_step=_STEP)
    names = [folder_name(plan) for plan in plans]
    if len(set(names)) < len(names):
        found = f"two of its plans are called {max(names, key=names.count)!r}"
        raise BadFile(f"training spec {path}", found, next_step="give each a name: plan.but(name=...)")
    return tuple(plans)


def folder_name(plan: Plan) -> str:
    """A plan's name as that of a folder: words joined by hyphens."""
    return re.sub(r"[^\w.]+", "-", plan.name).strip("-.") or "run"
