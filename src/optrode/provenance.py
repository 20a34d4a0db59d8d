"""Where a number came from: model, seed, versions, machine, command."""

import os
import platform
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PACKAGES: Final = ("optrode", "torch", "transformers", "numpy")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What is needed to measure a number again.

    Attributes:
        model: how the model was asked for.
        weights_hash: SHA-256 of the weights.
        random_seed: seed of whatever was drawn.
        versions: package and Python versions.
        machine: processor kind and number of cores.
        command: the command line, without the path of the program.
        date: UTC, ISO 8601.
        time_s: wall-clock seconds that the measurement took.
        n_passes: forward passes of the model; one for each chunk of packed trials.
    """

    model: str
    weights_hash: str
    random_seed: int
    versions: dict[str, str]
    machine: str
    command: str
    date: str
    time_s: float = 0.0
    n_passes: int = 0


def provenance(model: str, weights_hash: str, random_seed: int, *, time_s: float = 0.0, n_passes: int = 0) -> Provenance:
    """The provenance of something measured now, in this process."""
    versions = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    return Provenance(
        model=model,
        weights_hash=weights_hash,
        random_seed=random_seed,
        versions=versions,
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        time_s=round(time_s, 3),
        n_passes=n_passes,
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
