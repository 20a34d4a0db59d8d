"""Studies: one paper each, rebuilt at a size that two cores run, with claims, controls and verdicts.

    study = op.study.load("induction-formation")
    ran = op.study.run(study, out="runs/induction-formation")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from optrode.study.study import NAMES, Outcome, Setting, Study, load, run

_HOMES: Final = {"study": ("NAMES", "Outcome", "Setting", "Study", "load", "run")}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["NAMES", "Outcome", "Setting", "Study", "load", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'optrode.study' has no attribute {name!r}")
    return getattr(import_module(f"optrode.study.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
