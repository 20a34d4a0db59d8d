"""Runs in a folder go on where they were broken off, with the same bits."""

from dataclasses import replace

import pytest
import torch

import optrode as op
from optrode.errors import GateShape, RunBusy
from optrode.flow import Options
from optrode.store.peek import peek
from optrode.store.store import Store
from optrode.trial import memory
from optrode.trial.run import Bench
from tests.parity.cases import model_of
from tests.unit.trial.test_packed import make_task, noise
from tests.words import worded

GATE = op.zero("blocks.0:2.attn.z", each=("layer", "head"))
LENGTHS = (6, 5)


class Broken(BaseException):
    """Stands for Ctrl-C, without the meaning that pytest gives it."""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setitem(memory.N_TOKENS, "cpu", 24)


@pytest.fixture
def ran(monkeypatch):
    """[(route, number of trials)] of the chunks that ran."""
    chunks, own = [], Bench.run_chunk

    def run_chunk(bench, chunk, trials):
        chunks.append((chunk.route, len(chunk.trials)))
        return own(bench, chunk, trials)

    monkeypatch.setattr(Bench, "run_chunk", run_chunk)
    return chunks


def model():
    return model_of("llama", "sdpa", torch.float64)


def sweep(out=None, gate=GATE, task=None, **options):
    return op.sweep(model(), task or make_task(LENGTHS), gate, out=out, **options)


def breaking(after, kind=Broken, stage=""):
    """A progress callback that breaks off after so many steps (of a stage)."""
    seen = []

    def progress(name, *step):
        seen.extend([step] if stage in name else [])
        if len(seen) == after:
            raise kind

    return progress


def same(one, other):
    return (one.values, one.base, one.source, one.is_null, one.sites) == (
        other.values, other.base, other.source, other.is_null, other.sites,
    )  # fmt: skip


@pytest.mark.parametrize(("after", "kind"), [(2, KeyboardInterrupt), (5, Broken)])
def test_a_broken_sweep_goes_on_with_the_missing_chunks_only(tmp_path, ran, after, kind):
    whole, n_chunks = sweep(), len(ran)
    assert n_chunks == 6
    ran.clear()
    with pytest.raises(kind):
        sweep(tmp_path / "run", progress=breaking(after, kind))
    n_before = len(ran)
    assert n_before == after - 1  # the first step counts what is there already
    assert peek(tmp_path / "run").n_done == sum(n for _, n in ran)
    assert same(sweep(tmp_path / "run"), whole) and len(ran) == n_chunks
    ran.clear()
    assert same(sweep(tmp_path / "run"), whole) and ran == []


def test_a_run_may_be_broken_off_again_and_again(tmp_path, ran):
    whole, n_chunks = sweep(), len(ran)
    ran.clear()
    for _ in range(4):
        with pytest.raises(Broken):
            sweep(tmp_path / "run", progress=breaking(2))
    assert same(sweep(tmp_path / "run"), whole) and len(ran) == n_chunks


def test_it_goes_on_with_other_memory_and_the_chunks_that_it_began_with(tmp_path, ran, monkeypatch):
    whole, n_chunks = sweep(), len(ran)
    with pytest.raises(Broken):
        sweep(tmp_path / "run", progress=breaking(3))
    monkeypatch.setitem(memory.N_TOKENS, "cpu", 4000)
    ran.clear()
    assert same(sweep(tmp_path / "run"), whole) and len(ran) == n_chunks - 2


def test_cells_that_change_nothing_are_kept_too(tmp_path, ran):
    gate = op.patch("blocks.*.resid_pre", each=("layer", "pos"))
    task = make_task((6, 6))
    whole = sweep(gate=gate, task=task)
    with pytest.raises(Broken):
        sweep(tmp_path / "run", gate, task, progress=breaking(1))
    assert peek(tmp_path / "run").n_done == sum(whole.is_null) > 0
    again = sweep(tmp_path / "run", gate, task)
    assert same(again, whole) and again.work.n_null == whole.work.n_null


def test_trials_by_layer_resume_one_by_one(tmp_path, ran):
    gate = op.zero("blocks.1:.attn.pattern[head=0|1]", each=("layer", "head"))
    whole = sweep(gate=gate)
    ran.clear()
    with pytest.raises(Broken):
        sweep(tmp_path / "run", gate, progress=breaking(3))
    assert ran == [("by layer", 1)] * 2
    assert same(sweep(tmp_path / "run", gate), whole) and len(ran) == 4


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_torn_file_is_measured_again_with_the_same_bits(tmp_path, ran, how):
    whole = sweep(tmp_path / "run")
    file = sorted((tmp_path / "run" / "tensors").iterdir())[1]
    data = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-3] if how == "cut" else bytes([*data[:-1], data[-1] ^ 1]))
    ran.clear()
    assert same(sweep(tmp_path / "run"), whole) and len(ran) == 1


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path):
    with Store(tmp_path / "run"), pytest.raises(RunBusy, match="this process writes there"):
        sweep(tmp_path / "run")
    refused = []

    def look(*step):
        with pytest.raises(RunBusy):
            sweep(tmp_path / "run")
        refused.append(step)

    gate = op.zero("blocks.*.mlp_out", each="layer")
    assert same(sweep(tmp_path / "run", gate, progress=look), sweep(gate=gate)) and refused


class TestNothingIsTakenForAnother:
    @pytest.fixture(autouse=True)
    def large_chunks(self, small_chunks, monkeypatch):
        monkeypatch.setitem(memory.N_TOKENS, "cpu", 60)

    def test_a_changed_task(self, tmp_path, ran):
        sweep(tmp_path / "run")
        other = make_task(LENGTHS, random_seed=1)
        n_before = len(ran)
        assert same(sweep(tmp_path / "run", task=other), sweep(task=other)) and len(ran) > n_before

    def test_the_same_prompts_with_other_answers(self, tmp_path):
        sweep(tmp_path / "run")
        task = make_task(LENGTHS)
        task = replace(task, pairs=tuple(replace(pair, right=pair.wrong[:1], wrong=pair.right) for pair in task.pairs))
        assert same(sweep(tmp_path / "run", task=task), sweep(task=task))

    def test_a_changed_metric(self, tmp_path):
        first = sweep(tmp_path / "run")
        for metric in ("prob_gap", op.Metric("logit_gap", "logits", lambda logits, pairs: logits[:, -1, 3])):
            found = sweep(tmp_path / "run", metric=metric)
            assert same(found, sweep(metric=metric)) and found.values != first.values

    def test_another_model_world_and_vector(self, tmp_path):
        sweep(tmp_path / "run")
        mistral, gate = model_of("mistral", "sdpa", torch.float64), op.zero("blocks.*.attn.z[head=0]", each="layer")
        found = op.sweep(mistral, make_task(LENGTHS), gate, out=tmp_path / "run")
        assert same(found, op.sweep(mistral, make_task(LENGTHS), gate))
        for seed, world in ((0, "clean"), (1, "clean"), (1, "corrupt")):
            gate = op.add("blocks.1:.resid_pre", noise(48, random_seed=seed), each="layer")
            assert same(sweep(tmp_path / "run", gate, world=world), sweep(gate=gate, world=world))

    def test_a_wider_sweep_takes_the_cells_that_are_there(self, tmp_path, ran):
        narrow = sweep(tmp_path / "run", op.zero("blocks.1.attn.z", each="head"))
        ran.clear()
        wide = sweep(tmp_path / "run")
        assert wide.values[6:] == narrow.values and sum(n for _, n in ran) == 6

    def test_a_metric_that_closes_over_something_else(self, tmp_path):
        def metric(token):
            return op.Metric("own", "logits", lambda logits, pairs: logits[:, -1, token])

        sweep(tmp_path / "run", metric=metric(3))
        assert same(sweep(tmp_path / "run", metric=metric(4)), sweep(metric=metric(4)))


class TestAFailedFirstCall:
    WRONG = op.add("blocks.*.resid_pre", noise(7), each="layer")

    def test_it_leaves_no_folder_behind(self, tmp_path):
        with pytest.raises(GateShape):
            sweep(tmp_path / "a" / "b" / "run", self.WRONG)
        assert list(tmp_path.iterdir()) == []

    def test_it_leaves_a_folder_that_was_there(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "notes.txt").write_text("mine")
        with pytest.raises(GateShape):
            sweep(tmp_path / "run", self.WRONG)
        assert (tmp_path / "run" / "notes.txt").read_text() == "mine"

    def test_it_leaves_what_was_measured(self, tmp_path, ran):
        whole = sweep(tmp_path / "run")
        ran.clear()
        with pytest.raises(GateShape):
            sweep(tmp_path / "run", self.WRONG)
        assert same(sweep(tmp_path / "run"), whole) and ran == []


def test_an_investigation_goes_on_too(tmp_path, ran, monkeypatch):
    monkeypatch.setitem(memory.N_TOKENS, "cpu", 150)
    read = worded().__class__(worded().module.double(), worded().table, worded().tokenizer)

    def make(model, random_seed):
        return make_task((5, 5, 5), random_seed=random_seed)

    def run(out=None, **more):
        return op.investigate(read, make, Options(size=3, n_grid=2), out=out, **more)

    whole, n_chunks = run(tmp_path / "whole"), len(ran)
    ran.clear()
    with pytest.raises(Broken):
        run(tmp_path / "run", progress=breaking(3, stage="proof"))
    n_before = len(ran)
    found = run(tmp_path / "run")
    assert 0 < n_before < n_chunks and len(ran) == n_chunks
    assert found.circuit.nodes == whole.circuit.nodes and found.circuit.scores.nodes == whole.circuit.scores.nodes
    assert same(found.grid, whole.grid)
    assert (found.proof.faithfulness, found.proof.random) == (whole.proof.faithfulness, whole.proof.random)
