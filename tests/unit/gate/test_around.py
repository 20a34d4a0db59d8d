"""Passes aside: made once, seen by nobody, the same as the written-out two passes; and gates that read other sites."""

import pytest
import torch

import optrode as op
from optrode.gate.place import gates
from optrode.site.recording import record, recording
from tests.unit.gate.models import MODELS, TOKENS, dropping, equal, far, gradients, hugging_face, loss_of, own, weights

ABLATED = ("blocks.0.attn.z[head=0]", "blocks.0.mlp_out")


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def logits(model, *held, tokens=TOKENS):
    with gates(model, *held):
        return model.module(tokens).logits


def counted(model):
    """How often the model's first block runs."""
    calls = []
    path = "blocks.0" if hasattr(model.module, "blocks") else "transformer.h.0"
    model.module.get_submodule(path).register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def trace(model):
    modules = list(model.module.modules())
    return [list(getattr(m, kind)) for m in modules for kind in ("_forward_hooks", "_forward_pre_hooks")]


@pytest.mark.parametrize("kind", ["attn.pattern", "attn.v", "attn.q", "attn.k"])
@pytest.mark.parametrize("ablated", ABLATED)
def test_preserving_equals_the_written_out_two_passes(model, kind, ablated):
    """Ablate below, keep what layer 1 attends to, or with, or reads, as it was (Singh et al. 2024, "preserve")."""
    site = f"blocks.1.{kind}"
    kept = record(model, TOKENS, site)
    by_hand = logits(model, op.zero(ablated), op.patch(site, kept))
    at_once = logits(model, op.zero(ablated), op.patch(site, op.first_pass()))
    torch.testing.assert_close(at_once, by_hand, rtol=1e-12, atol=1e-12)
    assert float((at_once - logits(model, op.zero(ablated))).detach().abs().max()) > 1e-4


def test_a_first_pass_has_the_gates_that_it_is_given_and_no_others(model):
    site, inside = "blocks.1.resid_pre", op.scale("embed", 0.3)
    with gates(model, inside):
        kept = record(model, TOKENS, site)
    found = logits(model, op.zero("blocks.0.mlp_out"), op.patch(f"{site}[pos=1:3]", op.first_pass(inside)))
    expected = logits(model, op.zero("blocks.0.mlp_out"), op.patch(f"{site}[pos=1:3]", kept))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_gates_that_share_a_source_share_its_pass(model):
    calls, source, other = counted(model), op.first_pass(), op.first_pass()
    held = [op.patch(site, source) for site in ("blocks.*.attn.pattern", "blocks.1.mlp_out", "blocks.0.resid_mid")]
    logits(model, *held)
    assert len(calls) == 2
    logits(model, *held, op.patch("blocks.1.attn.v", other))
    assert len(calls) == 2 + 3
    with gates(model, *held):
        for _ in range(3):
            model.module(TOKENS)
    assert len(calls) == 5 + 6


def test_no_pass_is_made_aside_while_all_who_take_from_it_are_closed(model):
    calls, source = counted(model), op.first_pass()
    early, late = (op.patch("blocks.1.mlp_out", source, when=when) for when in (op.when(until=1), op.when(3)))
    n_passes = []
    with gates(model, early, late) as held:
        for _ in range(5):
            calls.clear()
            model.module(TOKENS)
            n_passes.append(len(calls))
            held.step()
    assert n_passes == [2, 1, 1, 2, 2]


class TestOtherModel:
    def test_it_equals_recording_the_other_model_and_patching(self, model):
        other = own(d_mlp=13) if hasattr(model.module, "blocks") else hugging_face(n_inner=9)
        site = "blocks.0.resid_post"
        kept = record(other, TOKENS, site)
        found = logits(model, op.patch(site, op.other_model(other)))
        torch.testing.assert_close(found, logits(model, op.patch(site, kept)), rtol=1e-12, atol=1e-12)
        with gates(other, op.zero("embed")):
            kept = record(other, TOKENS, site)
        found = logits(model, op.patch(site, op.other_model(other, op.zero("embed"))))
        torch.testing.assert_close(found, logits(model, op.patch(site, kept)), rtol=1e-12, atol=1e-12)

    def test_no_gradient_flows_into_it_and_nothing_of_it_changes(self, model):
        other = type(model)(model.module.__class__(model.module.config).double(), model.table)
        before, left = weights(other), trace(other)
        with gates(model, op.patch("blocks.0.resid_post", op.other_model(other))):
            found = gradients(model)
        assert all(p.grad is None for p in other.module.parameters())
        assert equal(weights(other), before) and trace(other) == left
        below = [name for name in found if "blocks.0." in name or ".h.0." in name]
        assert below and not any(found[name].any() for name in below)
        assert any(value.any() for value in found.values())


class TestSeenByNobody:
    def test_an_outer_recording_sees_the_pass_itself_alone(self, model):
        site = "blocks.0.mlp_out"
        gate = op.patch("blocks.1.attn.pattern", op.first_pass(op.scale(site, 7.0)))
        plain = record(model, TOKENS, site)[site]
        for order in (0, 1):
            contexts = [lambda: recording(model, site), lambda: gates(model, gate)]
            first, second = contexts if order == 0 else contexts[::-1]
            with first() as one, second() as two:
                model.module(TOKENS)
            seen = (one if order == 0 else two)[site]
            assert seen.shape == plain.shape and torch.equal(seen, plain)

    def test_an_outer_gate_does_not_act_in_it(self, model):
        site = "blocks.0.mlp_out"
        inner = op.patch("blocks.1.attn.pattern", op.first_pass())
        with gates(model, op.zero(site)), gates(model, inner):
            nested = model.module(TOKENS).logits
        with gates(model, inner), gates(model, op.zero(site)):
            other_way = model.module(TOKENS).logits
        at_once = logits(model, op.zero(site), inner)
        assert torch.equal(nested, at_once) and torch.equal(other_way, at_once)

    def test_nested_contexts_with_a_first_pass_each(self, model):
        one, two = op.patch("blocks.1.attn.pattern", op.first_pass()), op.patch("blocks.1.attn.v", op.first_pass())
        with gates(model, op.zero("blocks.0.mlp_out")), gates(model, one), gates(model, two):
            nested = model.module(TOKENS).logits
        assert torch.equal(nested, logits(model, op.zero("blocks.0.mlp_out"), one, two))

    def test_measuring_aside_sees_the_model_without_the_gates(self, model):
        plain = model.module(TOKENS).logits
        with gates(model, op.zero("embed")) as held:
            gated = model.module(TOKENS).logits
            with held.aside():
                assert torch.equal(model.module(TOKENS).logits, plain)
                inner = record(model, TOKENS, "logits")["logits"]
                assert torch.equal(inner, plain)
                scaled = logits(model, op.scale("blocks.1.mlp_out", 0.5))
            assert torch.equal(model.module(TOKENS).logits, gated)
        assert torch.equal(scaled, logits(model, op.scale("blocks.1.mlp_out", 0.5)))

    def test_dropout_is_the_same_in_both_passes(self):
        model = dropping()
        model.module.train()
        torch.manual_seed(1)
        plain = model.module(TOKENS).logits
        torch.manual_seed(1)
        assert torch.equal(logits(model, op.patch("blocks.*.attn.pattern", op.first_pass())), plain)


class TestErrorsInside:
    """Whatever happens in a pass aside, nothing stays, and the next pass is right."""

    @pytest.mark.parametrize("where", ["aside", "main"])
    def test_the_next_pass_is_right(self, model, where):
        fails = [True]

        def breaking(h, around):
            if fails[0]:
                raise ArithmeticError("the user's own")
            return h * 0.5

        breaks = op.compute("blocks.0.mlp_out", breaking)
        gate = op.patch("blocks.1.attn.pattern", op.first_pass(breaks if where == "aside" else op.scale("embed", 0.5)))
        held = (gate, breaks if where == "main" else op.zero("blocks.0.mlp_out"))
        left = trace(model)
        with gates(model, *held):
            for _ in range(2):
                with pytest.raises(ArithmeticError, match="^the user's own$"):
                    model.module(TOKENS)
            fails[0] = False
            found = model.module(TOKENS).logits
        assert trace(model) == left
        assert torch.equal(found, logits(model, *held))
        with recording(model, "embed") as seen:
            model.module(TOKENS)
        assert seen["embed"].shape[0] == len(TOKENS)

    def test_an_error_that_ends_the_context_leaves_nothing(self, model):
        plain, left, drawn = model.module(TOKENS).logits, trace(model), torch.get_rng_state()
        gate = op.patch("blocks.1.attn.pattern", op.first_pass(op.compute("embed", lambda h, around: 1 / 0)))
        with pytest.raises(ZeroDivisionError), gates(model, gate):
            model.module(TOKENS)
        assert trace(model) == left and torch.equal(model.module(TOKENS).logits, plain)
        assert torch.equal(torch.get_rng_state(), drawn) and torch.is_grad_enabled()


class TestReading:
    def test_a_gate_reads_the_inputs_and_what_came_by(self, model):
        seen = {}

        def function(h, around):
            seen.update(inputs=dict(around.inputs), mlp=around["blocks.0.mlp_out"], same=around["blocks.0.hook_mlp_out"])
            return h + around["blocks.0.mlp_out"]

        site, held = "blocks.1.attn_out", record(model, TOKENS, ["blocks.0.mlp_out", "blocks.1.attn_out"])
        with gates(model, op.compute(site, function, reads="blocks.0.mlp_out")), recording(model, site) as after:
            model.module(TOKENS)
        torch.testing.assert_close(after[site], held["blocks.0.mlp_out"] + held[site], rtol=0, atol=1e-14)
        assert torch.equal(seen["mlp"], held["blocks.0.mlp_out"]) and seen["mlp"] is seen["same"]
        assert torch.equal(seen["inputs"]["input_ids"], TOKENS)

    @pytest.mark.parametrize("named", [False, True])
    def test_inputs_are_known_by_name_however_they_were_given(self, model, named):
        names = []
        gate = op.compute("embed", lambda h, around: names.append(sorted(around.inputs)) or h)
        with gates(model, gate):
            model.module(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)) if named else model.module(TOKENS)
        assert names == [["attention_mask", "input_ids"] if named else ["input_ids"]]

    def test_it_reads_what_other_gates_have_made_of_it(self, model):
        gate = op.compute("blocks.1.mlp_out", lambda h, around: around["blocks.0.mlp_out"], reads="blocks.0.mlp_out")
        with gates(model, op.clamp("blocks.0.mlp_out", 0.25), gate), recording(model, "blocks.1.mlp_out") as held:
            model.module(TOKENS)
        assert (held["mlp_out", 1] == 0.25).all()

    def test_what_it_reads_is_of_the_pass_under_way(self, model):
        gate = op.compute("blocks.1.mlp_out", lambda h, around: around["embed"], reads="embed")
        with gates(model, gate), recording(model, ["embed", "blocks.1.mlp_out"]) as held:
            for tokens in (TOKENS, TOKENS.flip(0)):
                model.module(tokens)
        assert torch.equal(held["mlp_out", 1], held["embed"])

    def test_a_clamp_that_is_computed_holds_while_training(self):
        """The previous-token pattern, made of nothing but the shape, on one head (Singh et al. 2024)."""
        model = own()

        def previous(h, around):
            eye = torch.diag(h.new_ones(h.shape[-1] - 1), -1)
            eye[0, 0] = 1
            return eye.expand_as(h)

        site = "blocks.0.attn.pattern[head=1]"
        optimizer = torch.optim.SGD(model.module.train().parameters(), lr=0.1)
        with gates(model, op.compute(site, previous)), recording(model, "blocks.0.attn.pattern") as held:
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()
        pattern = held["pattern", 0]
        assert (pattern[:, 1].argmax(-1) == torch.tensor([0, 0, 1, 2, 3])).all() and (pattern[:, 1].amax(-1) == 1).all()
        assert not (pattern[:, 0].amax(-1) == 1)[:, 1:].any()


def test_a_first_pass_of_the_same_patterns_keeps_gradients_true():
    """Ablation with patterns preserved: gradients are those of one function of the weights, both passes in it."""
    model = own()
    held = (op.zero("blocks.0.mlp_out"), op.patch("blocks.1.attn.pattern", op.first_pass()))
    with gates(model, *held):
        found = gradients(model)
    model.module.zero_grad()
    patterns = []
    handle = model.module.blocks[1].attn.pattern.register_forward_hook(lambda m, a, out: patterns.append(out))
    model.module(TOKENS)
    handle.remove()
    with gates(model, op.zero("blocks.0.mlp_out"), op.compute("blocks.1.attn.pattern", lambda h, around: patterns[0])):
        loss_of(model).backward()
        by_hand = {name: torch.zeros(1) if p.grad is None else p.grad for name, p in model.module.named_parameters()}
    assert far(found, by_hand) < 1e-15
