"""Maps in closed form: known maps are found again, later sites see earlier maps, and wrong inputs are refused."""

import pytest
import torch

from optrode.control.reading import frozen
from optrode.control.transport import Map, Maps, area, aura, distance, line, linear_act, quantiles
from optrode.errors import BadOption, UnknownSite
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.model.names import parse
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.recording import record
from optrode.study.kit import coupled

LAW = coupled.Coupled(gain=1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


@pytest.fixture(scope="module", name="llama")
def _llama():
    return from_source(tiny("llama"))


@pytest.fixture(scope="module", name="net")
def _net():
    return coupled.network(LAW)


@pytest.fixture(scope="module", name="sides")
def _sides():
    return coupled.draw(LAW, "source", 64, generator(1)), coupled.draw(LAW, "target", 48, generator(2))


def test_a_known_map_of_each_feature_is_found_again_from_unpaired_samples():
    module = Model(torch.nn.Sequential(torch.nn.Identity()))
    weight, bias = 0.2 + 2 * torch.rand(16, generator=generator(3)), drawn(16, seed=4)
    x = drawn(512, 16) * 1.7 + 0.3
    y = (weight * x + bias)[torch.randperm(512, generator=generator(5))]
    found = linear_act(module, x, y, "module:0.out").maps[0]
    torch.testing.assert_close(found.weight, weight, atol=0.02, rtol=0)
    torch.testing.assert_close(found.bias, bias, atol=0.02, rtol=0)


def test_a_known_map_of_distributions_is_found_from_independent_samples():
    x, y = drawn(8192, 4, seed=1), 0.5 * drawn(8192, 4, seed=2) - 1
    weight, bias = line(x, y)
    torch.testing.assert_close(weight, torch.full((4,), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(bias, torch.full((4,), -1.0), atol=0.02, rtol=0)


def test_the_line_is_that_of_least_squares_through_sorted_pairs():
    x, y = drawn(30, 2), drawn(30, 2, seed=1).exp()
    weight, bias = line(x, y)
    for feature in range(2):
        a, b = x[:, feature].sort().values.double(), y[:, feature].sort().values.double()
        slope, offset = torch.linalg.lstsq(torch.stack([a, torch.ones(30).double()], 1), b[:, None]).solution.flatten()
        torch.testing.assert_close(weight[feature].double(), slope)
        torch.testing.assert_close(bias[feature].double(), offset)


def test_a_feature_that_never_varies_is_only_shifted():
    weight, bias = line(torch.full((10, 1), 3.0), drawn(12, 1) + 5)
    assert float(weight) == 1 and abs(float(bias) - 2) < 1


def test_later_sites_see_the_maps_of_earlier_ones(net, sides):
    maps = linear_act(net, *sides, coupled.SITES[:3], support=None)
    with gates(net, *(one.gate() for one in maps.maps[:2])):
        seen = record(net, sides[0], coupled.SITES[2])[coupled.SITES[2]]
    wanted = record(net, sides[1], coupled.SITES[2])[coupled.SITES[2]]
    weight, bias = line(seen, wanted)
    torch.testing.assert_close(maps.maps[2].weight, weight)
    torch.testing.assert_close(maps.maps[2].bias, bias)
    alone = linear_act(net, *sides, coupled.SITES[2], support=None)
    assert not torch.allclose(alone.maps[0].weight, weight, atol=0.1)


def test_maps_bring_the_source_to_the_target(net, sides):
    maps = linear_act(net, *sides, coupled.SITES)
    held, plain = (
        sum(float(one.sum()) for one in distance(net, *sides, coupled.SITES, *gate).values()) for gate in (maps.gates(), ())
    )
    assert held < 0.25 * plain
    half = sum(float(one.sum()) for one in distance(net, *sides, coupled.SITES, *maps.gates(0.5)).values())
    assert held < half < plain


def test_means_over_tokens_leave_out_padding_and_the_first_token(llama):
    rows, others = [[5, 6, 7, 8], [9, 10]], [[1, 2, 3], [4, 5, 6]]
    site = "blocks.1.resid_post"
    one, two = record(llama, rows, site)[site], record(llama, others, site)[site]
    x = torch.stack([one[0, 1:4].mean(0), one[1, 1]])
    weight, bias = line(x, two[:, 1:].mean(1))
    found = linear_act(llama, rows, others, site, support=None).maps[0]
    assert str(found.site) == f"{site}[pos=1:]"
    torch.testing.assert_close(found.weight, weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.bias, bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("pool", "n"), [("all", 4), ("last", 2)])
def test_all_tokens_or_the_last_can_be_the_samples(llama, pool, n):
    rows, others = [[5, 6, 7, 8], [9, 10]], [[1, 2, 3], [4, 5, 6]]
    site = "blocks.1.resid_post"
    one, two = record(llama, rows, site)[site], record(llama, others, site)[site]
    x = torch.cat([one[0, 1:4], one[1, 1:2]]) if pool == "all" else torch.stack([one[0, 3], one[1, 1]])
    y = two[:, 1:].flatten(0, 1) if pool == "all" else two[:, 2]
    assert len(x) == n
    found = linear_act(llama, rows, others, site, support=None, pool=pool).maps[0]
    torch.testing.assert_close(found.weight, line(x, y)[0], rtol=1e-4, atol=1e-4)


def test_the_support_is_what_single_tokens_have(llama):
    rows, others = [[5, 6, 7, 8], [9, 10, 11, 12]], [[1, 2, 3], [4, 5, 6]]
    site = "blocks.0.mlp_out"
    found = linear_act(llama, rows, others, site, support=(0.25, 1.0)).maps[0]
    tokens = record(llama, rows, site)[site][:, 1:].flatten(0, 1)
    torch.testing.assert_close(found.low, tokens.quantile(0.25, 0))
    torch.testing.assert_close(found.high, tokens.amax(0))


def test_the_first_token_is_neither_read_nor_mapped_unless_asked(llama):
    rows, others = [[5, 6, 7, 8], [9, 10, 11, 12]], [[1, 2, 3], [4, 5, 6]]
    site = "blocks.1.resid_post"
    plain = record(llama, rows, site)[site]
    for skip_first in (True, False):
        with gates(llama, *linear_act(llama, rows, others, site, support=None, skip_first=skip_first).gates()):
            mapped = record(llama, rows, site)[site]
        assert torch.equal(mapped[:, 0], plain[:, 0]) == skip_first
        assert not torch.allclose(mapped[:, 1:], plain[:, 1:])


def test_sites_are_fitted_in_the_order_of_the_computation(llama):
    rows = [[5, 6, 7, 8], [9, 10, 11, 12]], [[1, 2, 3], [4, 5, 6]]
    given = ["blocks.*.resid_post", "module:model.layers.1.mlp.out", "blocks.0.mlp_out", "embed"]
    names = [str(one.site) for one in linear_act(llama, *rows, given, skip_first=False).maps]
    posts = [f"blocks.{ix}.resid_post" for ix in range(3)]
    assert names == ["embed", "blocks.0.mlp_out", posts[0], "module:model.layers.1.mlp.out", *posts[1:]]


def test_sites_of_a_model_that_normalises_after_adding_are_fitted_too():
    bert = from_source(tiny("bert"))
    rows = [[5, 6, 7, 8], [9, 10, 11, 12]], [[1, 2, 3], [4, 5, 6]]
    names = [str(one.site) for one in linear_act(bert, *rows, ["blocks.0.ln1", "blocks.0.attn_out"], skip_first=False).maps]
    assert names == ["blocks.0.attn_out", "blocks.0.ln1"]


def test_batches_change_nothing(net, sides):
    whole, parts = (linear_act(net, *sides, coupled.SITES, batch_size=size) for size in (None, 10))
    for one, other in zip(whole.maps, parts.maps, strict=True):
        torch.testing.assert_close(one.weight, other.weight)


def test_the_module_is_left_as_it_was(llama):
    module = llama.module.train()
    weight = next(module.parameters()).requires_grad_(False)
    weights_hash = llama.weights_hash
    linear_act(llama, [[5, 6, 7, 8], [9, 10]], [[1, 2, 3], [4, 5, 6]], "blocks.0.mlp_out")
    assert all(part.training for part in module.modules()) and llama.weights_hash == weights_hash
    assert [one.requires_grad for one in module.parameters()].count(False) == 1 and not weight.requires_grad
    with pytest.raises(ZeroDivisionError), frozen(llama):
        assert not module.training and not any(one.requires_grad for one in module.parameters())
        1 / 0  # noqa: B018
    assert module.training
    weight.requires_grad_(True)
    module.eval()


def test_quantiles_are_torchs():
    x = drawn(37, 4)
    low, high = quantiles(x, (0.1, 0.93))
    torch.testing.assert_close(low, x.quantile(0.1, 0))
    torch.testing.assert_close(high, x.quantile(0.93, 0))
    assert torch.equal(quantiles(x, (0.0, 1.0))[1], x.amax(0))


def test_untouched_features_are_counted_and_their_sites_have_no_gate():
    one, none = torch.ones(4), torch.zeros(4)
    changed = Map(parse("embed"), one, torch.tensor([0.0, 0, 0, 2]))
    maps = Maps((Map(parse("final_norm"), one, none), changed), "LinEAS", "mean")
    assert maps.identity_share == 7 / 8 and repr(maps) == "Maps(LinEAS, 2 sites, 88% of features untouched)"
    assert [str(gate.site) for gate in maps.gates()] == ["embed"]
    assert maps.to(torch.float64).maps[0].weight.dtype == torch.float64
    with pytest.raises(BadOption, match="leave every feature as it is"):
        Maps(maps.maps[:1], "LinEAS", "mean").gates()


def test_features_that_tell_the_source_are_damped_by_how_well_they_do():
    module = Model(torch.nn.Sequential(torch.nn.Identity()))
    x, y = drawn(40, 3), drawn(50, 3, seed=1)
    x[:, 0] += 100
    x[:, 1] -= 100
    weight = aura(module, x, y, "module:0.out").maps[0].weight
    naive = (x[:, None, 2] > y[None, :, 2]).double().mean() + 0.5 * (x[:, None, 2] == y[None, :, 2]).double().mean()
    torch.testing.assert_close(area(x, y)[2].double(), naive)
    torch.testing.assert_close(weight, torch.tensor([0.0, 1.0, float(min(1.0, 1 - 2 * (naive - 0.5)))]))


def test_what_lies_behind_a_site_is_not_computed_to_fit_it(llama):
    calls = []
    handle = llama.module.model.layers[2].register_forward_hook(lambda *_: calls.append(1))
    linear_act(llama, [[5, 6, 7, 8], [9, 10, 11, 12]], [[1, 2, 3], [4, 5, 6]], ["blocks.0.mlp_out", "blocks.1.mlp_out"])
    handle.remove()
    assert len(calls) == 1  # the target's pass, which reads all sites at once


ROWS = [[5, 6, 7, 8], [9, 10, 11, 12]]
REFUSED = {
    "one text": (lambda m: linear_act(m, ROWS, ROWS[:1], "embed"), BadOption, "target texts"),
    "no text": (lambda m: linear_act(m, [], ROWS, "embed"), BadOption, "there is none"),
    "first token only": (lambda m: linear_act(m, ROWS, [[1, 2], [3]], "embed"), BadOption, "no token but the first"),
    "no way to pool": (lambda m: linear_act(m, ROWS, ROWS, "embed", pool="meen"), BadOption, "mean"),
    "no such option": (lambda m: linear_act(m, ROWS, ROWS, "embed", skip=1), BadOption, "skip"),
    "part of a site": (lambda m: linear_act(m, ROWS, ROWS, "blocks.0.attn.z[head=1]"), BadOption, "whole sites"),
    "a site twice": (lambda m: linear_act(m, ROWS, ROWS, ["blocks.*.mlp_out", "blocks.0.mlp_out"]), BadOption, "twice"),
    "patterns": (lambda m: linear_act(m, ROWS, ROWS, "blocks.0.attn.pattern"), BadOption, "source positions"),
    "no site": (lambda m: linear_act(m, ROWS, ROWS, []), BadOption, "name some"),
    "unknown site": (lambda m: linear_act(m, ROWS, ROWS, "blocks.0.mlp_ouf"), UnknownSite, "mlp_out"),
    "empty support": (lambda m: linear_act(m, ROWS, ROWS, "embed", support=(0.9, 0.1)), BadOption, "(0.0, 1.0)"),
    "no batch": (lambda m: linear_act(m, ROWS, ROWS, "embed", batch_size=0), BadOption, "batch_size"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_inputs_are_refused_with_a_reason(llama, name):
    make, error, words = REFUSED[name]
    with pytest.raises(error) as refused:
        make(llama)
    assert words in str(refused.value)
