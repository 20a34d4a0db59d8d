"""One contender in a process of its own: loads the model once, then answers requests, one JSON object a line.

A request {"job": "grid", "way": "...", "cells": [[layer, pos], ...], "repeats": 1} is answered with
{"setup_s", "times_s", "cpu_s", "values": [cell][prompt], "peak_mib", "total_mib"}, or with {"error": "..."}.
"""

import json
import os
import platform
import re
import sys
import time
import traceback
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import matmul_rates, peak, reset_peak


def main() -> None:
    """Serve one contender until the input ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not end up among the answers
    contender: Any = None
    try:
        contender = _start(sys.argv[1], Path(sys.argv[2]))
        hello = _hello(contender)
    except Exception as error:
        hello = _failed(error)
    _say(channel, hello)
    for line in sys.stdin:
        _say(channel, _answer(contender, json.loads(line)))


def _start(name: str, pairs: Path) -> Any:
    import torch
    from prompts import Prompts

    contender = import_module(f"contenders.with_{name}").Contender(Prompts(pairs))
    with torch.no_grad():  # weights are mapped from disk: read them before anything is timed
        contender.prepare("record")
        contender.run("record", contender.ways["record"][0], [])
    return contender


def _hello(contender: Any) -> dict[str, Any]:
    import torch

    versions = {name: version(name) for name in ("torch", "transformers", "numpy", *contender.packages)}
    versions["torch"] = torch.__version__
    return {
        "versions": {"python": platform.python_version()} | versions, "threads": torch.get_num_threads(),
        "ways": contender.ways, "by_hand": contender.by_hand,
    }  # fmt: skip


def _answer(contender: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"rates": matmul_rates()} if request["job"] == "matmul" else _measure(contender, request)
    except Exception as error:
        return _failed(error)


def _measure(contender: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Time one job, and its memory."""
    import torch

    job, way, cells = request["job"], request["way"], [tuple(cell) for cell in request["cells"]]
    before = reset_peak()
    times: list[float] = []
    values: list[list[float]] = []
    busy = time.process_time()
    with torch.no_grad():
        setup_s, _ = _timed(contender.prepare, job)
        for _ in range(request.get("repeats", 1)):
            seconds, result = _timed(contender.run, job, way, cells)
            times.append(seconds)
            total = peak()
            values = contender.values(job, result)
            del result
    return {
        "setup_s": setup_s, "times_s": times, "cpu_s": time.process_time() - busy, "values": values,
        "peak_mib": max(0.0, total - before), "total_mib": total,
        "more": contender.more(job),
    }  # fmt: skip


def _timed(function: Any, *args: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - started, result


def _failed(error: Exception) -> dict[str, Any]:
    """The error in one line, without the paths of this machine; the traceback goes to the log."""
    traceback.print_exc()
    first = (str(error).splitlines() or [""])[0]
    return {"error": re.sub(r"(/[\w.+-]+)+/", "", f"{type(error).__name__}: {first}")[:300]}


def _say(channel: Any, answer: dict[str, Any]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
