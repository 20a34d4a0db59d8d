"""Small models for gates in training: our own transformer and one of transformers', in float64."""

import torch
from torch import nn

from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.nn.transformer import Spec, as_model, build

SPEC = Spec(n_layers=2, n_heads=2, d_model=8, vocab=7, n_ctx=6, d_mlp=12)
TOKENS = torch.arange(15).reshape(3, 5) * 3 % 7


def own(dtype=torch.float64, **changes):
    return as_model(build(SPEC if not changes else Spec(**(SPEC.to_dict() | changes)), 1, dtype))


def hugging_face(dtype=torch.float64, **options):
    """A GPT-2, whose norms do not round to float32; eager attention, whose dropout draws as a gate's does."""
    small = {"n_embd": 12, "n_head": 2, "n_inner": 10, "vocab_size": 7, "num_hidden_layers": 2}
    given = {"attn_implementation": "eager", "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    return from_source(tiny("gpt2", **(small | given | options)).to(dtype))


def dropping(dtype=torch.float64):
    return hugging_face(dtype, attn_pdrop=0.2, resid_pdrop=0.2, embd_pdrop=0.2)


MODELS = {"own": own, "gpt2": hugging_face}


def loss_of(model, tokens=TOKENS):
    logits = model.module(tokens).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def weights(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def far(one, two):
    return max(float((value - two[name]).abs().max()) for name, value in one.items())


def gradients(model):
    model.module.zero_grad(set_to_none=True)
    loss_of(model).backward()
    zero = torch.zeros(1)
    return {name: zero if p.grad is None else p.grad.clone() for name, p in model.module.named_parameters()}


def sites(model, *left_out):
    """Every kind of site, all layers at once."""
    names = [str(name) for name in model.site_names()]
    kinds = {f"blocks.*.{name.split('.', 2)[2]}" if name.startswith("blocks.") else name for name in names}
    return sorted(kinds - {f"blocks.*.{kind}" for kind in left_out} - set(left_out))
