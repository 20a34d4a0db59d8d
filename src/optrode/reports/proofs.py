"""The section about the proof: what was tested, faithfulness over size with its controls, and what each node is worth."""

from collections.abc import Sequence
from typing import Any

from optrode.circuit.circuit import Circuit, Proof
from optrode.reports.blocks import code, fold, heading, plot, table, text
from optrode.reports.figures import MOST_BARS, curve, minimality
from optrode.reports.parts import Parts
from optrode.reports.section import Section
from optrode.reports.words import Check, Headline, count, interval, number, short

MARKS = {True: ("passed", "✓"), False: ("failed", "✕"), None: ("noted", "–")}


def proof_section(parts: Parts, lead: Headline) -> Section | None:
    """Checks, the faithfulness curve and the minimality bars."""
    proof = parts.proof
    if proof is None:
        return None
    figures: dict[str, Any] = {"curve": curve(proof, parts.circuit)}
    body = f"{check_list(lead.checks)}<p>{text(_definition(proof))}</p>"
    blocks = _curve_block(proof, parts.circuit)
    if proof.minimality:
        figures["minimality"], height = minimality(proof)
        blocks += _minimality_block(proof, height)
    return Section("proof", "Proof", "The proof", body + f'<div class="row">{blocks}</div>', figures)


def check_list(checks: Sequence[Check]) -> str:
    """What was tested: each passed, failed or only noted."""
    return f'<ul class="checks">{"".join(_check(check) for check in checks)}</ul>'


def _check(check: Check) -> str:
    kind, sign = MARKS[check.is_passed]
    mark = f'<span class="sign" aria-hidden="true">{sign}</span><span class="sr">{kind}: </span>'
    return f'<li class="{kind}">{mark}<span>{text(check.text)}</span></li>'


def _definition(proof: Proof) -> str:
    metric = proof.metric.replace("_", " ")
    return (
        f"Faithfulness is the share of the metric's distance that a set of nodes keeps when every other node is ablated "
        f"({proof.ablation}): 0 with every node ablated ({metric} {short(proof.empty)} {proof.unit}), 1 for the whole model "
        f"({short(proof.full)}). Means over {count(proof.n_prompts, 'prompt')}; intervals are 95 %, from "
        f"{proof.n_bootstrap} bootstrap resamples of the prompts."
    )


def _curve_block(proof: Proof, circuit: Circuit | None) -> str:
    kept = f"{number(proof.faithfulness)} {interval(proof.interval)}"
    label = f"Faithfulness over circuit size; at {proof.size} nodes it is {kept}"
    words = "Nodes are added in the order of their scores. "
    if proof.random:
        words += f"Random circuits have {proof.size} nodes, as many heads and MLPs as the circuit. "
    if circuit:
        words += "The diamond is completeness: what all nodes but the circuit keep."
    rows = [(str(point.size), number(point.faithfulness, 3), interval(point.interval, 3)) for point in proof.curve]
    rows.sort(key=lambda row: int(row[0]))
    numbers = fold(
        "The numbers", table(("nodes", "faithfulness", "95 % interval"), rows, "Faithfulness over size", "numbers")
    )
    figure = plot("curve", label, caption=words.strip(), height=420)
    return f'<div class="cell">{heading("Faithfulness over size")}{figure}{numbers}</div>'


def _minimality_block(proof: Proof, height: int) -> str:
    ranked = sorted(proof.minimality, key=lambda row: -row.lost)
    label = f"Faithfulness lost without each node; most without {ranked[0].node}, {number(ranked[0].lost, 3)}"
    cut = f" The {MOST_BARS} largest are drawn." if len(ranked) > MOST_BARS else ""
    words = "Faithfulness lost when one node alone is taken out. A bar whose interval reaches 0 is not shown to "
    rows = [(code(row.node), number(row.lost, 3), interval(row.interval, 3)) for row in ranked]
    inner = table(("node", "faithfulness lost", "95 % interval"), rows, "Minimality node by node", "numbers")
    figure = plot("minimality", label, caption=f"{words}matter.{cut}", height=height)
    return f'<div class="cell">{heading("What each node is worth")}{figure}{fold("The numbers", inner)}</div>'
