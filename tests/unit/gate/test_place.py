"""Gates held on a model: the formula, composition, scopes, generation, gradients, and no trace afterwards."""

import copy

import pytest
import torch

import optrode as op
from optrode.errors import GateNotFired
from optrode.gate.place import gates
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.recording import record, recording

PROMPTS = torch.tensor([[5, 9, 2, 7, 11, 3], [8, 1, 4, 30, 22, 17]])
VIEWED = ["blocks.1.resid_pre", "blocks.1.attn.k", "blocks.0.attn.z", "blocks.2.mlp_out", "embed", "blocks.1.resid_mid"]


@pytest.fixture
def model():
    return from_source(tiny("llama").double())


def read(model, site, *held):
    """A site's value with gates held."""
    with gates(model, *held):
        return record(model, PROMPTS, site)[site]


def kinds_of_gate(model, site):
    """Each kind of gate at a site, with the f(h) that its docstring promises."""
    h = record(model, PROMPTS, site)[site]
    width = h.shape[-1]
    v = torch.linspace(-1, 1, width).double()
    weight = torch.randn(width, width).double()
    other = record(model, PROMPTS.flip(0), site)
    unit = v / v.norm()
    return h, {
        "zero": (op.zero(site), torch.zeros_like(h)),
        "patch": (op.patch(site, other), other[site]),
        "patch tensor": (op.patch(site, v), v.expand_as(h)),
        "mean rows": (op.mean(site, other), other[site].mean(0, keepdim=True).expand_as(h)),
        "mean all": (op.mean(site, other, over="all"), other[site].mean((0, 1), keepdim=True).expand_as(h)),
        "clamp": (op.clamp(site, 0.5), torch.full_like(h, 0.5)),
        "clamp bounds": (op.clamp(site, low=-0.1, high=0.2), h.clamp(-0.1, 0.2)),
        "add": (op.add(site, v), h + v),
        "scale": (op.scale(site, 1.5), 1.5 * h),
        "project out": (op.project_out(site, v), h - (h @ unit)[..., None] * unit),
        "affine": (op.affine(site, weight, v), h @ weight.T + v),
    }


@pytest.mark.parametrize("site", VIEWED)
@pytest.mark.parametrize("strength", [1.0, 0.3, -2.0])
def test_every_kind_follows_the_formula(model, site, strength):
    h, made = kinds_of_gate(model, site)
    for name, (gate, target) in made.items():
        dosed = type(gate)(gate.site, gate.actuator, strength)
        expected = h + strength * (target - h)
        torch.testing.assert_close(read(model, site, dosed), expected, rtol=1e-12, atol=1e-12, msg=name)


def test_selectors_gate_only_what_they_select(model):
    site = "blocks.1.attn.z"
    before = record(model, PROMPTS, site)[site]
    after = read(model, site, op.zero(f"{site}[head=1|4, pos=-2:, feature=2:5]"))
    expected = before.clone()
    expected[:, -2:, [1, 4], 2:5] = 0
    assert torch.equal(after, expected)


def test_gates_compose_in_the_order_given(model):
    site = "blocks.1.resid_pre"
    h = record(model, PROMPTS, site)[site]
    one, two = op.scale(site, 3.0), op.add(site, torch.ones(48).double())
    torch.testing.assert_close(read(model, site, one, two), 3 * h + 1)
    torch.testing.assert_close(read(model, site, two, one), 3 * (h + 1))
    with gates(model, one):
        torch.testing.assert_close(read(model, site, two), 3 * h + 1)


def test_a_pattern_gates_every_layer_it_matches(model):
    zeroed = record_all(model, op.zero("blocks.1:.attn.z[head=2]"))
    assert [bool((z[:, :, 2] == 0).all()) for z in zeroed] == [False, True, True]


def record_all(model, gate):
    with gates(model, gate):
        held = record(model, PROMPTS, "blocks.*.attn.z")
    return [held["z", layer] for layer in range(3)]


def trace(model):
    """Everything that a gate might leave behind."""
    modules = list(model.module.modules())
    return (
        [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in modules],
        [id(m.config) for m in modules if hasattr(m, "config")],
        [m.training for m in modules],
        [id(p) for p in model.module.parameters()],
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_no_trace_is_left(model, fails):
    before = copy.deepcopy(model.module.state_dict())
    left = trace(model)
    held = [op.zero(site) for site in (*VIEWED, "blocks.0.attn.pattern", "blocks.2.attn.scores", "blocks.1.attn.result")]
    try:
        with gates(model, *held):
            model(input_ids=PROMPTS)
            if fails:
                raise RuntimeError("the user's own")
    except RuntimeError as error:
        assert str(error) == "the user's own"
    assert trace(model) == left
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_scores_cannot_be_opened_where_the_mask_closes_them(model):
    with gates(model, op.clamp("blocks.1.attn.scores", 3.0)):
        pattern = record(model, PROMPTS, "blocks.1.attn.pattern")["pattern", 1]
    expected = torch.ones(6, 6).tril().double()
    torch.testing.assert_close(pattern, (expected / expected.sum(-1, keepdim=True)).expand_as(pattern), rtol=1e-6, atol=1e-7)


def close(generated, full):
    """transformers returns the logits of a generation in float32, whatever the model computes in."""
    torch.testing.assert_close(generated, full.float(), rtol=1e-5, atol=1e-6)


class TestGeneration:
    """Every step with the cache equals a full pass over the whole sequence with explicit positions."""

    STEPS = 5

    def generate(self, model, token_ids, mask=None, **kwargs):
        return model.module.generate(
            input_ids=token_ids, attention_mask=torch.ones_like(token_ids) if mask is None else mask,
            max_new_tokens=self.STEPS, do_sample=False, pad_token_id=0, return_dict_in_generate=True, output_logits=True,
            **kwargs,
        )  # fmt: skip

    @pytest.mark.parametrize(
        "site", ["blocks.1.resid_post", "blocks.0.attn.v[head=1]", "blocks.2.mlp_out", "blocks.1.attn.pattern"]
    )
    @pytest.mark.parametrize(("scope", "positions"), [("all", "pos=0:"), ("prompt", "pos=0:6"), ("generated", "pos=6:")])
    @pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mistral"])
    def test_each_step_equals_a_full_pass(self, family, site, scope, positions):
        model = from_source(tiny(family, attn_implementation="eager").double())
        with gates(model, op.scale(site, 0.4, scope=scope)):
            out = self.generate(model, PROMPTS)
        explicit = f"{site[:-1]}, {positions}]" if site.endswith("]") else f"{site}[{positions}]"
        for step in range(1, self.STEPS):
            so_far = out.sequences[:, : 6 + step]
            with gates(model, op.scale(explicit, 0.4)):
                full = model.module(so_far).logits[:, -1]
            close(out.logits[step], full)

    def test_padded_rows_are_gated_by_their_own_positions(self):
        model = from_source(tiny("llama").double())
        short = PROMPTS[0, 2:]
        padded = torch.stack([PROMPTS[1], torch.cat([torch.zeros(2).long(), short])])
        mask = torch.tensor([[1] * 6, [0, 0] + [1] * 4])
        gate = op.scale("blocks.1.resid_post[pos=-1]", 0.2)
        with gates(model, gate):
            both = self.generate(model, padded, mask)
        with gates(model, gate):
            alone = self.generate(model, short[None])
        close(both.logits[3][1], alone.logits[3][0])

    def test_a_patch_from_a_prompt_acts_on_the_prompt_only(self):
        model = from_source(tiny("llama").double())
        source = record(model, PROMPTS.flip(0), "blocks.1.resid_post")
        with gates(model, op.patch("blocks.1.resid_post", source)):
            out = self.generate(model, PROMPTS)
        with gates(model, op.patch("blocks.1.resid_post", source)):
            full = model.module(out.sequences[:, :9]).logits[:, -1]
        close(out.logits[3], full)

    def test_recording_joins_the_steps(self):
        model = from_source(tiny("llama").double())
        with recording(model, ["blocks.1.resid_post", "blocks.1.attn.pattern"]) as held:
            out = self.generate(model, PROMPTS)
        seen = out.sequences[:, :-1]
        full = record(model, seen, ["blocks.1.resid_post", "blocks.1.attn.pattern"])
        for key in full:
            torch.testing.assert_close(held[key], full[key], rtol=1e-9, atol=1e-9)

    def test_generated_scope_without_a_generated_token_is_an_error(self):
        model = from_source(tiny("llama"))
        with pytest.raises(GateNotFired), gates(model, op.zero("blocks.0.attn.z", scope="generated")):
            model(input_ids=PROMPTS)


class TestTraining:
    def test_a_zeroed_head_gets_no_gradient(self, model):
        with gates(model, op.zero("blocks.1.attn.z[head=2]")):
            model.module(PROMPTS).logits.sum().backward()
        grad = model.module.model.layers[1].self_attn.o_proj.weight.grad.unflatten(1, (6, -1))
        assert (grad[:, 2] == 0).all() and (grad[:, 1] != 0).any()

    @pytest.mark.parametrize("detach", [False, True])
    def test_gradients_flow_through_gates_unless_detached(self, model, detach):
        with gates(model, op.scale("blocks.2.resid_post", 2.0, detach=detach)):
            model.module(PROMPTS).logits.square().sum().backward()
        grad = model.module.model.layers[1].mlp.down_proj.weight.grad
        assert (grad is None or not grad.any()) == detach

    @pytest.mark.parametrize(
        "site", ["blocks.1.resid_mid", "blocks.1.attn.result", "blocks.1.attn.scores", "blocks.0.attn.k"]
    )
    def test_gradients_through_a_gate_are_those_of_finite_differences(self, site):
        model = from_source(tiny("gpt2").double())  # Llama's norms round to float32
        weight, index, eps = model.module.transformer.wte.weight, (5, 4), 1e-6

        def loss():
            with gates(model, op.scale(site, 1.7)):
                return model.module(PROMPTS).logits.square().mean()

        (slope,) = torch.autograd.grad(loss(), weight)
        with torch.no_grad():
            weight[index] += eps
            up = loss()
            weight[index] -= 2 * eps
            down = loss()
        torch.testing.assert_close(slope[index], (up - down) / (2 * eps), rtol=1e-5, atol=1e-9)

    def test_a_clamp_holds_through_training_steps(self, model):
        model.module.train()
        optimiser = torch.optim.SGD(model.module.parameters(), lr=0.1)
        with gates(model, op.clamp("blocks.1.mlp_out", 0.25)), recording(model, "blocks.1.mlp_out") as held:
            for _ in range(3):
                optimiser.zero_grad()
                model.module(PROMPTS, labels=PROMPTS).loss.backward()
                optimiser.step()
        assert (held["mlp_out", 1] == 0.25).all() and model.module.training
