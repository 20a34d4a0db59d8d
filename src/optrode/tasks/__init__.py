"""Tasks written here: one generator per file, each with a random seed and a check of the model."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from optrode.errors import UnknownTask, nearest

FILES: Final = {
    "ioi": "indirect_object",
    "greater_than": "years",
    "induction": "repeats",
    "single_induction": "one_repeat",
    "agreement": "verb_number",
    "pronoun": "gender",
    "capitals": "geography",
    "read_pairs": "files",
    "examples": "inputs",
}
"""Function -> file of this folder. Files have other names, since a submodule would hide its function."""

NAMES: Final = tuple(name for name in FILES if name not in ("read_pairs", "examples"))
"""Every task generator: `optrode.tasks.<name>(model, n=..., random_seed=...)`."""

__all__ = [  # noqa: F822
    "NAMES", "agreement", "capitals", "examples", "find_task", "greater_than", "induction", "ioi", "pronoun", "read_pairs",
    "single_induction",
]  # fmt: skip


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in FILES:
        raise AttributeError(f"module 'optrode.tasks' has no attribute {name!r}; it has {', '.join(sorted(FILES))}")
    function: Callable[..., Any] = getattr(import_module(f"optrode.tasks.{FILES[name]}"), name)
    return function


def find_task(name: str) -> Callable[..., Any]:
    """The generator of a task's name.

    Raises:
        UnknownTask: there is none.
    """
    if name not in NAMES:
        raise UnknownTask(
            f"task {name!r}", f"there are {', '.join(NAMES)}", nearest=nearest(name, NAMES),
            next_step="`optrode tasks` describes them; your own pairs come from a file with --pairs",
        )  # fmt: skip
    return __getattr__(name)
