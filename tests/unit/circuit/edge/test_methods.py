"""The table of methods: each row is what the methods' own functions give, measured on the same prompts."""

import numpy as np
import pytest

import optrode as op
from optrode.circuit.edge.auroc import FLOOR, auroc
from optrode.circuit.edge.curve import areas, sizes_of
from optrode.circuit.edge.methods import compare_methods
from optrode.circuit.edge.runs import EdgeRuns, share_of
from optrode.circuit.edge.select import select
from optrode.circuit.edge.stability import jaccard
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import BadOption
from optrode.truth.programs import load
from tests.unit.circuit.edge.cases import make_task, model_of

pytestmark = pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")

METHODS = ("eap", "exact", "ifr", "acdc")
SHARES = (0.05, 0.1, 0.25, 1.0)


@pytest.fixture(name="program", scope="module")
def _program():
    program = load("induction")
    return program, program.bench(12)


@pytest.fixture(name="truth", scope="module")
def _truth(program):
    return wiring_of(program[0].model).graph.edges(program[0].edges())


@pytest.fixture(name="table", scope="module")
def _table(program, truth):
    program, bench = program
    steps = []
    found = compare_methods(
        program.model, bench.task, METHODS, shares=SHARES, truth=truth, bench=bench,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert any(stage == "circuits of eap" for stage, _, _ in steps)
    return found


def row_of(table, method):
    return next(row for row in table.rows if row.method == method)


def test_rows_stand_in_the_order_asked_for_with_their_sizes(table):
    assert tuple(row.method for row in table.rows) == METHODS
    assert (table.task, table.metric, table.ablation) == ("induction", "projection", "resample")
    assert (table.size, table.n_all, table.n_prompts) == (5, 23, 12)


def test_areas_under_the_truth_and_correlations_are_those_of_the_scores(program, truth, table):
    program, bench = program
    exact = op.score_edges(program.model, bench.task, method="exact", bench=bench)
    eap = op.score_edges(program.model, bench.task, method="eap", n_checks=0, bench=bench)
    row = row_of(table, "eap")
    assert row.auroc == auroc(eap.values, truth) == 1.0
    assert row.auroc_floored == auroc(eap.values, truth, floor=FLOOR) == pytest.approx(0.7)
    assert row.correlation == pytest.approx(np.corrcoef(eap.values, exact.values)[0, 1])
    assert row_of(table, "exact").correlation is None and row_of(table, "exact").auroc_floored == 1.0
    assert row_of(table, "acdc").auroc_floored == 1.0 and "importances" in row_of(table, "ifr").notes[0]


def test_curves_are_those_of_the_circuits_that_the_scores_choose(program, table):
    program, bench = program
    scores = op.score_edges(program.model, bench.task, method="eap", n_checks=0, bench=bench)
    runs = EdgeRuns(bench, wiring_of(program.model))
    for how, points in (("absolute", row_of(table, "eap").points), ("signed", row_of(table, "eap").points_signed)):
        measured = runs.measure([select(scores, size, how) for size in sizes_of(23, SHARES)])
        wanted = [share_of(values, runs.empty, runs.full) for values in measured]
        assert [share for share, _ in points] == list(SHARES)
        assert [faithfulness for _, faithfulness in points] == pytest.approx(wanted)
    row = row_of(table, "eap")
    assert row.cmd == pytest.approx(areas(SHARES, [f for _, f in row.points]).cmd)
    assert row.cpr == pytest.approx(areas(SHARES, [f for _, f in row.points_signed]).cpr)
    assert row_of(table, "exact").points[2] == (0.25, pytest.approx(1)) and row_of(table, "exact").cmd < row.cmd + 1e-9


def test_overlaps_are_those_of_circuits_as_large_as_the_truth(program, table):
    program, bench = program
    chosen = [
        select(op.score_edges(program.model, bench.task, method=method, n_checks=0, bench=bench), 5)
        for method in ("eap", "exact")
    ]
    at = METHODS.index("eap"), METHODS.index("exact")
    assert table.jaccard[at[0]][at[1]] == table.jaccard[at[1]][at[0]] == pytest.approx(jaccard(*chosen))
    assert all(table.jaccard[ix][ix] == 1 for ix in range(len(METHODS)))


def test_passes_are_counted_for_each_method_by_itself(table):
    assert row_of(table, "eap").n_passes == 2 and row_of(table, "ifr").n_passes == 1
    assert row_of(table, "acdc").n_passes > 2 and all(row.time_s > 0 for row in table.rows)


def test_circuits_can_be_judged_on_other_prompts_without_a_truth():
    model, task, other = model_of("no norm"), make_task((6, 6)), make_task((6, 6, 6), random_seed=1)
    table = compare_methods(model, task, ("eap", "clean-corrupted"), shares=(0.1, 1.0), judged_on=other)
    scores = op.score_edges(model, task, method="eap", n_checks=0)
    runs = EdgeRuns(op.Bench(model, other), wiring_of(model))
    size = sizes_of(table.n_all, (0.1,))[0]
    wanted = share_of(runs.measure([select(scores, size)])[0], runs.empty, runs.full)
    row = table.rows[0]
    assert row.points == ((0.1, pytest.approx(wanted)), (1.0, pytest.approx(1))) and table.n_prompts == 3
    assert row.auroc is row.auroc_floored is row.correlation is None and table.size == sizes_of(table.n_all, (0.01,))[0]


@pytest.mark.parametrize("methods", [(), ("eap", "eap")])
def test_each_method_is_named_once_and_at_least_one_is(methods):
    with pytest.raises(BadOption, match="a comparison takes each method once, and at least one"):
        compare_methods(model_of("no norm"), make_task((6, 6)), methods)


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(BadOption, match="method 'eap-gi' for edges: no such method. Nearest: eap"):
        compare_methods(model_of("no norm"), make_task((6, 6)), ("eap-gi",))
