"""Directions, doses and autoencoders that cannot be: one clear message each."""

import json

import pytest
import torch
from safetensors.torch import save_file

import optrode as op
from optrode.errors import BadFile, BadGate, BadOption, BadPairs, DoseNotFound, GateNotFinite, NoneAllowed, OptrodeError
from tests.messages.conftest import PROMPT, refused

SITE = "blocks.1.resid_post"
GOOD = tuple(f"The {word} is good" for word in ("Mary", "John", "dog", "city", "year", "friend", "cat", "man"))
NEAR = tuple(f"The {word} is near" for word in ("Mary", "John", "dog", "city", "year", "friend", "cat", "man"))


class TestContrasts:
    def test_an_empty_side(self):
        with refused(BadPairs, "the negative texts of a contrast", "there is none", "at least one on either side"):
            op.control.Contrast(GOOD, ())

    def test_two_equal_sides(self):
        with refused(BadPairs, "both sides are the same texts"):
            op.control.Contrast(GOOD, GOOD)

    def test_pairs_that_are_none(self, model):
        with refused(BadPairs, "8 positive and 3 negative", by=model):
            op.control.directions(model, op.control.Contrast(GOOD, NEAR[:3]), SITE, "paired-pca")


class TestDirections:
    def test_words_that_are_none(self, model):
        with refused(BadOption, "'diference'", "Nearest: difference", by=model):
            op.control.directions(model, op.control.Contrast(GOOD, NEAR), SITE, "diference")

    def test_a_probe_at_chance(self, model):
        """Sides that differ in nothing: the same texts, dealt out."""
        mixed = op.control.Contrast(GOOD[::2] + NEAR[::2], GOOD[1::2] + NEAR[1::2])
        (found,) = op.control.directions(model, mixed, SITE, held_out=0.5)
        with refused(BadGate, "a probe by difference", "chance alone reaches", "give more texts"):
            found.probe(above=0.5)

    def test_a_dose_that_is_no_number(self, model):
        (found,) = op.control.directions(model, op.control.Contrast(GOOD, NEAR), SITE)
        with refused(GateNotFinite, "nan"):
            found.gate(float("nan"))

    def test_a_divergence_that_no_dose_has(self, model):
        with refused(DoseNotFound, "nats", by=model):
            op.control.iso_kl(model, lambda dose: (op.scale(SITE, 1.0),), (PROMPT,), n_tokens=2)


class TestAutoencoders:
    def kept(self, path, **config):
        width, n = 48, 5
        tensors = {"W_enc": (width, n), "b_enc": (n,), "W_dec": (n, width), "b_dec": (width,)}
        save_file({name: torch.ones(shape) for name, shape in tensors.items()}, path / "sae_weights.safetensors")
        known = {"architecture": "standard", "d_in": width, "d_sae": n, "hook_name": "blocks.1.hook_resid_post"}
        (path / "cfg.json").write_text(json.dumps(known | config))
        return path

    def test_an_unknown_architecture(self, tmp_path):
        with pytest.raises(OptrodeError, match="transcoder"):
            op.control.load_sae(self.kept(tmp_path, architecture="transcoder"))

    def test_no_file(self, tmp_path):
        with refused(BadFile, "cfg.json"):
            op.control.load_sae(tmp_path)


class TestFitting:
    def test_nothing_that_is_better_than_plain_answers(self, model):
        """Length cannot grow where every answer is cut at two tokens."""
        brief = op.control.demos.find("verbosity").but(validation=("Go on.", "And then?"))
        asked = ("fit verbosity", "and plain answers", "answers longer than 2 tokens")
        with refused(NoneAllowed, *asked, by=model):
            op.control.fit(model, brief, sites=SITE, doses=(0.1,), max_d_nll=9.0, n_tokens=2)
