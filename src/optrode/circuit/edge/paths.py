"""Path patching: what a sender does through chosen routes into chosen receivers, and through nothing else.

Wang et al. (arXiv 2211.00593, section 3.1), Goldowsky-Dill et al. (arXiv 2304.05969). Three runs: the corrupt one gives the
senders' outputs; in a clean run with these put in and every other head held at its clean output, the receivers' inputs are
noted; in a last clean run only these inputs are put in. With MLPs left to compute (`through_mlps`, as in Wang et al.) a path
may go through them; held as well, only direct edges count, and one edge's path effect is its exact edge effect.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from optrode.circuit.circuit import Interval
from optrode.circuit.edge.graph import End, Graph
from optrode.circuit.edge.wiring import Wiring, wiring_of
from optrode.circuit.interval import draws, mean_interval
from optrode.circuit.nodes import find_ablation
from optrode.errors import BadName, BadOption, nearest
from optrode.gate.gate import Gate
from optrode.gate.kinds import patch
from optrode.model.model import Model
from optrode.model.names import parse
from optrode.provenance import Provenance, provenance
from optrode.site.recording import Recording, recording
from optrode.trial.prompts import Task
from optrode.trial.run import Bench, Values
from optrode.trial.trial import Trial


@dataclass(frozen=True)
class PathEffect:
    """The effect of a set of paths.

    Attributes:
        senders, receivers: names of `circuit/edge/graph.py`.
        through_mlps: whether paths may go through MLPs.
        effect: change of the metric, mean over prompts; negative where the paths help.
        interval: 95 % bootstrap interval over prompts.
        per_prompt: [prompt].
        relative: effect / mean clean metric.
    """

    task: str
    metric: str
    unit: str
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    through_mlps: bool
    effect: float
    interval: Interval
    per_prompt: Values
    relative: float
    provenance: Provenance


def patch_paths(
    model: Model, task: Task, senders: Sequence[str], receivers: Sequence[str], *, through_mlps: bool = True,
    ablation: str = "resample", bench: Bench | None = None,
) -> PathEffect:  # fmt: skip
    """The effect of ablating all paths from some senders to some receivers, in the clean run.

    Args:
        senders: "a3.h2", "m3" or "embed".
        receivers: one input, like "a5.h1.q"; all of a head's, "a5.h1"; "m5"; or "logits".
        through_mlps: let paths go through MLPs; else they are held at their clean outputs too.
        ablation: what senders give: "resample" (their corrupt output), "zero" or "mean".

    Raises:
        BadName: no such sender or receiver.
        BadOption: nothing named, no such ablation, or no path leads from any sender to any receiver.
    """
    bench, wiring = bench or Bench(model, task), wiring_of(model)
    sources, targets = _senders(wiring, senders), _receivers(wiring, receivers)
    _refuse(wiring.graph, sources, targets, senders, receivers)
    find_ablation(ablation)
    base, found = bench.base("clean"), [0.0] * len(bench.task)
    for group, members in enumerate(bench.worlds.groups):
        for ix, value in zip(members, _group(bench, wiring, group, sources, targets, through_mlps, ablation), strict=True):
            found[ix] = value
    effects = tuple(f - b for f, b in zip(found, base, strict=True))
    drawn = draws(len(task), task.random_seed)
    return PathEffect(
        task=task.name, metric=bench.metric.name, unit=bench.metric.unit, senders=tuple(senders), receivers=tuple(receivers),
        through_mlps=through_mlps, effect=float(np.mean(effects)), interval=mean_interval(effects, drawn),
        per_prompt=effects, relative=float(np.mean(effects) / np.mean(base)),
        provenance=provenance(model.name, model.weights_hash, task.random_seed, n_passes=bench.worlds.n_passes),
    )  # fmt: skip


def _senders(wiring: Wiring, names: Sequence[str]) -> list[End]:
    known = dict(zip(wiring.graph.senders, wiring.graph.sender_ends, strict=True))
    for name in names:
        if name not in known:
            near = nearest(name, known) or tuple(known)[:3]
            raise BadName(f"sender {name!r}", "the model has no such sender", nearest=near)
    return [known[name] for name in names]


def _receivers(wiring: Wiring, names: Sequence[str]) -> list[End]:
    known = dict(zip(wiring.graph.receivers, wiring.graph.receiver_ends, strict=True))
    found: list[End] = []
    for name in names:
        matching = [end for key, end in known.items() if key == name or key.startswith(f"{name}.")]
        if not matching:
            near = nearest(name, known) or tuple(known)[:3]
            raise BadName(f"receiver {name!r}", "the model has no such receiver", nearest=near)
        found += matching
    return list(dict.fromkeys(found))


def _refuse(
    graph: Graph, sources: list[End], targets: list[End], senders: Sequence[str], receivers: Sequence[str]
) -> None:
    asked = f"paths from {', '.join(senders) or 'nothing'} to {', '.join(receivers) or 'nothing'}"
    if not sources or not targets:
        step = "name senders like a3.h2 and receivers like a5.h1.q"
        raise BadOption(asked, "nothing is named on one side", next_step=step)
    rows = [graph.receiver_ends.index(end) for end in targets]
    columns = [graph.sender_ends.index(end) for end in sources]
    if not graph.is_edge[np.ix_(rows, columns)].any():
        found = "every receiver reads before every sender writes"
        raise BadOption(asked, found, next_step="a path goes forward; swap its ends")


def _group(
    bench: Bench, wiring: Wiring, group: int, sources: list[End], targets: list[End], through_mlps: bool, ablation: str
) -> Values:
    """[row] metric of one group's prompts with the paths ablated."""
    pairs = tuple(bench.worlds.pairs(group))
    own = bench if len(bench.worlds.groups) == 1 else Bench(bench.model, replace(bench.task, pairs=pairs), bench.metric)
    held = _held(wiring, sources, through_mlps, ablation)
    sites = sorted({_input_of(end, wiring) for end in targets})
    own.worlds.remember(held, "clean")
    with torch.no_grad(), recording(bench.model, sites) as noted:
        own.read(Trial(held, "clean", own.metric.name), 0)
    return own.run(Trial(tuple(_put_in(noted, targets, wiring)), "clean", own.metric.name))


def _held(wiring: Wiring, sources: list[End], through_mlps: bool, ablation: str) -> tuple[Gate, ...]:
    """Senders ablated; every other head, and MLPs unless paths go through them, at their clean outputs."""
    graph, ablate = wiring.graph, find_ablation(ablation)
    gates = [ablate(parse("blocks.0.resid_pre"))] if End("embed", -1) in sources else []
    for layer in range(graph.n_layers):
        mine = [end.head for end in sources if end.kind == "head" and end.layer == layer]
        others = [head for head in range(graph.n_heads) if head not in mine]
        gates += [ablate(parse(_heads(layer, mine)))] if mine else []
        gates += [patch(_heads(layer, others), "clean")] if others else []
        if End("mlp", layer) in sources:
            gates.append(ablate(parse(f"blocks.{layer}.mlp_out")))
        elif graph.has_mlps and not through_mlps:
            gates.append(patch(f"blocks.{layer}.mlp_out", "clean"))
    return tuple(gates)


def _heads(layer: int, heads: list[int]) -> str:
    return f"blocks.{layer}.attn.z[head={'|'.join(map(str, heads))}]"


def _input_of(end: End, wiring: Wiring) -> str:
    """The whole site of a receiver's input."""
    if end.kind == "logits":
        return f"blocks.{wiring.graph.n_layers - 1}.resid_post"
    return f"blocks.{end.layer}.mlp_in" if end.kind == "mlp" else f"blocks.{end.layer}.attn.{end.kind}"


def _put_in(noted: Recording, targets: list[End], wiring: Wiring) -> list[Gate]:
    """One gate per site, with the noted values of its receivers."""
    gates = []
    ordered = sorted(targets, key=lambda end: (end.layer, end.kind, end.head))
    for site, ends in groupby(ordered, lambda end: _input_of(end, wiring)):
        heads = [end.head for end in ends if end.head >= 0]
        value: Tensor = noted[site]
        gates.append(patch(f"{site}[head={'|'.join(map(str, heads))}]" if heads else site, value))
    return gates
