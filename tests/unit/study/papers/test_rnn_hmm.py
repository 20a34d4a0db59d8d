"""What is particular to the study of RNNs that emulate hidden Markov models."""

from dataclasses import replace

import pytest
import torch

import optrode as op
from optrode.claims import Measured
from optrode.nn.recurrent import as_model, build
from optrode.study.kit import orbits
from optrode.study.papers import rnn_hmm as study
from optrode.study.papers import rnn_hmm_training as task

SIZE = replace(task.QUICK, runs=4, time=12, skip=2, states=10)


def generator():
    return torch.Generator().manual_seed(0)


def model():
    return as_model(build(task.SPEC, 0, init="he"))


@pytest.fixture(scope="module", name="seen")
def _seen():
    return study.look(model(), SIZE, generator())


def test_emissions_are_one_hot_and_have_a_gradient():
    net = model()
    batch = task.make_batch(SIZE, 0, generator())
    found = task.emit(net, batch).view(SIZE.rows, SIZE.length, 3)
    torch.testing.assert_close(found.sum(2), torch.ones(SIZE.rows, SIZE.length))
    assert bool(((found - found.round()).abs() < 1e-5).all())
    task.loss(net, batch).backward()
    assert float(orbits.network(net).cells[0].get_parameter("recur.weight").grad.abs().max()) > 0


def test_a_memoryless_source_diverges_more_than_the_model_from_itself():
    own, memoryless = task.levels_of(replace(SIZE, rows=100, length=30), generator())
    assert memoryless > 1.2 * own > 0


def test_eigenvalues_are_those_of_the_active_rows():
    net, states = model(), torch.relu(torch.randn(2, 50, generator=generator()))
    weight = orbits.recurrent_weight(net)
    expected = torch.linalg.eigvals(torch.diag((states[1] > 0).float()) @ weight)
    torch.testing.assert_close(task.eigenvalues(net, states)[1].abs().sort().values, expected.abs().sort().values)


def test_the_radius_goes_with_the_noise_and_a_constant_input_ends_that(seen):
    assert study.exponent(study.radii(seen)) == pytest.approx(1, abs=1e-3)
    assert study.exponent([size**2 for size in study.NOISES]) == pytest.approx(2)


def test_kick_units_of_both_sides_are_different_and_push_most(seen):
    first, second = study.kick_units(seen)
    assert len({*first, *second}) == 6
    here = study.leaving(seen, 0)
    own = seen.own[here]
    push = orbits.pushes(seen.model, seen.states[here], own, torch.full_like(own, 2)).sum(0)
    assert first == push.argsort(descending=True)[:3].tolist()


def test_random_units_are_as_many_others(seen):
    kicks = ([1, 2, 3], [4, 5, 6])
    for first, second in study.random_units(kicks, SIZE, generator()):
        assert len({*first, *second}) == 6 and not {*first, *second} & {1, 2, 3, 4, 5, 6}


def test_planted_wiring_is_seen():
    net = model()
    with torch.no_grad():
        weight = orbits.network(net).cells[0].get_parameter("recur.weight")
        weight.normal_(generator=generator())
        for here, there in ((slice(0, 3), slice(3, 6)), (slice(3, 6), slice(0, 3))):
            weight[here, here], weight[here, there] = 3.0, -3.0
    found = study.wiring(net, ([0, 1, 2], [3, 4, 5]), [([10, 11, 12], [20, 21, 22])])
    scale = float(weight.detach().std())
    assert found.value == pytest.approx(6 / scale, rel=1e-4) and abs(found.control) < 3


def test_onsets_are_compared_with_the_second_drop():
    steps = tuple(range(60))
    losses = tuple(50.0 if step < 10 else 30.0 if step < 40 else 10.0 for step in steps)
    grown = op.train.Series((0, 20, 30), (0.0, 0.0, 0.5))
    plan = op.train.Plan("x", lambda _: model(), lambda *_: 0, lambda net, _: net.module.readout.weight.sum(), 1)
    source = op.train.fit(plan).run
    run = replace(source, loss=op.train.Series(steps, losses), measures={"seen.unstable": grown})
    found = study.onset(run, 50.0, (10.0, 30.0))
    assert isinstance(found, Measured)
    assert found.value == pytest.approx(30 / 39, abs=0.03) and found.control == pytest.approx(9 / 39, abs=0.03)


def test_shares_are_contrasted_between_zones_and_shuffled_shares_are_alike():
    n = 400
    zone = {"cluster": torch.arange(n) < n // 2, "kick": torch.arange(n) >= n // 2, "transition": torch.zeros(n).bool()}
    nothing = torch.zeros(0)
    seen = study.Look(model(), orbits.Run(nothing, nothing, nothing), nothing, nothing, nothing, zone, nothing)
    found = study.contrast(seen, zone["kick"], generator())
    assert found.value == 1 and abs(found.control) < 0.2
