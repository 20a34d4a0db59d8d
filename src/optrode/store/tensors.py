"""The values of a chunk of trials: one safetensors file each, named by the SHA-256 of its bytes."""

from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64
from safetensors import SafetensorError
from safetensors.numpy import load, save

from optrode.errors import BadStore
from optrode.store.disk import write_whole

FOLDER: Final = "tensors"
_SUFFIX: Final = ".safetensors"
_VALUES: Final = "values"


def write_chunk(folder: Path, values: Float64[np.ndarray, "trial prompt"]) -> str:
    """Write the values of a chunk, whole or not at all, and give the file's hash.

    Raises:
        OSError: the disk refused.
    """
    data = save({_VALUES: values})
    name = sha256(data).hexdigest()
    write_whole(folder / f"{name}{_SUFFIX}", data)
    return name


def read_chunk(folder: Path, name: str) -> Float64[np.ndarray, "trial prompt"] | None:
    """The values of a chunk; None when its file is missing or its bytes are not those that were written.

    Raises:
        BadStore: the file is there and cannot be read.
    """
    path = folder / f"{name}{_SUFFIX}"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        step = "make it readable, or delete it: its trials are then measured again"
        raise BadStore(f"tensor file {path}", f"it cannot be read ({error.strerror})", next_step=step) from error
    if sha256(data).hexdigest() != name:
        return None
    try:
        values: np.ndarray = load(data)[_VALUES]
    except (SafetensorError, KeyError):
        return None
    return values


def sweep_chunks(folder: Path, keep: set[str]) -> None:
    """Delete what no row points to: chunks replaced since, and those of a writer killed before its rows were in."""
    wanted = {f"{name}{_SUFFIX}" for name in keep}
    for path in folder.iterdir():
        if path.name not in wanted and _SUFFIX in path.name:
            path.unlink(missing_ok=True)
