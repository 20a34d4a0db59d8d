"""Wrong kinds of values, as a user's own process gives them: the tests' checker of annotations would catch them first.

Prints JSON: label -> [class of the error, its text].
"""

import json
import sys

import torch

import optrode as op
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.prompts import Pair, Task

MODEL = from_source(tiny("llama"))
TASK = Task("mine", "", "logit_gap", (Pair((5, 9, 2), (5, 8, 2), (7,), (11,)),))
Z = "blocks.1.attn.z"


def hold(gate):
    with op.gates(MODEL, gate):
        MODEL(torch.tensor([[5, 9, 2]]))


CASES = {
    "scope": lambda: op.zero(Z, scope="generate"),
    "over": lambda: op.mean(Z, "clean", over="row"),
    "world": lambda: op.sweep(MODEL, TASK, op.zero("blocks.*.attn.z", each="layer"), world="cleen"),
    "add a list": lambda: op.add(Z, [1.0, 2.0]),
    "project out a list": lambda: op.project_out(Z, [1.0, 2.0]),
    "affine by a list": lambda: op.affine(Z, torch.eye(8), [1.0]),
    "clamp to a text": lambda: op.clamp(Z, "high"),
    "patch from nothing": lambda: op.patch(Z, None),
    "hold a name": lambda: hold(Z),
    "load a number": lambda: op.load(3),
}


def outcome(case):
    try:
        case()
    except Exception as error:  # whatever comes is what the user sees
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


if __name__ == "__main__":
    json.dump({label: outcome(case) for label, case in CASES.items()}, sys.stdout)
