"""Pieces of HTML. Every text that comes from a record passes through `text`, so that a prompt can never become markup."""

from collections.abc import Iterable, Sequence
from html import escape

from optrode.reports.words import MINUS, short


def text(value: object) -> str:
    """Any value as HTML text, safe in elements and in quoted attributes."""
    return escape(str(value), quote=True)


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph of plain words."""
    return f"<p{_kind(kind)}>{text(words)}</p>"


def heading(words: str, kind: str = "") -> str:
    """A heading below a section's own."""
    return f"<h3{_kind(kind)}>{text(words)}</h3>"


def code(words: str) -> str:
    """A name as it is typed."""
    return f"<code>{text(words)}</code>"


def chip(token: str, kind: str = "", title: str = "") -> str:
    """One token. A leading space is part of a token, so it is drawn, but not read out."""
    lead = "" if not token.startswith(" ") else '<i aria-hidden="true">·</i>'
    shown = token.lstrip(" ").replace("\n", "⏎").replace("\t", "⇥") or ("" if lead else "∅")
    about = f' title="{text(title)}"' if title else ""
    return f'<span class="{text(f"chip {kind}".strip())}"{about}>{lead}{text(shown)}</span>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str, kind: str = "") -> str:
    """A table of cells that are HTML already; the first column names the row."""
    head = "".join(f'<th scope="col">{text(column)}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    words = f"<caption>{text(caption)}</caption>"
    inner = f"<table{_kind(kind)}>{words}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroller" tabindex="0" role="region" aria-label="{text(caption)}">{inner}</div>'


def fold(summary: str, body: str) -> str:
    """Something that is opened on demand."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def plot(key: str, label: str, *, caption: str = "", height: int = 320, least_width: int = 0, above: str = "") -> str:
    """A place where the page's script draws a figure, with its name for screen readers and its caption."""
    style = f"height:{height}px" + (f";min-width:{least_width}px" if least_width else "")
    name = f'id="{text(key)}" data-figure="{text(key)}" role="img" aria-label="{text(label)}"'
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure>{above}<div class="wide"><div class="plot" {name} style="{style}"></div></div>{below}</figure>'


def legend(what: str, limit: float, *, note: str = "", is_sequential: bool = False, has_null: bool = False) -> str:
    """The colour scale in words: what is coloured, and a bar from -limit (or 0) to limit."""
    bar = f'<span class="ramp{" half" if is_sequential else ""}" aria-hidden="true"></span>'
    start = "0" if is_sequential else f"{MINUS}{short(limit)}"
    scale = f'<span class="scale">{text(start)} {bar} {text(short(limit))}</span>'
    null = (
        '<span class="null"><span class="swatch" aria-hidden="true"></span>gate changed nothing</span>' if has_null else ""
    )
    words = f'<span class="note">{text(note)}</span>' if note else ""
    return f'<div class="legend"><span>{text(what)}</span>{scale}{null}{words}</div>'


def facts(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Key figures: (name, value, remark)."""
    cells = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(remark)}</small></dd></div>"
        for name, value, remark in pairs
    )
    return f'<dl class="facts">{cells}</dl>'


def _kind(kind: str) -> str:
    return f' class="{text(kind)}"' if kind else ""
