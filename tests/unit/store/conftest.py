"""Trials to commit, and a run folder to commit them to."""

import math
import struct

import pytest

from optrode.records import content_hash
from optrode.store import Store

ODD = (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1)
"""Values that text formats lose."""


def key(*what) -> str:
    return content_hash(what)


def chunk(ix: int, n: int = 3, width: int = 4) -> dict[str, tuple[float, ...]]:
    """One chunk of trials; the values say which."""
    return {key(ix, row): tuple(ix + row / 10 + pos / 1000 for pos in range(width)) for row in range(n)}


def bits(values):
    return {name: struct.pack(f"<{len(row)}d", *row) for name, row in values.items()}


@pytest.fixture
def run(tmp_path):
    return tmp_path / "runs" / "ioi"


@pytest.fixture
def store(run):
    with Store(run) as opened:
        yield opened
