"""One interface for all methods: what it notes, counts and leaves to the caller's bench."""

from dataclasses import replace

import numpy as np
import pytest

from optrode.circuit.edge.score import NAMES, score_edges
from optrode.trial.metric import METRICS
from optrode.trial.run import Bench
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import Counted, far, make_task, model_of

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")


def short(method):
    return {"n_steps": 2} if "ig" in method else {}


@pytest.mark.parametrize("method", NAMES)
def test_scores_say_what_they_are(method):
    model, task = model_of("attention only"), make_task((4, 5, 4))
    with Counted(model.module) as count:
        found = score_edges(model, task, method=method, n_checks=2, ablation="mean", **short(method))
    assert (found.task, found.metric, found.unit) == ("toy", "logit_gap", "logits")
    assert (found.method, found.ablation) == (method, "mean")
    assert found.per_prompt.shape == (3, 61) and found.per_prompt.dtype == np.float64 and found.per_pos is None
    assert found.settings == ({"n_steps": "2"} if "ig" in method else {})
    assert found.provenance.model == "attention only" and 0 < found.provenance.n_passes <= count.forward
    assert (found.check is None) == (method == "exact")


@pytest.mark.parametrize("metric", ["prob_gap", "logprob"])
@pytest.mark.parametrize("method", ["eap", "exact"])
def test_other_metrics_are_theirs(method, metric):
    model, task = model_of("attention only"), make_task((4, 4), metric=metric)

    def value(run, pairs):
        return METRICS[metric].function(run.logits[:, -1:], pairs)

    net, found = naive.net_of(model.module), score_edges(model, task, method=method, n_checks=0)
    wanted = {
        "exact": lambda: naive.exact(net, task, metric=value),
        "eap": lambda: naive.along_inputs(net, task, [1.0], metric=value),
    }
    assert far(found.per_prompt, wanted[method]()) <= 1e-10 and found.metric == metric


def test_at_the_clean_run_divergence_has_no_gradient():
    model, task = model_of("attention only"), make_task((4, 4), metric="kl")
    bench = Bench(model, task)
    assert bench.base("clean") == pytest.approx([0.0, 0.0], abs=1e-12)
    eap = score_edges(model, task, method="eap", n_checks=0, bench=bench)
    ig = score_edges(model, task, method="eap-ig", points="left", n_checks=0, bench=bench)
    assert np.abs(eap.per_prompt).max() <= 1e-12 < 1e-6 < np.abs(ig.per_prompt).max()


@pytest.mark.parametrize("method", ["eap", "eap-ig", "mask-ig"])
def test_divergence_needs_no_run_before(method):
    model, task = model_of("attention only"), make_task((4, 4), metric="kl")
    warm = Bench(model, task)
    warm.base("clean")
    wanted = score_edges(model, task, method=method, n_checks=0, bench=warm).per_prompt
    np.testing.assert_array_equal(score_edges(model, task, method=method, n_checks=0).per_prompt, wanted)


def test_a_bench_is_used_and_not_only_its_task():
    model, task = model_of("attention only"), make_task((4, 4))
    bench = Bench(model, task, "prob_gap")
    found = score_edges(model, task, method="eap", n_checks=0, bench=bench)
    wanted = score_edges(model, replace(task, metric="prob_gap"), method="eap", n_checks=0)
    np.testing.assert_array_equal(found.per_prompt, wanted.per_prompt)


def test_scores_of_the_same_call_are_the_same():
    model, task = model_of("layer norm"), make_task((4, 5))
    first, again = (score_edges(model, task, method="eap-ig", n_checks=0).per_prompt for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_progress_is_told():
    told = []
    score_edges(model_of("attention only"), make_task((4, 5)), method="eap", n_checks=2, progress=lambda *s: told.append(s))
    assert ("edge scores", 0, 2) in told and ("edge scores", 2, 2) in told and "spot checks" in {stage for stage, *_ in told}
