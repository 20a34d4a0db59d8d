"""The nodes of a model, and the gates that ablate a set of them."""

from collections.abc import Callable, Iterable
from typing import Final, Literal

from optrode.errors import BadOption, SiteUnavailable, nearest
from optrode.gate.gate import Gate
from optrode.gate.kinds import mean, resample, zero
from optrode.model.model import Model
from optrode.model.names import Index, SiteName, parse

HEADS: Final = "attn.z"
MLPS: Final = "mlp_out"
Ablation = Literal["resample", "zero", "mean"]

ABLATIONS: Final[dict[str, Callable[[SiteName], Gate]]] = {
    "resample": lambda site: resample(site, "corrupt"),
    "zero": zero,
    "mean": lambda site: mean(site, "clean"),
}
"""Ablation of a node in the clean run: the corrupt run's value, nothing, or the mean over the clean prompts."""


def find_ablation(name: str) -> Callable[[SiteName], Gate]:
    """The function that makes an ablation's gate.

    Raises:
        BadOption: there is no such ablation.
    """
    if name not in ABLATIONS:
        raise BadOption(f"ablation {name!r}", "no such ablation", nearest=nearest(name, ABLATIONS) or tuple(ABLATIONS))
    return ABLATIONS[name]


def all_nodes(model: Model) -> tuple[str, ...]:
    """Every head's output and every MLP's output, in the order of the computation.

    Raises:
        SiteUnavailable: the model came through the generic route, which knows no heads.
    """
    table = model.table
    if HEADS not in table.places:
        raise SiteUnavailable(
            f"nodes of {model.name}", f"the {table.family} route has no site {HEADS}",
            next_step="node circuits need an architecture with a family file; `optrode models` lists them",
        )  # fmt: skip
    kinds = [HEADS, MLPS] if MLPS in table.places else [HEADS]
    return tuple(str(node) for layer in range(table.n_layers) for kind in kinds for node in _layer_nodes(model, kind, layer))


def _layer_nodes(model: Model, kind: str, layer: int) -> list[SiteName]:
    whole = SiteName(kind).at(layer=layer)
    return [whole.at(head=head) for head in range(model.table.n_heads)] if kind == HEADS else [whole]


def ablate(nodes: Iterable[str], ablation: str) -> tuple[Gate, ...]:
    """One gate per site that ablates these nodes; heads of one layer share a gate."""
    make = find_ablation(ablation)
    heads: dict[SiteName, list[int]] = {}
    for node in map(parse, nodes):
        head = node.index("head")
        heads.setdefault(node.whole, []).extend([] if head is None or head.single is None else [head.single])
    return tuple(make(_with_heads(site, chosen)) for site, chosen in heads.items())


def _with_heads(site: SiteName, heads: list[int]) -> SiteName:
    return SiteName(site.kind, site.layers, (("head", Index(tuple(sorted(heads)))),)) if heads else site


def is_head(node: str) -> bool:
    """Whether a node is an attention head (else it is an MLP)."""
    return parse(node).kind == HEADS
