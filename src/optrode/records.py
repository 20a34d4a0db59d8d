"""Frozen records: canonical JSON, content hash, and their files.

Every stage of an investigation hands the next one a frozen dataclass. This module is the one way such a record
becomes text and comes back, so that its hash can serve as a key.

NumPy arrays in a record stand in one safetensors file beside the JSON (see `arrays.py`).
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from jaxtyping import AbstractArray
from numpy.typing import NDArray
from safetensors.numpy import save

from optrode.arrays import AGAIN, Arrays, contiguous, key_of, read_arrays, reference, tensor_file
from optrode.errors import BadFile

T = TypeVar("T")

FORMAT: Final = 1


def plain(value: Any, arrays: Arrays | None = None, key: str = "") -> Any:
    """A record as JSON-ready lists, dictionaries, numbers and strings.

    Args:
        arrays: where to put the record's arrays, each under its path, e.g. "scores.per_prompt".
        key: path of the value itself.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, np.ndarray):
        whole = contiguous(value)
        if arrays is not None:
            arrays[key] = whole
        return reference(key, whole)
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v, arrays, _below(key, k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, arrays, _below(key, ix)) for ix, v in enumerate(value)]
    return value


def _below(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def canonical(value: Any) -> str:
    """The one JSON text of a record: sorted keys, no spaces, no NaN. Raises ValueError on NaN or infinity."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def restore(kind: type[T], data: Any, arrays: Arrays | None = None) -> T:
    """The inverse of `plain` for dataclass `kind`: rebuilds nested records, tuples and mappings by their types.

    Args:
        arrays: by key, as `read_arrays` gives them.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, StopIteration: the data are not those of such a record.
    """
    restored: T = _restore(kind, data, arrays or {})
    return restored


def _restore(kind: Any, data: Any, arrays: Arrays) -> Any:
    if data is None:
        return None
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _restore(next(a for a in args if a is not type(None)), data, arrays)
    if origin is tuple:
        kinds = [args[0]] * len(data) if args[-1] is Ellipsis else list(args)
        return tuple(_restore(k, v, arrays) for k, v in zip(kinds, data, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {k: _restore(args[1], v, arrays) for k, v in data.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{f.name: _restore(hints[f.name], data[f.name], arrays) for f in fields(kind) if f.name in data})
    if origin is np.ndarray or isinstance(kind, type) and issubclass(kind, AbstractArray):
        return _restore_array(kind, data, arrays)
    return float(data) if kind is float else data


def _restore_array(kind: Any, data: Any, arrays: Arrays) -> NDArray[Any]:
    array = arrays[key_of(data)]
    if isinstance(kind, type) and not isinstance(array, kind):
        raise TypeError(f"{key_of(data)} is {array.dtype} {list(array.shape)}, and not {kind.__name__}")
    return array


def write_record(path: Path, value: Any) -> Path:
    """Write a record as JSON, whole or not at all (see `write_text`), and its arrays, if it has any, beside it.

    The arrays go first: a writer killed in between leaves a pair that does not fit, which `read_arrays` tells.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: Arrays = {}
    text = json.dumps(plain(value, arrays), indent=1, allow_nan=False) + "\n"
    if arrays:
        write_bytes(tensor_file(path), save(arrays))
    write_text(path, text)
    return path


def write_named(path: Path, record: Any, about: Mapping[str, Sequence[str]] | None = None) -> Path:
    """Write a record that says what it is: its format and kind, what `about` says of it for people, and the record."""
    return write_record(path, {"format": FORMAT, "kind": type(record).__name__, **(about or {}), "record": record})


def read_named(
    path: Path, kinds: Mapping[str, type], about: Callable[[Any], Mapping[str, Sequence[str]]] = lambda record: {}
) -> Any:
    """A record that `write_named` wrote.

    Args:
        kinds: that may be in the file, by name.
        about: what the file should say of the record for people: names, in any order.

    Raises:
        BadFile: the file or its tensor file is missing, torn, of another format or kind, or does not say what it should.
    """
    data = read_json(path)
    if not isinstance(data, dict) or data.get("kind") not in kinds:
        raise BadFile(f"record {path}", _kind_found(data, kinds), next_step=AGAIN)
    if data.get("format") != FORMAT:
        raise BadFile(f"record {path}", f"its format is {data.get('format')}, this version reads {FORMAT}", next_step=AGAIN)
    try:
        record: Any = restore(kinds[data["kind"]], data["record"], read_arrays(path, data))
        said = plain(about(record))
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration) as error:
        found = f"not a whole {data['kind']} ({type(error).__name__}: {error})"
        raise BadFile(f"record {path}", found, next_step=AGAIN) from error
    changed = [key for key in said if sorted(data.get(key, ())) != sorted(said[key])]  # near ties rank as machines round
    if changed:
        found = f"its {changed[0]} are not those of the record"
        raise BadFile(f"record {path}", found, next_step=f"they are for reading only: make the record anew, or {AGAIN}")
    return record


def _kind_found(data: Any, kinds: Mapping[str, type]) -> str:
    kind = data.get("kind") if isinstance(data, dict) else None
    known = "it does not say what kind of record it is"
    return f"{known} ({kind!r} is none of {', '.join(kinds)})" if kind else known


def write_text(path: Path, text: str) -> None:
    """Write text whole or not at all: a sibling file is renamed over the target."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes whole or not at all: a sibling file is renamed over the target."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_bytes(data)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """The data of a JSON file.

    Raises:
        BadFile: the file is missing, empty or not JSON.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
        raise BadFile(f"file {path}", "no such file", nearest=there[:3], next_step="check the path") from None
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError as error:  # JSON and Unicode errors both are
        found = "the file is empty" if not data.strip() else f"not JSON, or torn ({error})"
        raise BadFile(f"file {path}", found, next_step=AGAIN) from error
