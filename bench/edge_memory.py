"""Memory that one contender of the benchmark of edge attribution adds at its peak, in this process, which runs it once.

Called by edges.py as `python bench/edge_memory.py CONTENDER LENGTH SAME [--quick]`; writes one JSON object.
"""

import argparse
import gc
import json
import sys

from edge_cases import CONTENDERS, FULL, QUICK, Case
from edge_runs import RUNS, model_of, task_of
from machine import peak, reset_peak


def main() -> None:
    """Load what code there is by running the contender on a small model, load the model, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("length", type=int)
    parser.add_argument("same", type=int)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    run, shape = RUNS[asked.contender], (QUICK if asked.quick else FULL).shape
    run(model_of(QUICK.shape), task_of(QUICK.cases[0], QUICK.shape))
    model, task = model_of(shape), task_of(Case(asked.length, asked.same), shape)
    gc.collect()
    before = reset_peak()
    run(model, task)
    json.dump({"peak_mib": peak() - before, "before_mib": before}, sys.stdout)


if __name__ == "__main__":
    main()
