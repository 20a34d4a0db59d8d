"""Maps learned together: better than site by site where sites depend on each other, sparse where asked, without a trace."""

import pytest
import torch

from optrode.control.end_to_end import lineas
from optrode.control.transport import distance, linear_act
from optrode.control.wasserstein import wasserstein
from optrode.errors import BadOption
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.recording import record
from optrode.study.kit import coupled

ROWS, OTHERS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]], [[1, 2, 3], [4, 5, 6]]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sides(law, n=64, seed=1):
    return coupled.draw(law, "source", n, generator(seed)), coupled.draw(law, "target", n, generator(seed + 1))


def left(net, rows, *held):
    """Summed distance, of rows that maps were or were not fitted on."""
    return sum(float(one.sum()) for one in distance(net, *rows, coupled.SITES, *held).values())


@pytest.fixture(scope="module", name="llama")
def _llama():
    return from_source(tiny("llama"))


@pytest.mark.parametrize(("gain", "least", "most"), [(3.0, 0.0, 0.7), (0.0, 0.95, 1.05)])
def test_maps_learned_together_leave_less_than_maps_fitted_site_by_site_where_blocks_depend_on_pairs(gain, least, most):
    law = coupled.Coupled(gain=gain)
    net, fitted, unseen = coupled.network(law), sides(law), sides(law, 500, seed=7)
    by_site = linear_act(net, *fitted, coupled.SITES, support=None)
    together = lineas(net, *fitted, coupled.SITES, n_steps=70, lr=0.1)
    ratio = left(net, unseen, *together.gates()) / left(net, unseen, *by_site.gates())
    assert least <= ratio <= most
    assert left(net, unseen, *together.gates()) < 0.25 * left(net, unseen)


def test_the_cost_l1_leaves_most_features_exactly_as_they_are():
    law = coupled.Coupled(gain=2.0, n_idle=112)
    net, fitted = coupled.network(law), sides(law)
    free, sparse = (lineas(net, *fitted, coupled.SITES, l1=l1, n_steps=70, lr=0.1) for l1 in (0.0, 0.01))
    assert free.identity_share < 0.01 and sparse.identity_share >= 0.8
    unseen = sides(law, 500, seed=7)
    assert left(net, unseen, *sparse.gates()) <= 1.1 * left(net, unseen, *free.gates())


def test_the_fixed_point_with_l1_is_the_minimiser():
    """One feature: W2^2 of a shift by d is (b - d)^2, plus l1 d^2 |b| / u; the minimum is at b = d - l1 d^2 / 2u."""
    module = Model(torch.nn.Sequential(torch.nn.Identity()))
    x = torch.linspace(-1, 1, 64).reshape(-1, 1)
    shift, l1 = 3.0, 0.2
    unit = float(torch.cat([x, x + shift]).std(0))
    found = lineas(module, x, x + shift, "module:0.out", l1=l1, n_steps=200, lr=0.2).maps[0]
    assert float(found.weight) == 1
    assert abs(float(found.bias) - (shift - l1 * shift**2 / (2 * unit))) < 1e-2


def test_the_cost_of_groups_leaves_whole_sites_alone():
    law = coupled.Coupled(gain=0.0)  # all sites have the same: one map is enough
    net, fitted = coupled.network(law), sides(law)
    maps = lineas(net, *fitted, coupled.SITES, group=0.001, n_steps=80, lr=0.1)
    untouched = [not bool(one.changed.any()) for one in maps.maps]
    assert not untouched[0] and untouched[2:] == [True, True]
    assert len(maps.gates()) == untouched.count(False)


def test_the_losses_are_those_of_the_maps():
    law = coupled.Coupled(gain=2.0)
    net, fitted = coupled.network(law), sides(law, 16)
    maps = lineas(net, *fitted, coupled.SITES, n_steps=20)
    assert len(maps.losses) == 21 and maps.losses[0] == pytest.approx(1) and maps.losses[-1] < 0.8
    assert maps.losses[-1] == pytest.approx(left(net, fitted, *maps.gates()) / left(net, fitted), rel=1e-4)


def test_the_same_seed_gives_the_same_bits_and_draws_batches():
    law = coupled.Coupled(gain=2.0)
    net, fitted = coupled.network(law), sides(law, 32)
    one, same, other = (
        lineas(net, *fitted, coupled.SITES, n_steps=5, batch_size=8, random_seed=seed).maps[0].weight for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_learning_goes_on_from_given_maps():
    law = coupled.Coupled(gain=3.0)
    net, fitted = coupled.network(law), sides(law)
    start = linear_act(net, *fitted, coupled.SITES, support=None)
    maps = lineas(net, *fitted, coupled.SITES, n_steps=1, start=start)
    assert maps.losses[0] == pytest.approx(left(net, fitted, *start.gates()) / left(net, fitted), rel=1e-4)
    assert not torch.equal(maps.maps[0].bias, start.maps[0].bias)
    with pytest.raises(BadOption, match="fit them at the same sites"):
        lineas(net, *fitted, coupled.SITES[:2], start=start)


def test_a_language_models_activations_are_matched_and_it_is_left_as_it_was(llama):
    llama.module.train()
    weights_hash, flags = llama.weights_hash, [one.requires_grad for one in llama.module.parameters()]
    maps = lineas(llama, ROWS, OTHERS, "blocks.*.mlp_out", n_steps=15, lr=0.1)
    assert maps.losses[-1] < 0.7
    assert llama.weights_hash == weights_hash and llama.module.training
    assert [one.requires_grad for one in llama.module.parameters()] == flags
    assert all(one.grad is None for one in llama.module.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.module.modules())
    llama.module.eval()
    site = "blocks.1.mlp_out"
    with gates(llama, *maps.gates()):
        found = record(llama, ROWS, site)[site]
    means = torch.stack([row[1:n].mean(0) for row, n in zip(found, (4, 2, 3), strict=True)])
    wanted = record(llama, OTHERS, site)[site][:, 1:].mean(1)
    expected = distance(llama, ROWS, OTHERS, site, *maps.gates())[site]
    torch.testing.assert_close(wasserstein(means, wanted), expected, rtol=1e-3, atol=1e-5)
    assert not any(one.weight.requires_grad for one in maps.maps)


def test_heads_have_maps_of_their_own(llama):
    maps = lineas(llama, ROWS, OTHERS, "blocks.1.attn.z", n_steps=3)
    assert maps.maps[0].weight.shape == (6, 8) and maps.maps[0].changed.all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_callers_mode_is_no_hindrance(llama, mode):
    law = coupled.Coupled(gain=1.0)
    net, fitted = coupled.network(law), sides(law, 9)
    with mode():
        wasserstein(*fitted)
        assert lineas(net, *fitted, coupled.SITES, n_steps=3).losses[-1] < 1
        assert lineas(llama, ROWS, OTHERS, "blocks.1.mlp_out", n_steps=3).losses[-1] < 1


REFUSED = {
    "the same texts twice": (lambda m: lineas(m, ROWS, ROWS, "embed"), "source and target have the same activations"),
    "one text": (lambda m: lineas(m, ROWS[:1], OTHERS, "embed"), "source texts"),
    "negative cost": (lambda m: lineas(m, ROWS, OTHERS, "embed", l1=-1.0), "l1=-1.0"),
    "cost NaN": (lambda m: lineas(m, ROWS, OTHERS, "embed", group=float("nan")), "group=nan"),
    "no rate": (lambda m: lineas(m, ROWS, OTHERS, "embed", lr=0.0), "lr=0.0"),
    "no step": (lambda m: lineas(m, ROWS, OTHERS, "embed", n_steps=0), "at least one step"),
    "no such option": (lambda m: lineas(m, ROWS, OTHERS, "embed", pol="mean"), "Nearest: pool"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_inputs_are_refused_with_a_reason(llama, name):
    make, words = REFUSED[name]
    with pytest.raises(BadOption) as refused:
        make(llama)
    assert words in str(refused.value)


def test_half_precision_is_refused():
    with pytest.raises(BadOption, match="small steps are lost"):
        lineas(from_source(tiny("llama").bfloat16()), ROWS, OTHERS, "embed")
