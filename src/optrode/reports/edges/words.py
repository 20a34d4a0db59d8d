"""What the records of edges say, in plain words. What was not measured is not claimed, and a failure is said first."""

from collections.abc import Sequence
from typing import Final

from optrode.circuit.edge.graph import ARROW
from optrode.circuit.edge.records import EdgeCircuit, EdgeProof, EdgeScores, MethodRow, MethodTable
from optrode.reports.parts import Parts
from optrode.reports.words import Check, Headline, Status, chance, count, interval, number, short, task_words, whole

STABLE: Final = 0.8
METHOD_WORDS: Final = {
    "exact": "exact effects", "eap": "edge attribution patching", "acdc": "ACDC", "random": "random scores",
    "eap-ig": "edge attribution patching with integrated gradients", "edge-pruning": "edge pruning",
}  # fmt: skip


def method_words(name: str) -> str:
    """How edges were scored, as it is said; an unknown method keeps its name."""
    return METHOD_WORDS.get(name, name)


def edge_words(name: str) -> str:
    """An edge's name with a true arrow: "a3.h2 → a5.h1.k"."""
    return name.replace(ARROW, " → ")


def effect_interval(low: float, high: float) -> str:
    """An interval of effects, which may be of any magnitude."""
    return f"[{short(low)}, {short(high)}]"


def edge_members(circuit: EdgeCircuit) -> str:
    """What an edge circuit touches: "14 heads and 6 MLPs"."""
    heads = sum(node.startswith("a") for node in circuit.nodes)
    mlps = sum(node.startswith("m") for node in circuit.nodes)
    return " and ".join(count(n, noun) for n, noun in ((heads, "head"), (mlps, "MLP")) if n) or "no head or MLP"


def edge_headline(parts: Parts) -> Headline | None:
    """The strongest thing that the records of edges allow to be said, or None when the page has none."""
    if parts.edge_proof:
        return _proven(parts.edge_proof, parts.edge_circuit)
    if parts.edge_circuit:
        return Headline("open", _chosen(parts.edge_circuit))
    if parts.methods and parts.methods.rows:
        return Headline("open", _compared(parts.methods))
    if parts.edge_scores:
        return Headline("open", _scored(parts.edge_scores))
    return None


def by_cmd(table: MethodTable) -> tuple[MethodRow, ...]:
    """Methods, the one that follows the whole model most closely first; an undefined CMD comes last."""
    return tuple(sorted(table.rows, key=lambda row: (row.cmd != row.cmd, row.cmd, row.n_passes, row.method)))


def _proven(proof: EdgeProof, circuit: EdgeCircuit | None) -> Headline:
    checks = tuple(_checks(proof, circuit))
    is_failed = any(check.is_passed is False for check in checks)
    status: Status = "fails" if is_failed else "holds" if proof.random else "open"
    target = circuit.target if circuit else 0.0
    short_of = f" (target {number(target)})" if target and not proof.faithfulness >= target else ""
    verb = "keeps" if proof.size == 1 else "keep"
    kept = f"{'only ' if is_failed else ''}{number(proof.faithfulness)} {interval(proof.interval)}{short_of}"
    where = f"{task_words(proof.task)} in {proof.provenance.model}, on {count(proof.n_prompts, 'prompt')}"
    body = (
        f"{whole(proof.size)} of {whole(proof.n_all)} edges {verb} {kept} of {where}; {chance(proof)}; "
        f"without the circuit {number(proof.without)} is left."
    )
    return Headline(status, f"The circuit does not hold: {body}" if is_failed else body, checks)


def _checks(proof: EdgeProof, circuit: EdgeCircuit | None) -> list[Check]:
    found = [_target_check(proof, circuit), _random_check(proof)]
    rest = f"{number(proof.without)} {interval(proof.without_interval)}"
    found.append(Check(None, f"Without the circuit, the other edges keep {rest}; 0 would mean that nothing else does it."))
    if proof.completeness:
        mean, worst = sum(proof.completeness) / len(proof.completeness), max(proof.completeness)
        subsets = count(len(proof.completeness), "random subset")
        words = f"Completeness: with each of {subsets} of the circuit taken out, circuit and model differ by {number(mean)}"
        found.append(Check(None, f"{words} on average and by at most {number(worst)}; 0 is complete."))
    if proof.minimality:
        needed, n = sum(row.interval.low > 0 for row in proof.minimality), len(proof.minimality)
        which = "edge" if n == proof.size else "strongest edge"
        found.append(Check(None, f"{needed} of {count(n, which)} measurably lose faithfulness when taken out alone."))
    flagged = [row.receiver for row in proof.redundancy if row.is_redundant]
    if flagged:
        words = f"Redundant inputs at {', '.join(flagged)}: ablated together they cost much more than one by one"
        found.append(Check(None, f"{words}, so single effects understate them."))
    return [*found, _stability_check(proof)]


def _target_check(proof: EdgeProof, circuit: EdgeCircuit | None) -> Check:
    kept = f"Faithfulness {number(proof.faithfulness)} {interval(proof.interval)}"
    if circuit is None or not circuit.target:
        is_defined = proof.faithfulness == proof.faithfulness
        return Check(None if is_defined else False, f"{kept}; no target was set for it.")
    target = number(circuit.target)
    if not proof.faithfulness >= circuit.target:
        return Check(False, f"{kept} is below the target of {target}.")
    caution = "" if proof.interval.low >= circuit.target else ", though its interval reaches below it"
    return Check(True, f"{kept} reaches the target of {target}{caution}.")


def _random_check(proof: EdgeProof) -> Check:
    if not proof.random:
        return Check(None, "No random circuits were measured, so chance is not ruled out.")
    is_above = all(proof.faithfulness > other for other in proof.random)
    circuits, best = count(len(proof.random), "random circuit"), number(max(proof.random))
    words = f"very one of {circuits} with as many edges into each kind of receiver (best {best})."
    return Check(is_above, f"Above e{words}" if is_above else f"Not above e{words}")


def _stability_check(proof: EdgeProof) -> Check:
    side = "reaches" if proof.jaccard >= STABLE else "is below"
    words = f"Stability: circuits of resampled prompts share {number(proof.jaccard)} of their edges (mean Jaccard index)"
    few = "" if proof.n_prompts >= 100 else f", which asks for 100 prompts and has {proof.n_prompts} here"
    return Check(None, f"{words}, which {side} the bar of {number(STABLE, 1)} (Méloux et al., arXiv 2510.00845){few}.")


def _chosen(circuit: EdgeCircuit) -> str:
    what = f"{whole(circuit.size)} of {whole(circuit.n_all)} edges, between {edge_members(circuit)},"
    how = f"chosen by {method_words(circuit.scores.method)} for {task_words(circuit.task)} in {circuit.provenance.model}"
    return f"{what} were {how}; no proof is on this page, so the circuit is a hypothesis."


def _compared(table: MethodTable) -> str:
    best, *others = by_cmd(table)
    n = count(len(table.rows), "method")
    where = f"{task_words(table.task)} in {table.provenance.model}"
    lead = f"Of {n} on {where}, {best.method} follows the whole model most closely: CMD {number(best.cmd)}"
    lead += f" from {count(best.n_passes, 'pass', 'passes')}"
    nothing = cmd_of_nothing(best.points)
    cheaper = [row for row in others if row.n_passes < best.n_passes and row.cmd < nothing / 2]
    if cheaper:
        passes = count(cheaper[0].n_passes, "pass", "passes")
        lead += f"; with fewer passes, {cheaper[0].method} reaches {number(cheaper[0].cmd)} from {passes}"
    return f"{lead}. Circuits that keep nothing would score {number(nothing)}."


def cmd_of_nothing(points: Sequence[tuple[float, float]]) -> float:
    """CMD at these shares of circuits that keep nothing until every edge is in: pure quadrature (.749 by MIB's sizes)."""
    shares = [share for share, _ in points]
    gaps = [*(1.0 for _ in shares[:-1]), 0.0]
    return sum((shares[ix + 1] - shares[ix]) * (gaps[ix] + gaps[ix + 1]) / 2 for ix in range(len(shares) - 1))


def _scored(scores: EdgeScores) -> str:
    top = int(scores.ranked()[0])
    moved = f"moves {scores.metric.replace('_', ' ')} by {short(float(scores.values[top]))} {scores.unit}".rstrip()
    where = f"on {task_words(scores.task)} in {scores.provenance.model}"
    name = edge_words(scores.graph.name(top))
    by = "ablating it" if scores.method == "exact" else f"by {method_words(scores.method)}, ablating it"
    return f"Of {whole(scores.graph.n_edges)} edges, {name} is the strongest: {by} {moved} {where}."
