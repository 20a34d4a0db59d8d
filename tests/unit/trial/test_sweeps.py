"""Sweeps over pairs of gates, doses and every axis, within a memory budget."""

import re
from dataclasses import replace

import pytest
import torch

import optrode as op
from optrode.errors import BadGate, BadOption
from optrode.trial import memory
from optrode.trial.naive import run_naively
from optrode.trial.run import Bench
from optrode.trial.trial import Trial
from tests.parity.cases import model_of
from tests.unit.trial.test_packed import make_task, noise

LENGTHS = (7, 5, 7)


def model():
    return model_of("llama", "sdpa", torch.float64)


def naive(task, *held, world="clean"):
    return run_naively(model(), task, Trial(held, world, "logit_gap"))


def close(values):
    return pytest.approx(values, abs=1e-10)


def test_pairs_of_gates_span_the_product_of_their_axes():
    task = make_task(LENGTHS)
    one, other = op.zero("blocks.1.attn.z", each="head"), op.resample("blocks.0:2.attn.z[head=1|4]", each=("layer", "head"))
    grid = op.sweep(model(), task, (one, other))
    assert [axis.name for axis in grid.axes] == ["head", "layer", "head 2"] and grid.shape == (6, 2, 2)
    assert grid.axes[2].labels == ("1", "4") and len(grid.sites) == 24
    assert grid.title == f"{one} with {other}"
    # row-major: head 3 of the first gate, layer 1 and head 4 of the second
    ix = 3 * 4 + 1 * 2 + 1
    assert grid.sites[ix] == "blocks.1.attn.z[head=3] + blocks.1.attn.z[head=4]"
    exact = naive(task, op.zero("blocks.1.attn.z[head=3]"), op.resample("blocks.1.attn.z[head=4]"))
    assert grid.values[ix] == close(exact) and grid.source is not None and grid.base == close(naive(task))


def test_three_gates_count_their_common_axis():
    gate = op.zero("blocks.2.attn.z[head=0|1]", each="head")
    grid = op.sweep(model(), make_task((5,)), [gate, op.zero("blocks.1.attn.z[head=2|3]", each="head"), gate])
    assert [axis.name for axis in grid.axes] == ["head", "head 2", "head 3"] and grid.shape == (2, 2, 2)
    assert grid.values[1] == close(grid.values[4]) and grid.values[0] != close(grid.values[1])


def test_a_gate_without_axes_is_held_in_every_cell():
    task, held = make_task(LENGTHS), op.scale("blocks.0.mlp_out", 2.0)
    grid = op.sweep(model(), task, (held, op.zero("blocks.1:.mlp_out", each="layer")))
    assert grid.shape == (2,) and grid.values[1] == close(naive(task, held, op.zero("blocks.2.mlp_out")))


def test_doses_multiply_the_last_gates_strength():
    task, vector = make_task(LENGTHS), noise(48)
    held = op.zero("blocks.0.attn.z[head=1]")
    steer = op.add("blocks.1:.resid_pre[pos=-2:]", vector, strength=2.0, each="layer")
    grid = op.sweep(model(), task, (held, steer), doses=(0.0, 0.5, -1.0))
    assert [(axis.name, axis.labels) for axis in grid.axes] == [("layer", ("1", "2")), ("dose", ("0", "0.5", "-1"))]
    for ix, (layer, dose) in enumerate((layer, dose) for layer in (1, 2) for dose in (0.0, 0.5, -1.0)):
        exact = naive(task, held, op.add(f"blocks.{layer}.resid_pre[pos=-2:]", vector, strength=2 * dose))
        assert grid.values[ix] == close(exact)
    assert grid.is_null == (False,) * 6


def test_a_dose_of_zero_changes_nothing():
    grid = op.sweep(model(), make_task(LENGTHS), op.zero("blocks.1.attn.z[head=0|1]", each="head"), doses=(0.0, 1.0))
    assert grid.is_null == (True, False, True, False) and grid.values[0] == grid.values[2] == grid.base


@pytest.mark.parametrize(
    ("site", "size"), [("blocks.1.mlp.post", 56), ("blocks.1.attn.z[head=2]", 8), ("blocks.1.mlp_out[pos=-1]", 48)]
)
def test_features_are_swept_one_by_one_on_prompts_of_unequal_length(site, size):
    task = make_task(LENGTHS)
    grid = op.sweep(model(), task, op.zero(site, each="feature"))
    assert grid.shape == (size,) and grid.axes[0].labels == tuple(map(str, range(size)))
    for ix in (0, size // 2, size - 1):
        assert grid.values[ix] == close(naive(task, op.zero(grid.sites[ix])))
    assert f"feature={size - 1}]" in grid.sites[-1] and len({values[0] for values in grid.values}) > size / 2


def test_chosen_neurons_keep_their_numbers():
    grid = op.sweep(model(), make_task(LENGTHS), op.mean("blocks.*.mlp.post[feature=3|40:42|-1]", each=("layer", "feature")))
    assert grid.axes[1].labels == ("3", "40", "41", "55") and grid.shape == (3, 4)
    assert grid.values[6] == close(naive(make_task(LENGTHS), op.mean("blocks.1.mlp.post[feature=41]")))


def test_heads_positions_and_layers_together():
    task = make_task((6, 6))
    grid = op.sweep(model(), task, op.patch("blocks.1:.attn.z[head=1|5, pos=2:]", each=("layer", "pos", "head")))
    assert [axis.name for axis in grid.axes] == ["layer", "pos", "head"] and grid.shape == (2, 4, 2)
    assert grid.axes[1].labels == ("2", "3", "4", "5")
    assert grid.sites[7] == "blocks.1.attn.z[head=5, pos=5]"
    assert grid.values[7] == close(naive(task, op.patch("blocks.1.attn.z[head=5, pos=5]"), world="corrupt"))
    assert grid.source == close(naive(task)) and grid.base == close(naive(task, world="corrupt"))


def test_heads_that_are_selected_from_the_end_on_prompts_of_unequal_length():
    task = make_task(LENGTHS)
    grid = op.sweep(model(), task, op.resample("blocks.*.attn.q[pos=-2:]", each="head"))
    assert grid.shape == (6,) and grid.values[4] == close(naive(task, op.resample("blocks.*.attn.q[head=4, pos=-2:]")))


def test_the_world_can_be_chosen():
    task = make_task(LENGTHS)
    grid = op.sweep(model(), task, op.zero("blocks.1:.mlp_out", each="layer"), world="corrupt")
    assert grid.values[0] == close(naive(task, op.zero("blocks.1.mlp_out"), world="corrupt"))


@pytest.mark.parametrize("metric", ["kl", "prob_gap"])
def test_another_metric_than_the_tasks(metric):
    task = make_task(LENGTHS)
    grid = op.sweep(model(), task, op.zero("blocks.1.attn.z", each="head"), metric=metric)
    exact = run_naively(model(), task, Trial((op.zero("blocks.1.attn.z[head=5]"),), "clean", metric))
    assert grid.metric == metric and grid.values[5] == close(exact)


@pytest.mark.parametrize(
    "gate",
    [
        op.zero("embed", each="layer"), op.zero("blocks.1.mlp_out", each="head"), op.zero("blocks.*.mlp_out", each="pos"),
        op.zero("module:model.layers.1.mlp.out", each="feature"),
    ],
)  # fmt: skip
def test_an_axis_that_the_site_lacks_is_refused(gate):
    with pytest.raises(BadGate, match="each="):
        op.sweep(model(), make_task(LENGTHS), gate)


def test_progress_counts_null_cells_first_and_ends_with_all():
    seen = []
    gate = op.patch("blocks.*.resid_pre", each=("layer", "pos"))
    grid = op.sweep(model(), make_task((6, 6)), gate, progress=lambda *step: seen.append(step))
    assert seen[0][1] == sum(grid.is_null) > 0 and seen[-1][1:] == (18, 18)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert {stage for stage, *_ in seen} == {"sweep blocks.*.resid_pre"}


def test_cells_of_a_small_chunk_equal_those_of_a_large_one(monkeypatch):
    task, gate = make_task(LENGTHS), op.zero("blocks.*.attn.z", each=("layer", "head"))
    large = op.sweep(model(), task, gate)
    monkeypatch.setitem(memory.N_TOKENS, "cpu", 20)
    seen = []
    small = op.sweep(model(), task, gate, progress=lambda *step: seen.append(step[1]))
    assert len(seen) > 10 and small.work.token_layers == pytest.approx(large.work.token_layers, rel=0.5)
    for one, other in zip(small.values, large.values, strict=True):
        assert one == pytest.approx(other, abs=1e-12)


class TestWork:
    def test_a_grid_says_what_it_took(self):
        bench = Bench(model(), task := make_task((6, 6)))
        gate = op.patch("blocks.*.resid_pre", each=("layer", "pos"))
        first, again = (op.sweep(model(), task, gate, bench=bench) for _ in range(2))
        work = again.work
        assert work.n_trials == 18 and work.n_null == sum(again.is_null) == first.work.n_null
        assert work.plain_token_layers == 18 * 12 * 3
        # position 3 parts the worlds: one trial in layer 0 with its positions 3 to 5, three in either later layer
        later = [(3, 3), (2, 2), (1, 1)]
        assert work.token_layers == 2 * ((3 + 3 + 1) + sum(p + 1 for p, _ in later) + len(later))
        assert again.provenance.n_passes == 1 and work.memory_gib > 0 and work.plainly is None

    def test_it_names_why_cells_were_not_packed(self):
        grid = op.sweep(model(), make_task((6, 6)), op.zero("blocks.*.attn.pattern", each=("layer", "head")))
        assert grid.work.plainly == {"what a gate changes at attn.pattern is not looked up": 18}
        assert grid.work.token_layers >= 6 * 12 * (3 + 2 + 1)  # each from its own layer on


class TestBudget:
    GATE = op.patch("blocks.*.resid_pre", each="layer")

    def test_a_budget_that_is_too_small_for_a_trial_names_one_that_will_do(self):
        task = make_task(LENGTHS)
        wanted = op.sweep(model(), task, self.GATE)
        with pytest.raises(BadOption, match="recordings alone take") as refused:
            op.sweep(model(), task, self.GATE, memory_gib=1e-9)
        alone = float(re.search(r"alone take ([\d.e-]+) GiB", str(refused.value))[1])
        with pytest.raises(BadOption, match="give memory_gib=") as refused:
            op.sweep(model(), task, self.GATE, memory_gib=1.01 * alone)
        enough = float(re.search(r"memory_gib=([\d.e-]+) or more", str(refused.value))[1])
        grid = op.sweep(model(), task, self.GATE, memory_gib=enough)
        assert grid.work.memory_gib <= enough < 2 * alone + 0.01
        for one, other in zip(grid.values, wanted.values, strict=True):
            assert one == pytest.approx(other, abs=1e-12)

    def test_any_budget_that_is_too_small_names_one_that_will_do(self):
        with pytest.raises(BadOption, match="give memory_gib="):
            op.sweep(model(), make_task(LENGTHS), self.GATE, memory_gib=1e-9)


def test_a_sweep_without_a_gate_is_refused():
    with pytest.raises(BadOption, match="no gate"):
        op.sweep(model(), make_task(LENGTHS), [])


def test_a_task_of_one_pair_whose_worlds_are_equal_is_null_everywhere():
    task = make_task((6, 6))
    task = replace(task, pairs=tuple(replace(pair, corrupt=pair.clean) for pair in task.pairs))
    grid = op.sweep(model(), task, op.patch("blocks.*.resid_pre", each=("layer", "pos")))
    assert all(grid.is_null) and set(grid.values) == {grid.base} and grid.work.n_null == 18
