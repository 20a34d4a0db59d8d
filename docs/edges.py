"""Find and prove edge circuits of the embedded model, and write docs/edges.md. Run by `make edges`.

Each task's circuit is found on prompts of random seed 0 and proven on those of seed 2. Of two ways to select edges, the one
with the lower CMD on the first prompts is taken.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import optrode as op
from optrode.circuit.edge.curve import SHARES, areas, sizes_of
from optrode.circuit.edge.records import EdgeCircuit, EdgeProof
from optrode.circuit.edge.runs import EdgeRuns, share_of
from optrode.circuit.edge.select import select
from optrode.circuit.edge.wiring import wiring_of

DOCS = Path(__file__).parent
N = 16
N_FOUND_ON = {"ioi": 16, "greater_than": 16, "single_induction": 48}
METHOD = "eap-ig"
SELECTIONS = ("absolute", "rms")
PAGE = """# Edge circuits of a language model

Written by `make edges` (`docs/edges.py`) on {machine}, Python {python}, torch {torch}, transformers {transformers};
SmolLM2-135M-Instruct (Q4_1, dequantised), weights {weights}; EAP-IG with five points on prompt pairs of random seed 0, {n}
other pairs of seed 2 to prove; resample ablation; {n_edges:,} edges, k and v by K/V group.

| {columns} |
|---|---|---|---|---|---|---|---|---|---|---|---|
{rows}

CMD is the area between 1 and the curve of circuits by the selection named, at the ten sizes of MIB, on the second prompts;
in brackets by absolute score, where that is another. CPR is the area under the curve by signed score. "rms" selects by the
root mean square of an edge's effects over prompts: on random tokens many edges help on one prompt and hinder on the next.
The selection was chosen on the first prompts. A circuit's size is the smallest of a ladder that keeps .85 on them.
{verdict}

{strongest}

{notes}
"""


COLUMNS = (
    "task", "pairs", "selection", "edges", "faithfulness [95 %]", "best of 20 random", "without", "CMD", "CPR",
    "bootstrap Jaccard", "r of spot checks", "found + proven",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One task's circuit with its proof, and the seconds they took together."""

    task: str
    circuit: EdgeCircuit
    proof: EdgeProof
    time_s: float

    def area(self, selection: str) -> tuple[float, float]:
        """(CPR, CMD) of the curve by a selection."""
        return next((curve.cpr, curve.cmd) for curve in self.proof.curves if curve.selection == selection)

    @property
    def cmd(self) -> float:
        """Of the curve by the circuit's own selection."""
        return self.area(self.circuit.selection)[1]


def measure(model: op.Model, name: str) -> Measured:
    """Find and prove one task's circuit."""
    started = time.monotonic()
    task = op.tasks.find_task(name)(model, n=N_FOUND_ON[name], random_seed=0)
    others = op.tasks.find_task(name)(model, n=N, random_seed=2)
    bench = op.Bench(model, task.take(N))
    scores = op.score_edges(model, task, method=METHOD)
    how = min(SELECTIONS, key=lambda selection: cmd_on(bench, scores, selection))
    circuit = op.find(model, task.take(N), level="edge", scores=scores, selection=how)
    proof = op.prove(model, others, circuit, n_minimality=10, n_subsets=5)
    op.report(task, circuit, proof).save(Path("runs") / "edges" / f"{name}.html")
    return Measured(name, circuit, proof, time.monotonic() - started)


def cmd_on(bench: op.Bench, scores: op.EdgeScores, how: str) -> float:
    """CMD of a selection on a bench's prompts."""
    runs = EdgeRuns(bench, wiring_of(bench.model))
    measured = runs.measure([select(scores, size, how) for size in sizes_of(scores.graph.n_edges)])
    return areas(SHARES, [share_of(values, runs.empty, runs.full) for values in measured]).cmd


def row(found: Measured) -> str:
    """A line of the table."""
    circuit, proof = found.circuit, found.proof
    check, absolute = circuit.scores.check, found.area("absolute")[1]
    cells = [
        found.task, str(len(circuit.scores.per_prompt)), circuit.selection, f"{circuit.size:,}",
        f"{proof.faithfulness:.2f} [{proof.interval.low:.2f}, {proof.interval.high:.2f}]", f"{max(proof.random):.2f}",
        f"{proof.without:.2f}", f"{found.cmd:.3f}" + (f" ({absolute:.3f})" if circuit.selection != "absolute" else ""),
        f"{found.area('signed')[0]:.2f}", f"{proof.jaccard:.2f}", "" if check is None else f"{check.correlation:.2f}",
        f"{found.time_s:.0f} s",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def strongest(found: Measured, n: int = 8) -> str:
    """The strongest edges of a circuit."""
    values = found.circuit.scores.values
    named = [f"`{edge}` {values[found.circuit.graph.edge(edge)]:+.2f}" for edge in found.circuit.edges[:n]]
    return f"* **{found.task}** ({found.proof.unit}): {', '.join(named)}"


def notes(found: list[Measured]) -> str:
    """What did not hold, in plain sentences."""
    lines = []
    for one in found:
        if one.cmd > 0.10:
            lines.append(f"* {one.task}: CMD {one.cmd:.3f} is above .10; half of the edges keep {_at(one, 0.5):.2f}.")
        if one.proof.jaccard < 0.8:
            lines.append(f"* {one.task}: circuits of resampled prompts overlap by {one.proof.jaccard:.2f}, less than .8.")
        flagged = [row.receiver for row in one.proof.redundancy if row.is_redundant]
        if flagged:
            lines.append(f"* {one.task}: edges into {', '.join(flagged)} do each other's work (redundant).")
        check = one.circuit.scores.check
        if check is not None and not check.agrees:
            lines.append(f"* {one.task}: scores and exact spot checks disagree ({', '.join(check.missed) or 'low r'}).")
    return "\n".join(lines)


def _at(found: Measured, share: float) -> float:
    points = next(curve.points for curve in found.proof.curves if curve.selection == found.circuit.selection)
    return next(point.faithfulness for point in points if point.share == share)


def verdict(found: list[Measured]) -> str:
    """Whether the target was met."""
    seconds = sum(one.time_s for one in found)
    names = ", ".join(f"{one.task} {one.cmd:.3f}" for one in found)
    return f"Target: CMD at most .10 each ({names}), and at most 10 minutes together: {seconds / 60:.1f} minutes."


def main() -> None:
    model = op.load("smollm2")
    found = []
    for name in N_FOUND_ON:
        found.append(measure(model, name))
        sys.stderr.write(f"{row(found[-1])}\n")
    made = found[0].proof.provenance
    page = PAGE.format(
        machine=made.machine, python=made.versions["python"], torch=made.versions["torch"],
        transformers=made.versions["transformers"], weights=made.weights_hash[:12], n=N, columns=" | ".join(COLUMNS),
        n_edges=found[0].circuit.n_all,
        rows="\n".join(map(row, found)), verdict=verdict(found), strongest="\n".join(map(strongest, found)),
        notes="What did not hold:\n\n" + (notes(found) or "* nothing of the above."),
    )  # fmt: skip
    (DOCS / "edges.md").write_text(page)
    numbers = [
        {
            "task": one.task, "selection": one.circuit.selection, "cmd": one.cmd, "cpr": one.area("signed")[0],
            "size": one.circuit.size, "faithfulness": one.proof.faithfulness, "random": float(np.max(one.proof.random)),
        }
        for one in found
    ]  # fmt: skip
    (DOCS / "edges.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
