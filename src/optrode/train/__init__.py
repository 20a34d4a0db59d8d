"""Training with gates held: plans, schedules, checkpoints, measures, weight geometry.

    plan = op.train.Plan("free", make, batch, loss, n_steps=1000, measures={"ind": op.train.Measure(induction)})
    free = op.train.fit(plan, out="runs/free")
    clamped = op.train.fit(plan.but(name="clamped", gates=(op.clamp("blocks.0.attn.pattern[head=3]", previous),)))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from optrode.train import geometry, growth, masks, measures, streams
    from optrode.train.checkpoints import along, at_step, load_run
    from optrode.train.emergence import Prompt, watch
    from optrode.train.hold import lightning_callback, trainer_callback
    from optrode.train.keeping import keep
    from optrode.train.loop import Trained, fit
    from optrode.train.phases import PhaseChange, phase_changes
    from optrode.train.plan import Measure, Plan, Stop, adam, adamw, evenly, log_spaced, sgd
    from optrode.train.records import Emergence, Kept, Series, TrainingRun

_HOMES: Final = {
    "checkpoints": ("along", "at_step", "load_run"),
    "emergence": ("Prompt", "watch"),
    "hold": ("lightning_callback", "trainer_callback"),
    "keeping": ("keep",),
    "loop": ("Trained", "fit"),
    "phases": ("PhaseChange", "phase_changes"),
    "plan": ("Measure", "Plan", "Stop", "adam", "adamw", "evenly", "log_spaced", "sgd"),
    "records": ("Emergence", "Kept", "Series", "TrainingRun"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}
_MODULES: Final = ("geometry", "growth", "masks", "measures", "streams")

__all__ = [
    "Emergence", "Kept", "Measure", "PhaseChange", "Plan", "Prompt", "Series", "Stop", "Trained", "TrainingRun",
    "adam", "adamw", "along", "at_step", "evenly", "fit", "geometry", "growth", "keep", "lightning_callback",
    "load_run", "log_spaced", "masks", "measures", "phase_changes", "sgd", "streams", "trainer_callback", "watch",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"optrode.train.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'optrode.train' has no attribute {name!r}")
    return getattr(import_module(f"optrode.train.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
