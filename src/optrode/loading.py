"""`load`: a model by name, folder, hub id or module, with its table proven."""

from pathlib import Path
from typing import Any

from torch import nn

from optrode.gate.check import check_model
from optrode.model.model import Model
from optrode.model.source import AUTO, from_source


def load(
    source: str | Path | nn.Module, *, tokenizer: Any = None, family: Any = AUTO, check: bool = True, **options: Any
) -> Model:
    """Load a model and prove its site table.

    Args:
        source: "smollm2", a folder with config.json and safetensors, a hub id "owner/name", or any nn.Module.
        tokenizer: for a module; folders and hub ids bring their own.
        family: a `Family` of the caller's own, or None for the generic route (only `module:` sites).
        check: prove the table on random tokens; the proof itself is `check_model(model)`.
        options: passed to transformers' `from_pretrained` (dtype, device_map, revision, ...).

    Raises:
        UnknownModel: no such name or folder, or the folder holds no model.
        UnsupportedArchitecture, ConfigRefused: no family file covers the architecture or config.
        CheckFailed: the family's table does not describe this module; the message names the site.
    """
    model = from_source(source, tokenizer=tokenizer, family=family, **options)
    if check:
        check_model(model)
    return model
