"""Models whose weights are written by hand so that a method's strength or weakness shows.

`or_gate` hides from every method that takes one edge away at a time; on `linear`, first-order effects are exact. Attention
that is saturated, so that gradients at q and k vanish, is the program `induction` of `programs.py`.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

import torch
from torch import nn

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.transformer import Block, Spec, Transformer, as_model, build
from optrode.trial.prompts import Pair, Task

YES, NO, N_FILLERS, N_POS = 0, 1, 6, 4
_IS_YES, _COPIES, _ANY, _ONE = range(4)
"""Dimensions of the gate's residual stream: the token is YES; sum of the heads' copies; their OR; always 1."""


@dataclass(frozen=True, eq=False)
class Planted:
    """A model with its task.

    Attributes:
        model, task: what to look into; the metric is the task's own.
        edges: the true edges, where they are known by design.
        redundant: groups of edges of which any one can go, but not all.
    """

    model: Model
    task: Task
    edges: tuple[str, ...] = ()
    redundant: tuple[tuple[str, ...], ...] = ()


def or_gate(n: int = 24, random_seed: int = 0, leak: float = 0.01, dtype: torch.dtype = torch.float64) -> Planted:
    """Two identical heads that copy a feature of the first token, and an MLP that says whether either did.

    The MLP computes min(a + b, 1) = relu(a + b) - relu(a + b - 1) of the copies a and b. The clean prompt starts with YES,
    the corrupt one with NO; fillers follow.

    Args:
        leak: how much of the second copy comes through: the share that is lost when one head alone is ablated, about.

    Raises:
        BadOption: no pair is asked for, or more than there are fillings.
    """
    n_all = N_FILLERS ** (N_POS - 1)
    if not 1 <= n <= n_all:
        raise BadOption(f"or_gate with n={n}", f"there are 1 to {n_all} different pairs", next_step="give n=24")
    rng = Random(random_seed)
    rows = [[2 + ix // N_FILLERS**place % N_FILLERS for place in range(N_POS - 1)] for ix in rng.sample(range(n_all), n)]
    pairs = tuple(Pair((YES, *row), (NO, *row), (YES,), (NO,)) for row in rows)
    heads = ("a0.h0", "a0.h1")
    ways = tuple(f"embed -> {head}.v" for head in heads), tuple(f"{head} -> m0" for head in heads)
    task = Task("or_gate", "Say whether the first token is YES.", "logit_gap", pairs, random_seed)
    return Planted(as_model(_gate(leak, dtype), "or_gate"), task, (*ways[0], *ways[1], "m0 -> logits"), ways)


def linear(
    n: int = 8, random_seed: int = 0, n_layers: int = 3, n_heads: int = 2, dtype: torch.dtype = torch.float64
) -> Planted:  # fmt: skip
    """Random weights, except that q and k are zero: every position attends to all before it alike. No MLP, no norm.

    Logits are then linear in what every sender writes, so that attribution by gradients equals exact patching for every
    edge, and effects of edges that share no path add up.

    Raises:
        BadOption: no pair is asked for.
    """
    if n < 1:
        raise BadOption(f"linear with n={n}", "a task has at least one pair", next_step="give n=1 or more")
    spec = Spec(n_layers, n_heads, d_model=12, vocab=17, n_ctx=8, d_head=5, norm="none")
    module = build(spec, random_seed, dtype)
    for name, parameter in module.named_parameters():
        if ".attn.q." in name or ".attn.k." in name:
            nn.init.zeros_(parameter)
    rng = Random(random_seed)
    task = Task("linear", "Random tokens.", "logit_gap", tuple(_random_pair(rng, spec) for _ in range(n)), random_seed)
    return Planted(as_model(module, "linear"), task)


def _random_pair(rng: Random, spec: Spec) -> Pair:
    clean, corrupt = (tuple(rng.choices(range(spec.vocab), k=spec.n_ctx)) for _ in range(2))
    right, wrong = rng.sample(range(spec.vocab), 2)
    return Pair(clean, corrupt, (right,), (wrong,))


_GATE: Final = Spec(
    n_layers=1, n_heads=2, d_model=4, vocab=2 + N_FILLERS, n_ctx=N_POS, d_head=1, d_mlp=2, norm="none", positions="none",
    activation="relu", has_bias=False,
)  # fmt: skip


def _gate(leak: float, dtype: torch.dtype) -> Transformer:
    module = Transformer(_GATE).to(dtype).requires_grad_(False)
    for parameter in module.parameters():
        parameter.zero_()
    (block,) = module.blocks
    assert isinstance(block, Block) and block.mlp is not None
    module.embed.weight[YES, _IS_YES] = 1
    module.embed.weight[:, _ONE] = 1
    block.attn.v.weight[:, _IS_YES] = N_POS  # the last token attends to all alike, and one of them is YES
    block.attn.o.weight[_COPIES] = 1
    block.mlp.up.weight[:, _COPIES] = 1
    block.mlp.up.weight[1, _ONE] = -1
    block.mlp.down.weight[_ANY, 0] = 1
    block.mlp.down.weight[_ANY, 1] = leak - 1
    module.unembed.weight[YES, _ANY] = 1
    module.unembed.weight[NO, _ONE] = 0.5
    return module.requires_grad_(True)
