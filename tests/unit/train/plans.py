"""A tiny model that is trained in a moment, and plans for it."""

import torch
from torch import nn

import optrode as op
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.nn.transformer import Spec, as_model, build
from optrode.train import Measure, Plan, adamw

SPEC = Spec(n_layers=2, n_heads=2, d_model=8, vocab=7, n_ctx=6, d_mlp=12)
PROBE = torch.arange(10).reshape(2, 5) % 7


def make(random_seed):
    return as_model(build(SPEC, random_seed, init="torch"))


def make_llama(random_seed):
    """Tied embeddings and dropout of the attention pattern."""
    small = {"hidden_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 10}
    options = {"vocab_size": 7, "num_hidden_layers": 2, "attention_dropout": 0.3, "tie_word_embeddings": True}
    return from_source(tiny("llama", random_seed=random_seed, attn_implementation="eager", **small, **options))


def batch(number, generator):
    return torch.randint(0, 7, (3, 5), generator=generator)


def next_token(model, tokens):
    logits = model.module(tokens).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def size(model):
    """Something that depends on the weights, and draws random numbers."""
    torch.rand(3)
    return float(model.module(PROBE).logits.square().mean())


def plan(name="tiny", **changes):
    given = {"n_steps": 6, "optimizer": adamw(1e-2), "measures": {"size": Measure(size)}, "measure_at": (0, 3, 6)}
    return Plan(name, changes.pop("make", make), batch, next_token, **(given | changes))


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.model.module.state_dict().items()}


def equal(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(value, two[name]) for name, value in one.items())


def outcome(trained):
    """All that must be the same where a run was killed and taken up again: weights, losses, measures, checkpoints."""
    run = trained.run
    kept = {one.step: trained.weights_at(one.step) for one in run.checkpoints}
    return weights(trained), run.loss, run.measures, [(one.step, one.weights_hash) for one in run.checkpoints], kept


def same(one, two):
    return (
        equal(one[0], two[0]) and one[1:4] == two[1:4]
        and one[4].keys() == two[4].keys() and all(equal(one[4][step], two[4][step]) for step in one[4])
    )  # fmt: skip


HEAD = op.zero("blocks.0.attn.z[head=1]", when=op.when(until=2))
