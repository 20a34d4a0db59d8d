"""Maps of low rank learned from a loss: they start as the identity, keep an orthonormal basis, and do what the loss asks."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from optrode.control.lowrank import continuation_loss, learn_low_rank
from optrode.errors import BadOption
from optrode.gate.place import gates
from optrode.model.source import from_source
from optrode.model.tiny import tiny

TOKENS = torch.arange(18).reshape(3, 6) * 5 % 61
WANTED = torch.tensor([3, 17, 42])


@pytest.fixture(scope="module", name="llama")
def _llama():
    return from_source(tiny("llama"))


def asked(model):
    """Another last token for each row."""
    return cross_entropy(model(TOKENS).logits[:, -1], WANTED)


def test_maps_of_rank_2_bring_about_what_the_loss_asks_for_and_leave_the_module_as_it_was(llama):
    weights_hash = llama.weights_hash
    with torch.no_grad():
        plain = float(asked(llama))
    maps = learn_low_rank(llama, asked, "blocks.1|2.resid_post", rank=2, n_steps=40, lr=0.1)
    assert maps.losses[0] == pytest.approx(plain, rel=1e-5) and maps.losses[-1] < 0.1 * plain
    assert llama.weights_hash == weights_hash and all(one.requires_grad for one in llama.module.parameters())
    with torch.no_grad(), gates(llama, *maps.gates()):
        assert float(asked(llama)) == pytest.approx(maps.losses[-1], rel=1e-3, abs=1e-4)
    with torch.no_grad(), gates(llama, *maps.gates(0.0)):
        assert float(asked(llama)) == plain
    for one in maps.maps:
        torch.testing.assert_close(one.rotation @ one.rotation.T, torch.eye(2), atol=1e-5, rtol=0)
    assert "2 sites, rank 2" in repr(maps)


def test_the_same_seed_gives_the_same_bits(llama):
    one, same, other = (
        learn_low_rank(llama, asked, "blocks.1.mlp_out", rank=1, n_steps=2, random_seed=seed).maps[0].rotation
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_decay_takes_maps_back_to_the_identity(llama):
    free, decayed = (
        learn_low_rank(llama, asked, "blocks.1.mlp_out", rank=1, n_steps=10, lr=0.05, weight_decay=decay).maps[0]
        for decay in (0.0, 100.0)
    )
    far, near = ((one.weight - one.rotation).norm() for one in (free, decayed))
    assert float(near) < 0.5 * float(far)


def test_gates_options_hold_while_learning(llama):
    maps = learn_low_rank(llama, asked, "blocks.1.resid_post", rank=1, n_steps=3, scope="prompt")
    assert maps.losses[-1] < maps.losses[0]
    with pytest.raises(BadOption, match="depends on the maps"):
        learn_low_rank(llama, asked, "blocks.1.resid_post", rank=1, n_steps=3, detach=True)


def test_continuations_are_asked_for_after_their_prompts_only():
    model = from_source(tiny("llama"), tokenizer=Letters())
    prompts, continuations = ["abc", "d"], ["ef", "gha"]
    with torch.no_grad():
        found = continuation_loss(prompts, continuations)(model)
        each = []
        for prompt, continuation in zip(prompts, continuations, strict=True):
            logits = model(prompt + continuation).logits[0].log_softmax(-1)
            ids = Letters().encode(prompt + continuation)
            each += [-logits[at - 1, ids[at]] for at in range(len(prompt), len(ids))]
    torch.testing.assert_close(found, torch.stack(each).mean(), rtol=1e-4, atol=1e-5)


class Letters:
    """A tokenizer of letters."""

    pad_token_id = 0

    def encode(self, text, add_special_tokens=False):
        return [ord(letter) - 90 for letter in text]


REFUSED = {
    "rank 0": (lambda m: learn_low_rank(m, asked, "embed", rank=0), "the site has 48 features"),
    "rank too high": (lambda m: learn_low_rank(m, asked, "embed", rank=49), "rank=49"),
    "no step": (lambda m: learn_low_rank(m, asked, "embed", n_steps=0), "n_steps=0"),
    "a loss that is a number": (lambda m: learn_low_rank(m, lambda one: torch.ones(()), "embed"), "did not come by"),
    "continuations missing": (lambda m: continuation_loss(["a"], []), "1 prompts and 0 continuations"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_inputs_are_refused_with_a_reason(llama, name):
    make, words = REFUSED[name]
    with pytest.raises(BadOption) as refused:
        make(llama)
    assert words in str(refused.value)
