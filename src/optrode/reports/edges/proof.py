"""The section about the proof of an edge circuit: its checks, faithfulness over size, and what each test found."""

from typing import Any, Final

from optrode.circuit.edge.records import EdgeCircuit, EdgeCurve, EdgeProof
from optrode.reports.blocks import code, fold, heading, paragraph, plot, table, text
from optrode.reports.edges.figures import percent, share_curve
from optrode.reports.edges.words import STABLE, edge_headline, edge_words
from optrode.reports.figures import loss_bars
from optrode.reports.parts import Parts
from optrode.reports.proofs import check_list
from optrode.reports.section import Section
from optrode.reports.words import count, interval, number, short, whole

COLUMNS: Final = ("test", "found", "how to read it")


def edge_proof_section(parts: Parts) -> Section | None:
    """Checks, the curve with its controls, one table of all tests, single edges, and redundant receivers."""
    proof, lead = parts.edge_proof, edge_headline(parts)
    if proof is None or lead is None:
        return None
    figures: dict[str, Any] = {"edge-curve": share_curve(proof, parts.edge_circuit)}
    blocks = _curve_block(proof, parts.edge_circuit)
    if proof.minimality:
        losses = [(row.edge, edge_words(row.edge), row.lost, row.interval) for row in proof.minimality]
        figures["edge-minimality"], height = loss_bars(losses)
        blocks += _minimality_block(proof, height)
    body = check_list(lead.checks) + paragraph(_definition(proof)) + f'<div class="row">{blocks}</div>'
    return Section("edge-proof", "Edge proof", "The proof, edge by edge", body + _tests(proof) + _redundancy(proof), figures)


def _definition(proof: EdgeProof) -> str:
    metric = f"{proof.metric.replace('_', ' ')} {short(proof.empty)} {proof.unit}".rstrip()
    return (
        f"Faithfulness is the share of the metric's distance that a set of edges keeps when every other edge carries its "
        f"sender's ablated output ({proof.ablation}): 0 with every edge ablated ({metric}), 1 for the whole model "
        f"({short(proof.full)}). A ratio of means over {count(proof.n_prompts, 'prompt')}; intervals are 95 %, from "
        f"{whole(proof.n_bootstrap)} bootstrap resamples of the prompts."
    )


def _curve_block(proof: EdgeProof, circuit: EdgeCircuit | None) -> str:
    kept = f"{number(proof.faithfulness)} {interval(proof.interval)}"
    label = f"Faithfulness over the share of edges; with {whole(proof.size)} edges it is {kept}"
    figure = plot("edge-curve", label, caption=_caption(proof, circuit), height=440)
    rows = [row for curve in proof.curves for row in _curve_rows(curve)]
    columns = ("selection", "edges", "share", "faithfulness", "95 % interval")
    numbers = fold("The numbers", table(columns, rows, "Faithfulness over size", "numbers"))
    return f'<div class="cell">{heading("Faithfulness over size")}{figure}{numbers}</div>'


def _caption(proof: EdgeProof, circuit: EdgeCircuit | None) -> str:
    words = ["Edges are added in the order of their scores: by size (absolute), or those that help most first (signed)."]
    scores = [
        f"{curve.selection} CPR {number(curve.cpr)}, CMD {number(curve.cmd)}"
        for curve in sorted(proof.curves, key=lambda curve: curve.selection)
    ]
    if scores:
        words.append(f"Areas over the linear share (MIB, arXiv 2504.13151): {'; '.join(scores)}.")
    if proof.random:
        words.append("Random circuits have as many edges into each kind of receiver.")
    if circuit and circuit.selection not in {curve.selection for curve in proof.curves}:
        words.append(f"The circuit itself is chosen by {circuit.selection} selection, so it need not lie on a curve.")
    return " ".join([*words, "The diamond is what all edges but the circuit keep."])


def _curve_rows(curve: EdgeCurve) -> list[tuple[str, ...]]:
    return [
        (
            text(curve.selection), whole(point.size), percent(point.share), number(point.faithfulness, 3),
            interval(point.interval, 3),
        )
        for point in sorted(curve.points, key=lambda point: point.share)
    ]  # fmt: skip


def _minimality_block(proof: EdgeProof, height: int) -> str:
    ranked = sorted(proof.minimality, key=lambda row: -row.lost)
    label = f"Faithfulness lost without each edge; most without {ranked[0].edge}, {number(ranked[0].lost, 3)}"
    words = "Faithfulness lost when one edge alone is taken out. A bar whose interval reaches 0 is not shown to matter."
    if len(ranked) < proof.size:
        words += f" Measured for the {len(ranked)} strongest of {whole(proof.size)} edges."
    rows = [(code(edge_words(row.edge)), number(row.lost, 3), interval(row.interval, 3)) for row in ranked]
    inner = table(("edge", "faithfulness lost", "95 % interval"), rows, "Minimality edge by edge", "numbers")
    figure = plot("edge-minimality", label, caption=words, height=height)
    return f'<div class="cell">{heading("What each edge is worth")}{figure}{fold("The numbers", inner)}</div>'


def _tests(proof: EdgeProof) -> str:
    """Every test in one table, with what it would show if the circuit were all there is."""
    whole_gap = "share of the model's distance; 0 is complete (Wang et al., arXiv 2211.00593)"
    rows = [("Faithfulness", f"{number(proof.faithfulness)} {interval(proof.interval)}", "1 is the whole model")]
    if proof.random:
        mean = number(sum(proof.random) / len(proof.random))
        rows.append(("Random circuits", f"mean {mean}, best {number(max(proof.random))} of {len(proof.random)}", "chance"))
    without = f"{number(proof.without)} {interval(proof.without_interval)}"
    rows.append(("Without the circuit", without, "0: nothing else does it"))
    if proof.completeness:
        n, worst = len(proof.completeness), number(max(proof.completeness))
        rows.append(("Completeness", f"mean {number(sum(proof.completeness) / n)}, worst {worst} of {n} subsets", whole_gap))
    if proof.minimality:
        n, needed = len(proof.minimality), sum(row.interval.low > 0 for row in proof.minimality)
        rows.append(("Minimality", f"{needed} of {n} edges", "measurably lose faithfulness when taken out alone"))
    if proof.redundancy:
        n, flagged = len(proof.redundancy), sum(row.is_redundant for row in proof.redundancy)
        rows.append(("Redundancy", f"{flagged} of {n} receivers flagged", "inputs that stand in for one another"))
    bar = f"bar: at least {number(STABLE, 1)} (Méloux et al., arXiv 2510.00845)"
    rows.append(("Bootstrap Jaccard", number(proof.jaccard), f"overlap of circuits of resampled prompts; {bar}"))
    body = table(COLUMNS, [tuple(text(cell) for cell in row) for row in rows], "Every test of the circuit", "tests")
    return heading("Every test") + body


def _redundancy(proof: EdgeProof) -> str:
    if not proof.redundancy:
        return ""
    words = (
        "Edges into one receiver, ablated together and one by one. A ratio of 1.5 or more means that some do the work of "
        "others that are missing (self-repair), so that the effect of each alone understates it."
    )
    rows = [
        (
            code(row.receiver), short(row.joint), short(row.summed), number(row.ratio),
            "<strong>redundant</strong>" if row.is_redundant else "no",
        )
        for row in sorted(proof.redundancy, key=lambda row: (not row.is_redundant, -abs(row.joint)))
    ]  # fmt: skip
    unit = f" ({proof.unit})" if proof.unit else ""
    columns = ("receiver", f"loss together{unit}", f"sum of single losses{unit}", "ratio", "redundant?")
    return heading("Inputs that stand in for one another") + paragraph(words) + table(
        columns, rows, "Receivers that matter most", "numbers"
    )  # fmt: skip
