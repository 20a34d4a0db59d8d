"""How a model's senders write to the residual stream and how its receivers read it, head by head, off its own weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optrode.circuit.edge.graph import Graph
from optrode.errors import BadOption, SiteUnavailable
from optrode.model.adapter import Place
from optrode.model.model import Model
from optrode.model.names import SiteName
from optrode.site.select import one_site
from optrode.site.site import Site, split

Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Wiring:
    """A model with its graph of edges.

    Attributes:
        model, graph: whose.
        per_query_head: every query head has a k and a v input of its own, though K/V are grouped.
    """

    model: Model
    graph: Graph
    per_query_head: bool = False

    @property
    def is_additive(self) -> bool:
        """Whether the residual stream is the plain sum of what senders write, with no norm on the way."""
        table = self.model.table
        return not table.is_post_norm and "ln1_post" not in table.places

    def site(self, kind: str, layer: int) -> Site:
        """A whole site of one layer."""
        return one_site(self.model, SiteName(kind).at(layer=layer))

    def end(self) -> Site:
        """The residual stream that the logits are read from."""
        return self.site("resid_post", self.graph.n_layers - 1)

    def write(self, layer: int, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row head pos d_model"]:
        """What each head adds before any norm of the attention's output; the output bias belongs to no head."""
        return torch.einsum("bthe,hed->bhtd", z, self.output_weights(layer))

    def output_weights(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """W_O, head by head."""
        weight, _ = _weights(self.model.submodule(self._place("attn.z", layer).path), f"attn.z of layer {layer}")
        by_head: Tensor = weight.unflatten(0, (self.graph.n_heads, -1))
        return by_head

    def input_weights(
        self, layer: int, part: str
    ) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head"] | None]:
        """W and bias of the q, k or v projection, for every head or K/V group, whatever else is fused with it.

        With `per_query_head` a group's k and v weights stand once for each of its query heads.
        """
        by_head, bias = self.grouped_weights(layer, part)
        copies = self.graph.n_heads // by_head.shape[0] if self.per_query_head and part != "q" else 1
        if copies == 1:
            return by_head, bias
        return by_head.repeat_interleave(copies, 0), None if bias is None else bias.repeat_interleave(copies, 0)

    def grouped_weights(
        self, layer: int, part: str
    ) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head"] | None]:
        """W and bias of the q, k or v projection as the model has them: k and v by K/V group."""
        place = self._place(f"attn.{part}", layer)
        weight, bias = _weights(self.model.submodule(place.path), f"attn.{part} of layer {layer}")
        return split(weight, place.view).transpose(0, 1), None if bias is None else split(bias[None], place.view)[0]

    def project(
        self, layer: int, part: str, normed: Float[Tensor, "row head pos d_model"], heads: Sequence[int]
    ) -> Float[Tensor, "row pos head d_head"]:
        """Some heads' q, k or v, each from an input of its own."""
        weight, bias = (None if part is None else part[list(heads)] for part in self.input_weights(layer, part))
        assert weight is not None
        found = torch.einsum("bhtd,hde->bthe", normed, weight)
        return found if bias is None else found + bias

    def input_norm(self, layer: int) -> Norm:
        """The norm between the residual stream and the q, k and v projections."""
        before, norm = self._place("attn_in", layer), self.model.table.places.get("ln1")
        is_norm = norm is not None and norm.path.replace("{L}", str(layer)) == before.path
        return _forward(self.model.submodule(before.path)) if is_norm else _same

    def write_norm(self, layer: int, half: str) -> Norm:
        """The norm of what a half of the block adds (Gemma, OLMo 2): half is "attn" or "mlp"."""
        kind = "ln1_post" if half == "attn" else "ln2_post"
        return self._module(kind, layer) if kind in self.model.table.places else _same

    def stream_norm(self, layer: int, half: str) -> Norm:
        """The norm of the residual stream itself after a half of the block (BERT)."""
        return self._module("ln1" if half == "attn" else "ln2", layer) if self.model.table.is_post_norm else _same

    def unnormed_write(self, layer: int) -> Site:
        """The attention's output before its norm, if it has one."""
        site = self.site("attn_out", layer)
        if "ln1_post" not in self.model.table.places:
            return site
        return _input_of(site)

    def stream_sums(self, layer: int) -> list[Site]:
        """The stream before its own norms, where it has any: after the attention and after the MLP."""
        if not self.model.table.is_post_norm:
            return []
        return [_input_of(self.site(kind, layer)) for kind in ("ln1", "ln2")]

    def widened(self) -> AbstractContextManager[None]:
        """A context in which the attention modules take a key and a value for every query head."""
        return _ungrouped(self._attentions) if self.per_query_head else nullcontext()

    @cached_property
    def _attentions(self) -> tuple[nn.Module, ...]:
        places = [self._place("attn.pattern", layer) for layer in range(self.graph.n_layers)]
        return tuple(self.model.submodule(place.path) for place in places)

    def _module(self, kind: str, layer: int) -> Norm:
        return _forward(self.model.submodule(self._place(kind, layer).path))

    def _place(self, kind: str, layer: int) -> Place:
        return self.model.place(SiteName(kind).at(layer=layer))


def wiring_of(model: Model, *, per_query_head: bool = False) -> Wiring:
    """A model's graph of edges.

    Args:
        per_query_head: give every query head a k and a v input of its own where K/V are grouped.

    Raises:
        SiteUnavailable: the model came through the generic route, or mixes heads in a way that has no edges.
        BadOption: its grouped keys cannot be told apart by query head.
    """
    table = model.table
    missing = [kind for kind in ("resid_pre", "attn_in", "attn.q", "attn.k", "attn.v", "attn.z") if kind not in table.places]
    if missing:
        raise SiteUnavailable(
            f"edges of {model.name}", f"the {table.family} route has no site {missing[0]}",
            next_step="edges need an architecture with a family file; `optrode models` lists them",
        )  # fmt: skip
    is_wide = per_query_head and table.n_kv_heads < table.n_heads
    if is_wide:
        _check_ungroupable(model)
    n_kv = table.n_heads if is_wide else table.n_kv_heads
    graph = Graph(table.n_layers, table.n_heads, n_kv, "mlp_out" in table.places, table.is_parallel)
    return Wiring(model, graph, is_wide)


def _check_ungroupable(model: Model) -> None:
    view = model.table.places["attn.k"].view
    attention = model.submodule(model.place(SiteName("attn.pattern").at(layer=0)).path)
    is_fused = view.start is not None or view.head_start is not None
    norm = getattr(getattr(attention, "k_norm", None), "weight", None)
    is_normed_whole = norm is not None and norm.numel() != model.table.d_head
    if is_fused or is_normed_whole or not hasattr(attention, "num_key_value_groups"):
        raise BadOption(
            f"per_query_head for {model.name}", "its attention takes keys by K/V group only",
            next_step="leave per_query_head out: k and v inputs are then those of groups",
        )  # fmt: skip


@contextmanager
def _ungrouped(modules: tuple[nn.Module, ...]) -> Iterator[None]:
    own: list[Any] = [module.num_key_value_groups for module in modules]
    try:
        for module in modules:
            module.num_key_value_groups = 1  # type: ignore[assignment]
        yield
    finally:
        for module, number in zip(modules, own, strict=True):
            module.num_key_value_groups = number


def _weights(module: nn.Module, what: str) -> tuple[Float[Tensor, "d_in d_out"], Tensor | None]:
    """A projection's weight as [d_in, d_out] and its bias; transformers' Conv1D stores it so, nn.Linear transposed."""
    name = type(module).__name__
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if type(module) is nn.Linear:
        return module.weight.T, module.bias
    if name == "Conv1D" and isinstance(weight, Tensor):
        return weight, bias
    raise SiteUnavailable(
        f"weights at {what}", f"its projection is a {name}, whose weights cannot be taken apart by head",
        next_step="merge adapters and load the model unquantised",
    )  # fmt: skip


def _input_of(site: Site) -> Site:
    """What the module of a site is given."""
    return Site(site.name, Place(site.place.path, "in", site.place.view))


def _forward(module: nn.Module) -> Norm:
    """A norm's computation without its hooks: those of this run would take it for the run's own."""
    forward: Norm = module.forward
    return forward


def _same(tensor: Tensor) -> Tensor:
    return tensor
