"""What every section of the page is: a heading, HTML, and what the page's script needs to draw in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optrode.reports.blocks import text


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        key: its anchor.
        short: its entry in the contents.
        title: its heading.
        body: HTML.
        figures: figure id -> Plotly JSON.
        data: what the page's script reads besides.
    """

    key: str
    short: str
    title: str
    body: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def html(self) -> str:
        """The section with its heading."""
        head = f'<h2 id="h-{self.key}">{text(self.title)}</h2>'
        return f'<section id="{self.key}" aria-labelledby="h-{self.key}">{head}{self.body}</section>'
