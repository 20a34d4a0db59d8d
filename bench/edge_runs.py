"""The contenders of the benchmark of edge attribution: plain forward + backward passes, and Optrode's methods."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from edge_cases import N_STEPS, RANDOM_SEED, Case, Shape, prompts
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import optrode as op
from optrode.circuit.edge.records import EdgeScores
from optrode.circuit.edge.score import score_edges
from optrode.trial.run import Bench


def model_of(shape: Shape) -> op.Model:
    """A GPT-2 with random weights in float32, in evaluation mode; its parameters take gradients, as when loaded."""
    config = GPT2Config(
        vocab_size=shape.vocabulary, n_layer=shape.n_layers, n_head=shape.n_heads, n_embd=shape.d_model,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(RANDOM_SEED)
    return op.load(GPT2LMHeadModel(config).eval(), check=False)


def task_of(case: Case, shape: Shape) -> op.Task:
    """Pairs of random tokens; the right and the wrong answer are the last tokens of the clean and the corrupt prompt."""
    pairs = [op.Pair(clean, corrupt, clean[-1:], corrupt[-1:]) for clean, corrupt in prompts(case, shape.vocabulary)]
    return op.Task("random", "Random tokens.", "logit_gap", tuple(pairs), RANDOM_SEED)


def training(model: op.Model, task: op.Task) -> None:
    """Logits of all positions, gradients of all parameters."""
    _gap(model.module(input_ids=_tokens(task, "clean"), use_cache=False).logits, task).sum().backward()
    for parameter in model.module.parameters():
        parameter.grad = None


def lean(model: op.Model, task: op.Task) -> None:
    """The last token's logits, gradients of activations back to what enters the first block."""
    with _without_parameters(model.module):
        embedded = _embedded(model.module, _tokens(task, "clean")).requires_grad_()
        torch.autograd.grad(_last_gap(model.module, embedded, task).sum(), embedded)


def method(name: str) -> Callable[[op.Model, op.Task], EdgeScores]:
    """A method on a bench of its own, so that nothing is known from an earlier run; no spot checks."""

    def run(model: op.Model, task: op.Task) -> EdgeScores:
        n_steps = N_STEPS[name] if name == "eap-ig" else None
        return score_edges(model, task, method=name, n_steps=n_steps, n_checks=0, bench=Bench(model, task))

    return run


RUNS: dict[str, Callable[[op.Model, op.Task], Any]] = {
    "training": training, "lean": lean, "eap": method("eap"), "eap-ig": method("eap-ig"),
}  # fmt: skip


@dataclass
class Passes:
    """Counted by hooks on the module and on its logits."""

    forward: int = 0
    backward: int = 0


@contextmanager
def counting(module: nn.Module) -> Iterator[Passes]:
    """Count forward and backward passes inside the context."""
    found = Passes()

    def backward(slope: Tensor) -> None:
        found.backward += 1

    def forward(module: nn.Module, inputs: Any, output: Any) -> None:
        found.forward += 1
        if output.logits.requires_grad:
            output.logits.register_hook(backward)

    handle = module.register_forward_hook(forward)
    try:
        yield found
    finally:
        handle.remove()


@dataclass
class _Stream:
    """What one run of a GPT-2 wrote to the residual stream, and where each reader's own branch of it is.

    Attributes:
        writes: what enters the first block, then attention, MLP, attention, ..., [prompt, pos, d_model].
        reads: the stream as read by attention, MLP, attention, ..., logits.
    """

    writes: list[Tensor] = field(default_factory=list)
    reads: list[Tensor] = field(default_factory=list)


def disagreement(model: op.Model, task: op.Task, name: str, scores: EdgeScores) -> float:
    """Largest difference of scores from their definition, as a share of the largest score.

    The definition is written out with plain hooks, with heads of a layer summed: senders are the embedding, every
    attention and every MLP; receivers every attention's input, every MLP's and the logits'.
    """
    expected = _written_out(model.module, task, N_STEPS[name])
    graph = scores.graph
    by_sender = _merged(torch.from_numpy(graph.matrix(scores.per_prompt)).double(), [end.kind for end in graph.sender_ends])
    found = _merged(by_sender.mT, [end.kind for end in graph.receiver_ends]).mT
    return float((found - expected).abs().max() / expected.abs().max())


def _merged(values: Tensor, kinds: list[str]) -> Tensor:
    """[..., end] -> [..., half of a block], heads of one layer summed: each group of heads is followed by an MLP."""
    at, groups = 0, []
    for kind in kinds:
        groups.append(at)
        at += kind in ("embed", "mlp", "logits")
        if kind in ("head", "q", "k", "v") and kinds[len(groups)] == "mlp":
            at += 1
    return torch.zeros(*values.shape[:-1], groups[-1] + 1, dtype=values.dtype).index_add_(-1, torch.tensor(groups), values)


def _written_out(module: Any, task: op.Task, n_steps: int) -> Tensor:
    """[prompt, receiver, sender] of EAP-IG's definition, eq. 4 of arXiv 2403.17806, zero where there is no edge."""
    with torch.no_grad():
        ends = {world: _embedded(module, _tokens(task, world)) for world in ("clean", "corrupt")}
        clean, corrupt = (_streams(module, ends[world], task)[0].writes for world in ("clean", "corrupt"))
    changes = torch.stack(corrupt, 1).double() - torch.stack(clean, 1).double()
    total = torch.zeros(len(task), len(clean), len(clean), dtype=torch.float64)
    for step in range(1, n_steps + 1):
        point = (ends["corrupt"] + step / n_steps * (ends["clean"] - ends["corrupt"])).requires_grad_()
        with _without_parameters(module):
            stream, gap = _streams(module, point, task)
            slopes = torch.stack(torch.autograd.grad(gap.sum(), stream.reads), 1).double()
        total += torch.einsum("brtd,bstd->brs", slopes, changes) / n_steps
    return total.tril()


def _streams(module: Any, embedded: Tensor, task: op.Task) -> tuple[_Stream, Tensor]:
    """One run from embeddings on, and its [prompt] gaps."""
    found, handles = _Stream(), []

    def read(norm: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        found.reads.append(inputs[0].view_as(inputs[0]))  # a branch of its own in the graph
        return found.reads[-1]

    def write(half: nn.Module, inputs: Any, output: Tensor) -> None:
        found.writes.append(output.detach())

    def begin(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.writes.append(inputs[0].detach())

    blocks = module.transformer.h
    handles.append(blocks[0].register_forward_pre_hook(begin))
    for block in blocks:
        handles += [norm.register_forward_pre_hook(read) for norm in (block.ln_1, block.ln_2)]
        handles += [half.register_forward_hook(write) for half in (block.attn.c_proj, block.mlp.c_proj)]
    handles.append(module.transformer.ln_f.register_forward_pre_hook(read))
    try:
        return found, _last_gap(module, embedded, task)
    finally:
        for handle in handles:
            handle.remove()


def _embedded(module: Any, tokens: Tensor) -> Tensor:
    embedded: Tensor = module.transformer.wte(tokens).detach()
    return embedded


def _tokens(task: op.Task, world: str) -> Tensor:
    return torch.tensor([list(pair.world(world)) for pair in task.pairs])


def _last_gap(module: Any, embedded: Tensor, task: op.Task) -> Tensor:
    return _gap(module(inputs_embeds=embedded, use_cache=False, logits_to_keep=1).logits, task)


def _gap(logits: Tensor, task: op.Task) -> Tensor:
    """[prompt] logit of the right answer minus that of the wrong one, after the last token."""
    last, rows = logits[:, -1], torch.arange(len(task))
    right, wrong = (torch.tensor([getattr(pair, kind)[0] for pair in task.pairs]) for kind in ("right", "wrong"))
    return last[rows, right] - last[rows, wrong]


@contextmanager
def _without_parameters(module: nn.Module) -> Iterator[None]:
    """Parameters take no gradients inside the context, nor is anything kept for them."""
    own = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in own:
            parameter.requires_grad_()
