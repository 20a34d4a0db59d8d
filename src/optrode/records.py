"""Frozen records: canonical JSON, content hash, and their files.

Every stage of an investigation hands the next one a frozen dataclass. This module is the one way such a record
becomes text and comes back, so that its hash can serve as a key.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from optrode.errors import BadFile

T = TypeVar("T")


def plain(value: Any) -> Any:
    """A record as JSON-ready lists, dictionaries, numbers and strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def canonical(value: Any) -> str:
    """The one JSON text of a record: sorted keys, no spaces, no NaN. Raises ValueError on NaN or infinity."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def restore(kind: type[T], data: Any) -> T:
    """The inverse of `plain` for dataclass `kind`: rebuilds nested records, tuples and mappings by their types."""
    restored: T = _restore(kind, data)
    return restored


def _restore(kind: Any, data: Any) -> Any:
    if data is None:
        return None
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _restore(next(a for a in args if a is not type(None)), data)
    if origin is tuple:
        kinds = [args[0]] * len(data) if args[-1] is Ellipsis else list(args)
        return tuple(_restore(k, v) for k, v in zip(kinds, data, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {k: _restore(args[1], v) for k, v in data.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{f.name: _restore(hints[f.name], data[f.name]) for f in fields(kind) if f.name in data})
    return float(data) if kind is float else data


def write_record(path: Path, value: Any) -> Path:
    """Write a record as JSON, whole or not at all (see `write_text`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")
    return path


def write_text(path: Path, text: str) -> None:
    """Write text whole or not at all: a sibling file is renamed over the target."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_text(text, encoding="utf-8")
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
        raise BadFile(f"file {path}", "no such file", nearest=there[:3]) from None
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError as error:  # JSON and Unicode errors both are
        found = "the file is empty" if not data.strip() else f"not JSON, or torn ({error})"
        raise BadFile(f"file {path}", found, next_step="run the command that wrote it again") from error
