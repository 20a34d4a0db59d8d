"""torch.compile: gates act on compiled code that looks for hooks and are gone afterwards; otherwise they say so."""

import json
import os
import subprocess
import sys

import pytest


def cases(backend, mode, n_cases):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.unit.gate.compiled", backend, mode, n_cases], capture_output=True,
        text=True, check=False, env=os.environ | {"JAXTYPING_DISABLE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


EVERY = pytest.param("all", marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("backend", "n_cases"),
    [("eager", "few"), pytest.param("eager", "all", marks=pytest.mark.slow),
     pytest.param("aot_eager", "all", marks=pytest.mark.slow)],
)  # fmt: skip
def test_where_compiled_code_looks_for_hooks_gates_act_and_are_gone_afterwards(backend, n_cases):
    found = cases(backend, "looks", n_cases)
    assert found.pop("trained alike", n_cases == "few") is True
    wrong = {name: outcome for name, outcome in found.items() if set(outcome.values()) != {True}}
    assert len(found) >= 3 and not wrong


@pytest.mark.parametrize("n_cases", ["few", EVERY])
def test_by_default_a_gate_acts_or_says_that_it_cannot_and_never_stays(n_cases):
    words = []
    for name, outcome in cases("eager", "default", n_cases).items():
        assert all(value is True for key, value in outcome.items() if key.startswith("gone")), name
        for key in ("acts", "other acts", "acts again"):
            told = outcome.get(key, True)
            assert told is True or "compiled" in told, f"{name}: {key}: {told}"
            words += [told] if told is not True else []
    assert any("the module was compiled, and compiled code would not see the hook" in told for told in words)
    assert any("compiled code that did not see the hook" in told for told in words)
    assert all("torch._dynamo.config.skip_nnmodule_hook_guards = False" in told for told in words)
