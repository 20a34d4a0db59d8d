"""Recordings as safetensors files."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from optrode.errors import BadFile, BadOption, nearest
from optrode.site.recording import Recording

_DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def dtype_of(name: str | None) -> torch.dtype | None:
    """The floating type of a name; None stays None.

    Raises:
        BadOption: there is none.
    """
    if name is None:
        return None
    if name not in _DTYPES:
        raise BadOption(f"dtype {name!r}", "not a floating type", nearest=nearest(name, _DTYPES) or tuple(_DTYPES))
    return _DTYPES[name]


def save_recording(recording: Recording, path: str | Path, facts: Mapping[str, str] | None = None) -> Path:
    """Write a recording, whole or not at all, with facts about it as the file's metadata."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    lengths = ",".join(map(str, recording.lengths))
    try:
        tensors = {name: value.contiguous() for name, value in recording.items()}
        save_file(tensors, half, {"lengths": lengths, **(facts or {})})
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
    return path


def load_recording(path: str | Path) -> Recording:
    """Read a recording back.

    Raises:
        BadFile: the file is missing, or not a whole safetensors file.
    """
    if not Path(path).is_file():
        there = sorted(p.name for p in Path(path).parent.glob("*.safetensors"))
        near = nearest(Path(path).name, there)
        raise BadFile(f"recording {path}", "no such file", nearest=near, next_step="`optrode record --out FILE` writes one")
    try:
        with safe_open(path, "pt") as file:
            lengths = (file.metadata() or {}).get("lengths", "")
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        found = f"not a whole safetensors file ({error})"
        raise BadFile(f"recording {path}", found, next_step="record it again") from error
    return Recording(values, tuple(int(n) for n in lengths.split(",") if n))
