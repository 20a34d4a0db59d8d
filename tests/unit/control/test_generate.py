"""One batch of different requests is each request alone: gates, lengths, temperatures, seeds, stops, streams, traces."""

import itertools

import pytest
import torch
from scipy import stats

import optrode as op
from optrode.control.generate import Request, generate, stream
from optrode.control.sampling import Sampling, most_likely
from optrode.control.watching import sure_length
from optrode.errors import BadGate, BadOption, GateNotFinite, OptrodeError, UnsupportedArchitecture
from optrode.gate.replay import replay
from tests.unit.gate.models import own
from tests.words import worded


@pytest.fixture(scope="module")
def model():
    found = worded("llama")
    found.module.double()
    return found


def vector(model, seed=0, size=4.0):
    drawn = torch.randn(model.table.d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return size * drawn / drawn.norm()


PROMPTS = ((5, 9, 2, 33, 7), (11, 3), (8, 40, 1, 17), (2, 2, 50))


def mixed(model):
    always = op.add("blocks.*.resid_post", vector(model), strength=0.5)
    probe = op.probe("blocks.0.resid_post", vector(model, 3), above=0.5)
    some = op.add("blocks.1.resid_post", vector(model, 1), openness=probe)
    return [
        Request(PROMPTS[0], (always,), 7, trace=True), Request(PROMPTS[1], (), 12),
        Request(PROMPTS[2], (some, op.scale("blocks.2.attn_out", 0.1)), 9, trace=True),
        Request(PROMPTS[3], (always, some), 5, temperature=0.8, top_p=0.9, seed=4, trace=True),
        Request(PROMPTS[1], (), 8, temperature=1.0, seed=4), Request(PROMPTS[0], (always, always), 6),
    ]  # fmt: skip


def test_each_row_is_what_it_is_alone(model):
    asked = mixed(model)
    together = generate(model, asked)
    for request, found in zip(asked, together, strict=True):
        (alone,) = generate(model, [request])
        assert (alone.token_ids, alone.text, alone.finish) == (found.token_ids, found.text, found.finish)
        assert len(found.token_ids) <= request.max_new_tokens


def test_order_and_company_do_not_matter(model):
    asked = mixed(model)
    first = dict(zip(map(id, asked), generate(model, asked), strict=True))
    for order in itertools.islice(itertools.permutations(asked), 0, 700, 233):
        for request, found in zip(order, generate(model, order), strict=True):
            assert found.token_ids == first[id(request)].token_ids


def test_a_trace_is_of_the_rows_own_gates_and_replays(model):
    asked = mixed(model)
    for request, found in zip(asked, generate(model, asked), strict=True):
        assert (found.trace is not None) == request.trace
        if found.trace is None or request.temperature:
            continue
        assert list(found.trace.values) == list(range(len(request.gates)))
        tokens = [*request.prompt, *found.token_ids]
        logits = replay(model, request.gates, [tokens[:-1]], found.trace)
        assert logits[0, len(request.prompt) - 1 :].argmax(-1).tolist() == list(found.token_ids)


def test_plain_rows_equal_the_models_own_generation(model):
    text = "the red cat"
    (found,) = generate(model, text)
    assert found.text == model.generate(text, max_new_tokens=64) or found.finish == "stop"
    assert found.n_prompt == len(model.encode(text))


def test_dose_zero_is_the_plain_model(model):
    plain, zero = generate(
        model, [Request(PROMPTS[0]), Request(PROMPTS[0], (op.add("embed", vector(model), strength=0.0),))]
    )
    assert plain.token_ids == zero.token_ids


def test_shared_gates_act_in_the_order_of_each_request(model):
    a, z = op.add("blocks.0.resid_post", vector(model)), op.scale("blocks.0.resid_post", 0.2)
    asked = [Request(PROMPTS[0], (a, z), 8), Request(PROMPTS[0], (z, a), 8), Request(PROMPTS[2], (z,), 8)]
    together = generate(model, asked)
    assert [one.token_ids for one in together] == [generate(model, one)[0].token_ids for one in asked]
    assert together[0].token_ids != together[1].token_ids


def test_an_answer_of_one_token_needs_no_generated_position(model):
    late = op.add("blocks.0.resid_post", vector(model), scope="generated")
    assert (
        generate(model, Request(PROMPTS[0], (late,), 1))[0].token_ids
        == generate(model, Request(PROMPTS[0], (), 1))[0].token_ids
    )


def test_a_dose_that_leaves_no_number_is_refused(model):
    with pytest.raises(GateNotFinite, match="lower the doses"):
        generate(model, Request(PROMPTS[0], (op.add("blocks.0.resid_post", vector(model), strength=1e308),), 4))


class TestStreams:
    def test_pieces_join_to_the_text(self, model):
        asked = [Request("the red cat", max_new_tokens=9), Request("a", temperature=1.0, seed=3, max_new_tokens=14)]
        pieces = {0: "", 1: ""}
        for row, piece in stream(model, asked):
            pieces[row] += piece
        assert [pieces[0], pieces[1]] == [one.text for one in generate(model, asked)]

    def test_leaving_early_ends_the_generation(self, model):
        left = stream(model, Request("the", max_new_tokens=40, temperature=5.0))
        next(left)
        left.close()
        assert not [hook for module in model.module.modules() for hook in module._forward_pre_hooks]

    def test_errors_reach_the_reader(self, model):
        with pytest.raises(OptrodeError):
            list(stream(model, Request("the", (op.zero("blocks.9.mlp_out"),))))


class TestStops:
    def test_a_stop_text_ends_the_row_and_is_not_part_of_it(self, model):
        (whole,) = generate(model, Request("the red cat", max_new_tokens=12, temperature=2.0, seed=1))
        words = whole.text.split()
        stop = words[len(words) // 2]
        pieces = []
        (found,) = generate(
            model, Request("the red cat", max_new_tokens=12, temperature=2.0, seed=1, stop=(stop,)),
            on_token=lambda row, piece: pieces.append(piece),
        )  # fmt: skip
        assert found.text == whole.text[: whole.text.find(stop)]
        assert "".join(pieces) == found.text
        assert found.finish == "stop"

    def test_cancelling_one_row_leaves_the_others(self, model):
        asked = [
            Request(PROMPTS[0], max_new_tokens=9, temperature=3.0),
            Request(PROMPTS[2], max_new_tokens=9, temperature=3.0),
        ]
        plain = generate(model, asked)
        found = generate(model, asked, cancelled=lambda row: row == 0)
        assert (found[0].finish, len(found[0].token_ids)) == ("cancelled", 1)
        assert found[1] == plain[1]

    @pytest.mark.parametrize(
        ("text", "stop", "sure"),
        [
            ("abc", (), 3),
            ("abc", ("cd",), 2),
            ("ab\ufffd", (), 2),
            ("abab", ("abc", "b"), 2),
            ("", ("a",), 0),
            ("aa", ("aab",), 0),
        ],
    )
    def test_what_may_become_a_stop_text_is_held_back(self, text, stop, sure):
        assert sure_length(text, stop) == sure


class TestSampling:
    def test_tokens_are_drawn_as_their_probabilities(self):
        scores, n = torch.tensor([[1.0, 0.0, -1.0, 2.5]]), 4000
        processor = Sampling([Request((1,), temperature=0.7, seed=5)])
        drawn = torch.stack([processor(torch.zeros(1, 1).long(), scores)[0].argmax() for _ in range(n)])
        expected = (scores[0].double() / 0.7).softmax(-1) * n
        assert stats.chisquare(drawn.bincount(minlength=4).numpy(), expected.numpy()).pvalue > 0.001

    def test_the_likeliest_that_reach_the_share_are_kept(self):
        scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
        for top_p, n in ((0.4, 1), (0.5, 1), (0.6, 2), (0.8, 2), (0.9, 3), (1.0, 4)):
            assert int(most_likely(scores, top_p).isfinite().sum()) == n, top_p


class TestWrongInput:
    @pytest.mark.parametrize(
        ("options", "kind"),
        [
            ({"max_new_tokens": 0}, BadOption), ({"temperature": -1.0}, BadOption),
            ({"temperature": float("nan")}, BadOption), ({"top_p": 0.0}, BadOption),
            ({"gates": (op.zero("embed", rows=[0]),)}, BadGate),
        ],
    )  # fmt: skip
    def test_requests_that_are_none(self, options, kind):
        with pytest.raises(kind):
            Request("a", **options)

    def test_a_dose_that_is_no_number(self, model):
        from dataclasses import replace

        with pytest.raises(GateNotFinite):
            Request("a", (replace(op.add("embed", vector(model)), strength=float("nan")),))

    def test_nothing_to_do(self, model):
        with pytest.raises(BadOption):
            generate(model, [])
        with pytest.raises(BadOption):
            generate(model, [Request(())])

    def test_a_module_that_cannot_generate(self):
        with pytest.raises(UnsupportedArchitecture, match="has no generate"):
            generate(own(), [Request((1, 2))])
