"""What a user is told about edges, methods and circuits that cannot be had; the model is as before."""

from dataclasses import replace
from itertools import product

import pytest
import torch

import optrode as op
from optrode.circuit.edge.score import score_edges
from optrode.circuit.edge.wiring import wiring_of
from optrode.circuit.verbs import find, prove
from optrode.errors import BadName, BadOption, NoPairs, SiteUnavailable
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.truth.planted import or_gate
from tests.messages.conftest import refused
from tests.unit.circuit.edge.cases import make_task, model_of

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")


@pytest.fixture
def small():
    return model_of("attention only")


def test_unknown_methods(small):
    task = make_task((4, 4))
    with refused(BadOption, "method 'eap-igs' for edges: no such method", "Nearest: eap-ig", by=small):
        find(small, task, level="edge", method="eap-igs")
    with refused(BadOption, "method 'xyzzy' for edges", "Nearest: exact, eap", by=small):
        score_edges(small, task, method="xyzzy")
    with refused(BadOption, "method 'eep' for edges", "Nearest: eap", by=small):
        score_edges(small, task, method="eep")


def test_unknown_levels_and_methods_of_the_other_level(small):
    task = make_task((4, 4))
    with refused(BadOption, "level 'edges': no such level", "Nearest: edge", by=small):
        find(small, task, level="edges")
    with refused(BadOption, "method 'acdc' at level 'node'", 'level="edge"', by=small):
        find(small, task, level="node", method="acdc")


@pytest.mark.parametrize("method", ["eap-ig", "exact", "acdc", "pruning"])
def test_unknown_ablations(small, method):
    with refused(BadOption, "ablation 'resmaple': no such ablation", "Nearest: resample", by=small):
        find(small, make_task((4, 4)), level="edge", method=method, ablation="resmaple")


def test_unknown_selections(small):
    with refused(BadOption, "selection 'singed': no such selection", "Nearest: signed", by=small):
        find(small, make_task((4, 4)), level="edge", selection="singed")
    with refused(BadOption, "selection 'x'", "Nearest: absolute, signed, greedy", by=small):
        find(small, make_task((4, 4)), level="edge", selection="x")


@pytest.mark.parametrize("size", [0, -3])
def test_sizes_that_are_too_small(small, size):
    with refused(BadOption, f"size={size}", "a size is at least 1", by=small):
        find(small, make_task((4, 4)), level="edge", size=size)


@pytest.mark.parametrize("method", ["eap", "pruning"])
def test_sizes_that_are_too_large(small, method):
    with refused(BadOption, "size=62: attention only has 61 edges", "Nearest: size=61", by=small):
        find(small, make_task((4, 4)), level="edge", method=method, size=62)


@pytest.mark.parametrize("target", [0.0, 1.5, -0.1, float("nan")])
def test_targets_out_of_range(small, target):
    with refused(BadOption, f"target={target}", "a target between 0 and 1", by=small):
        find(small, make_task((4, 4)), level="edge", target=target)


@pytest.mark.parametrize("tau", [-0.5, float("nan"), float("inf")])
def test_thresholds_that_are_none(small, tau):
    with refused(BadOption, f"tau={tau}", "a finite number, 0 or more", by=small):
        find(small, make_task((4, 4)), level="edge", method="acdc", tau=tau)


@pytest.mark.parametrize("candidates", [-2, 0])
def test_numbers_of_candidates_that_are_too_small(small, candidates):
    with refused(BadOption, str(candidates), by=small):
        find(small, make_task((4, 4)), level="edge", method="acdc", candidates=candidates)


def test_unknown_points(small):
    with refused(BadOption, "points='lefty': no such rule", "Nearest: left", by=small):
        score_edges(small, make_task((4, 4)), points="lefty")


@pytest.mark.parametrize(("method", "n_steps"), list(product(("eap-ig", "mask-ig", "eap-ig-activations"), (0, -1))))
def test_paths_without_a_point(small, method, n_steps):
    with refused(BadOption, f"n_steps={n_steps}", by=small):
        score_edges(small, make_task((4, 4)), method=method, n_steps=n_steps)


def test_negative_numbers_of_checks(small):
    with refused(BadOption, "n_checks=-1", by=small):
        score_edges(small, make_task((4, 4)), method="eap", n_checks=-1)


def test_positions_over_prompts_of_different_lengths(small):
    with refused(BadOption, "by position", "the prompts differ in length", "leave by_pos out", by=small):
        score_edges(small, make_task((4, 5)), method="eap", by_pos=True)
    with refused(BadOption, "by position", "exact effects have no shares", by=small):
        score_edges(small, make_task((4, 4)), method="exact", by_pos=True)


def test_edges_that_are_none(small):
    graph = wiring_of(small).graph
    with refused(BadName, "sender 'a0.h4'", "Nearest: a0.h"):
        graph.edge("a0.h4 -> logits")
    with refused(BadName, "receiver 'a1.h0.w'", "Nearest: a1.h0."):
        graph.edge("a0.h0 -> a1.h0.w")
    with refused(BadName, "edge 'a1.h0 -> a0.h0.q'", "swap its ends"):
        graph.edge("a1.h0 -> a0.h0.q")
    with refused(BadName, "edge 'a1.h0'", "write it like a3.h2 -> a5.h1.k"):
        graph.edge("a1.h0")


def test_modules_without_a_table(small):
    model = from_source(torch.nn.Sequential(torch.nn.Linear(3, 3)), family=None)
    for method in ("eap", "exact", "acdc"):
        with refused(SiteUnavailable, "edges of Sequential", "the generic route has no site", "`optrode models`", by=model):
            find(model, make_task((4, 4)), level="edge", method=method)


@pytest.mark.parametrize("family", ["phi3", "olmo2"])
def test_keys_by_query_head_of_attention_that_takes_groups(family):
    model = from_source(tiny(family).double())
    with refused(BadOption, "per_query_head", "K/V group only", "leave per_query_head out", by=model):
        find(model, make_task((4, 4)), level="edge", method="eap", per_query_head=True)


def test_circuits_of_another_model(small):
    other, task = model_of("layer norm"), make_task((4, 4))
    circuit = find(small, task, level="edge", method="eap", size=5, n_checks=0)
    with refused(BadOption, "its graph has 61 edges, this model's 75", "attention only", by=other):
        prove(other, task, circuit)


def same_worlds(task):
    return replace(task, pairs=tuple(replace(pair, corrupt=pair.clean) for pair in task.pairs))


def test_proofs_where_nothing_can_be_told_apart(small):
    task = make_task((4, 4))
    circuit = find(small, task, level="edge", method="eap", size=5, n_checks=0)
    with refused(BadOption, "ablating every edge leaves the metric as it is", "choose another ablation", by=small):
        prove(small, same_worlds(task), circuit)


def test_two_worlds_that_are_the_same_are_said_to_be(small):
    scores = score_edges(small, same_worlds(make_task((4, 4))), method="eap", n_checks=2)
    assert not scores.per_prompt.any()
    assert "the two worlds may give the same output" in " ".join(scores.notes)


def test_finding_where_nothing_can_be_told_apart(small):
    with refused(BadOption, "ablating every edge leaves the metric as it is", by=small):
        find(small, same_worlds(make_task((4, 4))), level="edge", method="eap", n_checks=0)


def test_tasks_without_a_pair(small):
    with refused(NoPairs, "it holds no pair", by=small):
        find(small, replace(make_task((4, 4)), pairs=()), level="edge")


def test_options_that_there_are_not(small):
    with refused(BadOption, "n_step", "Nearest: n_steps", by=small):
        find(small, make_task((4, 4)), level="edge", method="eap-ig", n_step=3)
    with refused(BadOption, "tau=0.1 of method 'eap'", "only ACDC has it", by=small):
        find(small, make_task((4, 4)), level="edge", method="eap", tau=0.1)


def test_methods_that_need_more_layers():
    planted = or_gate(4)
    with refused(BadOption, "or_gate has one layer", "use method 'eap'", by=planted.model):
        op.find(planted.model, planted.task, level="edge", method="atp-drop")
