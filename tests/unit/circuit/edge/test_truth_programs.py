"""Methods against models whose circuits are known: compiled programs, a planted OR gate. All in float64.

Which edges matter is known by construction. Areas are floored, since the raw area takes rounding noise for a find. The whole
grid of programs, methods and steps is in `tests/slow/test_edges.py`.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import optrode as op
from optrode.circuit.edge.auroc import FLOOR, auroc
from optrode.circuit.edge.exact import exact_effects
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.select import select
from optrode.circuit.edge.wiring import wiring_of
from optrode.truth import or_gate
from optrode.truth.programs import LEAK, PROGRAMS, load

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

N_EDGES = {"reverse": 77, "xproportion": 23, "hist": 8, "pair_balance": 46, "count_less_freq": 23, "induction": 23}
N_TRUE = {"reverse": 2, "xproportion": 3, "hist": 4, "pair_balance": 6, "count_less_freq": 6, "induction": 5}
N_ZERO = {"reverse": 10, "xproportion": 5, "induction": 8}
CASES = [*((name, "resample") for name in PROGRAMS), *((name, "zero") for name in N_ZERO)]
GRADIENTS = [("eap", None), ("eap-ig", 5), ("mask-ig", 20)]
SATURATED = "a0.h0 -> a1.h0.k"


@cache
def program_of(name):
    program = load(name)
    return program, program.bench(24)


@cache
def scores_of(name, method, n_steps=None, ablation="resample", n_checks=0):
    program, bench = program_of(name)
    return op.score_edges(
        program.model, bench.task, method=method, n_steps=n_steps, ablation=ablation, n_checks=n_checks, bench=bench
    )  # fmt: skip


def runs_of(name, ablation="resample"):
    program, bench = program_of(name)
    return EdgeRuns(bench, wiring_of(program.model), ablation)


def truth_of(name, ablation="resample"):
    """[edge] the published set; where there is none, the edges whose exact effect is not zero."""
    program, _ = program_of(name)
    exact = scores_of(name, "exact", ablation=ablation)
    edges = program.edges(ablation)
    return np.abs(exact.values) > 1e-9 if edges is None else exact.graph.edges(edges)


def floored(name, method, n_steps=None):
    return auroc(scores_of(name, method, n_steps).values, truth_of(name), floor=FLOOR)


@pytest.mark.parametrize(("name", "ablation"), CASES)
def test_exact_effects_are_those_of_the_true_edges_and_of_no_others(name, ablation):
    exact, truth = scores_of(name, "exact", ablation=ablation), truth_of(name, ablation)
    size = np.abs(exact.values)
    assert exact.graph.n_edges == N_EDGES[name]
    assert truth.sum() == (N_TRUE if ablation == "resample" else N_ZERO)[name]
    assert np.array_equal(size > LEAK, truth) and size[truth].min() > 1e-3
    leaks = {exact.graph.name(int(edge)) for edge in np.flatnonzero((size > 1e-9) & ~truth)}
    assert leaks == ({"embed -> a3.h0.q"} if (name, ablation) == ("reverse", "zero") else set())


@pytest.mark.parametrize(
    ("name", "ablation", "tau"),
    [("reverse", "resample", 1e-2), ("xproportion", "zero", 1e-6), ("induction", "resample", 1e-6),
     ("induction", "zero", 1e-2), ("hist", "resample", 1e-6), ("count_less_freq", "resample", 1e-2)],
)  # fmt: skip
def test_acdc_keeps_the_true_edges_and_no_others(name, ablation, tau):
    program, bench = program_of(name)
    found = op.find(program.model, bench.task, method="acdc", ablation=ablation, tau=tau, bench=bench)
    assert np.array_equal(found.is_in, truth_of(name, ablation))
    assert auroc(found.scores.values, truth_of(name, ablation), floor=LEAK) == 1.0


class TestFlooredArea:
    @pytest.mark.parametrize("name", ["reverse", "xproportion", "pair_balance"])
    @pytest.mark.parametrize(("method", "n_steps"), [*GRADIENTS[:2], ("mask-ig", 5), ("exact", None)])
    def test_is_one_where_programs_are_smooth(self, name, method, n_steps):
        assert floored(name, method, n_steps) == 1.0

    def test_of_gradients_at_the_clean_run_falls_where_attention_is_saturated(self):
        assert floored("induction", "eap") <= 0.75 and floored("induction", "clean-corrupted") <= 0.75
        assert {floored("induction", *method) for method in (("eap-ig", 5), ("mask-ig", 20), ("exact", None))} == {1.0}

    def test_of_few_points_falls_where_an_mlp_is_a_narrow_step(self):
        assert floored("hist", "eap") <= 0.65 and floored("hist", "eap-ig", 5) <= 0.65
        assert floored("hist", "eap-ig", 50) == floored("hist", "exact") == 1.0

    @pytest.mark.parametrize(("method", "n_steps"), GRADIENTS)
    def test_of_every_gradient_is_near_chance_where_steps_follow_each_other(self, method, n_steps):
        assert floored("count_less_freq", method, n_steps) <= 0.60
        assert floored("count_less_freq", "exact") == 1.0

    @pytest.mark.parametrize("name", ["hist", "induction", "count_less_freq"])
    def test_is_needed_since_the_raw_area_is_one_whatever_was_found(self, name):
        assert auroc(scores_of(name, "eap").values, truth_of(name)) == 1.0 > floored(name, "eap")

    def test_of_a_wrong_truth_is_not_one(self):
        assert auroc(scores_of("reverse", "exact").values, truth_of("reverse", "zero")) == pytest.approx(0.60, abs=0.02)
        assert auroc(scores_of("reverse", "eap").values, truth_of("reverse", "zero")) == pytest.approx(0.60, abs=0.02)


class TestSaturatedAttention:
    def value(self, method, n_steps=None, edge=SATURATED):
        scores = scores_of("induction", method, n_steps)
        return float(scores.values[scores.graph.edge(edge)])

    def test_hides_keys_and_queries_from_the_gradient_but_not_from_its_mean_along_the_path(self):
        exact = self.value("exact")
        assert exact < -0.3 and abs(self.value("eap")) < 1e-4 * abs(exact)
        assert 0.3 <= self.value("eap-ig", 20) / exact <= 1.0

    @pytest.mark.parametrize("edge", [SATURATED, "embed -> a1.h0.q"])
    def test_is_undone_by_computing_it_again(self, edge):
        assert self.value("atp-qk", edge=edge) == pytest.approx(self.value("exact", edge=edge), rel=0.05)

    def test_still_hides_what_acts_through_keys_from_the_correction(self):
        edge = "embed -> a0.h0.v"
        assert self.value("exact", edge=edge) < -0.3 and abs(self.value("atp-qk", edge=edge)) < 1e-4
        assert floored("induction", "eap") < floored("induction", "atp-qk") == pytest.approx(0.9)

    def test_is_reported_by_the_spot_checks(self):
        check = scores_of("induction", "eap", n_checks=20).check
        assert not check.agrees and SATURATED in check.missed and len(check.edges) == 23 and sum(check.is_top) == 20
        known = scores_of("induction", "exact")
        assert check.exact == pytest.approx([known.values[known.graph.edge(edge)] for edge in check.edges], abs=1e-12)
        assert scores_of("induction", "eap-ig", 5, n_checks=20).check.agrees

    def test_is_not_reported_where_there_is_none(self):
        check = scores_of("reverse", "eap", n_checks=20).check
        assert check.agrees and check.missed == () and check.correlation > 0.99 and len(check.edges) == 40


class TestSumOfMaskGradients:
    @pytest.mark.parametrize(
        ("name", "n_steps"), [("reverse", 5), ("xproportion", 10), ("pair_balance", 10), ("induction", 20)]
    )  # fmt: skip
    def test_is_the_effect_of_all_edges_where_programs_are_smooth(self, name, n_steps):
        scores, runs = scores_of(name, "mask-ig", n_steps), runs_of(name)
        whole = np.mean(runs.empty) - np.mean(runs.full)
        assert scores.values.sum() == pytest.approx(whole, rel=0.01) and whole == pytest.approx(-1)
        assert scores.notes == ()

    @pytest.mark.parametrize("name", ["hist", "count_less_freq"])
    def test_is_said_not_to_have_converged_where_they_are_not(self, name):
        scores = scores_of(name, "mask-ig", 20)
        assert abs(scores.values.sum() + 1) > 0.8
        assert "mask-ig did not converge" in scores.notes[0] and f"add up to {scores.values.sum():.4g}" in scores.notes[0]
        assert "change the metric by -1 " in scores.notes[0]

    def test_needs_the_mean_over_the_path(self):
        one = scores_of("pair_balance", "mask-ig", 1)
        assert one.values.sum() == pytest.approx(-0.5, abs=1e-6) and "a gap of 50%" in one.notes[0]


class TestProof:
    @staticmethod
    @cache
    def proven(name):
        program, bench = program_of(name)
        circuit = op.find(program.model, bench.task, level="edge", method="exact", size=N_TRUE[name], bench=bench)
        return circuit, op.prove(program.model, bench.task, circuit, n_random=3, n_subsets=3, n_bootstrap=50, bench=bench)

    @pytest.mark.parametrize("name", ["reverse", "hist", "pair_balance"])
    def test_of_the_true_circuit_keeps_everything_and_leaves_nothing(self, name):
        circuit, proof = self.proven(name)
        assert np.array_equal(circuit.is_in, truth_of(name)) and proof.size == N_TRUE[name]
        assert (proof.full - proof.empty, proof.faithfulness, proof.without) == pytest.approx((1, 1, 0), abs=1e-9)
        assert (proof.interval.low, proof.interval.high) == pytest.approx((1, 1)) and max(proof.completeness) < 1e-9
        assert proof.jaccard >= 0.95
        assert min(loss.lost for loss in proof.minimality) > 1e-3 and len(proof.minimality) == proof.size
        assert not any(found.is_redundant for found in proof.redundancy)

    def test_has_the_areas_of_a_circuit_that_is_worthless_below_its_size_and_perfect_from_there_on(self):
        _, proof = self.proven("reverse")  # 2 of 77 edges: a single edge at .02, three at .05
        absolute, signed = proof.curves
        assert [point.size for point in absolute.points] == [1, 1, 1, 1, 1, 3, 7, 15, 38, 77]
        assert [point.faithfulness for point in absolute.points] == pytest.approx([0] * 5 + [1] * 5, abs=1e-9)
        assert (absolute.cpr, absolute.cmd) == pytest.approx((0.965, 0.034)) and (absolute.cpr, signed.selection) == (
            pytest.approx(signed.cpr), "signed",
        )  # fmt: skip

    def test_has_the_areas_of_chance_where_only_the_whole_model_works(self):
        program, bench = program_of("reverse")
        scores = scores_of("reverse", "exact")
        last = -np.abs(scores.per_prompt) + np.abs(scores.per_prompt).max()  # true edges come last
        upside_down = replace(scores, per_prompt=last)
        circuit = op.EdgeCircuit("reverse", select(upside_down, 3), "absolute", 0.0, upside_down, (), scores.provenance)
        proof = op.prove(
            program.model, bench.task, circuit, n_random=0, n_minimality=0, n_subsets=0, n_receivers=0, n_bootstrap=10,
            bench=bench,
        )  # fmt: skip
        assert (proof.curves[0].cpr, proof.curves[0].cmd) == pytest.approx((0.25, 0.749))
        assert (proof.faithfulness, proof.without) == pytest.approx((0, 1), abs=1e-9)

    def test_of_the_whole_model_is_one_and_of_nothing_zero(self):
        runs = runs_of("pair_balance")
        everything = np.ones(N_EDGES["pair_balance"], dtype=bool)
        full, empty = runs.measure([everything, ~everything])
        assert full == pytest.approx(runs.full, abs=1e-6) and np.mean(full) - np.mean(empty) == pytest.approx(1, abs=1e-6)
        assert empty == pytest.approx(runs.bench.base("corrupt"), abs=1e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_circuits_of_resampled_prompts_are_as_stable_as_the_program(name):
    found = op.bootstrap_jaccard(scores_of(name, "exact"), N_TRUE[name], n_bootstrap=100)
    assert found.mean >= 0.95 and found.n_circuits == 100 and found.by_chance < 0.5


class TestOrGate:
    @staticmethod
    @cache
    def proven(leak=0.01):
        planted = or_gate(leak=leak)
        circuit = op.find(planted.model, planted.task, level="edge", method="exact", size=5)
        return planted, circuit, op.prove(planted.model, planted.task, circuit, n_random=2, n_bootstrap=20)

    def test_single_effects_are_small_though_the_joint_one_is_everything(self):
        planted, circuit, proof = self.proven()
        single = [float(circuit.scores.values[circuit.graph.edge(edge)]) for edge in planted.redundant[1]]
        assert single == pytest.approx([-0.01, -0.01], abs=1e-12)
        runs = EdgeRuns(op.Bench(planted.model, planted.task), wiring_of(planted.model))
        kept = runs.measure([~circuit.graph.edges(planted.redundant[1])])[0]
        joint = np.mean(runs.full) - np.mean(kept)
        assert joint == pytest.approx(proof.full - proof.empty) == pytest.approx(1.01)

    def test_the_proof_says_that_they_do_each_others_work(self):
        _, _, proof = self.proven()
        by_receiver = {found.receiver: found for found in proof.redundancy}
        assert by_receiver["m0"].is_redundant and by_receiver["m0"].ratio == pytest.approx(1.01 / 0.02)
        assert not by_receiver["logits"].is_redundant and by_receiver["logits"].ratio == pytest.approx(1)

    def test_the_ratio_is_cut_off_where_single_effects_are_exactly_zero(self):
        planted, circuit, proof = self.proven(leak=0.0)
        assert all(circuit.scores.values[circuit.graph.edge(edge)] == 0 for edge in planted.redundant[1])
        redundant = {found.receiver: found.ratio for found in proof.redundancy if found.is_redundant}
        assert redundant == {"m0": 1000.0}

    def test_no_single_effect_and_no_gradient_finds_the_gate_where_nothing_leaks(self):
        planted, circuit, _ = self.proven(leak=0.0)
        truth = circuit.graph.edges(planted.edges)
        for method in ("exact", "eap", "atp-qk"):
            scores = op.score_edges(planted.model, planted.task, method=method, n_checks=0)
            assert auroc(scores.values, truth) < 0.7
        whole = op.score_edges(planted.model, planted.task, method="mask-ig", n_steps=20, n_checks=0)
        assert auroc(whole.values, truth, floor=FLOOR) == 1.0


def test_an_effect_of_one_edge_is_that_of_its_circuit():
    """The planner's single edges and the masks' circuits are two roads to one number."""
    runs = runs_of("induction")
    edges = [runs.wiring.graph.edge(edge) for edge in load("induction").edges()]
    masks = [np.arange(runs.wiring.graph.n_edges) != edge for edge in edges]
    by_mask = np.array(runs.measure(masks)).T - np.array(runs.full)[:, None]
    assert np.allclose(by_mask, exact_effects(runs, edges), atol=1e-10)
