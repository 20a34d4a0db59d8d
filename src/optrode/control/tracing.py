"""How far gates were open at each token of a generation, as records that a page shades tokens by."""

from collections.abc import Sequence

import torch

from optrode.control.continuing import Continuation, traced
from optrode.control.records import TokenTrace
from optrode.gate.gate import Gate
from optrode.model.model import Model


def traces_of(
    model: Model, gates: Sequence[Gate], prompts: Sequence[str], *, n_tokens: int = 24
) -> tuple[TokenTrace, ...]:
    """One trace for each conditional gate and prompt; none where every gate is always open.

    Raises:
        Everything that `op.gates` raises.
    """
    if not any(gate.openness is not None for gate in gates):
        return ()
    found: list[TokenTrace] = []
    for prompt in prompts:
        said, trace = traced(model, prompt, gates, n_tokens)
        for ix, gate in enumerate(gates):
            if gate.openness is not None and ix in trace.values:
                found.append(_one(model, gate, said, trace.values[ix][0]))
    return tuple(found)


def _one(model: Model, gate: Gate, said: Continuation, openness: torch.Tensor) -> TokenTrace:
    tokens = model.to_str_tokens((*said.prompt_ids, *said.ids))
    known = [round(float(value), 4) for value in openness[: len(tokens)]]
    return TokenTrace(str(gate), tokens, len(said.prompt_ids), (*known, *[None] * (len(tokens) - len(known))))
