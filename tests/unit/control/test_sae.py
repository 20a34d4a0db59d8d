"""Sparse autoencoders: what they compute, their files, and latents as directions."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import config
from safetensors.torch import load_file, save_file

import optrode as op
from optrode.control.contrast import Contrast
from optrode.control.sae import SAE, LatentScore, rank_latents, separations
from optrode.control.sae_files import load_sae, save_sae
from optrode.control.states import typical_norm
from optrode.errors import BadFile, BadOption, ConfigRefused, GateNotFinite, UnsupportedArchitecture
from optrode.model.source import from_source
from optrode.model.tiny import tiny

SITE = "blocks.1.resid_post"
D, N = 48, 20


def weights(random_seed=0):
    generator = torch.Generator().manual_seed(random_seed)
    shapes = ((D, N), (N,), (N, D), (D,))
    return [torch.randn(*shape, generator=generator) / shape[0] ** 0.5 for shape in shapes]


def made(activation="relu", **options):
    if activation == "jumprelu":
        options = {"threshold": torch.linspace(0.0, 1.0, N)} | options
    if activation == "topk":
        options = {"k": 3} | options
    return SAE(SITE, *weights(), activation=activation, **options)


@pytest.fixture(scope="module")
def model():
    return from_source(tiny("llama", initializer_range=0.05))


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize("centres", [True, False])
def test_latents_and_states_are_those_of_the_equations(activation, centres):
    sae = made(activation, centres_input=centres)
    h = torch.randn(2, 5, D) * 2
    w_enc, b_enc, w_dec, b_dec = (tensor.numpy() for tensor in weights())
    pre = (h.numpy() - (b_dec if centres else 0)) @ w_enc + b_enc
    expected = np.maximum(pre, 0)
    if activation == "jumprelu":
        expected = np.where(pre > np.linspace(0, 1, N), pre, 0)
    if activation == "topk":
        expected = np.where(pre >= np.sort(pre, -1)[..., [-3]], expected, 0)
    np.testing.assert_allclose(sae.encode(h).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(sae.decode(sae.encode(h)).numpy(), expected @ w_dec + b_dec, atol=1e-5)
    np.testing.assert_allclose(sae.score(h, 4).numpy(), expected[..., 4], atol=1e-5)


@given(seed=st.integers(0, 100), k=st.integers(1, N))
@settings(max_examples=20, deadline=None)
def test_topk_never_has_more_than_k_active(seed, k):
    h = torch.randn(7, D, generator=torch.Generator().manual_seed(seed))
    active = made("topk", k=k).encode(h) > 0
    assert int(active.sum(-1).max()) <= k


class TestFiles:
    @pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk"])
    def test_what_is_saved_is_loaded_to_the_bit(self, tmp_path, activation):
        sae = made(activation, centres_input=activation == "relu")
        back = load_sae(save_sae(sae, tmp_path / "mine", model_name="tiny"))
        assert repr(back) == repr(sae) and back.centres_input == sae.centres_input and back.k == sae.k
        assert back.tensors().keys() == sae.tensors().keys()
        assert all(torch.equal(back.tensors()[name], tensor) for name, tensor in sae.tensors().items())

    def test_the_files_are_those_of_saelens(self, tmp_path):
        save_sae(made("topk"), tmp_path, model_name="gpt2")
        config = json.loads((tmp_path / "cfg.json").read_text())
        assert config["architecture"] == "topk" and config["k"] == 3 and (config["d_in"], config["d_sae"]) == (D, N)
        assert config["hook_name"] == config["metadata"]["hook_name"] == "blocks.1.hook_resid_post"
        assert config["apply_b_dec_to_input"] is True and config["normalize_activations"] == "none"
        assert set(load_file(tmp_path / "sae_weights.safetensors")) == {"W_enc", "b_enc", "W_dec", "b_dec"}

    def write(self, folder, changes=None, drop=(), tensors=None):
        """A folder as SAELens's versions 3 to 5 write it, with changes."""
        config = {
            "architecture": "standard", "d_in": D, "d_sae": N, "dtype": "float32", "hook_name": "blocks.1.hook_resid_post",
            "hook_layer": 1, "hook_head_index": None, "activation_fn_str": "relu", "activation_fn_kwargs": {},
            "apply_b_dec_to_input": False, "finetuning_scaling_factor": False, "normalize_activations": "none",
        } | (changes or {})  # fmt: skip
        held = dict(zip(("W_enc", "b_enc", "W_dec", "b_dec"), weights(), strict=True)) | (tensors or {})
        (folder / "cfg.json").write_text(json.dumps({key: value for key, value in config.items() if key not in drop}))
        save_file(held, folder / "sae_weights.safetensors")
        return folder

    def test_files_of_several_versions_are_read(self, tmp_path):
        sae = load_sae(self.write(tmp_path))
        assert sae.site == SITE and sae.activation == "relu" and not sae.centres_input
        assert load_sae(self.write(tmp_path, drop=("architecture", "apply_b_dec_to_input"))).centres_input
        inner = {"metadata": {"hook_name": "blocks.2.attn.hook_z", "hook_head_index": None}}
        assert load_sae(self.write(tmp_path, inner, drop=("hook_name",))).site == "blocks.2.attn.z"
        topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}}
        assert load_sae(self.write(tmp_path, topk)).k == 5
        assert load_sae(self.write(tmp_path, {"architecture": "topk", "k": 4})).k == 4
        jump = load_sae(self.write(tmp_path, {"architecture": "jumprelu"}, tensors={"threshold": torch.ones(N)}))
        assert jump.threshold is not None and jump.activation == "jumprelu"
        assert load_sae(tmp_path, site="blocks.0.mlp_out", dtype=torch.float64).W_enc.dtype == torch.float64

    @pytest.mark.parametrize("name", ["gated", "batchtopk", "matryoshka_batchtopk", "transcoder", "temporal"])
    def test_other_architectures_are_refused_by_name(self, tmp_path, name):
        with pytest.raises(UnsupportedArchitecture, match=f"its architecture is '{name}'"):
            load_sae(self.write(tmp_path, {"architecture": name}))

    @pytest.mark.parametrize(
        "changes",
        [
            {"normalize_activations": "layer_norm"}, {"normalize_activations": "expected_average_only_in"},
            {"finetuning_scaling_factor": True}, {"hook_head_index": 2}, {"reshape_activations": "hook_z"},
            {"rescale_acts_by_decoder_norm": True},
        ],
    )  # fmt: skip
    def test_settings_that_would_change_the_numbers_are_refused(self, tmp_path, changes):
        with pytest.raises(ConfigRefused, match=next(iter(changes))):
            load_sae(self.write(tmp_path, changes))

    def test_what_cannot_be_read_is_refused(self, tmp_path):
        with pytest.raises(BadFile, match="no such file"):
            load_sae(tmp_path)
        self.write(tmp_path, {"activation_fn_str": "tanh-relu"})
        with pytest.raises(UnsupportedArchitecture, match="tanh-relu"):
            load_sae(tmp_path)
        with pytest.raises(ConfigRefused, match="has no k"):
            load_sae(self.write(tmp_path, {"architecture": "topk"}))
        with pytest.raises(ConfigRefused, match="names no site"):
            load_sae(self.write(tmp_path, drop=("hook_name",)))
        with pytest.raises(BadFile, match="no 'threshold'"):
            load_sae(self.write(tmp_path, {"architecture": "jumprelu"}))
        with pytest.raises(BadFile, match="'scaling_factor'"):
            load_sae(self.write(tmp_path, tensors={"scaling_factor": torch.ones(N)}))
        with pytest.raises(BadFile, match="cfg.json says"):
            load_sae(self.write(tmp_path, {"d_sae": 7}))
        with pytest.raises(BadFile, match="b_enc has the shape"):
            load_sae(self.write(tmp_path, tensors={"b_enc": torch.ones(3)}))
        with pytest.raises(GateNotFinite, match="W_dec holds NaN"):
            load_sae(self.write(tmp_path, tensors={"W_dec": torch.full((N, D), torch.nan)}))
        self.write(tmp_path)
        (tmp_path / "sae_weights.safetensors").write_bytes(b"half")
        with pytest.raises(BadFile, match="torn"):
            load_sae(tmp_path)
        (tmp_path / "sae_weights.safetensors").unlink()
        with pytest.raises(BadFile, match="no such file"):
            load_sae(tmp_path)


def test_activations_and_shapes_that_there_are_not_are_refused(monkeypatch):
    monkeypatch.setattr(config, "jaxtyping_disable", True)  # as users run it: annotations are not checked
    with pytest.raises(BadOption, match="Nearest: jumprelu"):
        SAE(SITE, *weights(), activation="jumprel")
    with pytest.raises(BadOption, match="W_dec has the shape"):
        SAE(SITE, *weights()[:2], weights()[2].T, weights()[3])
    with pytest.raises(BadOption, match="two axes"):
        SAE(SITE, weights()[1], *weights()[1:])


def test_activations_without_their_numbers_are_refused():
    for options in ({"activation": "jumprelu", "threshold": None}, {"threshold": torch.ones(N)}, {"k": 3}):
        with pytest.raises(BadOption):
            made(**options)
    for k in (0, N + 1):
        with pytest.raises(BadOption, match="latents"):
            made("topk", k=k)


class TestLatents:
    TEXTS = ((5, 9, 2, 7), (8, 1, 4), (30, 22, 17, 3, 11))

    def test_a_latent_is_a_direction_in_the_typical_norm(self, model):
        sae = made()
        found = sae.direction(3, model, self.TEXTS)
        torch.testing.assert_close(found.vector, sae.W_dec[3] / sae.W_dec[3].norm())
        assert found.typical == typical_norm(model, self.TEXTS, SITE) and found.method == "latent 3"
        ids = torch.tensor([[5, 9, 2]])
        plain = op.record(model, ids, SITE)[SITE]
        with op.gates(model, found.gate(0.5)):
            moved = op.record(model, ids, SITE)[SITE] - plain
        torch.testing.assert_close(moved[0, 1], 0.5 * found.typical * found.vector, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("activation", ["relu", "jumprelu"])
    def test_its_probe_is_open_where_the_latent_is_active(self, model, activation):
        sae = made(activation, centres_input=activation == "relu")
        texts = list(self.TEXTS)
        states = op.record(model, texts, SITE)[SITE]
        with op.gates(model, op.scale("blocks.2.resid_post", 1.0, openness=sae.probe(13, model)), trace=True) as held:
            model.module(**model.batch(texts).arguments())
        for row, text in enumerate(texts):
            expected = (sae.score(states[row, : len(text)], 13) > 0).float()
            torch.testing.assert_close(held.trace.values[0][row, : len(text)].float(), expected)

    def test_a_latent_of_topk_opens_nothing_by_itself(self, model):
        with pytest.raises(BadOption, match="depends on all others"):
            made("topk").probe(3, model)
        assert made("topk").probe(3, model, above=0.7, read="prompt").above == 0.7

    def test_there_is_no_latent_beyond_the_last(self, model):
        with pytest.raises(BadOption, match="0 to 19"):
            made().direction(N, model, self.TEXTS)
        with pytest.raises(BadOption, match="0 to 19"):
            made().score(torch.zeros(1, D), -1)

    def test_the_latent_that_reads_the_difference_is_found_first(self, model):
        generator = torch.Generator().manual_seed(0)
        sides = [
            tuple(tuple(torch.randint(*of, (5,), generator=generator).tolist()) for _ in range(12))
            for of in ((1, 6), (40, 45))
        ]
        states = [op.record(model, torch.tensor(side), SITE)[SITE][:, 1:].flatten(0, 1) for side in sides]
        gap = states[0].mean(0) - states[1].mean(0)
        w_enc, b_enc, w_dec, _ = weights()
        w_enc[:, 7], b_enc[7] = gap / gap.norm(), 0.0
        sae = SAE(SITE, w_enc, b_enc, w_dec, (states[0].mean(0) + states[1].mean(0)) / 2)
        first, *others = rank_latents(model, sae, Contrast(*sides), n=4)
        assert isinstance(first, LatentScore) and first.latent == 7 and first.separation == 1.0 > first.chance
        assert len(others) == 3 and first.gap > 0
        unjudged = rank_latents(model, sae, Contrast(*sides), n=1, held_out=0.0)[0]
        assert unjudged.latent == 7 and math.isnan(unjudged.separation)
        with pytest.raises(BadOption, match="n=0"):
            rank_latents(model, sae, Contrast(*sides), n=0)

    def test_separations_of_many_latents_are_those_of_each(self):
        high, low = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[2.0, 0.0]])
        assert separations(high, low).tolist() == [0.5, 0.5]
