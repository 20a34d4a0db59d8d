"""Compiled programs do what they are written to do, and their true edges are those with an exact effect."""

from collections import Counter
from random import Random

import pytest
import torch

import optrode as op
from optrode.circuit.edge.graph import End
from optrode.errors import BadOption, BadPairs, NoPairs
from optrode.trial.prompts import Task
from optrode.trial.run import Bench
from optrode.trial.trial import Trial
from optrode.truth.draw import drawn
from optrode.truth.programs import LEAK, PROGRAMS, load
from optrode.truth.projection import projection
from tests.unit.truth.naive import exact_effects, graph_of, run_with, writes_of

N_EDGES = {"reverse": 77, "xproportion": 23, "hist": 8, "pair_balance": 46, "count_less_freq": 23, "induction": 23}
N_TRUE = {"reverse": 2, "xproportion": 3, "hist": 4, "pair_balance": 6, "count_less_freq": 6, "induction": 5}


@pytest.fixture(params=PROGRAMS, name="program", scope="module")
def _program(request):
    return load(request.param)


def followers(tokens):
    """[pos] the token that followed this one before, None where none or several did."""
    found = []
    for at, token in enumerate(tokens):
        after = [tokens[p] for p in range(1, at + 1) if tokens[p - 1] == token]
        found.append(after[0] if len(after) == 1 else None)
    return found


SPECIFIED = {
    "reverse": lambda t: t[::-1],
    "xproportion": lambda t: [t[: p + 1].count("x") / (p + 1) for p in range(len(t))],
    "hist": lambda t: [str(t.count(token)) for token in t],
    "pair_balance": lambda t: [(t[: p + 1].count("(") - t[: p + 1].count(")")) / (p + 1) for p in range(len(t))],
    "count_less_freq": lambda t: [str(sum(t.count(token) <= 2 for token in t))] * len(t),
    "induction": followers,
}


def test_it_does_what_it_is_written_to_do(program):
    rng = Random(1)
    n_checked = 0
    for ix in range(30):
        tokens = rng.choices(program.letters, k=1 + ix % program.max_tokens)
        for found, wanted in zip(program(tokens), SPECIFIED[program.name](tokens), strict=True):
            if wanted is not None:
                assert found == (wanted if isinstance(wanted, str) else pytest.approx(wanted, abs=1e-6))
                n_checked += 1
    assert n_checked >= 30


def test_its_graph_has_the_size_that_is_known(program):
    assert graph_of(program.model).n_edges == N_EDGES[program.name]


def test_true_edges_are_names_of_its_graph(program):
    graph = graph_of(program.model)
    for ablation in ("resample", "zero"):
        edges = program.edges(ablation)
        assert edges is None or int(graph.edges(edges).sum()) == len(edges) == len(set(edges))


def test_edges_with_an_exact_effect_are_the_true_ones(program):
    task = program.task(24)
    effects = exact_effects(program.model, task, program.metric(task))
    found = {edge for edge, effect in effects.items() if abs(effect) > 1e-9}
    assert found == {edge for edge, effect in effects.items() if abs(effect) > 1e-3}
    assert len(found) == N_TRUE[program.name]
    if program.edges() is not None:
        assert found == set(program.edges())


@pytest.mark.parametrize(("name", "n_true"), [("reverse", 10), ("xproportion", 5), ("induction", 8)])
def test_zeroing_shows_what_sets_the_task_up_too(name, n_true):
    program = load(name)
    task = program.task(24)
    effects = exact_effects(program.model, task, program.metric(task), "zero")
    assert {edge for edge, effect in effects.items() if abs(effect) > LEAK} == set(program.edges("zero"))
    assert sum(abs(effect) > 1e-9 for effect in effects.values()) == n_true + (name == "reverse")
    assert len(program.edges("zero")) == n_true


def test_its_metric_is_one_apart_in_the_two_worlds(program):
    bench = program.bench(24)
    clean, corrupt = bench.base("clean"), bench.base("corrupt")
    assert len(clean) == 24 and [c - k for c, k in zip(clean, corrupt, strict=True)] == pytest.approx([1.0] * 24, abs=1e-12)
    assert bench.accuracy("clean") == 1.0


@pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")
def test_trials_on_it_equal_full_runs():
    program = load("induction")
    bench, full = program.bench(6), program.bench(6, shares=False)
    for site in ("blocks.0.attn.z", "blocks.1.attn.k", "blocks.1.attn_in", "blocks.1.mlp_out"):
        trial = Trial((op.resample(site),), "clean", "projection")
        assert bench.run(trial) == pytest.approx(full.run(trial), abs=1e-10)
    everything = Trial((op.resample("embed"), op.resample("pos_embed")), "clean", "projection")
    assert bench.run(everything) == pytest.approx(bench.base("corrupt"), abs=1e-10)


def test_attention_of_the_induction_task_is_saturated():
    program = load("induction")
    task = program.task(24)
    metric, edge = program.metric(task), "a0.h0 -> a1.h0.k"
    assert all(Counter(pair.clean[1:]).most_common(1)[0][1] == 2 for pair in task.pairs)
    clean, corrupt = (torch.tensor([pair.world(world) for pair in task.pairs]) for world in ("clean", "corrupt"))
    with torch.no_grad():
        (before, _), (after, _) = writes_of(program.model.module, clean), writes_of(program.model.module, corrupt)
    nudge = torch.zeros_like(before["a0.h0"], requires_grad=True)
    logits = run_with(program.model.module, clean, End("k", 1, 0), nudge)
    metric.function(logits[:, list(metric.positions(task.pairs[0]))], task.pairs).sum().backward()
    first_order = (nudge.grad * (after["a0.h0"] - before["a0.h0"])).sum((1, 2)).mean()
    exact = exact_effects(program.model, task, metric)[edge]
    assert exact < -0.3 and abs(float(first_order)) < 1e-4 * abs(exact)


def test_tasks_are_drawn_again_alike_and_count_what_they_leave_out():
    program = load("reverse")
    one, two, other = program.task(24), program.task(24), program.task(24, random_seed=1)
    assert one == two and one.pairs != other.pairs
    assert len({(pair.clean, pair.corrupt) for pair in one.pairs}) == 24 and one.length == 4
    everything = program.task(1000)
    assert len(everything) == 27 * 26  # 27 prompts of three of three letters, each against the others
    reasons = Counter({dropped.reason: dropped.n for dropped in everything.dropped})
    assert reasons["the output is the same in both worlds"] == 27 and reasons["the same pair was drawn before"] > 0


def test_single_precision_is_on_offer():
    program = load("hist", torch.float32)
    assert program.model.dtype == torch.float32 and program("aab") == ["2", "2", "1"]


def test_prompts_are_encoded_with_the_token_that_starts_them():
    program = load("induction")
    assert program.encode("ad") == tuple(map(program.vocabulary.index, ("BOS", "a", "d")))
    with pytest.raises(BadOption, match="token 'e' of program induction: it reads the tokens a, b, c, d"):
        program("ae")
    with pytest.raises(BadOption, match="9 tokens for program induction: it takes at most 8"):
        program("aaaabbbba")


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(BadOption, match=r"program 'revers': there is none. Nearest: reverse"):
        load("revers")
    with pytest.raises(BadOption, match="by ablation 'mean': not known"):
        load("reverse").edges("mean")
    with pytest.raises(BadOption, match="n=0: a task has at least one pair"):
        load("reverse").task(0)


def test_pairs_without_a_direction_are_refused():
    program = load("hist")
    pair = program.task(1).pairs[0]
    same = Task("same", "", "projection", (pair.__class__(pair.clean, pair.clean, pair.right, (), targets=pair.targets),))
    with pytest.raises(BadPairs, match="the output is the same in both worlds"):
        projection(program.model, same)
    with pytest.raises(NoPairs, match="the same in both worlds for all 1 pairs"):
        drawn(program.model, same, same.pairs, 5)


def test_pairs_of_another_task_are_refused():
    program = load("reverse")
    bench = Bench(program.model, program.task(2, random_seed=1), program.metric(program.task(2)))
    with pytest.raises(BadPairs, match="it was made for other pairs. Next: make the metric from this task"):
        bench.base("clean")
