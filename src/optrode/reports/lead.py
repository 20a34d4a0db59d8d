"""The top of the page: its title, its first sentence with a verdict, and the key figures."""

from typing import Final

from optrode.circuit.edge.records import MethodRow
from optrode.reports.blocks import facts, text
from optrode.reports.edges.words import by_cmd, edge_headline
from optrode.reports.parts import Parts
from optrode.reports.words import Headline, capital, count, headline, interval, number, task_words, whole

STATUS: Final = {"holds": "The circuit holds", "fails": "The circuit does not hold", "open": ""}
Facts = list[tuple[str, str, str]]


def lead_of(parts: Parts) -> Headline:
    """The page's first sentence: of an edge circuit where there is one, for it says more than its nodes."""
    has_edges, has_nodes = parts.edge_proof or parts.edge_circuit, parts.proof or parts.circuit
    found = edge_headline(parts) if has_edges or not has_nodes else None
    return found or (headline(parts) if parts.has_finding else Headline("open", "Figures alone, without what was measured."))


def title_of(parts: Parts) -> str:
    """The task and the model."""
    name = capital(task_words(parts.task_name))
    return f"{name} in {parts.model}" if parts.model else name


def lead_html(parts: Parts, lead: Headline, title: str) -> str:
    """Heading, verdict, sentence and key figures."""
    badge = f'<p class="badge {lead.status}">{STATUS[lead.status]}</p>' if STATUS[lead.status] else ""
    return (
        f'<header><p class="eyebrow">Optrode report</p><h1>{text(title)}</h1>{badge}'
        f'<p class="headline">{text(lead.sentence)}</p>{_key_figures(parts)}</header>'
    )


def _key_figures(parts: Parts) -> str:
    if parts.edge_circuit or parts.edge_proof:
        found = _edge_facts(parts)
    elif parts.circuit or parts.proof:
        found = _node_facts(parts)
    else:
        found = _method_facts(parts)
    return facts(found) if found else ""


def _node_facts(parts: Parts) -> Facts:
    circuit, proof = parts.circuit, parts.proof
    found = []
    if proof:
        found.append(("Faithfulness", number(proof.faithfulness), f"95 % {interval(proof.interval)}"))
        if proof.random:
            found.append(("Best random circuit", number(max(proof.random)), f"of {len(proof.random)}"))
        found.append(("Without the circuit", number(proof.completeness), f"95 % {interval(proof.completeness_interval)}"))
    if circuit:
        found.append(("Circuit", f"{circuit.size} / {circuit.n_all}", "nodes"))
    if proof:
        found.append(_measured_on(proof.n_prompts))
    return found


def _edge_facts(parts: Parts) -> Facts:
    circuit, proof = parts.edge_circuit, parts.edge_proof
    found = []
    if proof:
        found.append(("Faithfulness", number(proof.faithfulness), f"95 % {interval(proof.interval)}"))
        if proof.random:
            found.append(("Best random circuit", number(max(proof.random)), f"of {len(proof.random)}"))
        found.append(("Without the circuit", number(proof.without), f"95 % {interval(proof.without_interval)}"))
        curves = {curve.selection: curve for curve in proof.curves}
        if "absolute" in curves:
            found.append(("CMD", number(curves["absolute"].cmd), "absolute selection; 0 is best"))
        if "signed" in curves:
            found.append(("CPR", number(curves["signed"].cpr), "signed selection; higher is better"))
    sized = circuit or proof
    if sized:
        found.append(("Edges", whole(sized.size), f"of {whole(sized.n_all)}"))
    return [*found, _measured_on(proof.n_prompts)] if proof else found


def _method_facts(parts: Parts) -> Facts:
    table = parts.methods
    if table is None or not table.rows:
        return []
    measured = [row for row in table.rows if row.n_passes] or list(table.rows)
    best, cheapest = by_cmd(table)[0], min(measured, key=lambda row: row.n_passes)
    passes = count(cheapest.n_passes, "pass", "passes")
    return [
        ("Methods", str(len(table.rows)), "compared"),
        ("Lowest CMD", number(best.cmd), best.method),
        ("Highest CPR", *_highest_cpr(table.rows)),
        ("Fewest passes", number(cheapest.cmd), f"CMD of {cheapest.method}, {passes}"),
        _measured_on(table.n_prompts),
    ]


def _highest_cpr(rows: tuple[MethodRow, ...]) -> tuple[str, str]:
    best = max(rows, key=lambda row: row.cpr if row.cpr == row.cpr else float("-inf"))
    return number(best.cpr), best.method


def _measured_on(n_prompts: int) -> tuple[str, str, str]:
    return "Measured on", str(n_prompts), count(n_prompts, "prompt").split(" ")[1]
