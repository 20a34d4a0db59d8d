"""Replay a trace: one pass over everything, with gates as open as they were while it was written."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.errors import BadOption
from optrode.gate.gate import Gate
from optrode.gate.place import gates
from optrode.gate.trace import Trace
from optrode.model.generation import generation
from optrode.model.model import Model


@torch.no_grad()
def replay(
    model: Model, held: Sequence[Gate], tokens: Sequence[Sequence[int]], trace: Trace
) -> Float[Tensor, "rows pos vocab"]:
    """The logits of one pass over prompts and what was written, with gates as open as a trace says.

    Args:
        tokens: of each row, prompt and what was generated.

    Raises:
        BadOption: the trace is of other gates or rows.
    """
    if len(tokens) != len(trace.lengths):
        asked = f"replay of {len(tokens)} row(s)"
        raise BadOption(asked, f"the trace has {len(trace.lengths)}", next_step="give one row for each of the trace")
    batch = model.batch([list(row) for row in tokens])
    with gates(model, *trace.gates(held)), generation(list(trace.lengths)):
        logits: Tensor = model.module(**batch.arguments()).logits
    return logits
