"""Edge circuits where it takes long: the whole grid of programs and methods, trained induction models, a language model."""

import random
from functools import cache

import numpy as np
import pytest

import optrode as op
from optrode.circuit.edge.auroc import FLOOR, auroc
from optrode.trial.trial import Trial
from optrode.truth.induction import TOKEN_ACCURACY, induction_heads, induction_task, train_induction
from optrode.truth.programs import PROGRAMS
from tests.unit.circuit.edge.test_truth_programs import CASES, floored, program_of, runs_of, scores_of, truth_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")]

STEPS = [("eap", None), ("eap-ig", 5), ("eap-ig", 20), ("eap-ig", 100), ("mask-ig", 20)]
FLOORED = {
    "reverse": (1, 1, 1, 1, 1), "xproportion": (1, 1, 1, 1, 1), "pair_balance": (1, 1, 1, 1, 1),
    "induction": (0.70, 1, 1, 1, 1), "hist": (0.625, 0.625, 0.625, 1, 1), "count_less_freq": (0.583,) * 5,
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_areas_of_programs_are_those_that_are_known(name):
    found = [floored(name, method, n_steps) for method, n_steps in STEPS]
    assert found == pytest.approx(FLOORED[name], abs=1e-3)
    for method, n_steps in STEPS:
        assert auroc(scores_of(name, method, n_steps).values, truth_of(name)) == 1.0


@pytest.mark.parametrize("tau", [1e-6, 1e-2])
@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_acdc_keeps_the_true_edges_and_no_others(name, ablation, tau):
    program, bench = program_of(name)
    found = op.find(program.model, bench.task, method="acdc", ablation=ablation, tau=tau, bench=bench)
    assert np.array_equal(found.is_in, truth_of(name, ablation))


@pytest.mark.parametrize("name", ["xproportion", "pair_balance", "induction"])
def test_mask_gradients_at_many_points_add_up(name):
    scores, runs = scores_of(name, "mask-ig", 200), runs_of(name)
    assert scores.values.sum() == pytest.approx(np.mean(runs.empty) - np.mean(runs.full), rel=0.01) and scores.notes == ()


def test_mask_gradients_of_a_step_do_not_add_up_however_many_points_and_say_so():
    scores = scores_of("hist", "mask-ig", 200)
    assert abs(scores.values.sum() + 1) > 0.7 and "did not converge" in scores.notes[0]


class TestTrainedInduction:
    SEEDS = range(5)

    @staticmethod
    @cache
    def trained(random_seed):
        model = train_induction(random_seed)
        task = induction_task(model, 32, random_seed=100)
        heads = induction_heads(model, task)
        return model, task, heads, f"{heads.previous} -> {heads.induction}.k"

    @staticmethod
    def between_heads(graph):
        names = map(graph.name, range(graph.n_edges))
        return [edge for edge, name in enumerate(names) if name.startswith("a0") and "logits" not in name]

    def test_integrated_gradients_rank_the_edge_into_its_keys_among_the_top_three(self):
        found = []
        for random_seed in self.SEEDS:
            model, task, _, known = self.trained(random_seed)
            scores = op.score_edges(model, task, method="eap-ig", n_checks=0)
            size, edges = np.abs(scores.values), self.between_heads(scores.graph)
            assert len(edges) == 48
            found.append(sum(size[edge] > size[scores.graph.edge(known)] for edge in edges) < 3)
        assert sum(found) >= 4

    @pytest.mark.parametrize("random_seed", SEEDS)
    def test_that_edge_alone_carries_half_the_accuracy_and_a_random_head_nothing(self, random_seed):
        model, task, heads, known = self.trained(random_seed)
        bench = op.Bench(model, task, TOKEN_ACCURACY)
        base = np.mean(bench.base("clean"))
        effects = op.score_edges(model, task, method="exact", bench=bench)
        assert base >= 0.95 and effects.values[effects.graph.edge(known)] <= -0.50
        every = [(layer, head) for layer in (0, 1) for head in range(4)]
        others = [(layer, head) for layer, head in every if f"a{layer}.h{head}" not in (heads.previous, heads.induction)]
        layer, head = random.Random(random_seed).choice(others)
        for ablate in (op.resample, op.zero):
            gate = ablate(f"blocks.{layer}.attn.z[head={head}]")
            assert base - np.mean(bench.run(Trial((gate,), "clean", TOKEN_ACCURACY.name))) <= 0.05

    def test_its_circuit_has_four_edges_and_exact_effects_know_no_others(self):
        model, task, heads, known = self.trained(0)
        bench = op.Bench(model, task)
        exact = op.score_edges(model, task, method="exact", bench=bench)
        whole = abs(np.mean(bench.base("clean")) - np.mean(bench.base("corrupt")))
        wanted = exact.graph.edges(
            [known, f"embed -> {heads.previous}.v", f"embed -> {heads.induction}.v", f"{heads.induction} -> logits"]
        )
        assert np.array_equal(np.abs(exact.values) > 0.5 * whole, wanted)
        assert np.abs(exact.values[~wanted]).max() < 1e-3 * whole and auroc(exact.values, wanted, floor=FLOOR) == 1.0


class TestLanguageModel:
    @staticmethod
    @cache
    def model():
        return op.load("smollm2")

    @pytest.mark.parametrize(
        ("name", "n", "most", "least"),
        [("ioi", 16, 0.05, 0.8), ("greater_than", 16, 0.05, 0.8), ("single_induction", 32, 0.15, 0.7)],
    )
    def test_a_circuit_is_found_and_proven_on_other_prompts(self, name, n, most, least):
        model, make = self.model(), op.tasks.find_task(name)
        task, other = make(model, n=n, random_seed=0), make(model, n=16, random_seed=1)
        circuit = op.find(model, task, level="edge", method="eap-ig", selection="rms", n_checks=0)
        proof = op.prove(model, other, circuit, n_random=3, n_minimality=3, n_subsets=2, n_receivers=2, n_bootstrap=200)
        own = next(curve for curve in proof.curves if curve.selection == "rms")
        assert own.cmd <= most and proof.faithfulness >= least
        assert max(proof.random) < proof.faithfulness and abs(proof.without) < 0.2
