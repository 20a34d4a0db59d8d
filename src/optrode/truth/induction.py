"""A two-layer attention-only transformer trained to continue repeated random tokens (Olsson et al., arXiv 2209.11895).

What it must learn is the induction circuit: a head of layer 0 writes at each token what the previous token was; a head of
layer 1 looks from a token to where its key says that the previous token was the same, and copies what stands there. Periods
differ from row to row, so that no fixed distance will do, and tokens within a period are distinct, so that one answer is
right. A cost on each head's weights (group lasso, Yuan and Lin 2006) keeps the work from being spread over many heads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from optrode.errors import BadOption, TaskTooHard
from optrode.model.model import Model
from optrode.nn.transformer import Attention, Block, Spec, Transformer, as_model, build
from optrode.site.recording import record
from optrode.trial.metric import Metric, targets
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Progress, no_progress
from optrode.trial.worlds import inputs_of, read_logits

SPEC: Final = Spec(
    n_layers=2, n_heads=4, d_model=64, vocab=48, n_ctx=32, norm="none", positions="learned", has_bias=False
)  # fmt: skip
LEAST_ACCURACY: Final = 0.95
WEIGHTS: Final = "induction.safetensors"


@dataclass(frozen=True)
class Recipe:
    """How it is trained.

    Attributes:
        n_steps, n_rows: steps, and sequences of each.
        learning_rate: at the start; over the last 30 % of the steps it falls to 0.
        per_head: cost of the norm of each head's value and output weights, in nats.
        shortest, longest: period after which a sequence repeats, in tokens.
    """

    n_steps: int = 1000
    n_rows: int = 48
    learning_rate: float = 3e-3
    per_head: float = 0.01
    shortest: int = 6
    longest: int = 16


@dataclass(frozen=True)
class InductionHeads:
    """Who does what.

    Attributes:
        previous, induction: names of the heads, "a0.h1" and "a1.h0".
        previous_scores, induction_scores: [head] mean size of what a head of layer 0 moves from the previous token, and one
            of layer 1 from the token after the same one's last occurrence: attention times the norm of what it writes
            (Kobayashi et al., arXiv 2004.10102), since heads that write nothing attend somewhere too.
    """

    previous: str
    induction: str
    previous_scores: tuple[float, ...]
    induction_scores: tuple[float, ...]


def train_induction(
    random_seed: int = 0, recipe: Recipe = Recipe(), progress: Progress = no_progress  # noqa: B008
) -> Model:  # fmt: skip
    """Train one from scratch, on CPU, in float32. The caller's random state is left alone.

    Raises:
        TaskTooHard: it is right on less than 95 % of the tokens that it could know.
    """
    module = build(SPEC, random_seed).train()
    generator = torch.Generator().manual_seed(random_seed)
    for embedding in (module.embed, module.pos_embed):
        assert embedding is not None
        nn.init.normal_(embedding.weight, std=0.5, generator=generator)
    optimizer = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(recipe.n_steps):
        left = (recipe.n_steps - step) / recipe.n_steps
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, left / 0.3)
        loss = _loss(module, *_sequences(recipe, generator)) + recipe.per_head * sum(map(_size, _attentions(module)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress("training", step + 1, recipe.n_steps)
    model = as_model(module, f"induction, seed {random_seed}")
    found = token_accuracy(model, induction_task(model, 64, random_seed))
    if found < LEAST_ACCURACY:
        asked = f"an induction model from seed {random_seed}"
        raise TaskTooHard(asked, f"it is right on {found:.0%} of the tokens", next_step="take another seed, or more steps")
    return model


def load_induction(dtype: torch.dtype = torch.float32) -> Model:
    """The model that `train_induction(0)` made."""
    module = Transformer(SPEC).to(dtype)
    module.load_state_dict(load_tensors((files("optrode.truth") / WEIGHTS).read_bytes()))
    return as_model(module, "induction, seed 0")


def induction_task(model: Model, n: int = 32, random_seed: int = 0, length: int = 12) -> Task:
    """Distinct random tokens, repeated; the corrupt prompt has the same second half after another first half.

    Nothing differs at the tokens that predict, so that what they look for is the same in both worlds. What differs is what
    they find: the first half's keys, which the previous-token head makes, and the tokens to copy. The corrupt run predicts
    at chance. Metric: mean log-probability of the second half's tokens; `TOKEN_ACCURACY` may be used instead.

    Raises:
        BadOption: no pair is asked for, or a half that the model cannot take.
    """
    spec = model.module.config
    assert isinstance(spec, Spec)
    longest = min(spec.vocab, spec.n_ctx) // 2
    if n < 1 or not 2 <= length <= longest:
        asked = f"induction task with n={n}, length={length}"
        found = f"it takes a pair at least, and halves of 2 to {longest} tokens"
        raise BadOption(asked, found, next_step="give n=32, length=12")
    generator = torch.Generator().manual_seed(random_seed)
    pairs = tuple(_pairs(spec.vocab, n, length, generator))
    return Task("induction", f"Induction: {length} distinct random tokens, repeated.", "logprob", pairs, random_seed)


def _right_share(logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair]) -> Float[Tensor, " batch"]:
    wanted = torch.tensor([[token for _, token in targets(pair)] for pair in pairs], device=logits.device)
    return (logits.argmax(-1) == wanted).to(logits.dtype).mean(-1)


TOKEN_ACCURACY: Final = Metric("token_accuracy", "share of tokens right", _right_share, reads_targets=True)
"""Share of the target tokens that are the model's first choice."""


@torch.no_grad()
def token_accuracy(model: Model, task: Task) -> float:
    """Share of the targets of all clean prompts, which must be of one length, that are the model's first choice."""
    logits = read_logits(model, inputs_of(model, task.pairs, "clean"), TOKEN_ACCURACY.positions(task.pairs[0]))
    return float(_right_share(logits, task.pairs).mean())


def induction_heads(model: Model, task: Task) -> InductionHeads:
    """The previous-token head and the induction head, by where they attend on a task's clean prompts and what they write."""
    where = [pos for pos, _ in targets(task.pairs[0])]
    half = task.pairs[0].length // 2
    moved = [_moved(model, task, layer) for layer in (0, 1)]
    previous = moved[0].diagonal(-1, 2, 3).mean((0, 2))
    induction = moved[1][:, :, where, [pos - half + 1 for pos in where]].mean((0, 2))
    names = f"a0.h{int(previous.argmax())}", f"a1.h{int(induction.argmax())}"
    return InductionHeads(*names, tuple(previous.tolist()), tuple(induction.tolist()))


def _moved(model: Model, task: Task, layer: int) -> Float[Tensor, "batch head pos src"]:
    """Attention times the norm of what a head writes of each source."""
    sites = [f"blocks.{layer}.attn.{part}" for part in ("pattern", "v")]
    held = record(model, inputs_of(model, task.pairs, "clean"), sites)
    module = model.module
    assert isinstance(module, Transformer)
    weight = _attentions(module)[layer].o.weight.detach().unflatten(1, (module.config.n_heads, -1))
    size = torch.einsum("bshd,ehd->bhse", held[sites[1]], weight).norm(dim=-1)
    moved: Tensor = held[sites[0]] * size[:, :, None]
    return moved


def _attentions(module: Transformer) -> list[Attention]:
    return [block.attn for block in module.blocks if isinstance(block, Block)]


def _size(attention: Attention) -> Tensor:
    """Sum over heads of the norm of their value and output weights."""
    n_heads = attention.spec.n_heads
    value = attention.v.weight.unflatten(0, (n_heads, -1)).square().sum((1, 2))
    output = attention.o.weight.unflatten(1, (n_heads, -1)).square().sum((0, 2))
    size: Tensor = (value + output).sqrt().sum()
    return size


def _sequences(recipe: Recipe, generator: torch.Generator) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """Token ids of repeating sequences, and where the next token can be known."""
    periods = torch.randint(recipe.shortest, recipe.longest + 1, (recipe.n_rows, 1), generator=generator)
    tokens = torch.rand(recipe.n_rows, SPEC.vocab, generator=generator).argsort(1)
    positions = torch.arange(SPEC.n_ctx)[None]
    return tokens.gather(1, positions % periods), positions >= periods


def _loss(module: Transformer, token_ids: Int[Tensor, "row pos"], is_known: Bool[Tensor, "row pos"]) -> Tensor:
    """Mean cross-entropy of the tokens that can be known, in nats."""
    known = is_known[:, :-1]
    return nn.functional.cross_entropy(module(token_ids).logits[:, :-1][known], token_ids[:, 1:][known])


def _pairs(vocab: int, n: int, length: int, generator: torch.Generator) -> Iterator[Pair]:
    drawn = torch.rand(n, 2, vocab, generator=generator).argsort(2)[:, :, :length].tolist()
    for first, other in drawn:
        clean = tuple(first + first)
        yield Pair(
            clean=clean, corrupt=tuple(other + first), right=(first[-1],), wrong=(),
            marks={"repeat": length, "end": 2 * length - 1},
            targets=tuple((pos, clean[pos + 1]) for pos in range(length, 2 * length - 1)),
        )  # fmt: skip
