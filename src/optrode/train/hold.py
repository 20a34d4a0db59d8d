"""Gates in somebody else's training loop: callbacks that count its steps and pass on its measures.

The context manager stays the only holder, so that gates are gone when it ends, whatever became of the training:

    with op.gates(model, op.zero("blocks.0.attn.z[head=3]", when=op.when(until=1000))) as held:
        Trainer(model.module, ..., callbacks=[op.train.trainer_callback(held)]).train()

In a loop of one's own `op.gates(model, ..., optimizer=optimizer)` counts the optimiser's steps, which is right with
gradient accumulation, and with a gradient scaler that leaves steps out.
"""

from numbers import Real
from typing import Any

from optrode.errors import BadOption
from optrode.gate.held import Held


def trainer_callback(held: Held) -> Any:
    """A callback for transformers' `Trainer`: counts optimiser steps; what it logs ("loss", ...) are measures.

    Raises:
        BadOption: transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise _missing("transformers", "optrode[hf]") from None

    class GateSteps(TrainerCallback):  # type: ignore[misc]
        """Counts optimiser steps for gates that are held."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            held.step(int(state.global_step) - held.step_ix)  # a training taken up from a checkpoint begins later

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            held.step(int(state.global_step) - held.step_ix)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            held.note(_numbers(logs or {}))

    return GateSteps()


def lightning_callback(held: Held) -> Any:
    """A callback for Lightning's `Trainer`: counts optimiser steps; what was logged are measures.

    Raises:
        BadOption: neither `lightning` nor `pytorch_lightning` is installed.
    """
    callback = _lightning()

    class GateSteps(callback):  # type: ignore[misc,valid-type]
        """Counts optimiser steps for gates that are held."""

        def on_train_start(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
            held.step(int(trainer.global_step) - held.step_ix)  # a training taken up from a checkpoint begins later

        def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
            held.step(int(trainer.global_step) - held.step_ix)
            held.note(_numbers(trainer.callback_metrics))

    return GateSteps()


def _lightning() -> Any:
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise _missing("lightning", "lightning") from None
    return Callback


def _numbers(logs: Any) -> dict[str, float]:
    """What of a log is a number; one-element tensors are."""
    return {name: float(v) for name, v in logs.items() if isinstance(v, Real) or getattr(v, "numel", lambda: 0)() == 1}


def _missing(package: str, extra: str) -> BadOption:
    return BadOption(f"a callback for {package}", f"{package} is not installed", next_step=f"pip install '{extra}'")
