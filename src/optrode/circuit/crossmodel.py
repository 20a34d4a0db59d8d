"""Cross-model activation patching: what nodes of one model do better than the same nodes of another.

The same prompts run through two models of one architecture, such as a base model A and B, tuned from it. For a set of
nodes, A's values are replaced with B's, and A's gain in the metric and in accuracy is what those nodes of B bring (CMAP:
Prakash et al., arXiv 2402.14811). At "output" the heads' z and the MLPs' outputs are replaced, at "input" the heads' q, k
and v and what the MLPs read.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, final

import numpy as np
import torch

from optrode.axes import HEAD
from optrode.circuit.circuit import Interval
from optrode.circuit.interval import N_BOOTSTRAP, Draws, draws, mean_interval
from optrode.circuit.nodes import HEADS
from optrode.circuit.pick import by_site, draw_like, every_node, pick
from optrode.errors import BadOption, nearest
from optrode.gate.kinds import patch
from optrode.model.adapter import Table
from optrode.model.model import Model
from optrode.model.names import SiteName
from optrode.provenance import Provenance, provenance
from optrode.trial.metric import is_right, measure
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Progress, no_progress
from optrode.trial.trial import Trial

SIDES: Final = ("output", "input")
_INPUTS: Final = ("attn.q", "attn.k", "attn.v")


@dataclass(frozen=True, slots=True)
class Gain:
    """What B's values of one set of nodes do for A.

    Attributes:
        name: of the set.
        nodes: site names, one per head or MLP.
        metric, accuracy: of A with B's values, means over prompts.
        gain, accuracy_gain: the same minus A's own, with their bootstrap intervals.
        restored: gain / (B's metric - A's metric); nan where both models do equally well.
        random_gain, random_accuracy_gain: [set] the gains of random sets of as many heads and MLPs.
    """

    name: str
    nodes: tuple[str, ...]
    metric: float
    gain: float
    interval: Interval
    accuracy: float
    accuracy_gain: float
    accuracy_interval: Interval
    restored: float
    random_gain: tuple[float, ...]
    random_accuracy_gain: tuple[float, ...]


@dataclass(frozen=True)
class CrossPatch:
    """Nodes of model A with the values of model B.

    Attributes:
        metric, unit: of the task.
        at: "output" or "input".
        metric_a, metric_b, accuracy_a, accuracy_b: of the two models themselves, means over the clean prompts.
        gains: one per set.
        provenance: of model A; `provenance_b` of model B.
    """

    task: str
    metric: str
    unit: str
    at: str
    metric_a: float
    metric_b: float
    accuracy_a: float
    accuracy_b: float
    gains: tuple[Gain, ...]
    n_prompts: int
    n_bootstrap: int
    provenance: Provenance
    provenance_b: Provenance


def cross_patch(
    model_a: Model, model_b: Model, task: Task, sets: Mapping[str, Sequence[str]], at: str = "output", *,
    n_random: int = 10, n_bootstrap: int = N_BOOTSTRAP, random_seed: int = 0, progress: Progress = no_progress,
) -> CrossPatch:  # fmt: skip
    """Give nodes of A the values that B has on the same clean prompts, and measure what A gains.

    Costs one pass of A and one of B, and one of A for every set and every random set.

    Args:
        sets: sets of nodes by name; site patterns of heads and MLPs, with positions if only some are meant:
            {"movers": ["blocks.5.attn.z[head=1|3, pos=-1]"]}.
        at: what is replaced: the nodes' "output" or their "input" (q, k and v of the head, the MLP's input). With
            grouped K/V, a head's k and v are those of its group.
        n_random: random sets in the control of each set, of nodes outside it.

    Raises:
        BadOption: the models differ in architecture, sizes or tokens; no set, an empty one, or no such `at`.
        BadName, UnknownSite, SiteUnavailable: from the site patterns.
    """
    if at not in SIDES:
        raise BadOption(f"at={at!r}", "not a side of a node", nearest=nearest(at, SIDES) or SIDES)
    _check_alike(model_a, model_b)
    chosen = _picked(model_a, sets)
    started = time.monotonic()
    controls = {name: draw_like(nodes, every_node(model_a), n_random, random_seed) for name, nodes in chosen.items()}
    crossing = _Crossing(model_a, model_b, task, at, draws(len(task), task.random_seed, n_bootstrap))
    crossing.observe([node for name in chosen for some in (chosen[name], *controls[name]) for node in some])
    gains = []
    for step, (name, nodes) in enumerate(chosen.items()):
        gains.append(crossing.gain(name, nodes, controls[name]))
        progress("cross-model patching", step + 1, len(chosen))
    (metric_a, accuracy_a), (metric_b, accuracy_b) = crossing.own
    return CrossPatch(
        task=task.name, metric=crossing.benches[0].metric.name, unit=crossing.benches[0].metric.unit, at=at,
        metric_a=_mean(metric_a), metric_b=_mean(metric_b), accuracy_a=_mean(accuracy_a), accuracy_b=_mean(accuracy_b),
        gains=tuple(gains), n_prompts=len(task), n_bootstrap=n_bootstrap,
        provenance=_provenance(crossing.benches[0], random_seed, time.monotonic() - started),
        provenance_b=_provenance(crossing.benches[1], random_seed),
    )  # fmt: skip


Values = tuple[float, ...]
Measured = tuple[Values, Values]
"""[prompt] metric and [prompt] accuracy."""


@final
class _Crossing:
    """One comparison under way: both benches, and both models' own values."""

    def __init__(self, model_a: Model, model_b: Model, task: Task, at: str, drawn: Draws) -> None:
        self.at, self.drawn = at, drawn
        self.benches = (Bench(model_a, task), Bench(model_b, task))

    @cached_property
    def own(self) -> tuple[Measured, Measured]:
        """Both models as they are."""
        return self._measure(0, ()), self._measure(1, ())

    def observe(self, nodes: Sequence[SiteName]) -> None:
        """Record all that will be taken from B, in one pass of each group of prompts."""
        table = self.benches[0].model.table
        sites = {str(site.whole) for node in nodes for site in self._sites(table, node)}
        self.benches[1].worlds.observe("clean", sites, walks=False)

    def gain(self, name: str, nodes: Sequence[SiteName], controls: Sequence[Sequence[SiteName]]) -> Gain:
        """What one set brings, and what the random ones do."""
        (own, own_right), (other, _) = self.own
        patched, right = self._measure(0, nodes)
        more, more_right = _minus(patched, own), _minus(right, own_right)
        random = [self._measure(0, control) for control in controls]
        distance = _mean(other) - _mean(own)
        return Gain(
            name=name, nodes=tuple(map(str, nodes)), metric=_mean(patched), gain=_mean(more),
            interval=mean_interval(more, self.drawn), accuracy=_mean(right), accuracy_gain=_mean(more_right),
            accuracy_interval=mean_interval(more_right, self.drawn),
            restored=_mean(more) / distance if distance else float("nan"),
            random_gain=tuple(_mean(_minus(metric, own)) for metric, _ in random),
            random_accuracy_gain=tuple(_mean(_minus(accuracy, own_right)) for _, accuracy in random),
        )  # fmt: skip

    def _measure(self, which: int, nodes: Sequence[SiteName]) -> Measured:
        """Metric and accuracy of one model, with the other's values at these nodes."""
        bench, source = self.benches[which], self.benches[1 - which]
        metric, right = np.zeros(len(bench.task)), np.zeros(len(bench.task))
        sites = by_site(dict.fromkeys(site for node in nodes for site in self._sites(bench.model.table, node)))
        for group, members in enumerate(bench.worlds.groups):
            recording = source.worlds.recording("clean", group, (str(site.whole) for site in sites))
            trial = Trial(tuple(patch(site, recording) for site in sites), "clean", bench.metric.name)
            with torch.no_grad():
                logits = bench.read(trial, group) if sites else bench.worlds.logits("clean", group)
                pairs = bench.worlds.pairs(group)
                plain = bench.worlds.logits(bench.metric.against, group) if bench.metric.against else None
                metric[list(members)] = measure(bench.metric, logits, pairs, plain).double().cpu().numpy()
            right[list(members)] = is_right(logits, pairs)
        return tuple(metric.tolist()), tuple(right.tolist())

    def _sites(self, table: Table, node: SiteName) -> tuple[SiteName, ...]:
        """Where a node's values are replaced."""
        if self.at == "output":
            return (node,)
        if node.kind != HEADS:
            return (replace(node, kind="mlp_in"),)
        index = node.index(HEAD)
        assert index is not None and index.single is not None
        group = index.single * table.n_kv_heads // table.n_heads
        return tuple(replace(node, kind=kind).at(head=index.single if kind == "attn.q" else group) for kind in _INPUTS)


def _picked(model: Model, sets: Mapping[str, Sequence[str]]) -> dict[str, tuple[SiteName, ...]]:
    chosen = {name: pick(model, patterns) for name, patterns in sets.items()}
    empty = next((name for name, nodes in chosen.items() if not nodes), None)
    if not chosen or empty is not None:
        asked = "sets={}" if empty is None else f"set {empty!r}"
        raise BadOption(asked, "there is no node to patch", next_step="give site patterns: {'heads': ['blocks.*.attn.z']}")
    return chosen


_SIZES: Final = (
    "family", "n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "is_causal", "is_parallel", "is_post_norm",
)  # fmt: skip


def _check_alike(a: Model, b: Model) -> None:
    """Refuse models whose nodes do not correspond, or whose token ids mean different words."""
    asked = f"cross-model patching from {b.name} into {a.name}"
    step = "give two checkpoints of one architecture, such as a base model and one tuned from it"
    for name in _SIZES:
        ours, theirs = getattr(a.table, name), getattr(b.table, name)
        if ours != theirs:
            raise BadOption(asked, f"{name} is {theirs} there and {ours} here", next_step=step)
    if dict(a.table.places) != dict(b.table.places):
        odd = sorted({kind for kind, _ in set(a.table.places.items()) ^ set(b.table.places.items())})
        raise BadOption(asked, f"their tables place {odd[0]} differently", next_step=step)
    if _words(a) != _words(b):
        raise BadOption(asked, "they do not read the same tokens", next_step="give two models with one tokenizer")
    if a.dtype != b.dtype or a.device != b.device:
        found = f"one is {a.dtype} on {a.device}, the other {b.dtype} on {b.device}"
        raise BadOption(asked, found, next_step="load both alike")


def _words(model: Model) -> Any:
    """What its token ids mean, as far as the model says it: its vocabulary, else how many there are."""
    if hasattr(model.tokenizer, "get_vocab"):
        return model.tokenizer.get_vocab()
    return getattr(getattr(model.module, "config", None), "vocab_size", None)


def _provenance(bench: Bench, random_seed: int, time_s: float = 0.0) -> Provenance:
    model = bench.model
    return provenance(model.name, model.weights_hash, random_seed, time_s=time_s, n_passes=bench.worlds.n_passes)


def _minus(values: Values, own: Values) -> Values:
    return tuple(value - before for value, before in zip(values, own, strict=True))


def _mean(values: Values) -> float:
    return sum(values) / len(values)
