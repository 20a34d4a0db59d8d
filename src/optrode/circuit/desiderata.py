"""Desiderata-based component masking: which heads carry a piece of information, found by what patching them should do.

A desideratum is a task of its own: each pair's clean prompt is the base, its corrupt prompt the source of a counterfactual,
and its right answer what the model should say about the base once the wanted component is taken from the source. A mask
w in [0, 1] over nodes, 1 = keep the base, 0 = take the source,

    z' = w z + (1 - w) z_source,    loss = -logit(right answer at the last position) + lam * sum over nodes of (1 - w),

is learned with Adam, clamped to [0, 1] after each step and rounded at 0.5 (Davies et al., arXiv 2307.03637; lam and the
learning rate as in Prakash et al., arXiv 2402.14811).
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.axes import HEAD, POS
from optrode.circuit.nodes import HEADS
from optrode.circuit.pick import draw_like, every_node, pick
from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.model.names import SiteName
from optrode.provenance import Provenance, provenance
from optrode.site.select import one_site
from optrode.site.site import Moment
from optrode.site.tap import Function, tapped
from optrode.trial.metric import Metric, is_right
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.trial import Trial

N_STEPS: Final = 50
LAM: Final = 0.01
LEARNING_RATE: Final = 0.1
UNDECIDED: Final = (0.1, 0.9)


@dataclass(frozen=True)
class MaskFound:
    """The nodes that carry what one desideratum asks for.

    Attributes:
        task: name of the desideratum.
        nodes: those whose rounded mask is 0: taken from the source. In the order of the computation.
        weights: [node] w after the last step, for every node of the group.
        losses: [step] of the loss before each step, mean over prompts.
        accuracy: share of prompts with the expected answer when `nodes` are taken from the source.
        everything, nothing: the same with every node of the group, and with none of them, taken from the source.
        random: the same for random sets of as many other nodes of the group; empty where there is no other set.
        undecided: nodes whose w is still between 0.1 and 0.9. Some of them: more steps, or a weaker `lam`, are called for.
    """

    task: str
    nodes: tuple[str, ...]
    weights: dict[str, float]
    losses: tuple[float, ...]
    accuracy: float
    everything: float
    nothing: float
    random: tuple[float, ...]
    undecided: tuple[str, ...]
    n_prompts: int
    provenance: Provenance


def desiderata_masks(
    model: Model, tasks: Mapping[str, Task], nodes: Iterable[str] | None = None, *, marks: Sequence[str] = (),
    lam: float = LAM, lr: float = LEARNING_RATE, n_steps: int = N_STEPS, n_random: int = 10, random_seed: int = 0,
    progress: Progress = no_progress,
) -> dict[str, MaskFound]:  # fmt: skip
    """Learn one mask for each desideratum. All prompts are in every step: `n_steps` forward and backward passes.

    Args:
        tasks: desiderata by name: clean = base, corrupt = source, right = the answer expected of the patched base.
        nodes: names or patterns of the group; by default every head.
        marks: replace a node only at these of the pairs' marked positions; by default at all.
        lam: price of taking one node from the source, in logits.
        n_random: random node sets in the control.
        random_seed: of the control.

    Raises:
        BadOption: no desideratum, no node, a number out of range, or a pair without one of the marks.
        BadName, UnknownSite, SiteUnavailable: from the node names.
    """
    group = _group(model, nodes)
    _check(tasks, marks, {"lam": lam, "lr": lr, "n_steps": n_steps})
    found = {}
    for name, task in tasks.items():
        started = time.monotonic()
        masking = _Masking(model, task, group, marks)
        weights, losses = _learn(masking, lam, lr, n_steps, name, progress)
        found[name] = _judged(masking, name, weights, losses, n_random, random_seed, started)
    return found


def expected_accuracy(model: Model, task: Task, nodes: Iterable[str], *, marks: Sequence[str] = ()) -> float:
    """Share of a desideratum's prompts with the expected answer when these nodes are taken from the source.

    For prompts that the mask was not learned on.

    Raises:
        BadOption, BadName, UnknownSite, SiteUnavailable: as for `desiderata_masks`.
    """
    _check({task.name: task}, marks, {})
    masking = _Masking(model, task, _group(model, nodes), marks)
    return masking.accuracy(masking.group)


def _learn(
    masking: "_Masking", lam: float, lr: float, n_steps: int, name: str, progress: Progress
) -> tuple[Float[Tensor, " node"], tuple[float, ...]]:  # fmt: skip
    """The mask after `n_steps`, and the loss before each of them."""
    model = masking.bench.model
    weights = torch.ones(len(masking.group), dtype=model.dtype, device=model.device, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=lr)
    losses = []
    for step in range(n_steps):
        total, slope = masking.loss(weights)
        weights.grad = slope - lam
        losses.append(total + lam * float((1 - weights.detach()).sum()))
        adam.step()
        with torch.no_grad():
            weights.clamp_(0, 1)
        progress(f"mask of {name}", step + 1, n_steps)
    return weights.detach(), tuple(losses)


def _judged(
    masking: "_Masking", name: str, weights: Tensor, losses: tuple[float, ...], n_random: int, random_seed: int,
    started: float,
) -> MaskFound:  # fmt: skip
    """The rounded mask, with its controls."""
    by_node = dict(zip(masking.group, weights.tolist(), strict=True))
    chosen = [node for node, weight in by_node.items() if weight < 0.5]
    has_others = 0 < len(chosen) < len(masking.group)
    controls = draw_like(chosen, masking.group, n_random, random_seed) if has_others else ()
    low, high = UNDECIDED
    model, worlds = masking.bench.model, masking.bench.worlds
    return MaskFound(
        task=name, nodes=tuple(map(str, chosen)), weights={str(node): weight for node, weight in by_node.items()},
        losses=losses, accuracy=masking.accuracy(chosen), everything=masking.accuracy(masking.group),
        nothing=masking.accuracy(()), random=tuple(map(masking.accuracy, controls)),
        undecided=tuple(str(node) for node, weight in by_node.items() if low < weight < high),
        n_prompts=len(masking.bench.task),
        provenance=provenance(
            model.name, model.weights_hash, random_seed, time_s=time.monotonic() - started, n_passes=worlds.n_passes
        ),
    )  # fmt: skip


@final
class _Masking:
    """One desideratum on a model: runs the base prompts with a mask over the group's nodes."""

    def __init__(self, model: Model, task: Task, group: Sequence[SiteName], marks: Sequence[str]) -> None:
        task = replace(task, pairs=tuple(replace(pair, targets=()) for pair in task.pairs))
        self.bench = Bench(model, task, _EXPECTED)
        self.group, self.marks = tuple(group), tuple(marks)
        self.by_site: dict[SiteName, list[int]] = {}
        for ix, node in enumerate(self.group):
            self.by_site.setdefault(node.whole, []).append(ix)

    def loss(self, weights: Float[Tensor, " node"]) -> tuple[float, Float[Tensor, " node"]]:
        """-logit of the expected answer, mean over prompts, and its gradient."""
        total, slope = 0.0, torch.zeros_like(weights)
        for group, members in enumerate(self.bench.worlds.groups):
            with torch.enable_grad():
                logit = expected_logit(self._run(weights, group), self.bench.worlds.pairs(group)).mean()
                (towards,) = torch.autograd.grad(logit, [weights])
            share = len(members) / len(self.bench.task)
            total, slope = total - share * float(logit.detach()), slope - share * towards
        return total, slope

    def accuracy(self, nodes: Iterable[SiteName]) -> float:
        """Share of prompts with the expected answer when these nodes are taken from the source."""
        chosen = set(nodes)
        model, right = self.bench.model, list[bool]()
        weights = torch.tensor([float(node not in chosen) for node in self.group], dtype=model.dtype, device=model.device)
        with torch.no_grad():
            for group in range(len(self.bench.worlds.groups)):
                right += is_right(self._run(weights, group), self.bench.worlds.pairs(group))
        return sum(right) / len(right)

    def _run(self, weights: Tensor, group: int) -> Float[Tensor, "batch read vocab"]:
        source = self.bench.worlds.recording("corrupt", group, map(str, self.by_site))
        where = self._where(group)
        taps = [
            (one_site(self.bench.model, site), self._tap(site, source[site], weights[ixs], where))
            for site, ixs in self.by_site.items()
        ]
        with tapped(self.bench.model, taps):
            return self.bench.read(Trial((), "clean", _EXPECTED.name), group)

    def _where(self, group: int) -> Tensor | None:
        """[batch, pos] true at the marked positions; None for all of them."""
        if not self.marks:
            return None
        pairs, device = self.bench.worlds.pairs(group), self.bench.model.device
        where = torch.zeros(len(pairs), self.bench.worlds.length(group), dtype=torch.bool, device=device)
        for row, pair in enumerate(pairs):
            where[row, [pair.marks[mark] for mark in self.marks]] = True
        return where

    def _tap(self, site: SiteName, source: Tensor, weights: Tensor, where: Tensor | None) -> Function:
        """A tap that makes z of the nodes of one site w z + (1 - w) source."""
        heads = [self._head(ix) for ix in self.by_site[site]]

        def mix(h: Tensor, moment: Moment) -> Tensor:
            taken = 1 - weights
            if site.kind == HEADS:
                taken = h.new_zeros(h.shape[2]).index_put((torch.tensor(heads, device=h.device),), taken)[:, None]
            mixed = h + taken * (source - h)
            return mixed if where is None else torch.where(where[(...,) + (None,) * (h.dim() - 2)], mixed, h)

        return mix

    def _head(self, ix: int) -> int:
        head = self.group[ix].index(HEAD)
        return -1 if head is None or head.single is None else head.single


def expected_logit(logits: Float[Tensor, "batch read vocab"], pairs: Sequence[Pair]) -> Float[Tensor, " batch"]:
    """Mean logit of the right answers after the last token."""
    return torch.stack([row[list(pair.right)].mean() for row, pair in zip(logits[:, -1], pairs, strict=True)])


_EXPECTED: Final = Metric("expected_logit", "logits", expected_logit, columns=lambda pair: (*pair.right, *pair.wrong))


def _group(model: Model, nodes: Iterable[str] | None) -> tuple[SiteName, ...]:
    if nodes is None:
        return tuple(node for node in every_node(model) if node.kind == HEADS)
    wanted = pick(model, nodes)
    if not wanted:
        raise BadOption("nodes=()", "there is nothing to mask", next_step="leave it out for every head")
    placed = next((node for node in wanted if node.index(POS) is not None), None)
    if placed is not None:
        raise BadOption(
            f"mask over {placed}", "a mask is over whole nodes",
            next_step="name the positions by the pairs' marks: marks=(...)",
        )  # fmt: skip
    return tuple(node for node in every_node(model) if node in set(wanted))


def _check(tasks: Mapping[str, Task], marks: Sequence[str], numbers: Mapping[str, float]) -> None:
    if not tasks:
        raise BadOption("tasks={}", "there is no desideratum", next_step="give one task for each, by name")
    for name, number in numbers.items():
        if number < 0 or number == 0 and name != "lam":
            raise BadOption(f"{name}={number:g}", "it must be above 0", next_step="leave it out for the default")
    for name, task in tasks.items():
        for mark in marks:
            lacking = next((pair for pair in task.pairs if mark not in pair.marks), None)
            if lacking is not None:
                known = tuple(lacking.marks)
                raise BadOption(f"mark {mark!r} of {name}", "a pair has no such mark", nearest=nearest(mark, known) or known)
