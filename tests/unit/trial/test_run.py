"""The executor gives the numbers of the naive twin, over families, gates, metrics and unequal lengths."""

import random

import pytest
import torch

import optrode as op
from optrode.errors import BadGate, GateNotFired
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.trial.naive import run_naively
from optrode.trial.prompts import Pair, Task
from optrode.trial.reach import strips_of
from optrode.trial.run import Bench
from optrode.trial.sweep import sweep
from optrode.trial.trial import Trial


def make_task(lengths=(5, 7, 5), metric="logit_gap", random_seed=0):
    rng = random.Random(random_seed)
    return Task("toy", "A toy.", metric, tuple(make_pair(rng, n) for n in lengths))


def make_pair(rng, n):
    clean = [rng.randrange(1, 61) for _ in range(n)]
    corrupt = list(clean)
    corrupt[n // 2] = 61 - clean[n // 2]
    right, wrong = rng.sample(range(61), 2)
    return Pair(tuple(clean), tuple(corrupt), (right,), (wrong,), targets=((n - 2, right), (n - 1, wrong)))


def make_model(family):
    return from_source(tiny(family, **({"experts_implementation": "eager"} if family == "mixtral" else {})).double())


PACKING = ["llama", "gpt2", "gpt_neox", "gemma3_text", "olmo2", "mixtral", "phi3"]
FAMILIES = ["llama", "gpt2", "gpt_neox", "gemma3_text", "bloom", "olmo2", "mixtral", "phi3"]
GATES = [
    (op.zero("blocks.1.attn.z[head=1]"),),
    (op.patch("blocks.1.resid_pre[pos=-2:]", "clean"),),
    (op.resample("blocks.0.mlp_out"), op.zero("blocks.2.attn.z[head=0|3]")),
    (op.mean("blocks.1.attn_out", "corrupt", strength=0.5),),
    (op.patch("blocks.*.attn.z", "corrupt"), op.scale("blocks.1.mlp_out", 2.0)),
]


def prepared(bench, trial):
    """The trial, with what it needs recorded."""
    bench.plan([trial])
    return trial


@pytest.mark.filterwarnings("ignore::optrode.errors.NotPacked")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("metric", ["logit_gap", "prob_gap", "logprob"])
def test_equals_the_naive_twin(family, metric):
    model, task = make_model(family), make_task()
    bench = Bench(model, task, metric)
    for held in GATES:
        for world in ("clean", "corrupt"):
            trial = Trial(held, world, metric)
            assert bench.run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-11)


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_a_sweep_equals_naive_trials_and_null_cells_are_exact(family):
    model, task = make_model(family), make_task((6, 6, 6))
    gate = op.patch("blocks.*.resid_pre", each=("layer", "pos"))
    grid = sweep(model, task, gate)
    assert grid.shape == (3, 6) and len(grid.values) == 18
    for site, values, is_null in zip(grid.sites, grid.values, grid.is_null, strict=True):
        exact = run_naively(model, task, Trial((op.patch(site),), "corrupt", "logit_gap"))
        assert values == pytest.approx(exact, abs=1e-11)
        assert not is_null or values == grid.base
    # the worlds differ at position 3: what comes before is null at every layer, and at layer 0 what comes after
    assert [ix % 6 < 3 or ix in (4, 5) for ix in range(18)] == list(grid.is_null)
    assert grid.shares()[3] == pytest.approx(1.0)  # the whole difference enters at layer 0, position 3


def test_sweeps_over_heads_and_without_a_source_world():
    model, task = make_model("llama"), make_task()
    grid = sweep(model, task, op.zero("blocks.1:.attn.z", each=("layer", "head")))
    assert grid.shape == (2, 6) and grid.source is None
    exact = run_naively(model, task, Trial((op.zero("blocks.2.attn.z[head=4]"),), "clean", "logit_gap"))
    assert grid.values[10] == pytest.approx(exact, abs=1e-11)


def test_grouped_keys_sweep_over_their_own_heads():
    grid = sweep(make_model("llama"), make_task(), op.zero("blocks.0.attn.k", each="head"))
    assert grid.shape == (2,)


def test_positions_of_unequal_prompts_are_refused():
    with pytest.raises(BadGate, match="5 to 7 tokens"):
        sweep(make_model("llama"), make_task(), op.patch("blocks.*.resid_pre", each=("layer", "pos")))


def test_progress_counts_every_cell():
    seen = []
    gate = op.zero("blocks.*.mlp_out", each="layer")
    sweep(make_model("gpt2"), make_task(), gate, progress=lambda *step: seen.append(step))
    done = [done for _, done, _ in seen]
    assert done == sorted(done) and done[-1] == 3 and {total for *_, total in seen} == {3}


def test_base_runs_are_shared():
    model, task = make_model("gpt2"), make_task((5, 5))
    bench = Bench(model, task)
    bench.base("clean")
    bench.base("clean")
    assert bench.worlds.n_passes == 1


def test_a_metric_of_the_users_own():
    model, task = make_model("gpt2"), make_task()
    entropy = op.Metric("entropy", "nats", lambda logits, _: torch.distributions.Categorical(logits=logits[:, -1]).entropy())
    grid = sweep(model, task, op.zero("blocks.*.attn_out", each="layer"), metric=entropy)
    assert grid.metric == "entropy" and all(0 < value < 4.2 for cell in grid.values for value in cell)


@pytest.mark.parametrize("family", [*PACKING, "mistral", "qwen2", "qwen3", "gemma2"])
def test_starting_late_gives_the_numbers_of_a_full_run(family):
    model, task = make_model(family), make_task((9, 6, 9, 11))
    sharing, full = Bench(model, task), Bench(model, task, shares=False)
    trials = [
        (op.resample("blocks.*.mlp_out"),),
        (op.patch("blocks.1.resid_pre[pos=-1]", "corrupt"), op.patch("blocks.2.attn.z[head=1]", "clean")),
        (op.resample("blocks.0.attn.k[head=0]"), op.resample("blocks.1.attn.v", strength=0.5)),
        (op.scale("blocks.1.attn_out[pos=-2:]", 3.0), op.resample("embed[pos=0:2]")),
        (op.clamp("blocks.0.resid_post[pos=-1]", low=-0.1, high=0.1), op.mean("blocks.1.mlp_out[pos=-1]", "corrupt")),
    ]
    for held in trials:
        trial = Trial(held, "clean", "logit_gap")
        strips = strips_of(sharing.worlds, prepared(sharing, trial), 0)
        # experts are multiplied together for all tokens that chose them, so that rounding crosses positions
        assert min(strip.starts[-1][1] for strip in strips) > 0 or family == "mixtral"
        assert sharing.run(trial) == pytest.approx(full.run(trial), abs=1e-11)


def test_metrics_that_read_early_positions_start_there():
    model, task = make_model("llama"), make_task((8, 8), metric="logprob")
    trial = Trial((op.zero("blocks.1.attn.z[pos=-1]"),), "clean", "logprob")
    bench = Bench(model, task)
    (strip,) = strips_of(bench.worlds, prepared(bench, trial), 0)
    assert strip.starts == ((1, 7),)  # the gate selects the last position; the metric reads the last two
    assert bench.run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-11)


@pytest.mark.parametrize("site", ["blocks.1.attn.pattern", "blocks.1.attn.result", "logits", "module:model.layers.1.out"])
def test_gates_whose_reach_is_unknown_start_at_their_layer(site):
    model, task = make_model("llama"), make_task((6, 6))
    trial = Trial((op.scale(site, 0.5),), "clean", "logit_gap")
    bench = Bench(model, task)
    (chunk,) = bench.plan([trial]).chunks
    assert (chunk.route, chunk.layer) == ("by layer", 3 if site == "logits" else 1) and "is not looked up" in chunk.reason
    assert bench.run(trial) == pytest.approx(run_naively(model, task, trial), abs=1e-11)


def test_a_gate_that_selects_nothing_is_still_an_error():
    model, task = make_model("llama"), make_task((6, 6))
    with pytest.raises(GateNotFired):
        Bench(model, task).run(Trial((op.zero("blocks.1.attn.z[pos=7]"),), "clean", "logit_gap"))


def test_trials_that_a_run_folder_kept_are_counted_apart(tmp_path):
    model, task, gate = make_model("gpt2"), make_task((5, 5)), op.zero("blocks.*.mlp_out", each="layer")
    first, again = (sweep(model, task, gate, out=tmp_path / "run") for _ in range(2))
    assert first.values == again.values and (first.work.n_kept, again.work.n_kept) == (0, 3)
    assert again.work.plain_token_layers == 0 and "3 were kept from before" in str(again.work)
