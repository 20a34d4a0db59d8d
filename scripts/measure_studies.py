"""Measure studies and enter them in the ledger: two processes of one thread at a time. Run by `make studies`.

Each study's seeds are kept under runs/studies, so that what was killed goes on. A study that fails does not stop the others.
"""
# ruff: noqa: T201

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from optrode.study.study import NAMES

PLACE = Path("runs") / "studies"


def measure(slug: str, data: str | None) -> tuple[str, int]:
    """One study in a process of its own; its output goes to its folder."""
    (PLACE / slug).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "optrode.cli", "study", "run", slug, "--enter", "--out", str(PLACE / slug)]
    start = time.perf_counter()
    with (PLACE / slug / "log.txt").open("w") as log:
        code = subprocess.run(
            [*command, *(["--data", data] if data else [])], stdout=log, stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        ).returncode  # fmt: skip
    came = "measured" if code == 0 else f"failed, see {PLACE / slug / 'log.txt'}"
    print(f"{slug}: {came}, {time.perf_counter() - start:.0f} s", flush=True)
    return slug, code


def main() -> int:
    """Measure the studies asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--data", default=None, help="folder of optional data sets")
    given = parser.parse_args()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda slug: measure(slug, given.data), given.names or NAMES))
    return int(any(code for _, code in found))


if __name__ == "__main__":
    sys.exit(main())
