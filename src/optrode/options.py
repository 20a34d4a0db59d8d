"""What all commands share: options, and JSON for programs."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for programs, nothing else.")]
ModelName = Annotated[str, Parameter(name=["--model", "-m"], help='"smollm2", a folder, or a hub id "owner/name".')]
Out = Annotated[Path | None, Parameter(name=["--out", "-o"], help="Run folder.")]


def print_json(value: Any) -> None:
    """Print a record as JSON."""
    from optrode.records import plain

    sys.stdout.write(json.dumps(plain(value), indent=1) + "\n")
