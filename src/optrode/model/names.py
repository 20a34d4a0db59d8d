"""The grammar of site names. `parse` and `str` are inverses on canonical names.

    name     = path [ "[" selector { ", " selector } "]" ]
    path     = "blocks." layers "." kind | kind | "module:" module-path (".in" | ".out")
    layers   = index                                  0 · * · 3:7 · -1 · 2|5|8
    selector = axis "=" index                         head=3 · pos=-1 · feature=10:20 · head=1|4
    index    = part { "|" part }                      part = "*" | integer | [integer] ":" [integer]

TransformerLens's spelling is understood on input and never printed: a leading `hook_` in the last part of the
path is dropped, so `blocks.0.attn.hook_z` is `blocks.0.attn.z`.
"""

import re
from dataclasses import dataclass, replace

from optrode.axes import SELECTABLE
from optrode.errors import BadName, nearest

Part = int | tuple[int | None, int | None]

_NAME = re.compile(r"^(?P<path>[^\[\]]+)(?:\[(?P<select>[^\[\]]*)\])?$")
_BLOCK = re.compile(r"^blocks\.(?P<layers>[^.]+)\.(?P<kind>.+)$")
_PART = re.compile(r"^(?:(?P<one>-?\d+)|(?P<start>-?\d+)?:(?P<stop>-?\d+)?)$")
_KIND = re.compile(r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$")


@dataclass(frozen=True, slots=True)
class Index:
    """Positions along one axis: integers and half-open ranges. Negative integers count from the end."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return "|".join("*" if p == (None, None) else _print_part(p) for p in self.parts)

    @property
    def single(self) -> int | None:
        """The one integer of this index, or None when it is a range or several."""
        first = self.parts[0]
        return first if len(self.parts) == 1 and isinstance(first, int) else None

    def resolve(self, size: int) -> tuple[int, ...]:
        """The indices in `range(size)` this stands for, in the order given; those outside are left out."""
        found: list[int] = []
        for part in self.parts:
            if isinstance(part, int):
                found += [part % size] if -size <= part < size else []
            else:
                found += range(size)[slice(*part)]
        return tuple(dict.fromkeys(found))


ALL = Index(((None, None),))


@dataclass(frozen=True, slots=True)
class SiteName:
    """A parsed site name or pattern.

    Attributes:
        kind: the name without layers and selectors: `attn.z`, `resid_pre`, `embed`, `module:rnn.out`.
        layers: which blocks, or None where the site is not in a block.
        select: (axis, index) pairs, in the order of `axes.SELECTABLE`.
    """

    kind: str
    layers: Index | None = None
    select: tuple[tuple[str, Index], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(f"{axis}={index}" for axis, index in self.select)
        return self.path + (f"[{inside}]" if inside else "")

    @property
    def path(self) -> str:
        """The name without its selectors."""
        return self.kind if self.layers is None else f"blocks.{self.layers}.{self.kind}"

    @property
    def whole(self) -> "SiteName":
        """The same site with nothing selected."""
        return replace(self, select=())

    @property
    def is_module(self) -> bool:
        """Whether the site is reached by a module's own path."""
        return self.kind.startswith("module:")

    def index(self, axis: str) -> Index | None:
        """The selector on `axis`, or None."""
        return dict(self.select).get(axis)

    def at(self, *, layer: int | None = None, **select: int) -> "SiteName":
        """The name with one layer fixed and further selectors set, e.g. `name.at(layer=3, head=6)`."""
        merged = dict(self.select) | {axis: Index((ix,)) for axis, ix in select.items()}
        layers = self.layers if layer is None else Index((layer,))
        return replace(self, layers=layers, select=_ordered(merged))


def parse(text: str) -> SiteName:
    """Read a site name or pattern.

    Raises:
        BadName: the text does not follow the grammar; the message names the part that does not.
    """
    match = _NAME.match(text.strip())
    if not text.strip():
        raise BadName(f"site name {text!r}", "it is empty", next_step="write it like blocks.3.attn.z[head=6]")
    if match is None:
        raise BadName(f"site name {text!r}", "brackets do not match", next_step="write it like blocks.3.attn.z[head=6]")
    select = _parse_select(match["select"], text) if match["select"] is not None else ()
    path = match["path"].strip()
    if path.startswith("module:"):
        return SiteName(_module_path(path, text), None, select)
    block = _BLOCK.match(path)
    kind = _without_hook(block["kind"] if block else path)
    if not _KIND.match(kind) or path.startswith("blocks") and not block:
        raise BadName(
            f"site name {text!r}", f"{path!r} is not a site path", next_step="write it like blocks.3.resid_pre or embed"
        )
    return SiteName(kind, _parse_index(block["layers"], text) if block else None, select)


def _module_path(path: str, text: str) -> str:
    if not path.endswith((".in", ".out")):
        raise BadName(
            f"site name {text!r}", "a module site must say which side it means", nearest=(f"{path}.in", f"{path}.out")
        )
    return path


def _without_hook(kind: str) -> str:
    head, _, last = kind.rpartition(".")
    last = last.removeprefix("hook_")
    return f"{head}.{last}" if head else last


def _parse_select(text: str, whole: str) -> tuple[tuple[str, Index], ...]:
    found: dict[str, Index] = {}
    for item in text.split(","):
        axis, equals, index = (piece.strip() for piece in item.partition("="))
        if not equals or axis not in SELECTABLE:
            raise BadName(
                f"site name {whole!r}",
                f"{item.strip()!r} is not a selector of the form axis=index",
                nearest=tuple(f"{near}=..." for near in nearest(axis, SELECTABLE) or SELECTABLE),
                next_step="write selectors like [head=3, pos=-1, feature=10:20]",
            )
        if axis in found:
            raise BadName(f"site name {whole!r}", f"axis {axis!r} is selected twice", next_step=f"join them: {axis}=1|4")
        found[axis] = _parse_index(index, whole)
    return _ordered(found)


def _ordered(select: dict[str, Index]) -> tuple[tuple[str, Index], ...]:
    return tuple((axis, select[axis]) for axis in SELECTABLE if axis in select)


def _parse_index(text: str, whole: str) -> Index:
    return Index(tuple(_parse_part(part.strip(), whole) for part in text.split("|")))


def _parse_part(text: str, whole: str) -> Part:
    if text == "*":
        return (None, None)
    match = _PART.match(text)
    if match is None:
        found = f"{text!r} is not an index"
        raise BadName(f"site name {whole!r}", found, next_step="write an index as 3, -1, 2:5, * or 1|4")
    if match["one"] is not None:
        return int(match["one"])
    return (_int(match["start"]), _int(match["stop"]))


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


def _print_part(part: Part) -> str:
    if isinstance(part, int):
        return str(part)
    start, stop = ("" if end is None else str(end) for end in part)
    return f"{start}:{stop}"
