"""Autoencoders trained on states: a planted dictionary comes back, the same seed gives the same bits."""

import math

import pytest
import torch
from jaxtyping import config

from optrode.control.sae_training import Recipe, _Learner, train_sae
from optrode.control.states import token_states
from optrode.errors import BadOption, LossNotFinite
from optrode.model.source import from_source
from optrode.model.tiny import tiny

D, N = 16, 24


def planted(n=4000, n_active=2, random_seed=0):
    """States that are sums of two of 24 directions, and the directions."""
    generator = torch.Generator().manual_seed(random_seed)
    directions = torch.nn.functional.normalize(torch.randn(N, D, generator=generator), dim=-1)
    chosen = torch.rand(n, N, generator=generator).topk(n_active, dim=-1).indices
    sizes = 1 + torch.rand(n, n_active, generator=generator)
    codes = torch.zeros(n, N).scatter(-1, chosen, sizes)
    return 5 * codes @ directions + 3, directions


@pytest.fixture(scope="module")
def states():
    return planted()


@pytest.mark.parametrize("recipe", [Recipe(k=2, n_steps=1500, lr=5e-3), Recipe("relu", n_steps=1500, lr=5e-3, l1=0.02)])
def test_planted_directions_are_found(states, recipe):
    found = train_sae(states[0], 32, "blocks.1.resid_post", recipe)
    nearest = (states[1] @ torch.nn.functional.normalize(found.sae.W_dec, dim=-1).T).max(-1).values
    assert float(nearest.median()) > 0.95 and float((nearest > 0.9).float().mean()) > 0.8
    assert found.explained > 0.9 and found.losses[-1] < 0.2 * found.losses[0]
    assert found.n_active <= (2 if recipe.kind == "topk" else 8)
    torch.testing.assert_close(found.sae.W_dec.norm(dim=-1), torch.ones(32))


def test_the_same_seed_gives_the_same_bits_and_leaves_the_callers_alone(states):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = (train_sae(states[0], 8, "embed", Recipe(k=2, n_steps=20)) for _ in range(2))
    assert all(torch.equal(tensor, other.sae.tensors()[name]) for name, tensor in one.sae.tensors().items())
    assert torch.equal(torch.get_rng_state(), before)
    again = train_sae(states[0], 8, "embed", Recipe(k=2, n_steps=20, random_seed=1))
    assert not torch.equal(again.sae.W_dec, one.sae.W_dec)


def test_the_report_counts_what_is_dead_and_active(states):
    found = train_sae(states[0], 64, "embed", Recipe(k=2, n_steps=30))
    latents = found.sae.encode(states[0])
    assert found.dead == tuple(ix for ix in range(64) if not bool((latents[:, ix] > 0).any()))
    assert math.isclose(found.n_active, float((latents > 0).sum(1).double().mean()))
    error = (found.sae.decode(latents) - states[0]).square().sum()
    spread = (states[0] - states[0].mean(0)).square().sum()
    assert math.isclose(found.explained, 1 - float(error / spread), rel_tol=1e-5)
    assert f"{len(found.dead)} of 64 latents dead" in str(found)


def test_dead_latents_are_brought_back(states):
    def is_alive(dead_after):
        learner = _Learner(states[0], 16, Recipe(k=2, lr=5e-3, dead_after=dead_after))
        learner.weights[1].data[3] = -8.0  # never among the largest
        for _ in range(800):
            learner.step()
        return int(learner.idle[3]) < 800

    assert is_alive(20) and not is_alive(10**6)


def test_it_is_trained_on_what_a_site_shows():
    model = from_source(tiny("llama"))
    texts = [tuple(torch.randint(1, 61, (9,), generator=torch.Generator().manual_seed(ix)).tolist()) for ix in range(12)]
    states = token_states(model, texts, "blocks.1.mlp_out").float()
    calls = []
    found = train_sae(states, 16, "blocks.1.mlp_out", Recipe(k=4, n_steps=50), progress=lambda *call: calls.append(call))
    assert len(states) == 96 and found.sae.site == "blocks.1.mlp_out" and calls[-1] == ("blocks.1.mlp_out", 50, 50)


@pytest.mark.parametrize("bad", [{"k": 0}, {"n_steps": 0}, {"lr": 0.0}, {"lr": math.nan}, {"l1": -1.0}, {"batch_size": 0}])
def test_numbers_out_of_range_are_refused(bad):
    with pytest.raises(BadOption, match=next(iter(bad))):
        Recipe(**bad)


def test_kinds_that_there_are_not_are_refused(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)
    with pytest.raises(BadOption, match="Nearest: topk"):
        Recipe("top-k")


def test_states_that_nothing_can_be_learned_from_are_refused(states):
    with pytest.raises(BadOption, match="do not differ"):
        train_sae(torch.ones(5, D), 8, "embed")
    with pytest.raises(BadOption, match="NaN"):
        train_sae(torch.full((5, D), torch.nan), 8, "embed")
    with pytest.raises(BadOption, match="n_latents=4"):
        train_sae(states[0], 4, "embed")
    with pytest.raises(LossNotFinite, match="at step 1"):
        train_sae(states[0], 8, "embed", Recipe(k=2, lr=1e25, n_steps=5))
