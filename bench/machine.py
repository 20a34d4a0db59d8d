"""What the machine is and can do: processor, memory of this process, rate of matrix products."""

import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ONEDNN: Final = "by oneDNN"
STATUS: Final = Path("/proc/self/status")
SHAPES: Final = {"[2048, 576] x [576, 1536]": (2048, 576, 1536), "[2048, 2048] x [2048, 2048]": (2048, 2048, 2048)}
"""Of matrix products: one like those of the model's linear layers, and one large square one."""


def describe() -> dict[str, Any]:
    """Processor kind, cores and memory."""
    info = dict(_fields(line) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    vectors = [flag for flag in ("avx2", "avx512f", "amx_tile") if flag in info.get("flags", "").split()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": info.get("model name", platform.processor()), "family": info.get("cpu family", ""),
        "vectors": vectors, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "system": platform.system(),
    }  # fmt: skip


def reset_peak() -> float:
    """Give back what is free, and forget the peak of resident memory so far; resident memory now, in MiB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else a job would seem to need nothing where an earlier one left memory behind
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Peak of resident memory since `reset_peak`, in MiB."""
    return _status("VmHWM")


def matmul_rates(repeats: int = 7, seconds: float = 0.3) -> dict[str, float]:
    """Floating-point operations per second of float32 matrix products, the best of several."""
    import torch

    def by_onednn(a: Any, b: Any, out: Any) -> None:
        torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")

    ways = {"": lambda a, b, out: torch.mm(a, b, out=out)}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        ways[f" {ONEDNN}"] = by_onednn
    return {
        name + suffix: max(_rate(multiply, shape, seconds) for _ in range(repeats))
        for suffix, multiply in ways.items() for name, shape in SHAPES.items()
    }  # fmt: skip


def _rate(multiply: Callable[[Any, Any, Any], Any], shape: tuple[int, int, int], seconds: float) -> float:
    import torch

    n, inner, width = shape
    a, b, out = torch.randn(n, inner), torch.randn(width, inner).T, torch.empty(n, width)
    n_done, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        multiply(a, b, out)
        n_done += 1
    return 2.0 * n * inner * width * n_done / passed


def _status(field: str) -> float:
    found = dict(_fields(line) for line in STATUS.read_text().splitlines())
    return int(found[field].split()[0]) / 1024


def _fields(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()
