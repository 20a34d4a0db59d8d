"""A gate that patches the logits from another world takes all of them, whatever the metric reads."""

import pytest

import optrode as op
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.naive import run_naively
from optrode.trial.run import Bench
from optrode.trial.trial import Trial
from tests.unit.trial.test_run import make_task


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_patched_logits_are_the_other_worlds(family):
    model, task = from_source(tiny(family).double()), make_task()
    trial = Trial((op.patch("logits", "corrupt"),), "clean", "logit_gap")
    bench = Bench(model, task)
    assert bench.run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-12)
    assert bench.run(trial) == pytest.approx(bench.base("corrupt"), abs=1e-12)
