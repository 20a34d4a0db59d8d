"""Steering under a condition: where the condition reads, and what the record of it holds."""

import pytest

import optrode as op
from optrode.control import demos
from optrode.control.behaviours import Trigger
from optrode.control.gated import judge_condition, site_before, under
from tests.words import worded

FIRST = ("red", "old", "kind", "near", "late", "good", "tall", "cold")


@pytest.fixture(scope="module")
def model():
    return worded(max_position_embeddings=512)


def requests(form, offset):
    """16 requests that no other offset below 4 has."""
    return tuple(form.format(f"{FIRST[n]} {FIRST[(n + offset + more) % 8]}") for n in range(8) for more in (0, 4))


def trigger():
    """Requests that end in a question mark, against some that do not."""
    sides = [(requests("Is it {}?", n), requests("It is {}.", n)) for n in range(4)]
    return Trigger("asking", "when something is asked", *sides)


def test_a_condition_reads_no_later_than_gates_act(model):
    vector = op.control.directions(model, demos.sentiment().contrast(model), "blocks.2.resid_post")[0]
    assert site_before(model, [vector.gate(1.0)]) == "blocks.1.resid_post"
    assert site_before(model, [op.zero("blocks.0.mlp_out")]) == "blocks.0.resid_pre"


def test_the_record_has_tests_benefits_and_traces(model):
    direction = op.control.directions(model, demos.sentiment().contrast(model), "blocks.2.resid_post")[0]
    asked = demos.find("verbosity", model)
    condition, found = judge_condition(model, lambda dose: [direction.gate(dose)], asked, trigger(), 0.5, n_tokens=3)
    assert {one.name for one in found.benefits} == {"always on", "gated", "random at equal open rate", "oracle"}
    assert len(found.traces) == 4 and found.tests[0].scores[0].auc > 0.9
    (gate,) = under(condition, [direction.gate(0.5)])
    written = op.generate(
        model, [op.Request(text, (gate,), 3, trace=True) for text in (*trigger().test[0], *trigger().test[1])]
    )
    opened = [bool(one.trace.values[0].max()) for one in written]
    assert tuple(opened) == condition.opened((*trigger().test[0], *trigger().test[1]))
