"""NumPy arrays of records: one safetensors file beside the JSON file, `<name>.safetensors` beside `<name>.json`.

In the place of an array the JSON has a reference: the array's key in the tensor file, its dtype, shape, and the SHA-256 of
its numbers. A tensor file that was not written with the JSON file does not fit, and is refused.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from optrode.errors import BadFile

Arrays = dict[str, NDArray[Any]]
AGAIN: Final = "run the command that wrote it again"
_KEY: Final = "$array"


def contiguous(array: NDArray[Any]) -> NDArray[Any]:
    """The array in C order and native byte order: safetensors would write other orders as if they were."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def reference(key: str, array: NDArray[Any]) -> dict[str, Any]:
    """What stands in the JSON in the place of a contiguous array."""
    digest = hashlib.sha256(array.data if array.size else b"").hexdigest()
    return {_KEY: key, "dtype": array.dtype.name, "shape": list(array.shape), "sha256": digest}


def key_of(data: Any) -> str:
    """The key that a reference holds.

    Raises:
        TypeError: this is no reference to an array.
    """
    if not isinstance(data, dict) or not isinstance(data.get(_KEY), str):
        raise TypeError("where an array belongs there is no reference to one")
    return str(data[_KEY])


def tensor_file(path: Path) -> Path:
    """Where the arrays of a record in the JSON file `path` stand."""
    return path.with_name(path.name.removesuffix(".json") + ".safetensors")


def read_arrays(path: Path, data: Any) -> Arrays:
    """The arrays that the data of the JSON file `path` refer to, by key; each is compared with its SHA-256.

    Raises:
        BadFile: the tensor file is missing, torn, or not the one that was written with the JSON file.
        TypeError: a reference is broken.
    """
    references = {key_of(reference): reference for reference in _references(data)}
    if not references:
        return {}
    found = _load(path)
    for key, expected in references.items():
        if key not in found:
            _refuse(path, f"it has no {key!r}, which {path.name} refers to")
        there = reference(key, found[key])
        if _form(there) != _form(expected):
            _refuse(path, f"{key!r} is {_form(there)}, and {path.name} was written with {_form(expected)}")
        if there != expected:
            _refuse(path, f"the numbers of {key!r} are not those that {path.name} was written with")
    return {key: found[key] for key in references}


def _references(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict) and _KEY in data:
        yield data
    elif isinstance(data, (dict, list)):
        for below in data.values() if isinstance(data, dict) else data:
            yield from _references(below)


def _form(of: Mapping[str, Any]) -> str:
    return f"{of.get('dtype')} {of.get('shape')}"


def _load(path: Path) -> Arrays:
    try:
        return dict(load(tensor_file(path).read_bytes()))
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*.safetensors"))
        step = f"keep the two files together under one name, or {AGAIN}"
        found = f"no such file, and {path.name} has its arrays there"
        raise BadFile(f"tensor file {tensor_file(path)}", found, nearest=there[:3], next_step=step) from None
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise BadFile(f"tensor file {tensor_file(path)}", f"not safetensors, or torn ({error})", next_step=AGAIN) from error


def _refuse(path: Path, found: str) -> NoReturn:
    step = f"put back the file that belongs to it, or {AGAIN}"
    raise BadFile(f"tensor file {tensor_file(path)}", found, next_step=step)
