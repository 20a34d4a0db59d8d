"""Latents as propositions: chosen where they tell, above thresholds between, held to the end of the prompt."""

import pytest
import torch

from optrode.control.sae import SAE
from optrode.gate.kinds import add
from optrode.gate.place import gates
from optrode.study.kit import deduction, detecting
from optrode.study.kit.deduction import N_CONCEPTS, PLACES
from optrode.study.kit.detecting import N_PROPOSITIONS

SITE = "blocks.0.resid_post"


@pytest.fixture(scope="module")
def prompts():
    return deduction.stated(1024, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def exact(prompts):
    """States that are one-hot in what is told, and an autoencoder whose latents are these in reverse."""
    told = deduction.propositions(prompts)
    states = torch.nn.functional.one_hot(told + 1, N_PROPOSITIONS + 1)[..., 1:].float()
    turned = torch.eye(N_PROPOSITIONS).flip(0)
    sae = SAE(SITE, turned, torch.zeros(N_PROPOSITIONS), turned, torch.zeros(N_PROPOSITIONS), "topk", k=1)
    return sae, states


def test_each_proposition_finds_its_latent_and_a_threshold_half_way(exact, prompts):
    found = detecting.detector(*exact, prompts)
    assert found.latents.tolist() == list(reversed(range(N_PROPOSITIONS)))
    assert torch.equal(found.thresholds, torch.full((N_PROPOSITIONS,), 0.5))
    assert detecting.area(found, exact[1], prompts) == 1


def test_random_latents_are_active_about_as_often(exact, prompts):
    found = detecting.detector(*exact, prompts)
    states = exact[1] + 0.01 * torch.rand(exact[1].shape, generator=torch.Generator().manual_seed(2))
    drawn = detecting.at_random(found, states, torch.Generator().manual_seed(1))
    assert not torch.equal(drawn.latents, found.latents)
    said = exact[0].pre_activations(states).flatten(0, 1)
    rates = [(said[:, one.latents] > one.thresholds).double().mean(0) for one in (found, drawn)]
    assert torch.allclose(*rates, atol=1e-3)


def test_a_proposition_holds_from_its_word_to_the_end():
    model = deduction.network(0, d_model=16)
    prompts = deduction.stated(256, torch.Generator().manual_seed(0))
    states = detecting.states(model, prompts, SITE)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(16, 40, generator=generator)
    sae = SAE(SITE, rows, torch.zeros(40), rows.T.clone(), torch.zeros(16), "topk", k=4)
    found = detecting.detector(sae, states, prompts)
    known = found.conditions(model)
    assert set(known) == {*map(deduction.label, range(N_CONCEPTS)), *(f"ask{ix}" for ix in range(1, 8))}
    with gates(model, add(SITE, torch.zeros(16), openness=known["c0_0"]), trace=True) as held, torch.no_grad():
        model(prompts.ids)
    opened = held.trace.values[0]
    above = sae.pre_activations(states)[..., int(found.latents[0])] > found.thresholds[0]
    assert torch.equal(opened > 0, above.long().cummax(1).values > 0)
    assert opened.shape == (256, PLACES + 1)
