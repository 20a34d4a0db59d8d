"""What `optrode train examples/training_spec.py` trains: an induction head, freely and with one of its parts given.

A two-layer attention-only transformer learns to continue random tokens that repeat, after 4 to 8 tokens, so that no fixed
distance will do. In the second run a head of the first layer is held at the previous-token pattern; in the third only until
step 300.
"""

import torch

import optrode as op
from optrode.nn.transformer import Spec, as_model, build

SPEC = Spec(n_layers=2, n_heads=4, d_model=64, vocab=32, n_ctx=16, positions="learned", norm="none", has_bias=False)
PREVIOUS = torch.eye(16).roll(-1, 1).T.tril()  # [pos, src]: each position looks at the one before
PREVIOUS[0, 0] = 1


def make(random_seed):
    return as_model(build(SPEC, random_seed, init="lecun"), "two layers")


def batch(number, generator):
    period = torch.randint(4, 9, (32, 1), generator=generator)
    distinct = torch.rand(32, 32, generator=generator).argsort(1)
    return distinct.gather(1, torch.arange(16)[None] % period), period


def loss(model, rows):
    tokens, period = rows
    is_known = torch.arange(15)[None] >= period  # from there on the next token has been seen
    logits = model.module(tokens).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits[is_known], tokens[:, 1:][is_known])


def induction(model):
    """Attention from the last token to wherever the token stands that comes next, by head."""
    tokens, period = batch(0, torch.Generator().manual_seed(1))
    pattern = op.record(model, tokens, "blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    is_next = tokens == tokens.gather(1, 16 - period)
    return {f"head {head}": float((pattern[:, head, -1] * is_next).sum(1).mean()) for head in range(4)}


FREE = op.train.Plan(
    "free", make, batch, loss, n_steps=1000, optimizer=op.train.adam(3e-3),
    measures={"induction": op.train.Measure(induction)},
    measure_at=op.train.evenly(1000, 25), keep_at=op.train.log_spaced(1000),
)  # fmt: skip
SITE = "blocks.0.attn.pattern[head=0]"
PROMPTS = (op.train.Prompt(torch.tensor([[3, 1, 4, 15, 9, 2] * 2])),)  # whose attention the page shows at each checkpoint
PLANS = (
    FREE,
    FREE.but(name="previous token held", gates=(op.clamp(SITE, PREVIOUS),)),
    FREE.but(name="held until step 300", gates=(op.clamp(SITE, PREVIOUS, when=op.when(until=300)),)),
)
