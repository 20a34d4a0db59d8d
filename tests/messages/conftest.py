"""Fixtures of the message tests: a tiny model that reads text, and proof that a refused call left no trace."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from optrode.errors import OptrodeError
from optrode.model.model import Model
from tests.words import worded

PROMPT = "When Mary and John went to the store, John gave a drink to"
"""14 tokens."""


@pytest.fixture(scope="session")
def model() -> Model:
    return worded()


def state_of(module: nn.Module) -> dict[str, Any]:
    """All that a call may not change: hooks, modes, config, parameters, and the random state."""
    hooks = {
        name: [list(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        for name, m in module.named_modules()
    }
    config = getattr(module, "config", None)
    return {
        "hooks": hooks,
        "modes": [m.training for m in module.modules()],
        "configs": {name: id(m.config) for name, m in module.named_modules() if hasattr(m, "config")},
        "config": copy.deepcopy(config.to_dict()) if config is not None else None,
        "attention": getattr(config, "_attn_implementation", None),
        "parameters": {name: (p.data_ptr(), p._version, p.requires_grad) for name, p in module.named_parameters()},
        "random": torch.get_rng_state().tolist(),
        "grad": torch.is_grad_enabled(),
    }


@contextmanager
def refused(kind: type[OptrodeError], *decisive: str, by: Model | None = None) -> Iterator[Any]:
    """The block raises exactly this kind of error, its one-line text holds every decisive part, and `by` is as before."""
    before = state_of(by.module) if by else None
    with pytest.raises(OptrodeError) as caught:
        yield caught
    text = str(caught.value)
    assert type(caught.value) is kind, text
    assert text.startswith(f"[{kind.code}] ") and "\n" not in text
    missing = [part for part in decisive if part not in text]
    assert not missing, f"{missing} not in: {text}"
    assert caught.value.nearest or caught.value.next_step, f"neither a nearest thing nor a next step: {text}"
    if by:
        assert state_of(by.module) == before


