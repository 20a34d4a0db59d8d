"""Small models of every shape, all in float64, with tasks on them."""

import random
from functools import cache

import numpy as np
import torch
from torch import nn

from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.nn.transformer import Spec, as_model, build
from optrode.trial.prompts import Pair, Task

VOCAB = 19
_SIZES = {"n_layers": 2, "n_heads": 3, "d_model": 12, "vocab": VOCAB, "n_ctx": 8, "d_head": 4, "d_mlp": 10}
SPECS = {
    "layer norm": Spec(**_SIZES),
    "RMS norm, grouped K/V": Spec(
        **(_SIZES | {"n_heads": 4, "n_kv_heads": 2}), norm="rms", positions="rotary", has_bias=False
    ),
    "no norm": Spec(**_SIZES, norm="none", activation="relu"),
    "parallel": Spec(**_SIZES, is_parallel=True, positions="rotary"),
    "attention only": Spec(**(_SIZES | {"d_mlp": 0, "n_layers": 3, "n_heads": 2})),
    "not causal": Spec(**_SIZES, is_causal=False),
}


@cache
def model_of(name, random_seed=0):
    """One of `SPECS` with random weights, larger than usual so that attention is uneven."""
    module = build(SPECS[name], random_seed, torch.float64)
    for parameter in module.parameters():
        if parameter.dim() == 2:
            parameter.data *= 1.5
    return as_model(module, name)


@cache
def llama():
    """Six query heads in two K/V groups, rotary positions; its own norms would round to float32."""
    return from_source(_in_full(tiny("llama").double()))


@cache
def ungrouped_llama():
    """`llama()` with each group's k and v projections written out once for each of its query heads."""
    grouped = tiny("llama").double()
    module = _in_full(tiny("llama", num_key_value_heads=6).double())
    weights = {}
    for name, weight in _in_full(grouped).state_dict().items():
        is_key = name.endswith(("k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias"))
        weights[name] = weight.unflatten(0, (2, 8)).repeat_interleave(3, 0).flatten(0, 1) if is_key else weight
    module.load_state_dict(weights)
    return from_source(module)


def _in_full(module):
    for parent in [module.model, *module.model.layers]:
        for name, norm in list(parent.named_children()):
            if name.endswith("norm"):
                full = nn.RMSNorm(len(norm.weight), norm.variance_epsilon, dtype=torch.float64)
                full.weight.data.copy_(norm.weight.data)
                setattr(parent, name, full)
    return module


def make_task(lengths=(5, 7, 5), metric="logit_gap", random_seed=0, n_changed=2):
    rng = random.Random(random_seed)
    return Task("toy", "A toy.", metric, tuple(make_pair(rng, n, n_changed) for n in lengths), random_seed)


def make_pair(rng, n, n_changed=2):
    """Random tokens, with some others in their place in the corrupt prompt, never the first."""
    clean = [rng.randrange(VOCAB) for _ in range(n)]
    corrupt = list(clean)
    for place in rng.sample(range(1, n), n_changed):
        corrupt[place] = (clean[place] + rng.randrange(1, VOCAB)) % VOCAB
    return Pair(tuple(clean), tuple(corrupt), *((token,) for token in rng.sample(range(VOCAB), 2)))


def far(found, wanted):
    """The largest difference, as a share of the largest value."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


class Counted:
    """How often a module ran forward, and backward from its logits, inside the context."""

    def __init__(self, module):
        self.module, self.forward, self.backward = module, 0, 0

    def __enter__(self):
        self.hook = self.module.register_forward_hook(self._ran)
        return self

    def __exit__(self, *error):
        self.hook.remove()

    def _ran(self, module, args, output):
        self.forward += 1
        if output.logits.requires_grad:
            output.logits.register_hook(self._went_back)

    def _went_back(self, slope):
        self.backward += 1
