"""The driver's side of a contender's process."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from jobs import PEERS

HERE = Path(__file__).parent
PLACE = HERE.parent / ".bench"
"""Environments, logs and the prompts; nothing in it is kept in the repository."""


def python_of(name: str) -> Path:
    """The interpreter of a contender's environment: peers have their own."""
    return PLACE / name / "bin" / "python" if name in PEERS or name == "plot" else Path(sys.executable)


@final
class Worker:
    """A contender that has loaded the model and waits for requests.

    Attributes:
        hello: its versions and ways, or an "error" if it could not start.
    """

    def __init__(self, name: str, pairs: Path) -> None:
        self.name = name
        self._log = (PLACE / f"{name}.worker.log").open("w")
        self._process = self._start(pairs)
        self.hello = self._read()

    def _start(self, pairs: Path) -> "subprocess.Popen[str] | None":
        command = [str(python_of(self.name)), str(HERE / "worker.py"), self.name, str(pairs)]
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        try:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=offline,
            )  # fmt: skip
        except FileNotFoundError:
            return None

    @property
    def ways(self) -> Mapping[str, list[str]]:
        """Job -> its documented ways."""
        found: Mapping[str, list[str]] = self.hello.get("ways", {})
        return found

    def ask(self, job: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        if self._process is None or self._process.stdin is None or "error" in self.hello:
            return {"error": self.hello["error"]}
        try:
            self._process.stdin.write(json.dumps({"job": job, **request}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": "its process ended"}
        return self._read()

    def stop(self) -> None:
        """End the process by ending its input."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(timeout=60)
        self._log.close()

    def _read(self) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            return {"error": "its environment is missing: run make bench"}
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "its process ended"}
