"""Rules: truth tables are exhausted, chains end, and what has no answer is refused."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import optrode as op
from optrode.errors import BadGate
from optrode.gate.place import gates
from optrode.gate.rules import Rule, forward_chain, in_order, rules
from tests.unit.gate.models import TOKENS, own

NAMES = ("a", "b", "c")
WORLDS = torch.tensor(list(itertools.product([False, True], repeat=3)))
FACTS = dict(zip(NAMES, WORLDS.T, strict=True))


def expressions(depth):
    names = st.sampled_from(NAMES)
    if depth == 0:
        return names
    below = expressions(depth - 1)
    two = st.tuples(below, st.sampled_from(["and", "or", "^"]), below).map(lambda p: f"({p[0]} {p[1]} {p[2]})")
    return st.one_of(names, two, below.map(lambda e: f"(not {e})"))


@given(expressions(3))
def test_every_premise_is_what_python_says_in_every_world(premise):
    found = forward_chain(FACTS, in_order([Rule(premise, "d")]))["d"]
    expected = [bool(eval(premise, {}, dict(zip(NAMES, map(bool, world), strict=True)))) for world in WORLDS.tolist()]
    assert found.tolist() == expected


def test_chains_derive_what_follows_in_any_order_of_the_text():
    chain = ["d -> e", "a and b -> d", "e and not f -> g", "c -> f"]
    for order in itertools.permutations(chain):
        made = rules({name: op.by_row([1.0]) for name in NAMES}, order, opens="g")
        found = forward_chain(FACTS, made.chain)["g"]
        assert found.tolist() == [a and b and not c for a, b, c in WORLDS.tolist()]


def test_positive_cycles_end():
    made = rules({name: op.by_row([1.0]) for name in NAMES}, ["a -> d", "d -> e", "e -> d"], opens="e")
    assert forward_chain(FACTS, made.chain)["e"].tolist() == WORLDS[:, 0].tolist()


@pytest.mark.parametrize(
    ("chain", "opens", "says"),
    [
        (["not d -> e", "e -> d"], "d", "come back to themselves"),
        (["a -> d"], "e", "nothing makes 'e' true"),
        (["f and a -> d"], "d", "nothing makes 'f' true"),
        (["a + b -> d"], "d", "it holds"),
        (["a and -> d"], "d", "cannot be read"),
        (["a and b"], "a", "no single conclusion"),
        (["__import__('os') -> d"], "d", "it holds Call"),
    ],
)
def test_what_is_no_set_of_rules_is_refused(chain, opens, says):
    with pytest.raises(BadGate, match=says):
        rules({name: op.by_row([1.0]) for name in NAMES}, chain, opens=opens)


def test_a_gate_is_open_where_its_rules_say_so():
    model = own()
    propositions = {"a": op.by_row([1.0, 1.0, 0.0]), "b": op.by_row([0.0, 1.0, 1.0])}
    gate = op.zero("blocks.0.mlp_out", openness=rules(propositions, ["a and not b -> c"], opens="c"))
    with gates(model, gate, trace=True) as held:
        model.module(TOKENS)
        assert held.trace.values[0].tolist() == [[1.0] * 5, [0.0] * 5, [0.0] * 5]


@pytest.mark.parametrize("hold", [0, 1, 2, 4])
def test_holding_on_keeps_it_open_for_so_many_tokens(hold):
    model = own()
    site, width = "embed", 8
    with gates(model, op.add(f"{site}[pos=1]", 100 * torch.ones(width, dtype=torch.float64))):
        pass_in = op.probe(site, torch.ones(width, dtype=torch.float64), bias=-400.0, above=0.5, hold=hold)
        with gates(
            model, op.scale("blocks.1.resid_post", 0.5, openness=rules({"a": pass_in}, [], opens="a")), trace=True
        ) as held:
            model.module(TOKENS)
            open_at = held.trace.values[0][0].tolist()
    assert open_at == [0.0] + [1.0] * min(hold + 1, 4) + [0.0] * max(0, 4 - hold - 1)
