"""Rules: propositions that a pass makes true or false, chained forward until one says that the gate is open.

    op.rules({"harm": op.probe(...), "joke": op.probe(...)}, ["harm and not joke -> refuse"], opens="refuse")

Rules are tried at every row and position until nothing new follows. `not` may only be asked of what is settled before: a
chain that comes back to itself through a `not` has no answer, and is refused.

Source: Helff et al. 2025, ActivationReasoning: latents become propositions, rules derive new ones, derived ones steer.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optrode.errors import BadGate, nearest
from optrode.gate.openness import Desk, Openness

_KNOWN: Final = (ast.Name, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.BinOp, ast.BitXor, ast.Load)
Truth = Bool[Tensor, "..."]
_HOW: Final = 'write "a and not (b or c) -> d"; xor is ^'


@final
@dataclass(frozen=True)
class Rule:
    """If the premise is true, so is the conclusion.

    Attributes:
        premise: over propositions, with `and`, `or`, `not`, `^` (exclusive or) and parentheses.
        conclusion: a proposition.
    """

    premise: str
    conclusion: str

    def __str__(self) -> str:
        return f"{self.premise} -> {self.conclusion}"


@final
@dataclass(frozen=True, eq=False)
class Rules(Openness):
    """Open where rules derive a proposition.

    Attributes:
        propositions: name -> condition; true where it is open by more than one half.
        chain: rules, in an order in which what a `not` asks of is settled before.
        opens: the proposition that opens the gate.
        hold: for how many tokens more it stays open.
    """

    propositions: Mapping[str, Openness]
    chain: tuple[Rule, ...]
    opens: str
    hold: int = 0

    def __str__(self) -> str:
        held = f", for {self.hold} tokens more" if self.hold else ""
        return f"if {self.opens} follows from {'; '.join(map(str, self.chain))}{held}"

    @property
    def parts(self) -> tuple[Openness, ...]:
        return tuple(self.propositions.values())

    def decide(self, desk: Desk) -> Float[Tensor, "rows columns"]:
        values = {name: desk.value(condition) for name, condition in self.propositions.items()}
        facts = {name: value > 0.5 for name, value in values.items()}
        first = next(iter(values.values()))
        return forward_chain(facts, self.chain).get(self.opens, torch.zeros_like(first, dtype=torch.bool)).to(first.dtype)


def rules(propositions: Mapping[str, Openness], chain: Sequence[str | Rule], *, opens: str, hold: int = 0) -> Rules:
    """Openness by rules over propositions.

    Args:
        propositions: name -> condition, such as a probe with a threshold; true where it is open by more than one half.
        chain: rules like "harm and not (child or joke) -> refuse".
        opens: the proposition, given or derived, that opens the gate.
        hold: for how many tokens more the gate then stays open.

    Raises:
        BadGate: a rule that is none, a name that nothing makes true, or a chain that asks `not` of its own conclusion.
    """
    if not propositions:
        raise BadGate("rules", "there is no proposition", next_step='give some, like {"harm": op.probe(...)}')
    read = tuple(rule if isinstance(rule, Rule) else _read(rule) for rule in chain)
    known = {*propositions, *(rule.conclusion for rule in read)}
    for name in [*(name for rule in read for name in names_in(rule.premise)), opens]:
        if name not in known:
            raise BadGate(f"rules that open at {opens!r}", f"nothing makes {name!r} true", nearest=nearest(name, known))
    if hold < 0:
        raise BadGate(f"hold={hold} of rules", "it counts tokens from 0", next_step="give 0 or more")
    return Rules(dict(propositions), in_order(read), opens, hold)


def _read(text: str) -> Rule:
    premise, arrow, conclusion = (part.strip() for part in text.partition("->"))
    if not arrow or not conclusion.isidentifier():
        raise BadGate(f"rule {text!r}", "it has no single conclusion", next_step=_HOW)
    names_in(premise)
    return Rule(premise, conclusion)


def names_in(premise: str) -> tuple[str, ...]:
    """The propositions that a premise asks of, in the order of the text.

    Raises:
        BadGate: it is no such expression.
    """
    return tuple(node.id for node in ast.walk(_tree(premise)) if isinstance(node, ast.Name))


def _tree(premise: str) -> ast.expr:
    try:
        tree = ast.parse(premise, mode="eval").body
    except SyntaxError:
        raise BadGate(f"premise {premise!r}", "it cannot be read", next_step=_HOW) from None
    for node in ast.walk(tree):
        if not isinstance(node, _KNOWN):
            raise BadGate(f"premise {premise!r}", f"it holds {type(node).__name__}", next_step=_HOW)
    return tree


def _denied(premise: str) -> set[str]:
    """Names under a `not` or an exclusive or: those whose being true later would undo what was derived."""
    found: set[str] = set()
    for node in ast.walk(_tree(premise)):
        if isinstance(node, (ast.UnaryOp, ast.BinOp)):
            found |= {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return found


def in_order(chain: Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules sorted by stratum: what a `not` asks of is derived in an earlier one.

    Raises:
        BadGate: there is no such order.
    """
    level = {rule.conclusion: 0 for rule in chain}
    for _ in range(len(level) + 1):
        changed = False
        for rule in chain:
            denied = _denied(rule.premise)
            needed = max((level[n] + (n in denied) for n in names_in(rule.premise) if n in level), default=0)
            changed, level[rule.conclusion] = changed or needed > level[rule.conclusion], max(needed, level[rule.conclusion])
        if not changed:
            return tuple(sorted(chain, key=lambda rule: level[rule.conclusion]))
    names = ", ".join(sorted(name for name, value in level.items() if value > 1))
    raise BadGate("rules", f"{names} come back to themselves through a `not`", next_step="break the chain: it has no answer")


def forward_chain(facts: Mapping[str, Truth], chain: Sequence[Rule]) -> dict[str, Truth]:
    """Everything that follows from facts. Rules are in the order of `in_order`."""
    known = dict(facts)
    shape = torch.broadcast_shapes(*(fact.shape for fact in facts.values()))
    first = next(iter(facts.values()))
    for rule in chain:
        known.setdefault(rule.conclusion, torch.zeros(shape, dtype=torch.bool, device=first.device))
    strata: list[list[Rule]] = []
    settled: set[str] = set()
    for rule in chain:  # a new stratum begins where a `not` asks of what the present one derives
        if not strata or _denied(rule.premise) & settled:
            strata.append([])
            settled = set()
        strata[-1].append(rule)
        settled.add(rule.conclusion)
    for stratum in strata:
        _to_the_end(known, stratum)
    return known


def _to_the_end(known: dict[str, Truth], chain: Sequence[Rule]) -> None:
    for _ in range(len(chain) + 1):
        changed = False
        for rule in chain:
            new = known[rule.conclusion] | _truth(_tree(rule.premise), known.__getitem__)
            changed = changed or not torch.equal(new, known[rule.conclusion].expand_as(new))
            known[rule.conclusion] = new
        if not changed:
            return


def _truth(node: ast.expr, of: Callable[[str], Truth]) -> Truth:
    if isinstance(node, ast.Name):
        return of(node.id)
    if isinstance(node, ast.UnaryOp):
        return ~_truth(node.operand, of)
    if isinstance(node, ast.BinOp):
        return _truth(node.left, of) ^ _truth(node.right, of)
    assert isinstance(node, ast.BoolOp)
    values = [_truth(value, of) for value in node.values]
    found = values[0]
    for value in values[1:]:
        found = found & value if isinstance(node.op, ast.And) else found | value
    return found
