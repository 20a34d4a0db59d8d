"""Every class of error and warning is raised by something that a user can do; none is left without a way to get it."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import optrode as op
from optrode import errors
from optrode.errors import OptrodeError, nearest
from optrode.model import embedded
from optrode.model.tiny import tiny
from optrode.store.store import Store
from optrode.tasks import find_task
from optrode.tasks.files import read_pairs
from optrode.trial.prompts import Pair, Task
from tests.messages.conftest import PROMPT
from tests.words import worded

ROOT = Path(__file__).parents[2]
Z = "blocks.1.attn.z"


def hold(model, gate):
    with op.gates(model, gate):
        model(PROMPT)


def broken_cache(path):
    (path / "smollm2-135m-instruct").mkdir()
    embedded.smollm2_folder()


def hooked():
    module = tiny("llama")
    module.register_forward_hook(lambda *_: None)
    op.load(module)


def odd_config():
    module = tiny("llama")
    module.config.residual_twist = 3
    op.load(module)


def broken_weights():
    module = tiny("llama")
    torch.nn.init.constant_(module.lm_head.weight, torch.nan)
    op.load(module)


def unequal_pair(path):
    path.write_text('{"clean": "When Mary", "corrupt": "When", "answer": " Mary", "wrong": " John"}')
    return path


def damaged_store(path):
    (path / "trials.sqlite").write_text("not a database " * 99)
    Store(path)


def full_store(path):
    def full(handle):
        raise OSError(28, "No space left on device")

    with Store(path) as store, pytest.MonkeyPatch.context() as patched:
        patched.setattr("os.fsync", full)
        store.commit({"0" * 64: (1.0,)})


def a_task():
    return Task("toy", "A toy.", "logit_gap", (Pair((1, 2, 3), (1, 4, 3), (5,), (6,)),))


def no_number():
    def loss(model, batch):
        return model.module(torch.tensor([[1, 2]])).logits.sum() * torch.nan

    op.train.fit(op.train.Plan("toy", lambda seed: op.load(tiny("llama"), check=False), lambda *_: None, loss, 1))


SIDES = op.control.Contrast((PROMPT, "The city", "She was"), ("He was", "John went", "So he"))


def _ruinous(model):
    """Steering that makes every answer very unlikely."""
    gates = {"noise": lambda dose: (op.add("blocks.*.resid_post", dose * torch.ones(model.table.d_model)),)}
    return op.control.choose(model, gates, (PROMPT,), lambda texts: [0.0], doses=(900.0,), max_d_nll=-9.0, n_tokens=2)


def _foreign(model, path):
    """An artefact of another model of the same size."""
    gates = (op.add("blocks.1.resid_post", torch.ones(model.table.d_model)),)
    saved = op.control.save_artefact(path / "one", gates, op.control.card_of(model, gates, name="one", behaviour="More."))
    return op.control.load_artefact(saved).gates(worded(random_seed=7), allow_other=True)


EVERY = {
    "UnknownModel": lambda model, path: op.load("smolm2"),
    "UnsupportedArchitecture": lambda model, path: tiny("lama"),
    "ConfigRefused": lambda model, path: odd_config(),
    "CheckFailed": lambda model, path: broken_weights(),
    "CacheBroken": lambda model, path: broken_cache(path),
    "BadName": lambda model, path: op.zero("blocks.0.attn.z[head"),
    "UnknownSite": lambda model, path: op.record(model, PROMPT, "blocks.9.attn.z"),
    "SiteUnavailable": lambda model, path: op.record(model, PROMPT, "module:nowhere.out"),
    "NotRecorded": lambda model, path: op.record(model, PROMPT, "embed")["logits"],
    "BadGate": lambda model, path: op.patch(Z, "cleam"),
    "GateShape": lambda model, path: hold(model, op.add(Z, torch.zeros(9))),
    "GateDtype": lambda model, path: hold(model, op.add(Z, torch.zeros(8).double())),
    "GateDevice": lambda model, path: hold(model, op.add(Z, torch.zeros(8, device="meta"))),
    "GateNotFinite": lambda model, path: hold(model, op.add(Z, torch.full((8,), torch.nan))),
    "GateNotFired": lambda model, path: hold(model, op.zero(f"{Z}[pos=99]")),
    "UnknownTask": lambda model, path: find_task("iio"),
    "BadPairs": lambda model, path: read_pairs(model, unequal_pair(path / "mine.jsonl")),
    "NoPairs": lambda model, path: read_pairs(model, unequal_pair(path / "mine.jsonl"), drop_bad=True),
    "TaskTooHard": lambda model, path: op.tasks.capitals(model, 4, require_accuracy=1.0),
    "BadFile": lambda model, path: read_pairs(model, path / "nothing.jsonl"),
    "BadOption": lambda model, path: op.find(model, op.tasks.ioi(model, n=2, require_accuracy=0.0), method="magic"),
    "RunBusy": lambda model, path: (Store(path), Store(path)),
    "BadStore": lambda model, path: damaged_store(path),
    "StoreFull": lambda model, path: full_store(path),
    "LossNotFinite": lambda model, path: no_number(),
    "DoseNotFound": lambda model, path: op.control.iso_kl(model, lambda dose: (op.scale(Z, 1.0),), (PROMPT,), n_tokens=2),
    "NoneAllowed": lambda model, path: _ruinous(model).best,
    "OtherModel": lambda model, path: _foreign(model, path),
    "SinkIncluded": lambda model, path: op.control.directions(model, SIDES, "embed", with_sink=True),
    "NotPacked": lambda model, path: op.sweep(op.load(tiny("bloom")), a_task(), op.zero("blocks.*.mlp_out", each="layer")),
    "ForeignHooks": lambda model, path: hooked(),
    "CacheRebuilt": lambda model, path: broken_cache(path),
}
"""Class -> what a user does to meet it."""


def leaves():
    """Classes of errors and warnings that are raised as such; the others only group them."""
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    return {c.__name__: c for c in found if not c.__subclasses__()}


def test_every_class_has_a_way_to_meet_it():
    assert set(EVERY) == set(leaves())


@pytest.mark.parametrize("name", EVERY)
def test_every_class_is_raised(name, model, tmp_path, monkeypatch):
    monkeypatch.setenv("OPTRODE_CACHE", str(tmp_path))
    if name == "CacheBroken":
        monkeypatch.setattr(embedded, "find_spec", lambda package: None)
    monkeypatch.setattr(embedded, "_convert", lambda source, folder: None)
    kind = leaves()[name]
    expected = pytest.warns(kind) if issubclass(kind, Warning) else pytest.raises(kind)
    with expected:
        EVERY[name](model, tmp_path)


def test_every_class_is_documented_in_the_tree_and_has_its_own_code():
    names = [name for name, kind in leaves().items() if issubclass(kind, OptrodeError)]
    assert all(name in errors.__doc__ for name in names)
    codes = [leaves()[name].code for name in names]
    assert len(set(codes)) == len(codes) and "optrode" not in codes


def test_a_message_names_everything_it_was_given():
    error = OptrodeError("site x", "there is none", nearest=("y", "z"), next_step="say y")
    assert str(error) == "[optrode] site x: there is none. Nearest: y, z. Next: say y."
    assert (error.asked, error.found, error.nearest, error.next_step) == ("site x", "there is none", ("y", "z"), "say y")
    assert str(OptrodeError("site x", "there is none")) == "[optrode] site x: there is none."


def test_nearest_words():
    assert nearest("laier", ("layer", "head", "pos")) == ("layer",)
    assert nearest("zzz", ("layer", "head")) == ()


UNTYPED = {
    "scope": ("BadGate", "scope 'generate': not a scope. Nearest: generated."),
    "over": ("BadGate", "mean over='row' at blocks.1.attn.z: not a way to average. Nearest: rows, all."),
    "world": ("BadOption", "world 'cleen': no such world. Nearest: clean."),
    "add a list": ("BadGate", "add at blocks.1.attn.z: its value is of type list, not a tensor. Next: wrap it"),
    "project out a list": ("BadGate", "project_out at blocks.1.attn.z: its value is of type list"),
    "affine by a list": ("BadGate", "affine at blocks.1.attn.z: its value is of type list"),
    "clamp to a text": ("BadGate", "clamp at blocks.1.attn.z: its value is of type str"),
    "patch from nothing": ("BadGate", "source of type NoneType"),
    "hold a name": ("BadGate", "hold 'blocks.1.attn.z': it is of type str, not a gate. Next: make one, like op.zero(site)."),
    "load a number": ("UnknownModel", "model '3': neither a known name"),
}


def test_wrong_kinds_of_values():
    ran = subprocess.run([sys.executable, "-m", "tests.messages.untyped"], cwd=ROOT, capture_output=True, text=True)
    outcomes = json.loads(ran.stdout)
    assert set(outcomes) == set(UNTYPED)
    for label, (kind, text) in UNTYPED.items():
        assert outcomes[label][0] == kind and text in outcomes[label][1], (label, outcomes[label])
