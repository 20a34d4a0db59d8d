"""The cost of steering: likelihood under the plain model, repetition, relevance, their harmonic mean, side effects."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import optrode as op
from optrode.control.continuing import Continuation, continuations, forced_logits, traced
from optrode.control.fluency import fluency, harmonic, kl_to_plain, nll, perplexity, relevance, repeated_bigrams, stems
from tests.words import worded

PROMPTS = ("When Mary", "The capital of", "So he went to the")
SITE = "blocks.1.resid_post"


@pytest.fixture(name="model", scope="module", params=["llama", "gpt2"])
def _model(request):
    return worded(request.param)


def push(model, size=3.0, **options):
    vector = torch.randn(model.table.d_model, generator=torch.Generator().manual_seed(1))
    return op.add(SITE, size * vector, **options)


def test_batched_continuations_are_those_of_each_prompt_alone(model):
    together = continuations(model, PROMPTS, n_tokens=5)
    assert together == tuple(continuations(model, [prompt], n_tokens=5)[0] for prompt in PROMPTS)
    assert together == continuations(model, PROMPTS, n_tokens=5, batch_size=2)
    assert [one.text for one in together] == model.generate(list(PROMPTS), max_new_tokens=5)


def test_gates_of_some_rows_mean_the_prompts_however_they_are_batched(model):
    steered, plain = (continuations(model, PROMPTS, gates, n_tokens=5) for gates in ([push(model, 20.0)], ()))
    for gate in (push(model, 20.0, rows=2), push(model, 20.0, openness=op.by_row([0.0, 0.0, 1.0]))):
        found = continuations(model, PROMPTS, [gate], n_tokens=5, batch_size=2)
        assert found == (*plain[:2], steered[2]) != plain


def test_sampling_repeats_with_its_seed_and_leaves_the_random_state(model):
    before = torch.get_rng_state()
    one, same, other = (continuations(model, PROMPTS, n_tokens=8, random_seed=seed) for seed in (1, 1, 2))
    assert one == same != other and torch.equal(before, torch.get_rng_state())


def test_a_continuation_ends_with_its_end_token(model):
    plain = continuations(model, PROMPTS[:1], n_tokens=6)[0]
    config = model.module.generation_config
    before, config.eos_token_id = config.eos_token_id, plain.ids[2]
    try:
        ended = continuations(model, PROMPTS[:1], n_tokens=6)[0]
    finally:
        config.eos_token_id = before
    assert ended.ids == plain.ids[: plain.ids.index(plain.ids[2]) + 1]


def test_nll_is_that_of_the_plain_module(model):
    said = continuations(model, PROMPTS, [push(model)], n_tokens=5)
    for found, one in zip(nll(model, said), said, strict=True):
        ids = torch.tensor([[*one.prompt_ids, *one.ids]])
        labels = torch.where(torch.arange(ids.shape[1]) < len(one.prompt_ids), -100, ids)
        with torch.no_grad():
            assert found == pytest.approx(float(model.module(input_ids=ids, labels=labels).loss), abs=1e-4)


def test_nll_of_greedy_text_is_least_without_gates(model):
    said = [continuations(model, PROMPTS, gates) for gates in ((), [push(model, 30.0)])]
    plain, steered = (sum(nll(model, one)) for one in said)
    assert plain < steered


@pytest.mark.parametrize("scope", ["all", "prompt", "generated"])
def test_forced_logits_are_those_of_the_generation(model, scope):
    gates = [push(model, scope=scope)]
    said = continuations(model, PROMPTS, gates, n_tokens=5)
    greedy = forced_logits(model, said, gates).argmax(-1)
    assert [tuple(row[: len(one.ids)].tolist()) for row, one in zip(greedy, said, strict=True)] == [one.ids for one in said]


def test_forced_logits_without_gates_are_those_of_one_pass(model):
    said = continuations(model, PROMPTS, n_tokens=4)
    for row, one in zip(forced_logits(model, said), said, strict=True):
        with torch.no_grad():
            whole = model.module(input_ids=torch.tensor([[*one.prompt_ids, *one.ids]])).logits[0]
        start = len(one.prompt_ids) - 1
        torch.testing.assert_close(row[: len(one.ids)], whole[start : start + len(one.ids)], atol=1e-4, rtol=1e-4)


def test_kl_is_nothing_without_gates_and_grows_with_the_dose(model):
    said = continuations(model, PROMPTS, n_tokens=4)
    assert kl_to_plain(model, (), said) == pytest.approx((0.0,) * 3, abs=1e-6)
    small, large = (kl_to_plain(model, [push(model, size)], said) for size in (0.1, 3.0))
    assert all(0 < one < two for one, two in zip(small, large, strict=True))


def test_kl_is_the_mean_of_the_written_out_definition(model):
    said = continuations(model, PROMPTS, n_tokens=4)
    gated, plain = (forced_logits(model, said, gates)[1].double().softmax(-1) for gates in ([push(model)], ()))
    expected = float((gated * (gated / plain).log()).sum(-1).mean())
    assert kl_to_plain(model, [push(model)], said)[1] == pytest.approx(expected, abs=1e-5)


def test_perplexity_without_gates_is_that_of_the_module(model):
    text = "When Mary went to the city near the capital, John gave a drink to Mary."
    ids = model.to_tokens(text)
    labels = torch.where(torch.arange(ids.shape[1]) < 8, -100, ids)
    with torch.no_grad():
        expected = math.exp(float(model.module(input_ids=ids, labels=labels).loss))
    assert perplexity(model, text) == pytest.approx(expected, rel=1e-3)
    assert perplexity(model, text, [push(model, scope="generated")]) != pytest.approx(expected, rel=1e-3)


def test_a_conditional_gate_is_traced_token_by_token(model):
    weight = torch.zeros(model.table.d_model)
    gate = push(model, openness=op.probe("blocks.0.resid_post", weight, 1.0, above=0.5))
    said, trace = traced(model, PROMPTS[0], [gate], 4)
    assert trace.values[0].shape[0] == 1 and bool((trace.values[0][0, : len(said.prompt_ids)] == 1).all())
    assert said == continuations(model, PROMPTS[:1], [gate], n_tokens=4)[0]


def test_repeated_bigrams():
    assert repeated_bigrams((1, 2, 3, 4)) == 0 and repeated_bigrams((1, 2, 1, 2, 1)) == 0.5
    assert repeated_bigrams((7,) * 11) == pytest.approx(0.9) and repeated_bigrams((1,)) == repeated_bigrams(()) == 0


@given(st.floats(-5, 5), st.floats(0, 1))
def test_fluency_is_a_share_and_falls_with_cost(d_nll, rep2):
    found = fluency(d_nll, rep2)
    assert 0 <= found <= 1 and found >= fluency(d_nll + 0.1, rep2)
    assert (found == 0) == (rep2 > 0.3)
    if d_nll <= 0 and rep2 <= 0.3:
        assert found == 1


def test_text_of_unknown_likelihood_is_not_fluent():
    assert fluency(math.nan, 0.0) == fluency(math.inf, 0.0) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_the_harmonic_mean_lies_between_and_is_zero_with_a_zero(values):
    found = harmonic(*values)
    assert found == 0 if min(values) == 0 else min(values) - 1e-9 <= found <= max(values) + 1e-9


def test_relevance_is_one_for_plain_text_and_none_for_strangers():
    prompts = ("Tell me about cats and milk.", "Write about ships at sea.", "Describe a football match.")
    plain = ("Cats like milk.", "Ships cross the sea.", "A football match has two halves.")
    own = relevance(plain, plain, prompts)
    turned = relevance((plain[1], plain[2], plain[0]), plain, prompts)
    assert own is not None and sum(own) / 3 > 0.8 and turned == (0, 0, 0)
    assert all(0 <= value <= 1 for value in own)


def test_relevance_is_undefined_where_plain_text_has_none():
    assert relevance(("x", "y"), ("x", "y"), ("Tell me about cats.", "Write about ships.")) is None
    assert relevance(("cats",), ("cats",), ("cats",)) is None, "with one prompt there is nothing to compare with"


def test_stems_leave_out_stop_words():
    assert stems("The sailors were SAILING about the harbours, weren't they?") == ("sailo", "saili", "harbo", "weren")


def test_a_continuation_keeps_its_prompt(model):
    said = continuations(model, PROMPTS[:1], n_tokens=3)[0]
    assert isinstance(said, Continuation) and model.to_string(said.prompt_ids) == PROMPTS[0] and len(said.ids) == 3
