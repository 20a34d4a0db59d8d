"""Contrasts, states of texts, and directions: equal to what is computed by hand, whatever the batches and padding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config

import optrode as op
from optrode.control.contrast import Answered, Contrast
from optrode.control.direction import directions, judged, shuffled
from optrode.control.states import read_states, token_states, typical_norm
from optrode.errors import BadGate, BadName, BadOption, BadPairs, GateNotFinite, SinkIncluded, SiteUnavailable
from optrode.model.source import from_source
from optrode.model.tiny import tiny

SITE = "blocks.1.resid_post"


def rows(n, random_seed=0, of=(1, 61)):
    """Token ids of several lengths, from a range."""
    generator = torch.Generator().manual_seed(random_seed)
    return tuple(tuple(torch.randint(*of, (4 + ix % 5,), generator=generator).tolist()) for ix in range(n))


def contrast_of(n):
    """Texts of few words, other ones on either side."""
    return Contrast(rows(n, 0, of=(1, 6)), rows(n, 1, of=(40, 45)))


CONTRAST = contrast_of(8)


@pytest.fixture(scope="module")
def model():
    return from_source(tiny("llama", initializer_range=0.05).double())


@pytest.fixture(scope="module")
def found(model):
    return directions(model, CONTRAST, SITE)[0]


def by_hand(model, texts, read="last", site=SITE):
    """States of each text, one pass for each."""
    found = []
    for text in texts:
        h = op.record(model, torch.tensor([text]), site)[site][0].numpy()
        found.append(h[-1] if read == "last" else h[1:].mean(0))
    return np.stack(found)


def parts_of(contrast, held_out=0.25, random_seed=0):
    fitted, held = contrast.split(held_out, random_seed)
    return fitted, held


class TestContrast:
    @pytest.mark.parametrize(
        "sides",
        [((), ("a",)), (("a",), ()), (("a",), ("a",)), (("a", ""), ("b",)), (("a", "b"), ("b", "a")), (((),), ("b",))],
    )
    def test_empty_and_equal_sides_are_refused(self, sides):
        with pytest.raises(BadPairs):
            Contrast(*sides)

    def test_lists_are_kept_as_tuples_and_one_text_is_not_taken_for_letters(self, monkeypatch):
        monkeypatch.setattr(config, "jaxtyping_disable", True)  # as users run it: annotations are not checked
        assert Contrast([[1, 2], "a"], ["b"]) == Contrast(((1, 2), "a"), ("b",))
        with pytest.raises(BadPairs, match="one text, not several"):
            Contrast("good", ("bad",))

    def test_pairs_stay_together(self):
        whole = Contrast(tuple("abcdefgh"), tuple("ABCDEFGH"))
        fitted, held = whole.split(0.25, 3)
        for part in (fitted, held):
            assert [text.upper() for text in part.positive] == list(part.negative)
        assert sorted(fitted.positive + held.positive) == list("abcdefgh") and len(held.positive) == 2

    @given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 5), st.floats(0.01, 0.9))
    @settings(max_examples=30, deadline=None)
    def test_a_split_leaves_nothing_out_and_nothing_empty(self, n, m, random_seed, share):
        whole = Contrast(tuple((ix + 1,) for ix in range(n)), tuple((ix + 100,) for ix in range(m)))
        try:
            fitted, held = whole.split(share, random_seed)
        except BadPairs:
            assert min(n, m) - max(1, round(share * min(n, m))) <= 0
            return
        assert set(fitted.positive) | set(held.positive) == set(whole.positive)
        assert set(fitted.negative) | set(held.negative) == set(whole.negative)
        assert not set(fitted.positive) & set(held.positive) and not set(fitted.negative) & set(held.negative)

    def test_shuffling_moves_half_of_either_side(self):
        moved = CONTRAST.shuffled(1)
        assert len(set(moved.positive) & set(CONTRAST.positive)) == 4
        assert set(moved.positive + moved.negative) == set(CONTRAST.positive + CONTRAST.negative)
        assert moved != CONTRAST.shuffled(2) and moved == CONTRAST.shuffled(1)

    def test_templates_are_filled_alike_on_both_sides(self):
        made = Contrast.filled(("A {} film", "It was {}"), ("good", "fine"), ("bad", "poor"))
        assert made.positive == ("A good film", "A fine film", "It was good", "It was fine")
        assert made.negative == ("A bad film", "A poor film", "It was bad", "It was poor")
        with pytest.raises(BadPairs, match="it has not one"):
            Contrast.filled(("A film",), ("good",), ("bad",))
        with pytest.raises(BadPairs, match="as many on either side"):
            Contrast.filled(("A {}",), ("good", "fine"), ("bad",))

    @pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
    def test_a_share_out_of_range_is_refused(self, share):
        with pytest.raises(BadOption, match="share in"):
            CONTRAST.split(share)


class TestStates:
    @pytest.mark.parametrize("read", ["last", "mean"])
    def test_they_are_what_each_text_alone_shows(self, model, read):
        texts = CONTRAST.positive
        (states,) = read_states(model, texts, SITE, read=read)
        np.testing.assert_allclose(states.pooled.numpy(), by_hand(model, texts, read), rtol=1e-10, atol=1e-12)
        norms = [np.linalg.norm(op.record(model, torch.tensor([t]), SITE)[SITE][0, 1:].numpy(), axis=-1) for t in texts]
        median = np.quantile(np.concatenate(norms), 0.5, method="lower")
        assert math.isclose(states.typical, median, rel_tol=1e-10)

    @pytest.mark.parametrize("family", ["llama", "gpt2", "neox"])
    def test_batches_and_padding_do_not_matter(self, family):
        model = from_source(tiny(family).double())
        texts = rows(9)
        whole = read_states(model, texts, "blocks.*.resid_post", read="mean")
        for size in (1, 2, 4):
            found = read_states(model, texts, "blocks.*.resid_post", read="mean", batch_size=size)
            for one, other in zip(whole, found, strict=True):
                torch.testing.assert_close(one.pooled, other.pooled, rtol=1e-10, atol=1e-12)
                assert math.isclose(one.typical, other.typical, rel_tol=1e-10)

    def test_an_answer_is_read_without_its_prompt(self, model):
        text = CONTRAST.positive[0]
        (states,) = read_states(model, [Answered(text, 3)], SITE, read="mean")
        expected = op.record(model, torch.tensor([text]), SITE)[SITE][0, 3:].mean(0)
        torch.testing.assert_close(states.pooled[0], expected)

    def test_position_zero_counts_only_on_request_and_with_a_warning(self, model):
        with pytest.raises(BadPairs, match="no token after position 0"):
            read_states(model, [(3,), (4, 5)], SITE)
        with pytest.warns(SinkIncluded, match="attention sink"):
            (states,) = read_states(model, [(3,), (4, 5)], SITE, with_sink=True)
        np.testing.assert_allclose(states.pooled.numpy(), by_hand(model, [(3,), (4, 5)]))

    def test_all_tokens_come_text_after_text(self, model):
        texts = rows(5)
        expected = [op.record(model, torch.tensor([t]), SITE)[SITE][0, 1:] for t in texts]
        torch.testing.assert_close(token_states(model, texts, SITE, batch_size=2), torch.cat(expected))

    def test_one_head_is_a_site_and_several_are_not(self, model):
        (states,) = read_states(model, rows(3), "blocks.0.attn.z[head=2]")
        assert states.pooled.shape == (3, 8)
        with pytest.raises(SiteUnavailable, match="head=0"):
            read_states(model, rows(3), "blocks.0.attn.z")
        with pytest.raises(SiteUnavailable, match="whole states"):
            read_states(model, rows(3), "blocks.0.resid_post[pos=-1]")
        with pytest.raises(SiteUnavailable):
            read_states(model, rows(3), "blocks.0.attn.pattern")

    def test_modules_are_sites(self, model):
        (states,) = read_states(model, rows(3), "module:model.layers.1.out")
        torch.testing.assert_close(states.pooled, read_states(model, rows(3), SITE)[0].pooled)

    def test_a_typical_norm_is_of_one_site(self, model):
        assert typical_norm(model, rows(3), SITE) == read_states(model, rows(3), SITE)[0].typical
        with pytest.raises(op.OptrodeError, match="matches 3"):
            typical_norm(model, rows(3), "blocks.*.resid_post")

    def test_ways_to_read_that_there_are_not_are_refused(self, model, monkeypatch):
        monkeypatch.setattr(config, "jaxtyping_disable", True)
        with pytest.raises(BadOption, match="Nearest: last"):
            read_states(model, rows(3), SITE, read="lst")

    def test_nothing_to_read_is_refused(self, model):
        with pytest.raises(BadOption, match="no sequence"):
            read_states(model, [], SITE)
        with pytest.raises(BadOption, match="at least one row"):
            read_states(model, rows(2), SITE, batch_size=0)
        with pytest.raises(BadOption, match="no site"):
            read_states(model, rows(2), [])


class TestDirections:
    @pytest.mark.parametrize("read", ["last", "mean"])
    def test_a_difference_is_that_of_the_means_by_hand(self, model, read):
        (found,) = directions(model, CONTRAST, SITE, read=read, random_seed=5)
        fitted, held = parts_of(CONTRAST, random_seed=5)
        raw = by_hand(model, fitted.positive, read).mean(0) - by_hand(model, fitted.negative, read).mean(0)
        np.testing.assert_allclose(found.vector.numpy(), raw / np.linalg.norm(raw), rtol=1e-9, atol=1e-12)
        high, low = (by_hand(model, side, read) @ found.vector.numpy() for side in (held.positive, held.negative))
        assert found.separation == np.mean(high[:, None] > low[None])
        assert (found.n, found.n_held, found.site, found.read) == (12, 4, SITE, read)

    def test_pca_is_the_first_component_by_hand_with_the_sign_of_the_labels(self, model):
        (found,) = directions(model, CONTRAST, SITE, "pca", held_out=0.0)
        high, low = by_hand(model, CONTRAST.positive), by_hand(model, CONTRAST.negative)
        states = np.concatenate([high, low])
        first = np.linalg.svd(states - states.mean(0))[2][0]
        first *= np.sign(first @ (high.mean(0) - low.mean(0)))
        np.testing.assert_allclose(found.vector.numpy(), first, rtol=1e-8, atol=1e-10)

    def test_paired_pca_is_that_of_the_differences(self, model):
        (found,) = directions(model, CONTRAST, SITE, "paired-pca", held_out=0.0)
        differences = by_hand(model, CONTRAST.positive) - by_hand(model, CONTRAST.negative)
        first = np.linalg.svd(differences)[2][0]
        first *= np.sign(first @ differences.mean(0))
        np.testing.assert_allclose(found.vector.numpy(), first, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("method", ["difference", "pca", "paired-pca", "logistic", "mass-mean"])
    def test_every_method_tells_apart_texts_of_other_words(self, model, method):
        found = directions(model, contrast_of(16), "blocks.*.resid_post", method)
        assert [one.site for one in found] == [f"blocks.{layer}.resid_post" for layer in range(3)]
        for one in found:
            assert math.isclose(float(one.vector.norm()), 1.0, rel_tol=1e-6) and one.vector.dtype == model.dtype
            assert one.separation == 1.0 and not one.is_at_chance

    def test_shuffled_labels_tell_nothing_apart(self, model):
        contrast = contrast_of(24)
        (true,) = directions(model, contrast, SITE)
        others = [shuffled(model, contrast, SITE, random_seed=seed)[0] for seed in range(10)]
        assert abs(np.mean([one.separation for one in others]) - 0.5) < 0.2 and not true.is_at_chance
        assert max(abs(float(one.vector @ true.vector)) for one in others) < 0.5
        assert others[0].method == "difference, labels shuffled"

    @pytest.mark.parametrize("method", ["difference", "pca", "paired-pca", "logistic", "mass-mean"])
    def test_texts_of_one_state_are_refused(self, model, method):
        same = Contrast(((3, 7), (4, 7)), ((5, 7), (6, 7)))  # an embedding knows nothing of what came before
        with pytest.raises(BadPairs, match="the same mean"):
            directions(model, same, "embed", method, held_out=0.0)

    def test_wrong_options_are_refused(self, model):
        with pytest.raises(BadOption, match="difference"):
            directions(model, CONTRAST, SITE, "diference")
        with pytest.raises(BadPairs, match="pairs"):
            directions(model, Contrast(rows(3), rows(2, 1)), SITE, "paired-pca")
        with pytest.raises(BadPairs, match="at least two"):
            directions(model, Contrast(rows(1), rows(1, 1)), SITE)
        with pytest.raises(BadName):
            directions(model, CONTRAST, "blocks.1.resid post")
        with pytest.raises(BadOption, match="l2"):
            directions(model, CONTRAST, SITE, "logistic", l2=0.0)


class TestDirection:
    def test_its_gate_adds_a_share_of_the_typical_norm_and_spares_the_sink(self, model, found):
        ids = torch.tensor([[5, 9, 2, 7]])
        plain = op.record(model, ids, SITE)[SITE]
        with op.gates(model, found.gate(0.3)):
            moved = op.record(model, ids, SITE)[SITE] - plain
        assert torch.equal(moved[:, 0], torch.zeros_like(moved[:, 0]))
        expected = (0.3 * found.typical * found.vector).expand_as(moved[:, 1:])
        torch.testing.assert_close(moved[:, 1:], expected, rtol=1e-9, atol=1e-12)

    def test_gates_on_generated_tokens_leave_the_prompt_alone(self, model, found):
        gate = found.gate(-0.2, scope="generated", detach=True)
        assert gate.scope == "generated" and gate.strength == -0.2 and str(gate.site) == SITE and gate.detach

    def test_a_dose_that_is_no_number_is_refused(self, found):
        with pytest.raises(GateNotFinite):
            found.gate(math.nan)
        with pytest.raises(BadGate, match="no such option"):
            found.gate(0.1, scoop="all")

    def test_its_probe_opens_gates_where_texts_look_positive(self, model):
        (found,) = directions(model, contrast_of(24), SITE, read="mean")
        texts = rows(6, 5, of=(1, 6)) + rows(6, 6, of=(40, 45))
        odds = torch.stack([found.score(states) for states in read_states(model, texts, SITE, read="mean")[0].pooled])
        soft = found.probe(read="prompt")
        assert soft.pool == "mean" and soft.above is None
        for openness, expected in ((soft, odds.sigmoid()), (found.probe(read="prompt", above=0.5), (odds > 0).double())):
            with op.gates(model, op.scale("blocks.2.resid_post", 1.0, openness=openness), trace=True) as held:
                model.module(**model.batch(list(texts)).arguments())
            opened = held.trace.values[0]
            torch.testing.assert_close(opened[:, 0].double(), expected, rtol=1e-5, atol=1e-6)
        assert expected.tolist() == [1.0] * 6 + [0.0] * 6

    def test_random_directions_have_its_norm_and_nothing_else(self, found):
        drawn = [found.random(seed) for seed in range(3)]
        assert all(math.isclose(float(one.vector.norm()), 1.0, rel_tol=1e-6) for one in drawn)
        assert drawn[0].typical == found.typical and drawn[0].is_at_chance
        assert torch.equal(drawn[1].vector, found.random(1).vector) and not torch.equal(drawn[1].vector, drawn[2].vector)

    def test_the_opposite_is_judged_the_other_way_round(self, found):
        other = found.opposite()
        assert torch.equal(other.vector, -found.vector) and other.separation == 1 - found.separation
        states = torch.randn(4, 48, dtype=torch.float64)
        torch.testing.assert_close(other.score(states), -found.score(states))

    @pytest.mark.parametrize("read", ["last", "mean"])
    def test_it_can_be_judged_on_other_texts(self, model, read):
        fitted, held = CONTRAST.split(0.25, 0)
        unjudged = directions(model, fitted, "blocks.*.resid_post", read=read, held_out=0.0)
        expected = directions(model, CONTRAST, "blocks.*.resid_post", read=read, held_out=0.25)
        for one, other in zip(judged(model, unjudged, held), expected, strict=True):
            torch.testing.assert_close(one.vector, other.vector)
            assert (one.separation, one.n_held, one.chance) == (other.separation, other.n_held, other.chance)
        (worst,) = judged(model, unjudged[:1], held.swapped())
        assert worst.separation == 1 - expected[0].separation and worst.is_at_chance

    def test_without_held_out_texts_it_is_not_judged(self, model):
        (found,) = directions(model, CONTRAST, SITE, held_out=0.0)
        assert math.isnan(found.separation) and found.is_at_chance and "not judged" in str(found)
        with pytest.raises(BadGate, match="nothing was held out"):
            found.probe()

    def test_a_direction_at_chance_opens_nothing(self, model):
        (found,) = directions(model, Contrast(rows(12, 3), rows(12, 4)), "blocks.0.resid_pre", random_seed=1)
        assert found.is_at_chance
        with pytest.raises(BadGate, match="chance alone reaches"):
            found.probe(above=0.5)

    def test_it_prints_what_it_is(self, found):
        assert str(found).startswith(f"difference of 12 texts at {SITE}: separation 1.00 on 4 texts")
