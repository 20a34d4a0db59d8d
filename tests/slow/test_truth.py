"""Ground truth is what the files say it is: programs compiled anew, induction models trained anew."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def python_with_tracr():
    own = ROOT / ".bench/tracr/bin/python"
    if importlib.util.find_spec("tracr"):
        return sys.executable
    if own.is_file():
        return str(own)
    pytest.skip("tracr is not installed: `make .bench/tracr/done` installs it in an environment of its own")


def test_programs_compile_to_the_weights_and_streams_that_ship():
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    command = [python_with_tracr(), str(ROOT / "scripts/compile_programs.py"), "--check"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of tracr's") == 6
