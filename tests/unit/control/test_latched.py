"""Conditions decided at the prompt: found, chosen and judged on different texts, without position 0, or refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import optrode as op
from optrode.control.latched import _grid, cast_separation, fit_cast, fit_probe
from optrode.control.states import read_states
from optrode.errors import BadGate, BadOption, BadPairs, SinkIncluded
from optrode.model.source import from_source
from optrode.model.tiny import tiny

SITE = "blocks.0.resid_pre"
TRIGGER, OTHER = 5, 6


def prompts(token, n, seed):
    """Rows of different lengths that end with a token, which is in their middle too."""
    draws = torch.Generator().manual_seed(seed)
    rows = [torch.randint(30, 60, (3 + ix % 3,), generator=draws).tolist() for ix in range(n)]
    return [(*row, token, row[0], token) for row in rows]


POSITIVE, NEGATIVE = prompts(TRIGGER, 40, 1), prompts(OTHER, 48, 2)
FRESH = prompts(TRIGGER, 8, 3) + prompts(OTHER, 8, 4)


@pytest.fixture(name="model", scope="module")
def _model():
    """One token writes far more in one direction than others do."""
    module = tiny("llama")
    with torch.no_grad():
        module.get_input_embeddings().weight[TRIGGER] += 8 * torch.nn.functional.one_hot(torch.tensor(7), 48)
    return from_source(module)


@pytest.mark.parametrize("read", ["last", "mean"])
@pytest.mark.parametrize("fit", [fit_probe, fit_cast])
def test_a_condition_tells_prompts_that_nothing_was_chosen_by(model, fit, read):
    found = fit(model, POSITIVE, NEGATIVE, SITE, read=read)
    assert found.separation >= 0.9 and found.hit >= 0.4 and found.false_alarm <= 0.3
    assert found.n_judged == 10 + 12 and found.separation > found.chance
    assert f"{SITE}, {found.side}" in str(found)


@pytest.mark.parametrize("read", ["last", "mean"])
@pytest.mark.parametrize("fit", [fit_probe, fit_cast])
def test_gates_open_where_the_fitted_score_passes_the_threshold(model, fit, read):
    found = fit(model, POSITIVE, NEGATIVE, SITE, read=read)
    (states,) = read_states(model, FRESH, SITE, read=read)
    if found.method == "CAST":
        c = found.weight.double()
        towards = torch.tanh((states.pooled @ c / (c @ c))[:, None] * c)
        scores = torch.nn.functional.cosine_similarity(states.pooled, towards)
    else:
        scores = states.pooled @ found.weight.double() + found.bias
    expected = scores > found.threshold if found.side == "above" else scores < found.threshold
    gate = op.add(SITE, torch.ones(model.table.d_model), openness=found.openness)
    with op.gates(model, gate, trace=True) as held, torch.no_grad():
        model(**model.batch([list(row) for row in FRESH]).arguments())
    assert held.trace.values[0][:, 0].tolist() == expected.float().tolist()


def test_the_threshold_of_a_probe_lets_the_rate_through_on_the_texts_that_it_is_chosen_on(model):
    """No more than the rate of twelve, of half of them, and of none."""
    bounds = [fit_probe(model, POSITIVE, NEGATIVE, SITE, read="mean", rate=rate).threshold for rate in (0.05, 0.1, 0.5)]
    assert bounds[0] >= bounds[1] > bounds[2]


def test_the_site_with_the_best_f1_is_taken(model):
    found = fit_cast(model, POSITIVE, NEGATIVE, "blocks.*.resid_pre")
    assert found.site == SITE and found.separation >= 0.9
    assert fit_cast(model, POSITIVE, NEGATIVE, SITE, method="difference").separation >= 0.9


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=8), st.lists(st.integers(-5, 5), min_size=1, max_size=8)
)  # fmt: skip
def test_the_grid_finds_the_greatest_f1_of_all_thresholds(high, low):
    top = {side: f1 for f1, _, side in _grid(torch.tensor(high).double(), torch.tensor(low).double())}
    for side, sign in (("above", 1), ("below", -1)):
        for bound in (x + 0.5 for x in range(min(high + low), max(high + low))):
            hits = sum(sign * x > sign * bound for x in high)
            alarms = sum(sign * x > sign * bound for x in low)
            assert top[side] >= 2 * hits / (hits + alarms + len(high)) - 1e-6


@pytest.mark.parametrize("fit", [fit_probe, fit_cast])
def test_sets_that_do_not_differ_are_refused_as_chance(model, fit):
    with pytest.raises(BadGate, match=r"chance alone reaches"):
        fit(model, prompts(OTHER, 40, 7), prompts(OTHER, 40, 8), SITE, read="mean")
    with pytest.raises(BadPairs, match="same mean"):
        fit(model, prompts(OTHER, 40, 7), prompts(OTHER, 40, 8), SITE, read="last")


def test_position_zero_is_left_out_unless_it_is_asked_for_which_warns_and_opens_no_gate(model):
    found = fit_cast(model, POSITIVE, NEGATIVE, SITE)
    assert not found.with_sink
    with pytest.warns(SinkIncluded):
        unsafe = fit_cast(model, POSITIVE, NEGATIVE, SITE, with_sink=True)
    assert unsafe.threshold != found.threshold
    with pytest.raises(BadGate, match="without with_sink"):
        _ = unsafe.openness


def test_the_separation_of_one_site_is_told_even_at_chance(model):
    assert cast_separation(model, POSITIVE, NEGATIVE, SITE) >= 0.8
    assert math.isclose(cast_separation(model, NEGATIVE, NEGATIVE[:-1], SITE), 0.5, abs_tol=0.35)


def test_few_texts_rates_out_of_range_and_several_sites_of_a_probe_are_refused(model):
    with pytest.raises(BadPairs, match="at least 6"):
        fit_probe(model, POSITIVE[:5], NEGATIVE, SITE)
    with pytest.raises(BadOption, match="rate"):
        fit_probe(model, POSITIVE, NEGATIVE, SITE, rate=1.0)
    with pytest.raises(BadOption, match="method"):
        fit_cast(model, POSITIVE, NEGATIVE, SITE, method="paired-pcs")
    with pytest.raises(BadOption, match="reads 3 sites"):
        fit_probe(model, POSITIVE, NEGATIVE, "blocks.*.resid_post")
