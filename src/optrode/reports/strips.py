"""A claim's numbers as one small drawing: the range it must be in, its value from each random seed, and the control's."""

import math
from typing import Final

from optrode.claims import Bounds, Claim, Finding
from optrode.reports.blocks import text
from optrode.reports.words import short

WIDTH: Final = 168.0
TALL: Final = 36.0
PAD: Final = 8.0


def strip(claim: Claim, finding: Finding) -> str:
    """Filled dots are values, above the line; hollow ones are controls, below; the bands are where each must lie."""
    values = [value for value in finding.values if value is not None]
    controls = [value for value in finding.controls if value is not None]
    if not values:
        return ""
    known = [*values, *controls, *_ends(claim.expected), *(_ends(claim.control_expected) if controls else [])]
    low, high = min(known), max(known)
    margin = 0.08 * (high - low) or 0.5 * abs(high) or 0.5
    scale = _Scale(low - margin, high + margin)
    bands = _band(scale, claim.expected, 0.0, "wanted") + (
        _band(scale, claim.control_expected, TALL / 2, "wanted control") if controls else ""
    )
    dots = "".join(_dot(scale, value, TALL / 4, "value") for value in values)
    dots += "".join(_dot(scale, value, 3 * TALL / 4, "control") for value in controls)
    middle = f'<line class="middle" x1="0" x2="{WIDTH:g}" y1="{TALL / 2:g}" y2="{TALL / 2:g}"/>'
    label = f"values {_list(values)}, to be {claim.expected}"
    label += f"; controls {_list(controls)}, to be {claim.control_expected}" if controls else ""
    size = f'width="{WIDTH:g}" height="{TALL:g}" viewBox="0 0 {WIDTH:g} {TALL:g}"'
    return f'<svg class="strip-plot" {size} role="img" aria-label="{text(label)}">{bands}{middle}{dots}</svg>'


class _Scale:
    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def at(self, value: float | None, default: float) -> float:
        """Pixels from the left; an open side lies at the edge."""
        if value is None:
            return default
        return PAD + (WIDTH - 2 * PAD) * (value - self.low) / (self.high - self.low)


def _ends(bounds: Bounds) -> list[float]:
    return [end for end in (bounds.low, bounds.high) if end is not None and math.isfinite(end)]


def _band(scale: _Scale, bounds: Bounds, top: float, kind: str) -> str:
    left, right = scale.at(bounds.low, 0.0), scale.at(bounds.high, WIDTH)
    wide = max(right - left, 2.0)
    return f'<rect class="{kind}" x="{left:.1f}" y="{top + 1:g}" width="{wide:.1f}" height="{TALL / 2 - 2:g}"/>'


def _dot(scale: _Scale, value: float, y: float, kind: str) -> str:
    return f'<circle class="{kind}" cx="{scale.at(value, 0.0):.1f}" cy="{y:g}" r="3.6"/>'


def _list(values: list[float]) -> str:
    return ", ".join(short(value) for value in values)
