"""Measure every edge method where the true circuit is known, and write docs/methods.md and .json. Run by `make methods`."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from methods_page import METHODS, Row, Study, page

import optrode as op
from optrode.circuit.edge.auroc import FLOOR, auroc
from optrode.circuit.edge.check import correlation
from optrode.circuit.edge.records import EdgeScores
from optrode.circuit.edge.redundancy import redundancies
from optrode.circuit.edge.runs import EdgeRuns
from optrode.circuit.edge.wiring import wiring_of
from optrode.errors import NotPacked
from optrode.provenance import provenance
from optrode.truth.induction import induction_heads, induction_task, train_induction
from optrode.truth.planted import or_gate
from optrode.truth.programs import LEAK, PROGRAMS, load

DOCS = Path(__file__).parent
N_PAIRS = 24
SEEDS = (0, 1, 2)
MATTERS = 0.05
"""In a trained model, whose effects are never exactly zero, an edge is true from this share of the whole effect on."""

SUMS = (5, 20, 200)
"""Points with which the sum of mask gradients is taken on hist."""

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "EAP": ("eap", {}), "EAP-IG, 5 points": ("eap-ig", {"n_steps": 5}), "EAP-IG, 20": ("eap-ig", {"n_steps": 20}),
    "EAP-IG, 100": ("eap-ig", {"n_steps": 100}), "clean-corrupted": ("clean-corrupted", {}),
    "EAP-IG on activations, 5": ("eap-ig-activations", {"n_steps": 5}), "mask-IG, 20": ("mask-ig", {"n_steps": 20}),
    "mask-IG, 200": ("mask-ig", {"n_steps": 200}), "AtP*, QK": ("atp-qk", {}), "AtP*, GradDrop": ("atp-drop", {}),
    "information-flow routes": ("ifr", {}), "pruning": ("pruning", {}), "ACDC": ("acdc", {}), "exact": ("exact", {}),
}  # fmt: skip
"""Label -> method and its options."""


@dataclass(frozen=True, eq=False)
class Case:
    """A model whose true edges are known.

    Attributes:
        column: of the tables, under which it is averaged.
        known: an edge that gradients may miss, by name; "" where none is singled out.
        truth: [edge]; None for the edges whose exact effect is at least `least` of the whole.
        tau: of ACDC, in the metric's unit.
    """

    column: str
    bench: op.Bench
    ablation: str = "resample"
    known: str = ""
    truth: np.ndarray | None = None
    least: float = LEAK
    tau: float = 1e-6


def cases() -> Iterator[Case]:
    """Programs by resampling and by zeroing, trained induction models, and the planted gate."""
    for name in PROGRAMS:
        yield from of_program(name)
    for random_seed in SEEDS:
        model = train_induction(random_seed)
        task = induction_task(model, N_PAIRS, random_seed=100)
        heads = induction_heads(model, task)
        known = f"{heads.previous} -> {heads.induction}.k"
        yield Case("trained", op.Bench(model, task), known=known, least=MATTERS, tau=0.01)
    for leak in (0.01, 0.0):
        gate = or_gate(N_PAIRS, leak=leak)
        truth = wiring_of(gate.model).graph.edges(gate.edges)
        yield Case(f"OR gate, leak {leak:g}", op.Bench(gate.model, gate.task), truth=truth)


def of_program(name: str) -> Iterator[Case]:
    """A program by resampling, and by zeroing where its edges are known."""
    program = load(name)
    for ablation in ("resample", "zero"):
        edges = program.edges(ablation)
        if edges is not None or ablation == "resample":
            column = name if ablation == "resample" else f"{name}, zero"
            truth = None if edges is None else wiring_of(program.model).graph.edges(edges)
            known = "a0.h0 -> a1.h0.k" if name == "induction" else ""
            yield Case(column, program.bench(N_PAIRS), ablation, known, truth)


def rows_of(case: Case) -> Iterator[Row]:
    """All methods on one case."""
    exact = circuit_of(case, "exact", 1).scores
    runs = EdgeRuns(case.bench, wiring_of(case.bench.model), case.ablation)
    whole = float(np.mean(runs.empty) - np.mean(runs.full))
    truth = np.abs(exact.values) >= case.least * abs(whole) if case.truth is None else case.truth
    for label in METHODS:
        method, options = OPTIONS[label]
        if method != "atp-drop" or exact.graph.n_layers > 1:
            circuit = circuit_of(case, method, int(truth.sum()), options)
            is_truth = bool(np.array_equal(circuit.is_in, truth)) if method in ("acdc", "pruning") else None
            yield row_of(case, label, circuit.scores, exact, truth, whole, is_truth)


def circuit_of(case: Case, method: str, size: int, options: Mapping[str, Any] = {}) -> op.EdgeCircuit:  # noqa: B006
    """A method's circuit, on a bench that has run nothing yet, so that passes are the method's own."""
    bench = op.Bench(case.bench.model, case.bench.task, case.bench.metric)
    more = {"tau": case.tau} if method == "acdc" else {"size": size}
    more |= {} if method in ("acdc", "pruning", "ifr") else {"n_checks": 0}
    return op.find(
        bench.model, bench.task, level="edge", method=method, ablation=case.ablation, bench=bench, **more, **options
    )  # fmt: skip


def row_of(
    case: Case, label: str, scores: EdgeScores, exact: EdgeScores, truth: np.ndarray, whole: float, is_truth: bool | None
) -> Row:  # fmt: skip
    """One method's figures."""
    at = exact.graph.edge(case.known) if case.known else None
    return Row(
        case=case.column, method=label, auroc=auroc(scores.values, truth),
        auroc_floored=auroc(scores.values, truth, floor=FLOOR), correlation=correlation(scores.values, exact.values),
        n_passes=scores.provenance.n_passes, is_truth=is_truth, total=float(scores.values.sum() / whole),
        share=None if at is None else float(scores.values[at] / exact.values[at]),
        n_true=int(truth.sum()), n_all=len(truth),
    )  # fmt: skip


def ratio_of(case: Case) -> float:
    """The largest joint effect / summed single effects of the edges into one receiver."""
    runs = EdgeRuns(case.bench, wiring_of(case.bench.model), case.ablation)
    values = circuit_of(case, "exact", 1).scores.values
    return max(found.ratio for found in redundancies(runs, values, 3) if found.is_redundant)


def measured() -> Study:
    """The whole study."""
    rows, ratios, sums = [], {}, {}
    for case in cases():
        rows += rows_of(case)
        if case.column.startswith("OR gate"):
            ratios[case.column] = ratio_of(case)
        if case.column == "hist":  # whose metric changes by -1 when all edges are ablated
            sums = {n: -float(circuit_of(case, "mask-ig", 1, {"n_steps": n}).scores.values.sum()) for n in SUMS}
    return Study(tuple(rows), ratios, sums, SEEDS, N_PAIRS, MATTERS)


def main() -> None:
    """Measure everything and write the page."""
    warnings.simplefilter("ignore", NotPacked)
    study, origin = measured(), provenance("ground truth", "", 0)
    held = asdict(study) | {"provenance": asdict(origin)}
    (DOCS / "methods.json").write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    (DOCS / "methods.md").write_text(page(study, origin), encoding="utf-8")


if __name__ == "__main__":
    main()
