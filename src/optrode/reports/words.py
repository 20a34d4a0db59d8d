"""What the records say, in plain words. A proof that fails is said to fail as plainly as one that holds."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from optrode.circuit.circuit import Circuit, Interval, Proof
from optrode.circuit.edge.records import EdgeProof
from optrode.reports.nodes import node_name
from optrode.reports.parts import Parts

Status = Literal["holds", "fails", "open"]
TASK_WORDS: Final = {"ioi": "indirect object identification", "greater_than": "greater-than"}
METHOD_WORDS: Final = {"exact": "exact effects", "ig": "integrated gradients"}
MINUS: Final = "−"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tested: passed, failed, or (None) told without a threshold."""

    is_passed: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Headline:
    """The page's first sentence and what it rests on."""

    status: Status
    sentence: str
    checks: tuple[Check, ...] = ()


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign: "−0.31"; a value that is not finite is named as such."""
    if not math.isfinite(value):
        return "undefined"
    text = f"{value:.{digits}f}"
    return MINUS + text[1:] if text.startswith("-") and float(text) else text.lstrip("-")


def short(value: float) -> str:
    """A number of any magnitude: to three significant digits, or to the unit from a thousand on."""
    if not math.isfinite(value):
        return "undefined"
    size = abs(value)
    text = f"{value:.3g}" if 1e-3 <= size < 999.5 or not value else f"{value:,.0f}" if 1 < size < 1e5 else f"{value:.1e}"
    return text.replace("-", MINUS)


def interval(value: Interval, digits: int = 2) -> str:
    """An interval: "[0.81, 0.90]"."""
    return f"[{number(value.low, digits)}, {number(value.high, digits)}]"


def count(n: int, noun: str, plural: str = "") -> str:
    """A count with its noun: "1 head", "14 heads"."""
    return f"{whole(n)} {noun if n == 1 else plural or noun + 's'}"


def whole(n: int) -> str:
    """A whole number, its thousands apart: "70,651"."""
    return f"{n:,}"


def task_words(name: str) -> str:
    """A task's name as it is said."""
    return TASK_WORDS.get(name, name.replace("_", " "))


def method_words(name: str) -> str:
    """How effects were measured, as it is said."""
    return METHOD_WORDS.get(name, name.replace("_", " "))


def capital(words: str) -> str:
    """The same words with a capital first letter."""
    return words[:1].upper() + words[1:]


def members(circuit: Circuit) -> str:
    """What a circuit is made of: "14 heads, 6 MLPs"."""
    names = [node_name(node) for node in circuit.nodes]
    heads, mlps = sum(name.head is not None for name in names), sum(name.is_mlp for name in names)
    counts = ((heads, "head"), (mlps, "MLP"), (len(names) - heads - mlps, "other site"))
    return ", ".join(count(n, noun) for n, noun in counts if n)


def headline(parts: Parts) -> Headline:
    """The strongest thing that the given records allow to be said."""
    if parts.proof:
        return _proven(parts.proof, parts.circuit)
    if parts.circuit:
        return _chosen(parts.circuit)
    return Headline("open", _observed(parts))


def _proven(proof: Proof, circuit: Circuit | None) -> Headline:
    checks = tuple(_checks(proof, circuit))
    is_failed = any(check.is_passed is False for check in checks)
    status: Status = "fails" if is_failed else "holds" if proof.random else "open"
    if circuit:
        what, verb = f"{circuit.size} of {circuit.n_all} nodes ({members(circuit)})", "keep"
    else:
        what, verb = f"a circuit of {count(proof.size, 'node')}", "keeps"
    kept = f"{number(proof.faithfulness)} {interval(proof.interval)} of {task_words(proof.task)}"
    where = f" in {proof.provenance.model}"
    body = f"{what} {verb} {'only ' if is_failed else ''}{kept}{where}{_short_of(proof, circuit)}; {chance(proof)}."
    return Headline(status, f"The circuit does not hold: {body}" if is_failed else capital(body), checks)


def _short_of(proof: Proof, circuit: Circuit | None) -> str:
    if circuit and circuit.target and not proof.faithfulness >= circuit.target:
        return f", short of the target of {number(circuit.target)}"
    return ""


def chance(proof: Proof | EdgeProof) -> str:
    """How random circuits of the same size do."""
    if not proof.random:
        return "no random circuits were measured, so chance is not ruled out"
    beaten = sum(not proof.faithfulness > other for other in proof.random)
    best = number(max(proof.random))
    if beaten:
        verb = "keeps" if beaten == 1 else "keep"
        return f"{beaten} of {count(len(proof.random), 'random circuit')} of that size {verb} as much or more (best {best})"
    return f"the best of {count(len(proof.random), 'random circuit')} of that size keeps {best}"


def _checks(proof: Proof, circuit: Circuit | None) -> list[Check]:
    checks = [_target_check(proof, circuit), _random_check(proof)]
    rest = f"{number(proof.completeness)} {interval(proof.completeness_interval)}"
    checks.append(
        Check(None, f"Without the circuit, the rest of the model keeps {rest}; 0 would mean that nothing else does it.")
    )
    if proof.minimality:
        needed = sum(row.interval.low > 0 for row in proof.minimality)
        which = "node" if len(proof.minimality) == proof.size else "strongest node"
        text = f"{needed} of {count(len(proof.minimality), which)} measurably lose faithfulness when taken out alone."
        checks.append(Check(None, text))
    return checks


def _target_check(proof: Proof, circuit: Circuit | None) -> Check:
    kept = f"Faithfulness {number(proof.faithfulness)} {interval(proof.interval)}"
    if circuit is None or not circuit.target:
        return Check(None, f"{kept}; no target was set for it.")
    target = number(circuit.target)
    if not proof.faithfulness >= circuit.target:
        return Check(False, f"{kept} is below the target of {target}.")
    caution = "" if proof.interval.low >= circuit.target else ", though its interval reaches below it"
    return Check(True, f"{kept} reaches the target of {target}{caution}.")


def _random_check(proof: Proof) -> Check:
    if not proof.random:
        return Check(None, "No random circuits were measured, so chance is not ruled out.")
    n, best = len(proof.random), number(max(proof.random))
    if all(proof.faithfulness > other for other in proof.random):
        return Check(True, f"Above every one of {count(n, 'random circuit')} of the same size (best {best}).")
    return Check(False, f"Not above every one of {count(n, 'random circuit')} of the same size (best {best}).")


def _chosen(circuit: Circuit) -> Headline:
    what = f"{circuit.size} of {circuit.n_all} nodes ({members(circuit)})"
    how = f"chosen by {method_words(circuit.scores.method)} for {task_words(circuit.task)} in {circuit.provenance.model}"
    return Headline("open", f"{what} were {how}; no proof is on this page, so the circuit is a hypothesis.")


def _observed(parts: Parts) -> str:
    """A sentence about the first of scores, grids, attention scores and task that is there."""
    if parts.scores:
        top, n = parts.scores.ranked()[0], len(parts.scores.nodes)
        moved = f"moves {parts.scores.metric.replace('_', ' ')} by {short(top.effect)} {parts.scores.unit}"
        where = f"on {task_words(parts.scores.task)} in {parts.model}"
        return f"Of {n} nodes, {node_name(top.node).label} is the strongest: ablating it {moved} {where}."
    if parts.grids:
        grid = parts.grids[0]
        shares = grid.shares()
        best = max(range(len(shares)), key=lambda ix: abs(shares[ix]))
        does = "moves the metric by" if grid.source is not None else "changes the metric by"
        of = " of the distance between the two runs" if grid.source is not None else " of its value"
        where = f"on {task_words(grid.task)} in {parts.model}"
        return f"The strongest of {len(shares)} cells, {grid.sites[best]}, {does} {number(shares[best])}{of} {where}."
    if parts.heads:
        return _most_typical_head(parts)
    return _task_sentence(parts)


def _most_typical_head(parts: Parts) -> str:
    assert parts.heads is not None
    cells = (
        (v, kind, li, hi)
        for kind, grid in zip(parts.heads.kinds, parts.heads.values, strict=True)
        for li, row in enumerate(grid)
        for hi, v in enumerate(row)
    )
    value, kind, layer, head = max(cells)
    return f"Head {layer}.{head} of {parts.model} has the highest score of all heads: {number(value)} as {kind}."


def _task_sentence(parts: Parts) -> str:
    assert parts.task is not None
    task = parts.task
    text = f"{count(len(task), 'prompt pair')} of {task_words(task.name)}"
    if task.ability is None:
        return f"{text}; how well a model does it has not been measured."
    return f"{text}; the model is right on {task.ability.accuracy:.0%} of the clean prompts."
