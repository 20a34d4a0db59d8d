"""Chunks of trials: one safetensors file each, named by the SHA-256 of its bytes.

It holds "values", float64 [trial][prompt], and "keys", the trials' hashes as bytes [trial][32].
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64
from safetensors.numpy import load, save

from optrode.errors import BadStore
from optrode.store.disk import write_whole

FOLDER: Final = "tensors"
_SUFFIX: Final = ".safetensors"
_KEYS, _VALUES = "keys", "values"


@dataclass(frozen=True)
class Chunk:
    """Trials that are committed together.

    Attributes:
        keys: [trial] content hash.
        values: [trial][prompt].
    """

    keys: tuple[str, ...]
    values: Float64[np.ndarray, "trial prompt"]

    def has(self, key: str, row: int) -> bool:
        """Whether a trial stands in that row: a damaged database must not pass one trial off as another."""
        return 0 <= row < len(self.keys) and self.keys[row] == key


def write_chunk(folder: Path, chunk: Chunk) -> str:
    """Write a chunk, whole or not at all, and give the file's hash.

    Raises:
        OSError: the disk refused.
    """
    keys = np.frombuffer(bytes.fromhex("".join(chunk.keys)), np.uint8).reshape(len(chunk.keys), -1)
    data = save({_KEYS: keys, _VALUES: chunk.values})
    name = sha256(data).hexdigest()
    write_whole(folder / f"{name}{_SUFFIX}", data)
    return name


def read_chunk(folder: Path, name: str) -> Chunk | None:
    """A chunk; None when its file is missing or its bytes are not those that were written.

    Raises:
        BadStore: the file is there and cannot be read.
    """
    path = folder / f"{name}{_SUFFIX}"
    try:
        data = path.read_bytes()
    except (FileNotFoundError, ValueError):  # the latter: a damaged database gave a name that no file can have
        return None
    except OSError as error:
        step = "make it readable, or delete it: its trials are then measured again"
        raise BadStore(f"tensor file {path}", f"it cannot be read ({error.strerror})", next_step=step) from error
    if sha256(data).hexdigest() != name:
        return None
    tensors = load(data)
    return Chunk(tuple(key.tobytes().hex() for key in tensors[_KEYS]), tensors[_VALUES])


def sweep_chunks(folder: Path, keep: set[str]) -> None:
    """Delete what no row points to: chunks replaced since, and those of a writer killed before its rows were in."""
    wanted = {f"{name}{_SUFFIX}" for name in keep}
    for path in folder.iterdir():
        if path.name not in wanted and _SUFFIX in path.name:
            path.unlink(missing_ok=True)
