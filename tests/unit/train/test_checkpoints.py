"""Sweeps over checkpoints: each result is made once, kept under what it depends on, and comes back equal."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import optrode as op
from optrode.errors import BadFile, BadOption
from optrode.nn.transformer import Spec, as_model, build
from optrode.records import content_hash
from optrode.train import along, at_step, fit, load_run
from tests.pages import samples
from tests.unit.circuit.edge.samples import make_circuit, make_scores
from tests.unit.train.plans import PROBE, equal, make, make_llama, plan, weights

SITE = "blocks.1.attn.pattern"


@pytest.fixture
def trained(tmp_path):
    return fit(plan(keep_at=(0, 3, 6)), out=tmp_path)


def norm(model):
    return float(sum(p.detach().square().sum() for p in model.module.parameters()))


def pattern(model):
    return op.record(model, PROBE, SITE)[SITE]


def counted(function, calls, model):
    calls.append(model.name)
    return function(model)


def swept(trained, function, kind, calls, **options):
    """A sweep that counts its calls; the list of them is no part of what the function is."""
    look = partial(counted, function)

    def counting(model):
        return look(_CALLS, model)

    _CALLS.clear()
    found = along(trained, counting, kind=kind, **options)
    calls[:] = _CALLS
    return found


_CALLS: list[str] = []


def test_each_checkpoint_is_a_model_of_its_own(trained):
    before = weights(trained)
    first = at_step(trained, 0)
    assert equal(dict(first.module.state_dict()), dict(make(0).module.state_dict())) and not first.module.training
    with torch.no_grad():
        first.module.unembed.weight.zero_()
    assert equal(weights(trained), before) and trained.model.module.unembed.weight.any()
    assert equal(dict(at_step(trained, 6).module.state_dict()), before)


def test_tied_weights_are_kept_and_loaded(tmp_path):
    trained = fit(plan(make=make_llama, keep_at=(0, 6)), out=tmp_path)
    module = at_step(trained, 6).module
    assert module.lm_head.weight.data_ptr() == module.model.embed_tokens.weight.data_ptr()
    assert equal(dict(module.state_dict()), weights(trained))
    again = load_run(tmp_path, make_llama(7))
    assert equal(dict(at_step(again, 6).module.state_dict()), weights(trained))


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (norm, float),
        (lambda model: {"norm": norm(model), "one": 1.0}, dict[str, float]),
        (pattern, np.ndarray),
        (lambda model: pattern(model).numpy(), NDArray[np.float32]),
        (lambda model: tuple(norm(model) * n for n in range(3)), tuple[float, ...]),
    ],
)
def test_a_second_sweep_runs_nothing_and_gives_the_same(trained, function, kind):
    calls, again = [], []
    first = swept(trained, function, kind, calls)
    second = swept(trained, function, kind, again)
    assert len(calls) == 3 and again == []
    assert list(first) == list(second) == [0, 3, 6]
    for step, value in first.items():
        assert type(value) is type(second[step])
        np.testing.assert_equal(value, second[step])
    direct = function(at_step(trained, 3))
    np.testing.assert_equal(first[3], direct.numpy() if isinstance(direct, torch.Tensor) else direct)


def test_a_sweep_that_broke_off_goes_on(trained):
    made = []

    def look(model):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(model.name)
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        along(trained, look, kind=float)
    assert len(list((trained.folder / "along").iterdir())) == 2


@pytest.mark.parametrize(
    ("kind", "sample"),
    [(op.Circuit, samples.circuit()), (op.EdgeCircuit, make_circuit(make_scores(), 5)), (op.Scores, samples.scores())],
)
def test_records_come_back_equal(trained, kind, sample):
    def of_step(model):
        return replace(sample, provenance=replace(sample.provenance, model=model.name))

    first, second = (along(trained, of_step, kind=kind) for _ in range(2))
    assert [type(one) for one in second.values()] == [kind] * 3
    assert [content_hash(one) for one in second.values()] == [content_hash(one) for one in first.values()]
    assert second[3].provenance.model == at_step(trained, 3).name
    if kind is op.EdgeCircuit:
        assert all((one.is_in == sample.is_in).all() and one.edges == sample.edges for one in second.values())


def test_another_function_or_other_weights_have_another_key(tmp_path, trained):
    calls = []
    swept(trained, norm, float, calls)
    swept(trained, lambda model: norm(model) + 1.0, float, calls)
    assert len(calls) == 3
    with_more = along(trained, lambda model: norm(model) + 2.0, kind=float, steps=[3])
    assert with_more[3] == norm(at_step(trained, 3)) + 2.0
    other = fit(plan(keep_at=(0, 3, 6), random_seed=1), out=tmp_path / "other")
    (tmp_path / "other" / "along").mkdir()
    for path in (trained.folder / "along").iterdir():
        (tmp_path / "other" / "along" / path.name).write_bytes(path.read_bytes())
    assert swept(other, norm, float, calls)[3] == norm(at_step(other, 3)) and len(calls) == 3


def test_the_model_is_left_as_it_is(trained):
    def spoil(model):
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.zero_()
        return 0.0

    before = weights(trained)
    along(trained, spoil)
    assert equal(weights(trained), before)
    assert equal(dict(at_step(trained, 6).module.state_dict()), before)


def test_without_a_folder_or_a_kind_nothing_is_kept(trained):
    assert along(trained, norm)[6] == norm(trained.model)
    assert not (trained.folder / "along").exists()
    loose = fit(plan(keep_at=(0, 6)))
    assert along(loose, norm, kind=float)[6] == norm(loose.model)


def test_what_is_no_number_is_given_back_but_not_kept(trained):
    calls = []
    for _ in range(2):
        assert math.isnan(swept(trained, lambda model: math.nan, float, calls)[3]) and len(calls) == 3


def test_what_cannot_be_kept_is_told(trained):
    with pytest.raises(BadOption, match="a dict cannot be kept"):
        along(trained, lambda model: {"held": object()}, kind=dict[str, float])


def test_a_result_of_another_kind_or_a_torn_one_is_told(trained):
    along(trained, norm, kind=float, steps=[3])
    (path,) = (trained.folder / "along").iterdir()
    path.write_text('{"value": 3')
    with pytest.raises(BadFile, match="not JSON, or torn"):
        along(trained, norm, kind=float, steps=[3])
    path.write_text('{"step": 3}')
    with pytest.raises(BadFile, match="to have it made again"):
        along(trained, norm, kind=float, steps=[3])


def test_steps_without_a_checkpoint_are_told(trained):
    with pytest.raises(BadOption, match="checkpoint of step 4.*Nearest: 3, 6, 0"):
        along(trained, norm, kind=float, steps=[4])
    with pytest.raises(BadOption, match="the run kept none"):
        along(fit(plan()), norm)


def test_a_checkpoint_of_another_architecture_names_the_tensor(trained):
    with pytest.raises(BadFile, match="checkpoint of step 3 of 'tiny': of another architecture: .* is"):
        at_step(load_run(trained.folder, make_llama(0)), 3)


def test_a_wider_model_names_shapes(trained):
    wider = as_model(build(Spec(n_layers=2, n_heads=2, d_model=8, vocab=7, n_ctx=6, d_mlp=13)))
    with pytest.raises(BadFile, match=r"blocks.0.mlp.up.weight is \[12, 8\], the model's is \[13, 8\]"):
        at_step(load_run(trained.folder, wider), 3)


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(BadFile, match="no such file"):
        load_run(tmp_path, make(0))


def test_a_checkpoint_that_is_gone_is_told(trained):
    (trained.folder / "checkpoints" / "step-00000003.safetensors").unlink()
    with pytest.raises(BadFile, match="no such file"):
        at_step(trained, 3)
