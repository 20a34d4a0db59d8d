"""Our own transformer computes what its spec says, and every site of its table is where the name promises."""

import math
import random

import pytest
import torch

import optrode as op
from optrode.errors import BadOption, SiteUnavailable
from optrode.gate.check import check_model
from optrode.nn.transformer import Spec, Transformer, as_model, build
from optrode.trial.naive import run_naively
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench
from optrode.trial.sweep import sweep
from optrode.trial.trial import Trial

SIZES = {"n_layers": 3, "n_heads": 4, "d_model": 20, "vocab": 31, "n_ctx": 16, "d_head": 6}
SPECS = {
    "plain": Spec(**SIZES, d_mlp=28),
    "attention only, no norm": Spec(**SIZES, norm="none", positions="none"),
    "no norm": Spec(**SIZES, norm="none", d_mlp=28, has_bias=False, activation="relu"),
    "grouped, rotary, rms": Spec(**SIZES, norm="rms", positions="rotary", n_kv_heads=2, d_mlp=28),
    "parallel": Spec(**SIZES, is_parallel=True, positions="rotary", d_mlp=28),
    "parallel, no norm": Spec(**SIZES, is_parallel=True, norm="none", d_mlp=28),
    "sees everything": Spec(**SIZES, is_causal=False, d_mlp=28, d_out=7),
    "attention only, rms": Spec(**SIZES, norm="rms", n_kv_heads=1),
}


@pytest.fixture(params=SPECS, name="spec")
def _spec(request):
    return SPECS[request.param]


def make_model(spec, dtype=torch.float64):
    return as_model(build(spec, dtype=dtype))


def make_task(spec, lengths=(7, 7, 5, 7), metric="logit_gap"):
    rng = random.Random(0)
    return Task("toy", "A toy.", metric, tuple(make_pair(rng, spec, n) for n in lengths))


def make_pair(rng, spec, n):
    clean = [rng.randrange(spec.vocab) for _ in range(n)]
    corrupt = [*clean[: n // 2], (clean[n // 2] + 5) % spec.vocab, *clean[n // 2 + 1 :]]
    right, wrong = rng.sample(range(spec.n_columns), 2)
    return Pair(tuple(clean), tuple(corrupt), (right,), (wrong,), targets=((n - 2, right), (n - 1, wrong)))


def tokens(spec, n_rows=2, n_pos=6):
    return torch.randint(0, spec.vocab, (n_rows, n_pos), generator=torch.Generator().manual_seed(3))


def written_out(module, row):
    """[pos, column] logits of one prompt, position by position and head by head."""
    spec, n_pos = module.config, len(row)
    stream = [module.embed.weight[token] for token in row]
    if spec.positions == "learned":
        stream = [x + module.pos_embed.weight[p] for p, x in enumerate(stream)]
    for block in module.blocks:
        added = attention(spec, block, [normed(spec, block.ln1, x) for x in stream])
        middle = [x + a for x, a in zip(stream, added, strict=True)]
        if spec.d_mlp:
            read = [normed(spec, block.ln2, x) for x in (stream if spec.is_parallel else middle)]
            hidden = [affine(block.mlp.up, x) for x in read]
            hidden = [x.clamp(min=0) if spec.activation == "relu" else x * (1 + torch.erf(x / 2**0.5)) / 2 for x in hidden]
            middle = [x + affine(block.mlp.down, h) for x, h in zip(middle, hidden, strict=True)]
        stream = middle
    assert len(stream) == n_pos
    return torch.stack([module.unembed.weight @ normed(spec, module.final_norm, x) for x in stream])


def attention(spec, block, read):
    width, group = spec.head_width, spec.n_heads // spec.n_kv
    q, k, v = ([affine(part, x) for x in read] for part in (block.attn.q, block.attn.k, block.attn.v))
    added = []
    for p in range(len(read)):
        z = []
        for head in range(spec.n_heads):
            mine, shared = slice(head * width, (head + 1) * width), slice(head // group * width, (head // group + 1) * width)
            seen = range(p + 1) if spec.is_causal else range(len(read))
            scores = [turned(spec, q[p][mine], p) @ turned(spec, k[s][shared], s) / math.sqrt(width) for s in seen]
            pattern = torch.stack(scores).softmax(0)
            z.append(sum(weight * v[s][shared] for weight, s in zip(pattern, seen, strict=True)))
        added.append(affine(block.attn.o, torch.cat(z)))
    return added


def turned(spec, x, p):
    if spec.positions != "rotary":
        return x
    half = len(x) // 2
    pairs = torch.complex(x[:half], x[half:])
    angles = torch.tensor([p / 10_000 ** (2 * i / len(x)) for i in range(half)], dtype=x.dtype)
    found = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([found.real, found.imag])


def affine(linear, x):
    return linear.weight @ x + (0 if linear.bias is None else linear.bias)


def normed(spec, norm, x):
    if spec.norm == "none":
        return x
    x = x - x.mean() if spec.norm == "layer" else x
    bias = getattr(norm, "bias", None)
    return x / (x.square().mean() + spec.eps).sqrt() * norm.weight + (0 if bias is None else bias)


def test_logits_are_those_of_the_written_out_definition(spec):
    module = build(spec, dtype=torch.float64)
    rows = tokens(spec)
    with torch.no_grad():
        found = module(rows).logits
        expected = torch.stack([written_out(module, row) for row in rows.tolist()])
    assert found.shape == (2, 6, spec.n_columns)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_every_site_is_proven(spec):
    model = make_model(spec, torch.float32)
    check = check_model(model)
    kinds = {entry.kind for entry in check.kinds}
    assert kinds == set(model.table.places) and check.family == "optrode"
    assert all(entry.moved > 0 for entry in check.kinds)


def test_sites_that_the_spec_leaves_out_say_why(spec):
    model = make_model(spec)
    standard = {"pos_embed", "ln1", "ln2", "final_norm", "resid_mid", "mlp_in", "mlp.pre", "mlp.post", "mlp_out"}
    assert standard <= set(model.table.places) | set(model.table.absent)
    assert not set(model.table.places) & set(model.table.absent)
    for kind, why in model.table.absent.items():
        with pytest.raises(SiteUnavailable, match=why):
            op.record(model, tokens(spec), kind if kind in ("pos_embed", "final_norm") else f"blocks.0.{kind}")


def test_patched_runs_equal_the_naive_twin(spec):
    model, task = make_model(spec), make_task(spec)
    with pytest.warns(op.errors.NotPacked):
        bench = Bench(model, task)
        assert bench.can.restarts and not bench.can.packs
    sites = ["embed", "blocks.1.resid_pre[pos=3]", "blocks.2.attn.z[head=1]", "blocks.1.attn.k", "blocks.2.attn_in",
             "blocks.1.attn.pattern", "blocks.2.attn.result[head=3]"]  # fmt: skip
    sites += ["blocks.1.mlp_in", "blocks.2.mlp.post"] if spec.d_mlp else []
    sites += ["blocks.1.resid_mid"] if "resid_mid" in model.table.places else []
    for site in sites:
        for world, source in (("clean", "corrupt"), ("corrupt", "clean")):
            trial = Trial((op.patch(site, source), op.scale("blocks.1.attn.scores", 0.5)), world, "logit_gap")
            assert bench.run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-10)


@pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")
def test_a_patch_grid_equals_naive_trials_and_restarts_at_its_layers(spec):
    model, task = make_model(spec), make_task(spec, (5, 5, 5), "logprob")
    grid = sweep(model, task, op.patch("blocks.*.resid_pre", each=("layer", "pos")))
    assert grid.shape == (3, 5)
    for site, values in zip(grid.sites, grid.values, strict=True):
        assert values == pytest.approx(run_naively(model, task, Trial((op.patch(site),), "corrupt", "logprob")), abs=1e-10)
    assert grid.work.token_layers < grid.work.plain_token_layers


def test_only_the_logits_asked_for_are_computed():
    spec = SPECS["plain"]
    module, rows = build(spec, dtype=torch.float64), tokens(SPECS["plain"])
    whole = module(rows).logits
    seen = []
    with torch.no_grad(), op.recording(as_model(module), "final_norm") as held:
        for kept, expected in ((2, whole[:, -2:]), (0, whole), (torch.tensor([4, 1]), whole[:, [4, 1]])):
            found = module(rows, logits_to_keep=kept, use_cache=False).logits
            torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)
            seen.append(found.shape[1])
    assert seen == [2, 6, 2] and held["final_norm"].shape[0] == 6


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(spec, side):
    module, row = build(spec, dtype=torch.float64), tokens(spec, 1, 5)
    pad, real = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 5, dtype=torch.long)
    parts = [(pad, pad), (row, real)] if side == "left" else [(row, real), (pad, pad)]
    rows, mask = (torch.cat(part, 1) for part in zip(*parts, strict=True))
    kept = slice(3, None) if side == "left" else slice(0, 5)
    torch.testing.assert_close(module(rows, mask).logits[:, kept], module(row).logits, atol=1e-12, rtol=0)


def test_gates_cannot_open_what_the_mask_closes():
    spec = SPECS["plain"]
    model, rows = make_model(spec), tokens(spec)
    with op.gates(model, op.zero("blocks.*.attn.scores")), op.recording(model, "blocks.1.attn.pattern") as held:
        logits = model(rows).logits
    expected = torch.tril(torch.ones(6, 6, dtype=torch.float64)) / torch.arange(1.0, 7.0, dtype=torch.float64)[:, None]
    torch.testing.assert_close(held["blocks.1.attn.pattern"], expected.expand(2, 4, 6, 6))
    assert bool(logits.isfinite().all())


def test_gradients_reach_every_parameter(spec):
    module = build(spec, dtype=torch.float64)
    module(tokens(spec)).logits.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
    assert float(module.embed.weight.grad.abs().max()) > 0


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = build(SPECS["plain"], 1), build(SPECS["plain"], 1), build(SPECS["plain"], 2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.embed.weight, two.embed.weight) and not torch.equal(one.embed.weight, other.embed.weight)
    assert float(one.blocks[0].attn.q.bias.detach().abs().min()) > 0 and one.config.to_dict()["d_head"] == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "layernorm"}, r"norm='layernorm': no such choice. Nearest: layer"),
        ({"n_kv_heads": 3}, "4 query heads do not divide into 3 groups"),
        ({"d_head": None, "d_model": 21}, r"d_model=21: 4 heads do not divide it. Next: give d_head"),
        ({"positions": "rotary", "d_head": 5}, "rotary positions turn pairs"),
        ({"n_layers": 0}, "n_layers=0: a transformer has at least one"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(BadOption, match=message):
        Spec(**(SIZES | change))


def test_a_prompt_that_is_too_long_is_refused():
    module = Transformer(SPECS["plain"])
    with pytest.raises(BadOption, match=r"a prompt of 17 tokens: the model was built for n_ctx=16"):
        module(torch.zeros(1, 17, dtype=torch.long))
