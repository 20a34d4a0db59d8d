"""The effect of ablating every node to first order, from gradients at one point or along a path.

    effect(node) = sum over pos and feature of (f(h) - h) * mean over path points of dm/dh

h is the node's value in the clean run, f(h) its ablated value, m the metric. With one point, the clean run, this is
attribution patching (Kramár et al., arXiv 2403.00745, eq. 4: their n(x') - n(x) is our f(h) - h). With M points
e' + (k/M)(e - e'), k = 1..M, between the corrupt and the clean token embeddings it is the node form of EAP-IG-inputs
(Hanna et al., arXiv 2403.17806, eq. 4), which saturated attention deceives less.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.axes import HEAD
from optrode.circuit.nodes import ablate
from optrode.gate.gate import Gate
from optrode.gate.kinds import resample
from optrode.model.names import SiteName, parse
from optrode.site.select import one_site
from optrode.site.site import Moment, Site
from optrode.site.tap import Function, tapped
from optrode.trial.run import Bench
from optrode.trial.trial import Trial


def attribute(bench: Bench, nodes: Sequence[str], ablation: str, n_steps: int = 1) -> dict[str, Float[Tensor, "prompt pos"]]:
    """First-order effect of each node for each prompt and position, [prompt, pos] (positions padded with zeros).

    Costs `n_steps` forward and backward passes, plus one forward pass for each world that is recorded.
    """
    sites = tuple(dict.fromkeys(parse(node).whole for node in nodes))
    gates = {gate.site.whole: gate for gate in ablate([str(site) for site in sites], ablation)}
    bench.worlds.remember(gates.values(), "clean")
    n_pos = max(len(pair.clean) for pair in bench.task.pairs)
    effects = {node: torch.zeros(len(bench.task), n_pos, dtype=torch.float64) for node in nodes}
    for group, members in enumerate(bench.worlds.groups):
        slopes = _mean_slopes(bench, group, sites, n_steps)
        change = {name: bench.worlds.change(gates[name], "clean", group) for name in sites}
        by_site = {name: (change[name] * slopes[name]).sum(-1) for name in sites}
        for node, rows in effects.items():
            part = _node_part(by_site[parse(node).whole], parse(node))
            rows[list(members), : part.shape[1]] = part.double().cpu()
    return effects


def _mean_slopes(bench: Bench, group: int, sites: Sequence[SiteName], n_steps: int) -> dict[SiteName, Tensor]:
    """Gradient of the metric at each site, averaged over the path points."""
    total: dict[SiteName, Tensor] = {}
    for step in range(1, n_steps + 1):
        towards_corrupt = 1 - step / n_steps
        gates = (resample("embed", strength=towards_corrupt),) if towards_corrupt else ()
        for name, slope in _slopes(bench, group, sites, gates).items():
            total[name] = total.get(name, 0) + slope / n_steps
    return total


def _slopes(bench: Bench, group: int, sites: Sequence[SiteName], gates: tuple[Gate, ...]) -> dict[SiteName, Tensor]:
    """Gradient of the summed metric at each site, in the clean run with these gates held."""
    bench.worlds.remember(gates)
    seen: dict[SiteName, Tensor] = {}
    taps = [(site, _keep(site, seen)) for site in (one_site(bench.model, name) for name in sites)]
    with torch.enable_grad(), tapped(bench.model, taps):
        logits = bench.read(Trial(gates, "clean", bench.metric.name), group)
        total = bench.metric.function(logits, bench.worlds.pairs(group)).sum()
        found = torch.autograd.grad(total, [seen[name] for name in sites], allow_unused=True)
    return {n: torch.zeros_like(seen[n]) if g is None else g for n, g in zip(sites, found, strict=True)}


def _keep(site: Site, seen: dict[SiteName, Tensor]) -> Function:
    """A tap that keeps the site's tensor in the graph."""

    def tap(h: Tensor, moment: Moment) -> Tensor:
        if not h.requires_grad:
            h = h.detach().clone().requires_grad_()  # nothing before this site needs a gradient
        seen[site.name.whole] = h
        return h

    return tap


def _node_part(effect: Tensor, node: SiteName) -> Tensor:
    """A node's part of [prompt, pos] or, for heads, [prompt, pos, head]."""
    head = node.index(HEAD)
    return effect if head is None else effect[..., head.single]
