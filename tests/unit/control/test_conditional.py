"""A learned condition opens by a probe on the prompt, at a rate that was fixed on other prompts."""

import pytest
import torch

import optrode as op
from optrode.control.behaviours import Trigger
from optrode.control.conditional import fit_condition
from optrode.control.contrast import Contrast
from optrode.control.direction import directions
from optrode.control.gate_quality import auc, open_at, quality
from optrode.control.states import read_states
from optrode.errors import BadGate, UnknownSite
from tests.words import worded

SITE = "blocks.1.resid_post"
READ = "blocks.0.resid_post"
PLACES = ("", " city", " year", " capital", " friend", " dear", " good", " kind", " close", " great", " nice", " true")
STARTS = tuple(f"{start}{place}" for place in PLACES for start in ("The", "When he", "So she"))


def requests(word, starts):
    return tuple(f"{start} {word}" for start in starts)


TRIGGER = Trigger(
    "Mary", "when the prompt ends with Mary", (requests("Mary", STARTS[:24]), requests("John", STARTS[:24])),
    (requests("Mary", STARTS[24:]), requests("John", STARTS[24:])),
    (requests("really Mary", STARTS[:10]), requests("really John", STARTS[:10])), ((), ()),
)  # fmt: skip


@pytest.fixture(name="model", scope="module")
def _model():
    return worded()


@pytest.fixture(name="found", scope="module", params=["last", "mean"])
def _found(model, request):
    return fit_condition(model, TRIGGER, READ, read=request.param, rate=0.05)


def test_the_probe_tells_test_prompts_and_its_threshold_lies_above_benign_validation(found, model):
    assert sum(found.opened(TRIGGER.test[0])) >= 7 and sum(found.opened(TRIGGER.test[1])) <= 2
    assert not any(found.opened(TRIGGER.validation[1])) and found.threshold == max(found.score(TRIGGER.validation[1]))
    measured = quality(model, "the probe", found.score, TRIGGER)
    gate = measured.tests[0].scores[0]
    assert gate.auc >= 0.9 and gate.fpr_5 == sum(found.opened(TRIGGER.test[1])) / 10
    assert len(measured.tests) == 1, "an empty contrast set is left out"


def test_its_openness_opens_a_gate_where_it_says(found, model):
    gate = op.add(SITE, torch.ones(model.table.d_model), openness=found.openness())
    asked = (*TRIGGER.test[0][:3], *TRIGGER.test[1][:3])
    assert open_at(model, [gate], asked) == found.opened(asked) == (True, True, True, False, False, False)


def test_closed_rows_are_those_of_the_plain_model(found, model):
    gate = op.add(SITE, 20 * torch.ones(model.table.d_model), openness=found.openness())
    asked = [*TRIGGER.test[0][:2], *TRIGGER.test[1][:2]]
    plain = model.generate(asked, max_new_tokens=4)
    with op.gates(model, gate):
        gated = model.generate(asked, max_new_tokens=4)
    assert gated[2:] == plain[2:] and gated[:2] != plain[:2]


def test_the_site_that_tells_validation_prompts_best_is_taken(model):
    sites = [f"blocks.{layer}.resid_post" for layer in range(3)]
    chosen = fit_condition(model, TRIGGER, sites)

    def told(site):
        one = directions(model, Contrast(*TRIGGER.train), site, "logistic", read="mean")[0]
        high, low = (one.score(read_states(model, part, site, read="mean")[0].pooled) for part in TRIGGER.validation)
        return auc(high.numpy(), low.numpy())

    assert told(chosen.direction.site) == max(map(told, sites))


def test_labels_that_say_nothing_are_refused(model):
    """Both classes hold the same words before the last token, which decides alone."""
    mixed = tuple(f"{start} {word}" for start, word in zip(STARTS, ("Mary", "John") * 18, strict=True))
    other = tuple(f"{start} {word}" for start, word in zip(STARTS, ("John", "Mary") * 18, strict=True))
    with pytest.raises(BadGate, match="condition for 'noise'.*chance alone reaches"):
        fit_condition(model, Trigger("noise", "never", (mixed, other), (mixed, other), (mixed, other), ((), ())), SITE)


def test_a_site_that_is_none_is_refused(model):
    with pytest.raises(UnknownSite):
        fit_condition(model, TRIGGER, "blocks.99.resid_post")
