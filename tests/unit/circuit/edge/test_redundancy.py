"""Edges ablated together against one by one, by written-out runs."""

import numpy as np
import pytest

from optrode.circuit.edge.redundancy import N_INTO, redundancies
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.wiring import wiring_of
from optrode.trial.run import Bench
from optrode.truth.planted import linear, or_gate
from tests.unit.circuit.edge import naive
from tests.unit.circuit.edge.cases import make_task, model_of

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")


def looked_at(model, task, n=6, values=None):
    runs = EdgeRuns(Bench(model, task), wiring_of(model))
    values = score_edges(model, task, method="eap", n_checks=0).values if values is None else values
    return redundancies(runs, values, n), runs


@pytest.mark.parametrize("leak", [0.0, 0.01])
def test_the_gate_is_redundant_though_each_single_edge_is_small(leak):
    planted = or_gate(6, leak=leak)
    exact = score_edges(planted.model, planted.task, method="exact")
    graph = exact.graph
    for group in planted.redundant:
        assert all(abs(exact.values[graph.edge(name)]) <= leak + 1e-12 for name in group)
    found, _ = looked_at(planted.model, planted.task, values=exact.values)
    gate = next(one for one in found if one.receiver == "m0")
    assert gate.is_redundant and gate.ratio >= 1.5 and gate.joint == pytest.approx(1 + leak)
    assert gate.summed == pytest.approx(2 * leak, abs=1e-9)
    ends = next(one for one in found if one.receiver == "logits")
    assert not ends.is_redundant and ends.ratio == pytest.approx(1.0)


def test_losses_are_those_of_written_out_runs():
    model, task = model_of("attention only"), make_task((4, 4))
    net = naive.net_of(model.module)
    every = np.ones(len(net.edges), dtype=bool)
    full = naive.circuits(net, task, [every])[0].mean()
    single = naive.exact(net, task).mean(0)
    found, runs = looked_at(model, task, n=100)
    assert len(found) == sum(len(seen) > 1 for _, seen in net.sights)
    for one in found:
        own = np.array([receiver == one.receiver for _, receiver in net.edges])
        assert own.sum() <= N_INTO
        assert one.joint == pytest.approx(full - naive.circuits(net, task, [~own])[0].mean(), abs=1e-11)
        assert one.summed == pytest.approx(np.abs(single[own]).sum(), abs=1e-11)
        assert one.ratio == pytest.approx(abs(one.joint) / one.summed)
    assert [abs(one.joint) for one in found] == sorted((abs(one.joint) for one in found), reverse=True)


def test_only_as_many_are_told_as_were_asked_for():
    model, task = model_of("attention only"), make_task((4, 4))
    assert [len(looked_at(model, task, n)[0]) for n in (0, 2)] == [0, 2]


def test_in_the_linear_model_nothing_is_redundant():
    planted = linear(4)
    found, _ = looked_at(planted.model, planted.task, 8)
    assert not any(one.is_redundant for one in found)
    assert all(one.ratio <= 1 + 1e-9 for one in found if abs(one.joint) > 1e-9)  # the rest is rounding: q and k are zero
