"""Gates in generation on SmolLM2 in float32: cached = uncached = replayed trace, and every row of a batch as it is alone."""

import pytest
import torch

import optrode as op
from optrode.control.behaviours import chat
from optrode.control.generate import Request, generate
from optrode.gate.place import gates
from optrode.gate.replay import replay
from optrode.model.generation import generation

pytestmark = pytest.mark.slow
ASKED = (
    "How was your day?", "Tell me about the sea.", "What is a good name for a dog?", "Why is the sky blue?", "Hi!",
    "Write a short poem about autumn leaves falling in a quiet park.", "Name three fruits.", "What is 2 plus 3?",
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return op.load("smollm2")


def vector(model, seed, size=40.0):
    drawn = torch.randn(model.table.d_model, generator=torch.Generator().manual_seed(seed))
    return size * drawn / drawn.norm()


def kinds(model):
    """A gate of each time at which openness is decided; thresholds in the middle of what is seen."""
    site, site_id = "blocks.15.resid_post", model.batch([chat(model, text) for text in ASKED])
    seen = op.record(model, site_id, site)[site]
    weight = vector(model, 9, 1.0)
    last = torch.stack([row[n - 1] @ weight for row, n in zip(seen, site_id.lengths, strict=True)])
    every = torch.cat([row[1:n] @ weight for row, n in zip(seen, site_id.lengths, strict=True)])
    middle = {"prompt": float(last.median()), "token": float(every.median()), "previous": float(every.median())}
    probes = {read: op.probe(site, weight, -at, above=0.5, read=read) for read, at in middle.items()}
    first = op.probe("blocks.28.resid_post", vector(model, 8, 0.02), read="prompt", source=op.first_pass())
    opened = probes | {"first pass": first}
    return {name: op.add("blocks.20.resid_post[pos=1:]", vector(model, 1), openness=one) for name, one in opened.items()}


def written(model, prompts, cached, *held):
    """Tokens, the logits of each step, and the trace."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    with gates(model, *held, trace=True) as keeper, generation([len(p) for p in prompts]), torch.no_grad():
        out = model.module.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0, use_cache=cached,
            return_dict_in_generate=True, output_logits=True, eos_token_id=None,
        )  # fmt: skip
        return out.sequences[:, width:], torch.stack(out.logits, 1), keeper.trace


@pytest.fixture(scope="module")
def prompts(model):
    return [model.encode(chat(model, text)) for text in ASKED[:4]]


@pytest.fixture(scope="module")
def close(model, prompts):
    """1e-4, or twice what the plain model's own steps differ by with and without its cache: 1.0e-4 with two threads."""
    (_, one, _), (_, other, _) = (written(model, prompts, cached) for cached in (True, False))
    return max(1e-4, 2 * float((one - other).abs().max()))


@pytest.mark.parametrize("kind", ["prompt", "token", "previous", "first pass"])
def test_cached_equals_uncached_equals_replay(model, prompts, close, kind):
    gate = kinds(model)[kind]
    tokens, logits, trace = written(model, prompts, True, gate)
    again, full, other = written(model, prompts, False, gate)
    assert torch.equal(tokens, again) and float((logits - full).abs().max()) <= close
    assert torch.equal(trace.values[0] > 0.5, other.values[0] > 0.5)
    for row, prompt in enumerate(prompts):
        whole = replay(model, [gate], [prompt + tokens[row].tolist()[:-1]], trace.row(row))
        assert float((whole[0, len(prompt) - 1 :] - logits[row]).abs().max()) <= close


def test_eight_rows_of_six_gate_sets_are_each_what_they_are_alone(model):
    held = list(kinds(model).values())
    everywhere, silent = op.add("blocks.*.resid_post[pos=1:]", vector(model, 5, 2.0)), op.zero("blocks.18.attn.z[head=6]")
    sets = [(held[0],), (), (held[1],), (everywhere,), (held[2], held[3]), (), (silent,), (held[0], held[1])]
    asked = [Request(chat(model, text), own, 24) for text, own in zip(ASKED, sets, strict=True)]
    together = generate(model, asked)
    for request, found in zip(asked, together, strict=True):
        assert generate(model, [request])[0].text == found.text
    plain = generate(model, [Request(one.prompt, (), 24) for one in asked])
    assert [plain[1].token_ids, plain[5].token_ids] == [together[1].token_ids, together[5].token_ids]
    assert sum(a.text != b.text for a, b in zip(plain, together, strict=True)) >= 2


def test_beams(model):
    gate = kinds(model)["previous"]
    prompts = [chat(model, text) for text in ASKED[:2]]
    with gates(model, op.Gate(gate.site, gate.actuator, gate.strength, openness=gate.openness, rows=(1,))):
        both = model.generate(prompts, max_new_tokens=10, num_beams=2)
    with gates(model, gate):
        alone = model.generate(prompts[1], max_new_tokens=10, num_beams=2)
    assert both == [model.generate(prompts[0], max_new_tokens=10, num_beams=2), alone]
