"""A run looked at from its checkpoints: attention as a pass at each one shows it, and what the user's functions give."""

import copy
import math

import numpy as np
import pytest
import torch

import optrode as op
from optrode.errors import BadOption
from optrode.nn.transformer import Spec, as_model, build
from optrode.records import read_named, write_named
from optrode.train.checkpoints import at_step
from optrode.train.emergence import Prompt, watch
from optrode.train.loop import Trained
from optrode.train.records import Emergence, Kept, Series, TrainingRun
from tests.unit.train.runs import provenance

SPEC = Spec(n_layers=2, n_heads=3, d_model=12, vocab=11, n_ctx=8, d_mlp=0)
STEPS = (0, 4, 16)


def trained(spec=SPEC):
    """A run of three checkpoints with weights that were drawn, not learned."""
    model = as_model(build(spec))
    weights = {}
    for seed, step in enumerate(STEPS):
        torch.manual_seed(seed)
        weights[step] = {name: torch.randn_like(value) for name, value in model.module.state_dict().items()}
    kept = tuple(Kept(step, "", f"hash of {step}") for step in STEPS)
    loss = Series(tuple(range(16)), tuple(1.0 / (1 + step) for step in range(16)))
    return Trained(model, TrainingRun("drawn", (), 16, False, loss, {}, kept, provenance()), None, weights)


@pytest.fixture(name="run")
def _run():
    return trained()


def test_patterns_are_those_of_a_pass_at_each_checkpoint(run):
    seen = watch(run, prompts=[Prompt([1, 5, 1, 7]), Prompt(torch.tensor([[2, 3]]), tokens=("a", "b"))])
    assert (seen.run, seen.steps, seen.layers) == ("drawn", STEPS, (0, 1))
    assert [one.tokens for one in seen.prompts] == [("1", "5", "1", "7"), ("a", "b")]
    assert seen.prompts[0].patterns.shape == (3, 2, 3, 4, 4) and seen.prompts[1].patterns.shape == (3, 2, 3, 2, 2)
    for at, step in enumerate(STEPS):
        found = op.record(at_step(run, step), [[1, 5, 1, 7]], "blocks.1.attn.pattern")["pattern", 1]
        assert np.array_equal(seen.prompts[0].patterns[at, 1], found[0].numpy())
    assert len({seen.prompts[0].patterns[at].tobytes() for at in range(3)}) == 3


def test_some_layers_and_steps_with_a_gate_held(run):
    one_hot = torch.eye(3).expand(3, 3, 3).tril()
    gate = op.clamp("blocks.1.attn.pattern", one_hot)
    seen = watch(run, prompts=[Prompt([1, 2, 3])], layers=[1], steps=[16, 4], gates=[gate])
    assert seen.steps == (4, 16) and seen.layers == (1,) and seen.gates == (str(gate),)
    assert np.array_equal(seen.prompts[0].patterns, np.broadcast_to(one_hot.numpy(), (2, 1, 3, 3, 3)))


def norms(model):
    """Numbers that depend on the weights, one of which is not finite at one checkpoint."""
    size = float(sum(p.detach().abs().sum() for p in model.module.parameters()))
    return {"sum": size, "odd": math.nan if model.name.endswith("step 4") else 1.0}


def test_functions_give_series(run):
    seen = watch(run, looks={"weights": norms, "one": lambda model: 1})
    expected = [norms(at_step(run, step))["sum"] for step in STEPS]
    assert set(seen.circuits) == {"weights.sum", "weights.odd", "one"} and seen.prompts == () and seen.layers == ()
    assert seen.circuits["weights.sum"] == Series(STEPS, tuple(expected))
    assert seen.circuits["weights.odd"] == Series((0, 16), (1.0, 1.0))
    assert seen.circuits["one"] == Series(STEPS, (1.0, 1.0, 1.0))


def test_a_folder_keeps_what_each_checkpoint_showed(run, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    for step, weights in run.weights.items():
        save_file(weights, tmp_path / f"{step}.safetensors")
    kept = tuple(Kept(step, f"{step}.safetensors", f"hash of {step}") for step in STEPS)
    record = TrainingRun("drawn", (), 16, False, run.run.loss, {}, kept, provenance())
    in_folder = Trained(run.model, record, tmp_path, {})
    first = watch(in_folder, prompts=[Prompt([1, 2, 3])], looks={"weights": norms})
    monkeypatch.setattr("optrode.train.checkpoints.at_step", None)
    again = watch(in_folder, prompts=[Prompt([1, 2, 3])], looks={"weights": norms})
    assert np.array_equal(first.prompts[0].patterns, again.prompts[0].patterns) and first.circuits == again.circuits
    with pytest.raises(TypeError):
        watch(in_folder, prompts=[Prompt([1, 2, 4])], looks={"weights": norms})


def test_the_record_comes_back_from_its_file(run, tmp_path):
    seen = watch(run, prompts=[Prompt([1, 2, 3])], looks={"weights": norms})
    found = read_named(write_named(tmp_path / "emergence.json", seen), {"Emergence": Emergence})
    assert np.array_equal(found.prompts[0].patterns, seen.prompts[0].patterns) and found.circuits == seen.circuits
    assert (found.prompts[0].tokens, found.steps, found.provenance) == (seen.prompts[0].tokens, seen.steps, seen.provenance)


def test_what_cannot_be_watched_is_refused(run):
    with pytest.raises(BadOption, match="there is nothing to look at.*looks="):
        watch(run)
    with pytest.raises(BadOption, match="it has 2 rows.*several Prompt records"):
        watch(run, prompts=[Prompt([[1, 2], [3, 4]])])
    with pytest.raises(BadOption, match="it has 3 positions, and 1 labels.*one label per position"):
        watch(run, prompts=[Prompt([1, 2, 3], tokens=("a",))])
    with pytest.raises(BadOption, match="no checkpoint was kept there.*Nearest: 4, 0, 16"):
        watch(run, prompts=[Prompt([1])], steps=[5])


def test_the_run_stays_as_it_was(run):
    before = copy.deepcopy(run.model.module.state_dict())
    watch(run, prompts=[Prompt([1, 2])], looks={"weights": norms})
    assert all(torch.equal(value, before[name]) for name, value in run.model.module.state_dict().items())
