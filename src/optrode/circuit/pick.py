"""From site patterns to nodes, and random nodes of the same kinds as a control."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from optrode.axes import HEAD, POS
from optrode.circuit.nodes import HEADS, MLPS, all_nodes
from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.model.names import Index, SiteName, parse
from optrode.site.select import select_sites
from optrode.site.site import indices

_SELECT: Final = {HEADS: (HEAD, POS), MLPS: (POS,)}


def pick(model: Model, patterns: Iterable[str]) -> tuple[SiteName, ...]:
    """The nodes that patterns stand for, one name per head and per MLP; positions, where selected, stay selected.

    `blocks.*.attn.z[head=1|3, pos=-1]` is heads 1 and 3 of every layer at the last position, `blocks.2.attn.z` every
    head of layer 2.

    Raises:
        BadName, UnknownSite, SiteUnavailable: from the site names.
        BadOption: a pattern is neither of heads (attn.z) nor of MLPs (mlp_out), or selects more than heads and positions.
    """
    found: list[SiteName] = []
    for pattern in map(parse, patterns):
        _check(pattern)
        for site in select_sites(model, pattern):
            found += _single(model, site.name)
    return tuple(dict.fromkeys(found))


def _check(pattern: SiteName) -> None:
    if pattern.kind not in _SELECT:
        near = nearest(pattern.kind, _SELECT) or tuple(_SELECT)
        raise BadOption(
            f"node {pattern}", "a node is a head's or an MLP's output", nearest=near,
            next_step=f"write it like blocks.3.{HEADS}[head=6] or blocks.3.{MLPS}",
        )  # fmt: skip
    for axis, _ in pattern.select:
        if axis not in _SELECT[pattern.kind]:
            found = f"it selects on {axis}, and a node is whole but for its positions"
            raise BadOption(f"node {pattern}", found, nearest=_SELECT[pattern.kind])


def _single(model: Model, name: SiteName) -> list[SiteName]:
    """One name for each head."""
    if name.kind != HEADS:
        return [name]
    n_heads = model.table.n_heads
    chosen = name.index(HEAD)
    return [name.at(head=ix) for ix in (range(n_heads) if chosen is None else indices(name, HEAD, chosen, n_heads))]


def whole_node(node: SiteName) -> SiteName:
    """The node at all of its positions."""
    return replace(node, select=tuple((axis, index) for axis, index in node.select if axis != POS))


def by_site(nodes: Iterable[SiteName]) -> tuple[SiteName, ...]:
    """The same nodes, with heads of one layer and the same positions joined under one name: one gate each."""
    heads: dict[SiteName, list[int]] = {}
    for node in nodes:
        head = node.index(HEAD)
        rest = replace(node, select=tuple((axis, index) for axis, index in node.select if axis != HEAD))
        heads.setdefault(rest, []).extend([] if head is None or head.single is None else [head.single])
    return tuple(_joined(rest, chosen) for rest, chosen in heads.items())


def _joined(rest: SiteName, heads: list[int]) -> SiteName:
    return replace(rest, select=((HEAD, Index(tuple(sorted(heads)))), *rest.select)) if heads else rest


def every_node(model: Model) -> tuple[SiteName, ...]:
    """All nodes of the model as names."""
    return tuple(map(parse, all_nodes(model)))


def draw_like(
    chosen: Sequence[SiteName], pool: Sequence[SiteName], n: int, random_seed: int
) -> tuple[tuple[SiteName, ...], ...]:  # fmt: skip
    """`n` random sets with as many heads and as many MLPs as `chosen`, at its positions.

    They are drawn from the pool's nodes that were not chosen; from all of a kind where too few of it are left.
    """
    rng = random.Random(random_seed)
    taken = tuple(dict.fromkeys(map(whole_node, chosen)))
    return tuple(_redrawn(chosen, taken, pool, rng) for _ in range(n))


def _redrawn(
    chosen: Sequence[SiteName], taken: Sequence[SiteName], pool: Sequence[SiteName], rng: random.Random
) -> tuple[SiteName, ...]:  # fmt: skip
    stands_for: dict[SiteName, SiteName] = {}
    for kind in dict.fromkeys(node.kind for node in taken):
        old = [node for node in taken if node.kind == kind]
        every = [node for node in pool if node.kind == kind]
        rest = [node for node in every if node not in set(old)]
        stands_for |= zip(old, rng.sample(rest if len(rest) >= len(old) else every, len(old)), strict=True)
    return tuple(_at_positions(stands_for[whole_node(node)], node.index(POS)) for node in chosen)


def _at_positions(node: SiteName, pos: Index | None) -> SiteName:
    return node if pos is None else replace(node, select=(*node.select, (POS, pos)))
