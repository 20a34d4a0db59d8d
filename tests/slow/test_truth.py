"""Ground truth is what the files say it is: programs compiled anew, induction models trained anew."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from optrode.truth.induction import TOKEN_ACCURACY, induction_heads, induction_task, token_accuracy, train_induction
from tests.unit.truth.naive import exact_effects

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


@pytest.mark.parametrize("random_seed", range(5))
def test_induction_models_learn_one_circuit_whatever_the_seed(random_seed):
    steps = []
    model = train_induction(random_seed, progress=lambda *step: steps.append(step))
    task = induction_task(model, 32, random_seed=100)
    assert token_accuracy(model, task) >= 0.95 and steps[-1] == ("training", 1000, 1000)
    heads = induction_heads(model, task)
    lost = exact_effects(model, task, TOKEN_ACCURACY)
    assert lost.pop(f"{heads.previous} -> {heads.induction}.k") <= -0.5
    between = {edge: effect for edge, effect in lost.items() if edge.startswith("a0") and edge.endswith((".q", ".k", ".v"))}
    assert len(between) == 47 and min(between.values()) >= -0.05
