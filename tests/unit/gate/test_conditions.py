"""Conditions decide in a step with the K/V cache what they decide in a whole pass, per row, under beams and padding."""

import pytest
import torch

import optrode as op
from optrode.errors import BadGate, GateNotFired, GateShape
from optrode.gate.place import gates
from optrode.gate.replay import replay
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.recording import record

STEPS = 6
PROMPTS = [[5, 9, 2, 33, 7], [11, 3], [8, 40, 1, 17], [2, 2, 50]]
FAMILIES = ("llama", "gpt2", "neox", "mistral")


@pytest.fixture(params=FAMILIES)
def model(request):
    return from_source(tiny(request.param, attn_implementation="sdpa").double())


@pytest.fixture
def llama():
    return from_source(tiny("llama").double())


def vector(model, seed=0, size=3.0):
    drawn = torch.randn(model.table.d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return size * drawn / drawn.norm()


def typical(model, site, read, pool="last"):
    """A probe that is open for some and closed for others: its bias is the middle of what it sees."""
    weight = vector(model, 7)
    held = record(model, PROMPTS, site)
    seen = [held[site][row, : len(prompt)] @ weight for row, prompt in enumerate(PROMPTS)]
    middle = torch.cat([one[-1:] for one in seen] if read == "prompt" else seen).median()
    return weight, -float(middle) - 1e-3


def written(model, prompts, *held, cached=True, beams=1, rows=None, trace=False):
    """What is generated with gates held: tokens of each prompt, the logits of each step, the trace."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    from optrode.model.generation import generation

    with gates(model, *held, trace=trace) as keeper, generation([len(p) for p in prompts]), torch.no_grad():
        out = model.module.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False, pad_token_id=0, use_cache=cached,
            return_dict_in_generate=True, output_logits=True, num_beams=beams,
        )  # fmt: skip
        kept = keeper.trace if trace else None
    return out.sequences[:, width:], torch.stack(out.logits, 1), kept


def conditions(model, layer=0):
    site, end = f"blocks.{layer}.resid_post", "blocks.2.resid_post"
    mean = op.cosine(site, vector(model, 4), above=0.0)
    return {
        "token": op.probe(site, *typical(model, site, "token"), above=0.5),
        "soft": op.probe(site, vector(model, 3, 0.2)),
        "prompt-last": op.probe(site, *typical(model, site, "prompt"), above=0.5, read="prompt"),
        "prompt-mean": op.cosine(site, vector(model, 4), above=0.0),
        "projected": op.cosine(site, vector(model, 4), above=0.0, projected=True),
        "previous": op.probe(end, *typical(model, end, "token"), above=0.5, read="previous"),
        "held": op.probe(site, *typical(model, site, "token"), above=0.8, hold=2),
        "first_pass": op.probe("blocks.2.resid_post", vector(model, 5, 0.3), read="first_pass"),
        "first_prompt": op.probe("blocks.2.mlp_out", vector(model, 5), above=0.5, read="prompt", source=op.first_pass()),
        "chance": op.chance((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), above=0.15),
        "rules": op.rules(
            {"a": op.probe(site, *typical(model, site, "token"), above=0.5), "b": mean},
            ["a and not b -> c", "b and not a -> c"], opens="c",
        ),
    }  # fmt: skip


KINDS = (
    "token", "soft", "prompt-last", "prompt-mean", "projected", "previous", "held", "first_pass", "first_prompt", "chance",
    "rules",
)  # fmt: skip


@pytest.mark.parametrize("scope", ["all", "prompt", "generated"])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_uncached_equals_replay(llama, kind, scope):
    check_exact(llama, kind, scope)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_on_other_architectures(model, kind):
    check_exact(model, kind, "all")


def check_exact(model, kind, scope):
    gate = op.add("blocks.1.resid_post", vector(model), openness=conditions(model)[kind], scope=scope, strength=1.5)
    tokens, logits, trace = written(model, PROMPTS, gate, trace=True)
    again, full, other = written(model, PROMPTS, gate, cached=False, trace=True)
    assert torch.equal(tokens, again)
    torch.testing.assert_close(logits, full, rtol=1e-5, atol=1e-5)  # transformers keeps logits in float32
    torch.testing.assert_close(trace.values[0], other.values[0], rtol=1e-9, atol=1e-9)
    if model.table.family == "llama" and kind not in ("soft", "first_pass"):
        assert len(set(trace.values[0].flatten().tolist())) > 1, "the case decides nothing"
    for row, prompt in enumerate(PROMPTS):
        whole = replay(model, [gate], [prompt + tokens[row].tolist()[:-1]], trace.row(row))
        torch.testing.assert_close(whole[0, len(prompt) - 1 :], logits[row].double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_decides_as_it_does_alone(llama, kind):
    gate = op.add("blocks.1.resid_post", vector(llama), openness=conditions(llama)[kind])
    together, logits, _ = written(llama, PROMPTS, gate)
    for row, prompt in enumerate(PROMPTS):
        alone, one, _ = written(llama, [prompt], gate)
        assert torch.equal(alone[0], together[row])
        torch.testing.assert_close(one[0], logits[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_beams_take_their_history_along(llama, kind):
    gate = op.add("blocks.1.resid_post", vector(llama), openness=conditions(llama)[kind], rows=[0, 2, 3])
    with_cache, _, _ = written(llama, PROMPTS, gate, beams=3)
    without, _, _ = written(llama, PROMPTS, gate, beams=3, cached=False)
    if kind not in ("previous", "chance"):  # without a cache nothing tells which beam a row was
        assert torch.equal(with_cache, without)
    for row, prompt in enumerate(PROMPTS):
        held = () if row == 1 else (op.add("blocks.1.resid_post", vector(llama), openness=conditions(llama)[kind]),)
        alone, _, _ = written(llama, [prompt], *held, beams=3)
        n = min(alone.shape[1], with_cache.shape[1])
        assert torch.equal(alone[0, :n], with_cache[row, :n])


def test_rows_without_gates_are_the_plain_model_bit_for_bit(model):
    held = [op.add("blocks.*.resid_post", vector(model), rows=[0, 3]), op.scale("blocks.1.attn_out", 0.3, rows=[2])]
    plain, logits, _ = written(model, PROMPTS)
    _, gated, _ = written(model, PROMPTS, *held)
    assert torch.equal(gated[1], logits[1])
    for row in (0, 2, 3):
        assert not torch.equal(gated[row], logits[row])


def test_a_closed_gate_changes_no_bit(model):
    closed = op.probe("blocks.0.resid_post", vector(model), above=2.0)
    _, plain, _ = written(model, PROMPTS)
    for gate in (op.add("blocks.1:.mlp_out", vector(model), openness=closed), op.zero("blocks.1.attn.z", openness=closed)):
        _, gated, trace = written(model, PROMPTS, gate, trace=True)
        assert torch.equal(plain, gated)
        assert not trace.values[0].any()


def test_an_open_gate_is_the_unconditional_one(model):
    opened = op.probe("blocks.0.resid_post", vector(model), above=-1.0)
    for kind in (op.zero, lambda site, **more: op.scale(site, 0.3, **more)):
        _, plain, _ = written(model, PROMPTS, kind("blocks.1.attn_out"))
        _, gated, _ = written(model, PROMPTS, kind("blocks.1.attn_out", openness=opened))
        assert torch.equal(plain, gated)


@pytest.mark.parametrize("source", [None, "first_pass"])
def test_an_oracle_opens_where_another_model_says_another_token(llama, source):
    other = from_source(tiny("llama", random_seed=5).double())
    gate = op.add("blocks.0.resid_post", vector(llama), openness=op.oracle(op.other_model(other)))
    tokens, logits, trace = written(llama, PROMPTS, gate, trace=True)
    again, full, uncached = written(llama, PROMPTS, gate, cached=False, trace=True)
    assert torch.equal(tokens, again)
    torch.testing.assert_close(trace.values[0], uncached.values[0])
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt + tokens[row].tolist()])[:, :-1]
        differs = llama.module(ids).logits.argmax(-1) != other.module(ids).logits.argmax(-1)
        assert torch.equal(trace.values[0][row, : ids.shape[1]].bool(), differs[0])


def test_mean_pooling_leaves_the_first_position_out(llama):
    site = "blocks.0.resid_post"
    weight = vector(llama, 2)
    gate = op.add(
        "blocks.1.mlp_out", vector(llama), openness=op.probe(site, weight, link="linear", read="prompt", pool="mean")
    )
    _, _, trace = written(llama, PROMPTS, gate, trace=True)
    held = record(llama, PROMPTS, site)[site]
    for row, prompt in enumerate(PROMPTS):
        expected = float(held[row, 1 : len(prompt)].mean(0) @ weight)
        torch.testing.assert_close(trace.values[0][row, 0].item(), expected, rtol=1e-5, atol=1e-6)


def test_by_row_doses(llama):
    doses = torch.tensor([0.0, 1.0, 2.0, 0.5]).double()
    _, together, _ = written(llama, PROMPTS, op.add("blocks.1.resid_post", vector(llama), openness=op.by_row(doses)))
    for row, prompt in enumerate(PROMPTS):
        held = () if row == 0 else (op.add("blocks.1.resid_post", vector(llama), strength=float(doses[row])),)
        _, alone, _ = written(llama, [prompt], *held)
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)


class TestOrder:
    def test_what_comes_later_cannot_open_what_is_over(self, llama):
        later = op.probe("blocks.1.resid_post", vector(llama), above=0.5)
        with (
            pytest.raises(BadGate, match="only 2 of its 3 sites"),
            gates(llama, op.add("blocks.*.resid_post", vector(llama), openness=later)),
        ):
            pass
        with (
            pytest.raises(BadGate, match="comes later"),
            gates(llama, op.add("blocks.1.attn_out", vector(llama), openness=later)),
        ):
            pass

    def test_the_same_site_is_read_before_its_gates(self, llama):
        site = "blocks.1.resid_post"
        weight = vector(llama, 2)
        gate = op.add(site, 100 * vector(llama), openness=op.probe(site, weight, link="linear"))
        _, _, trace = written(llama, [PROMPTS[0]], gate, trace=True)
        held = record(llama, [PROMPTS[0]], site)[site]
        torch.testing.assert_close(trace.values[0][0, :1].double(), (held[0] @ weight)[:1].double(), rtol=1e-5, atol=1e-6)

    def test_the_width_is_checked_before_anything_runs(self, llama):
        with (
            pytest.raises(GateShape, match="48"),
            gates(
                llama, op.add("blocks.1.resid_post", vector(llama), openness=op.probe("blocks.0.resid_post", torch.ones(5)))
            ),
        ):
            pass

    def test_a_site_that_never_came_by_is_an_error_though_conditional(self, llama):
        with (
            pytest.raises(GateNotFired),
            gates(
                llama, op.add("blocks.1.resid_post", vector(llama), openness=op.probe("blocks.0.resid_post", vector(llama)))
            ),
        ):
            pass
