"""The benchmark of edge attribution: its prompts, ratios and targets, and that its checks see wrong scores."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module", autouse=True)
def _bench_is_importable():
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def part(name):
    return import_module(f"edge_{name}")


SECONDS = {"training": (2.0, 3.0, 8.0), "lean": (1.0, 1.0, 2.0), "eap": (4.0, 3.0, 8.0), "eap-ig": (20.0, 39.0, 80.0)}
PEAKS = {"training": 100.0, "lean": 40.0, "eap": 90.0, "eap-ig": 201.0}
PASSES = {"training": (1, 1), "lean": (1, 1), "eap": (2, 1), "eap-ig": (6, 5)}


def run_of(name, same, number, seconds):
    forward, backward = PASSES[name]
    found = {"round": number, "contender": name, "length": 6, "same": same, "seconds": seconds}
    checked = {"disagreement": 1e-7} if number == 1 and same is not None else {}
    return found | {"forward": forward, "backward": backward} | checked


@pytest.fixture
def results():
    """Three rounds of one length, written down in an order other than that of the rounds; "second half" takes half."""
    runs = []
    for name, seconds in SECONDS.items():
        for same in (None,) if name in ("training", "lean") else (0, 3):
            scale = 0.5 if same else 1.0
            runs += [run_of(name, same, number, scale * seconds[number - 1]) for number in (3, 1, 2)]
    memory = [{"contender": name, "length": 6, "same": 0, "peak_mib": peak} for name, peak in PEAKS.items()]
    machine = {"processor": "P", "vectors": ["avx2"], "cores": 2, "memory_gib": 8.0, "system": "Linux"}
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 32, "vocabulary": 97}
    return {
        "date": "2026-01-02T03:04:05", "quick": False, "load": 0.1, "machine": machine, "threads": 2, "random_seed": 0,
        "shape": shape, "n_edges": 46, "versions": {"torch": "2"}, "cases": [[6, 0], [6, 3]], "rounds": {"6": 3},
        "memory": memory, "runs": runs,
    }  # fmt: skip


def test_prompts_differ_exactly_where_the_case_says_and_cases_of_a_length_share_clean_prompts():
    cases = part("cases")
    whole, half = (cases.prompts(case, 97) for case in cases.QUICK.cases[2:])
    assert [pair[0] for pair in whole] == [pair[0] for pair in half] and len(whole) == cases.N_PROMPTS
    for pairs, same in ((whole, 0), (half, 5)):
        for clean, corrupt in pairs:
            assert [a == b for a, b in zip(clean, corrupt, strict=True)] == [pos < same for pos in range(10)]
    assert all(0 <= token < 97 for pair in whole for world in pair for token in world)


def test_every_contender_comes_once_a_round_and_none_always_first():
    cases = part("cases")
    turns = [("training", None), ("lean", None), ("eap", 0), ("eap-ig", 0), ("eap", 7), ("eap-ig", 7)]
    rounds = [cases.order(turns, number) for number in range(3)]
    assert all(set(each) == set(turns) and len(each) == len(turns) for each in rounds)
    assert len({each[0] for each in rounds}) == len({each[-1] for each in rounds}) == 3


def test_ratios_are_taken_within_rounds(results):
    summary, case = part("summary"), part("cases").Case(6)
    assert summary.time_ratio(results, case, "eap", "training") == summary.Spread(1.0, 1.0, 2.0)
    assert summary.time_ratio(results, case, "eap", "lean") == summary.Spread(4.0, 3.0, 4.0)
    assert summary.time_ratio(results, replace(case, same=3), "eap", "lean") == summary.Spread(2.0, 1.5, 2.0)


def test_targets_are_judged_on_the_median_of_the_case_in_which_all_positions_differ(results):
    eap, ig, eap_memory, ig_memory = part("summary").targets(results)
    assert [eap.is_met(plain) for plain in ("training", "lean")] == [True, False]  # 1 and 4 of 3 times
    assert [ig.is_met(plain) for plain in ("training", "lean")] == [True, False]  # 10 and 39 of 12 times
    assert ig.found["training"].middle == 10 and ig.found["lean"].middle == 39
    assert [eap_memory.found[plain].middle for plain in ("training", "lean")] == [0.9, 2.25]
    assert [ig_memory.is_met(plain) for plain in ("training", "lean")] == [False, False]


def test_memory_of_a_case_that_was_not_measured_is_left_out(results):
    summary, half = part("summary"), part("cases").Case(6, 3)
    assert summary.memory(results, half, "eap") is None and summary.memory_ratio(results, half, "eap", "lean") is None
    results["memory"] = []
    assert not any(judged.found for judged in summary.targets(results) if "memory" in judged.words)
    assert "not measured" in part("page").target_table(results)


def test_one_pass_too_many_or_scores_off_their_definition_are_faults(results):
    summary = part("summary")
    assert summary.faults(results) == []
    runs = results["runs"]
    next(run for run in runs if run["contender"] == "eap" and run["same"] == 3)["forward"] = 3
    next(run for run in runs if run["contender"] == "eap-ig" and "disagreement" in run)["disagreement"] = float("nan")
    found = summary.faults(results)
    assert len(found) == 2 and "passes are (3, 1), not (2, 1)" in found[0] + found[1] and "nan" in found[0] + found[1]
    assert all(f"**{fault}**" in part("page").page(results) for fault in found)


def test_the_page_tells_every_ratio_with_its_yardstick_and_what_was_not_part_of_the_run(results):
    text = part("page").page(results)
    assert "| EAP, 6 tokens: time within 3 times | 1.00 (1.00 to 2.00): met | 4.00 (3.00 to 4.00): **not met** |" in text
    assert "| EAP, 6 tokens: memory within 2 times | 0.90: met | 2.25: **not met** |" in text
    assert "| EAP | second half | 2 s (1.5 to 4) |" in text and "2 forward, 1 backward" in text
    assert "not part of this run" in text and "| 128 tokens | EAP | 187 s | 9.7 GB |" in text
    assert "trial run" not in text and "trial run" in part("page").page(results | {"quick": True})


@pytest.fixture(scope="module")
def measured():
    cases, runs = part("cases"), part("runs")
    shape = cases.QUICK.shape
    model = runs.model_of(shape)
    return model, [runs.task_of(case, shape) for case in cases.QUICK.cases[:2]]


@pytest.mark.parametrize("name", ["training", "lean", "eap", "eap-ig"])
def test_each_contender_makes_the_passes_it_should_and_leaves_parameters_as_they_were(measured, name):
    model, tasks = measured
    with part("runs").counting(model.module) as passes:
        part("runs").RUNS[name](model, tasks[0])
    assert (passes.forward, passes.backward) == PASSES[name]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.module.parameters())


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["eap", "eap-ig"])
def test_scores_agree_with_their_definition_and_one_wrong_edge_shows(measured, name, which):
    model, tasks = measured
    runs = part("runs")
    scores = runs.RUNS[name](model, tasks[which])
    assert runs.disagreement(model, tasks[which], name, scores) < 1e-6
    for edge in ("embed -> a0.h1.k", "a0.h0 -> a1.h1.q", "m0 -> m1", "a1.h0 -> logits"):
        wrong = np.array(scores.per_prompt)
        wrong[3, scores.graph.edge(edge)] += 0.01 * np.abs(wrong).max()
        assert runs.disagreement(model, tasks[which], name, replace(scores, per_prompt=wrong)) > 1e-3
    other = "eap" if name == "eap-ig" else "eap-ig"
    assert runs.disagreement(model, tasks[which], other, scores) > 1e-3
