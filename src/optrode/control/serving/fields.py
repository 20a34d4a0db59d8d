"""Fields of a JSON request, read strictly: what is not understood is refused, never passed over."""

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from optrode.control.serving.refusal import Refused, bad
from optrode.errors import nearest

_SHOWN: Final = 60
_KINDS: Final = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}


def read_json(raw: bytes) -> dict[str, Any]:
    """The object that a request's body holds.

    Raises:
        Refused: it is not JSON, not an object, or says something twice.
    """
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        found = "it holds half a character (a lone surrogate)"
        raise Refused(400, "invalid_json", "request body", found, next_step="send whole characters") from None
    except (ValueError, RecursionError) as error:
        found, step = f"it is not JSON ({error})", 'send an object, like {"prompt": "Once", "max_tokens": 8}'
        raise Refused(400, "invalid_json", "request body", found, next_step=step) from None
    if not isinstance(data, dict):
        raise Refused(400, "invalid_json", "request body", f"it is {kind(data)}", next_step="send a JSON object")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    return _KINDS.get(type(value)) or (f"the number {shown(value)}" if is_number(value) else shown(value))


def shown(value: object) -> str:
    """A JSON value as a message quotes it: as it was sent, but for what is too long."""
    try:
        whole = json.dumps(value, ensure_ascii=False)
    except ValueError:  # a number of thousands of digits
        whole = "of too many digits"
    return whole if len(whole) <= _SHOWN else whole[: _SHOWN - 3] + "..."


def check_keys(data: Mapping[str, Any], known: Collection[str], where: str, param: str | None = None) -> None:
    """Refuse keys that mean nothing here.

    Raises:
        Refused: a key is not known; the message names the nearest.
    """
    for key in data:
        if key not in known:
            near = nearest(key, known) or sorted(known)
            found = "there is no such field"
            asked = f"{shown(key)} in {where}"
            raise Refused(400, "unknown_field", asked, found, param=param or key, nearest=near)


def check_neutral(data: Mapping[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse fields of the API that are not supported, unless they ask for nothing.

    Raises:
        Refused: a field asks for what this server does not do.
    """
    for key, allowed in neutral.items():
        if key in data and not any(type(data[key]) in (type(value), int) and data[key] == value for value in allowed):
            found = "this server does not support it, and the answer would not be what it asks for"
            step = "leave it out"
            raise Refused(400, "unsupported_field", f"{key}={shown(data[key])}", found, param=key, next_step=step)


def number(data: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    """A finite number within bounds; the default where it is absent or null.

    Raises:
        Refused: it is none.
    """
    value = data.get(key)
    if value is None:
        return default
    if not is_number(value) or not low <= value <= high:
        step = f"give a number from {low:g} to {high:g}"
        raise bad(key, f"{key}={shown(value)}", f"it is {kind(value)}", next_step=step)
    return float(value)


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(_float(value))


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def whole(data: Mapping[str, Any], key: str, low: int, high: int) -> int | None:
    """A whole number within bounds, or None where it is absent or null.

    Raises:
        Refused: it is none.
    """
    value = data.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        step = f"give a whole number from {low} to {high}"
        raise bad(key, f"{key}={shown(value)}", f"it is {kind(value)}", next_step=step)
    return value


def flag(data: Mapping[str, Any], key: str) -> bool:
    """A truth value; false where it is absent or null.

    Raises:
        Refused: it is none.
    """
    value = data.get(key)
    if value is not None and not isinstance(value, bool):
        raise bad(key, f"{key}={shown(value)}", f"it is {kind(value)}", next_step="give true or false")
    return bool(value)


def text(value: object, param: str) -> str:
    """A string.

    Raises:
        Refused: it is none.
    """
    if not isinstance(value, str):
        raise bad(param, param, f"it is {kind(value)}", next_step="give a string")
    return value
