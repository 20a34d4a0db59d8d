"""Write the prompts of the benchmark once, as token ids, so that every contender reads the same ones.

Run by the driver in Optrode's environment, which also converts the model into the folder that all contenders load.
"""

import json
import sys
from pathlib import Path
from typing import Any

from jobs import N_PAIRS, N_POSITIONS, RANDOM_SEED

import optrode as op
from optrode.model.embedded import smollm2_folder


def main() -> None:
    """Draw indirect-object pairs that differ in one token."""
    model = op.load("smollm2", check=False)
    task = op.tasks.ioi(model, n=N_PAIRS, random_seed=RANDOM_SEED)
    found = [_pair(pair) for pair in task.pairs]
    if len(found) != N_PAIRS or task.length != N_POSITIONS:
        raise SystemExit(f"expected {N_PAIRS} pairs of {N_POSITIONS} tokens, found {len(found)} of {task.length}")
    example = {"clean": "".join(task.pairs[0].clean_tokens), "corrupt": "".join(task.pairs[0].corrupt_tokens)}
    content = {"model": str(smollm2_folder()), "random_seed": RANDOM_SEED, "example": example, "pairs": found}
    Path(sys.argv[1]).write_text(json.dumps(content))


def _pair(pair: op.Pair) -> dict[str, Any]:
    differing = [pos for pos, (one, other) in enumerate(zip(pair.clean, pair.corrupt, strict=True)) if one != other]
    if len(differing) != 1:
        raise SystemExit(f"clean and corrupt prompts differ at {differing} and not in one token")
    return {
        "clean": pair.clean, "corrupt": pair.corrupt, "right": pair.right[0], "wrong": pair.wrong[0],
        "differs_at": differing[0],
    }  # fmt: skip


if __name__ == "__main__":
    main()
