"""Gates while a model trains: gradients are true, identities change no bit, and what was held leaves nothing behind."""

import copy

import pytest
import torch

import optrode as op
from optrode.errors import BadGate, GateNotFired
from tests.unit.gate.models import (
    MODELS,
    TOKENS,
    dropping,
    equal,
    far,
    gradients,
    hugging_face,
    loss_of,
    own,
    sites,
    weights,
)

CAUSAL = torch.ones(5, 5, dtype=torch.float64).tril()
UNIFORM = CAUSAL / CAUSAL.sum(-1, keepdim=True)


def squares(h, around):
    return h * h.square().mean(-1, keepdim=True)


def reading(h, around):
    """A value that depends on two earlier sites and on the inputs."""
    share = (around.inputs["input_ids"] % 2).to(h.dtype)[..., None]
    return h + share * around["blocks.0.mlp_out"] * around["embed"]


READS = ("blocks.0.mlp_out", "embed")
RAMP = op.when(ramp=2)
"""Half open in the first step."""

GATES = {
    "zero": lambda: op.zero("blocks.0.attn.z[head=1]"),
    "clamp of a pattern": lambda: op.clamp("blocks.1.attn.pattern[head=0]", UNIFORM),
    "scores": lambda: op.scale("blocks.0.attn.scores", 1.3),
    "result": lambda: op.scale("blocks.*.attn.result[head=1]", 0.4),
    "middle": lambda: op.scale("blocks.*.resid_mid[pos=1:3]", 1.4),
    "computed": lambda: op.compute("blocks.0.mlp_out", squares),
    "computed of others": lambda: op.compute("blocks.1.attn_out", reading, reads=READS),
    "computed in part": lambda: op.compute("blocks.1.mlp_out[pos=2:]", reading, reads=READS, strength=0.7),
    "patterns of a first pass": lambda: op.patch("blocks.1.attn.pattern", op.first_pass(op.zero("blocks.0.mlp_out"))),
    "values of a first pass": lambda: op.patch("blocks.1.attn.v[head=0]", op.first_pass(op.scale("embed", 2.0))),
    "half open": lambda: op.compute("blocks.0.mlp_out", squares, when=RAMP),
    "half open from a first pass": lambda: op.patch("blocks.1.resid_pre", op.first_pass(op.zero("embed")), when=RAMP),
}  # fmt: skip
WEIGHTS = {
    "own": ("embed.weight", "blocks.0.attn.q.weight", "blocks.0.attn.o.bias", "blocks.0.mlp.up.weight"),
    "gpt2": (
        "transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.h.0.attn.c_proj.bias",
        "transformer.h.0.mlp.c_fc.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", GATES)
def test_gradients_are_those_of_finite_differences(family, name):
    model, gate, eps = MODELS[family](), GATES[name](), 1e-5
    with op.gates(model, gate):
        found = gradients(model)
        for weight in WEIGHTS[family]:
            parameter, index = model.module.get_parameter(weight), (1,) * model.module.get_parameter(weight).dim()
            with torch.no_grad():
                values = []
                for by in (eps, -2 * eps):
                    parameter[index] += by
                    values.append(loss_of(model))
                parameter[index] += eps
            slope = (values[0] - values[1]) / (2 * eps)
            torch.testing.assert_close(found[weight][index], slope, rtol=1e-5, atol=1e-9, msg=f"{name}: {weight}")


@pytest.mark.parametrize("site", ["blocks.0.attn.z", "blocks.1.resid_pre", "blocks.1.attn.pattern"])
def test_strength_and_openness_scale_alike(site):
    model = own()
    with op.gates(model, op.scale(site, 0.2, strength=0.5)):
        dosed = gradients(model)
    with op.gates(model, op.scale(site, 0.2, when=RAMP)) as held:
        opening = gradients(model)
        held.step()
        opened = gradients(model)
    with op.gates(model, op.scale(site, 0.2)):
        whole = gradients(model)
    assert far(dosed, opening) == 0 and far(opened, whole) == 0 < far(dosed, whole)


class TestDetach:
    """It cuts the path through the gate's value, and no other."""

    def test_of_a_computed_gate(self):
        model = own()
        with op.gates(model, op.compute("blocks.0.mlp_out", squares, detach=True)):
            cut = gradients(model)
        fixed = op.record(model, TOKENS, "blocks.0.mlp_out")["mlp_out", 0]
        value = fixed * fixed.square().mean(-1, keepdim=True)
        with op.gates(model, op.clamp("blocks.0.mlp_out", value)):
            constant = gradients(model)
        assert far(cut, constant) < 1e-15
        assert not cut["blocks.0.mlp.up.weight"].any() and cut["blocks.1.mlp.up.weight"].any()

    def test_of_what_was_not_selected_nothing_is_cut(self):
        model, site = own(), "blocks.1.resid_pre"
        h = op.record(model, TOKENS, site)[site]
        with op.gates(model, op.scale(f"{site}[pos=1]", 0.5, detach=True)):
            cut = gradients(model)
        with op.gates(model, op.clamp(f"{site}[pos=1]", 0.5 * h)):
            constant = gradients(model)
        assert far(cut, constant) < 1e-15 and cut["blocks.0.mlp.up.weight"].any()

    def test_of_a_first_pass(self):
        model, site = own(), "blocks.1.attn.pattern"
        kept = op.record(model, TOKENS, site)[site]
        ablated = op.zero("blocks.0.attn.z[head=0]")
        with op.gates(model, ablated, op.patch(site, op.first_pass(), detach=True)):
            cut = gradients(model)
        with op.gates(model, ablated, op.patch(site, kept)):
            constant = gradients(model)
        with op.gates(model, ablated, op.patch(site, op.first_pass())):
            whole = gradients(model)
        assert far(cut, constant) < 1e-15 < 1e-6 < far(whole, cut)
        assert not cut["blocks.1.attn.q.weight"].any() and whole["blocks.1.attn.q.weight"].any()

    def test_a_source_may_be_shared_by_those_who_cut_and_those_who_do_not(self):
        model, source = own(), op.first_pass(op.scale("embed", 0.5))
        both = (op.patch("blocks.0.attn.pattern", source, detach=True), op.patch("blocks.1.attn.pattern", source))
        with op.gates(model, *both):
            shared = gradients(model)
        apart = (
            op.patch("blocks.0.attn.pattern", op.first_pass(op.scale("embed", 0.5)), detach=True),
            op.patch("blocks.1.attn.pattern", op.first_pass(op.scale("embed", 0.5))),
        )
        with op.gates(model, *apart):
            assert far(gradients(model), shared) < 1e-15


def trained(model, *held, n_steps=5, dtype=torch.float32):
    """Weights after some steps of AdamW, which makes a lost bit of a gradient large."""
    torch.manual_seed(5)
    optimizer = torch.optim.AdamW(model.module.train().parameters(), lr=1e-2)
    with op.gates(model, *held, optimizer=optimizer):
        for step in range(n_steps):
            optimizer.zero_grad()
            loss_of(model, (TOKENS + step) % 7).backward()
            optimizer.step()
    return weights(model)


NEAR = ("attn.result", "resid_mid")
"""Sites that no module holds as they are: what is changed there is added elsewhere, by sums that round."""
FAMILIES = {"own": own, "gpt2 with dropout": dropping}


@pytest.mark.parametrize("family", FAMILIES)
class TestIdentity:
    """A gate that changes nothing changes no bit of what is learned."""

    def make(self, family):
        return FAMILIES[family](torch.float32)

    def test_at_each_site(self, family):
        free, model = trained(self.make(family)), self.make(family)
        for site in sites(model, *NEAR):
            for gate in (op.scale(site, 1.0), op.compute(site, lambda h, around: h)):
                assert equal(trained(self.make(family), gate), free), gate

    def test_at_all_sites(self, family):
        free, names = trained(self.make(family)), sites(self.make(family), *NEAR)
        assert equal(trained(self.make(family), *(op.scale(site, 1.0) for site in names)), free)
        assert equal(trained(self.make(family), *(op.compute(site, lambda h, around: h) for site in names)), free)

    def test_from_a_first_pass_at_all_sites(self, family):
        source, names = op.first_pass(), sites(self.make(family))
        assert "blocks.*.attn.result" in names and "logits" in names
        assert equal(trained(self.make(family), *(op.patch(site, source) for site in names)), trained(self.make(family)))

    def test_from_a_first_pass_where_all_paths_go_through(self, family):
        free = trained(self.make(family))
        for site in ("embed", "blocks.*.resid_post", "final_norm", "logits"):
            assert equal(trained(self.make(family), op.patch(site, op.first_pass())), free)

    def test_elsewhere_gradients_differ_by_rounding_only(self, family):
        plain = gradients(FAMILIES[family]())  # in eval mode, without dropout
        model = FAMILIES[family]()
        for site in sites(model):
            gates = [op.patch(site, op.first_pass())]
            gates += [op.scale(site, 1.0), op.compute(site, lambda h, around: h)] if site.split(".", 2)[-1] in NEAR else []
            for gate in gates:
                with op.gates(model, gate):
                    assert far(gradients(model), plain) < 1e-14, gate

    def test_outside_their_window(self, family):
        never_now = op.zero("blocks.*.resid_post", when=op.when(50))
        with pytest.raises(GateNotFired, match="never opened it in 5 step"):
            trained(model := self.make(family), never_now)
        assert equal(weights(model), trained(self.make(family)))


def trace(model, optimizer):
    """All that a gate may not touch."""
    modules = list(model.module.modules())
    return {
        "hooks": [
            [list(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")] for m in modules
        ],
        "modes": [m.training for m in modules],
        "parameters": [(id(p), p.requires_grad) for p in model.module.parameters()],
        "random": torch.get_rng_state().tolist(),
        "optimizer hooks": [len(optimizer._optimizer_step_post_hooks), len(optimizer._optimizer_step_pre_hooks)],
    }


def state_of(optimizer):
    held = optimizer.state_dict()
    flat = {f"{ix}.{k}": v for ix, entry in held["state"].items() for k, v in entry.items()}
    return {name: torch.as_tensor(value).clone() for name, value in flat.items()}, copy.deepcopy(held["param_groups"])


class TestAttachingAndDetaching:
    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 4), (3, 5)])
    def test_nothing_else_changes(self, family, first, last):
        """A run with gates is one in which other gradients came: fed these, one without any gate ends with the same bits."""
        model, other = FAMILIES[family](torch.float32), FAMILIES[family](torch.float32)
        gates = (
            op.zero("blocks.0.attn.z[head=1]"), op.scale("blocks.1.attn.pattern", 0.5),
            op.zero("blocks.1.attn.result[head=0]"),
            op.patch("blocks.1.mlp_out", op.first_pass(op.scale("embed", 0.5))),
        )  # fmt: skip
        optimizers = [torch.optim.AdamW(m.module.train().parameters(), lr=1e-2) for m in (model, other)]
        for step in range(6):
            before = trace(model, optimizers[0])
            optimizers[0].zero_grad()
            if first <= step < last:
                with op.gates(model, *gates):
                    loss_of(model).backward()
            else:
                loss_of(model).backward()
            drawn = torch.get_rng_state()
            torch.set_rng_state(torch.tensor(before["random"], dtype=torch.uint8))
            assert trace(model, optimizers[0]) == before
            torch.set_rng_state(drawn)
            for mine, theirs in zip(model.module.parameters(), other.module.parameters(), strict=True):
                theirs.grad = None if mine.grad is None else mine.grad.clone()
            for optimizer in optimizers:
                optimizer.step()
        assert equal(weights(model), weights(other))
        (tensors, groups), (others, other_groups) = map(state_of, optimizers)
        assert equal(tensors, others) and groups == other_groups

    def test_random_numbers_are_drawn_as_without_gates(self):
        model = dropping()
        model.module.train()
        after = []
        for gates in ((), (op.patch("blocks.*.attn.pattern", op.first_pass(op.zero("embed"))), op.scale("embed", 0.5))):
            torch.manual_seed(3)
            with op.gates(model, *gates):
                loss_of(model)
            after.append(torch.get_rng_state())
        assert torch.equal(*after)

    def test_an_error_in_a_step_leaves_the_optimiser_without_hooks(self):
        model = own()
        optimizer = torch.optim.SGD(model.module.parameters(), lr=0.1)
        before = trace(model, optimizer)
        with pytest.raises(ZeroDivisionError), op.gates(model, op.zero("embed"), optimizer=optimizer):
            loss_of(model)
            optimizer.step()
            raise ZeroDivisionError
        assert trace(model, optimizer) == before


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_recomputed_activations_are_gated_as_the_first_time():
    plain, saving = hugging_face(), hugging_face()
    saving.module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    source = op.first_pass(op.scale("embed", 0.5))
    gates = (
        op.zero("blocks.0.attn.z[head=1]"), op.scale("blocks.1.attn.pattern[pos=2]", 0.5),
        op.scale("blocks.1.resid_mid", 1.5),
        op.compute("blocks.1.attn_out", squares), op.patch("blocks.1.mlp_out", source, detach=True),
    )  # fmt: skip
    found = []
    for model in (plain, saving):
        model.module.train()
        with op.gates(model, *gates):
            found.append(gradients(model))
    assert far(*found) < 1e-14
    flowing = op.patch("blocks.1.mlp_out", source)
    words = "recomputed during the backward pass.*gradient_checkpointing_disable"
    with pytest.raises(BadGate, match=words), op.gates(saving, flowing):
        loss_of(saving)
