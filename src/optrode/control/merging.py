"""Gates merged into weights, where that is exact: the same module with other numbers, and no hook.

    site                                  moved into
    module:m.in, attn.z, mlp.post         the Linear m that reads there:  W <- W A, b <- b + W c
    module:m.out, attn.q, mlp.pre, ...    the Linear m that writes there: W <- A W, b <- A b + c
    attn_out, mlp_out                     the projection whose output that is
    resid_mid, resid_post, resid_pre      only what is added: the bias of the last projection that writes to the stream there
    an adapter beside a Linear            that Linear:  W <- W + B A, b <- b + c

for a gate h -> A h + c. Another map of the residual stream cannot be merged: the stream holds what all earlier blocks wrote,
and no weight of this block touches that.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optrode.control.adapter_import import Adapted
from optrode.control.flat_map import FlatMap, flat_map, refuse_conditional
from optrode.errors import BadGate, BadOption, CheckFailed
from optrode.gate.gate import Gate
from optrode.gate.place import check_value
from optrode.gate.place import gates as holding
from optrode.model.adapter import Place
from optrode.model.model import Model
from optrode.site.recording import Inputs, run
from optrode.site.select import select_sites
from optrode.site.site import Site

WRITERS: Final = {"attn_out": ("attn.z", "ln1_post"), "mlp_out": ("mlp.post", "ln2_post")}
"""What is added to the stream: the site that its projection reads, and the norm that some families put behind that."""

TOLERANCE: Final = {torch.float64: 1e-9, torch.float32: 1e-4}
"""How far merged logits may be from gated ones, in units of the largest; 0.05 in shorter types."""


@final
@dataclass(frozen=True, eq=False)
class WeightChange:
    """What becomes of one module's weights, in float64 on the CPU.

    Attributes:
        path: of the module.
        weight: [out, in] as it was.
        bias: [out] as it was; None where it has none.
        new_weight, new_bias: as they become; no bias stays none where nothing is added.
        is_embedding: whether the weight is a table of embeddings, [feature, token] here.
        scale_in, scale_out: factors by which the module's inputs or outputs are multiplied, where that is all that happens.
    """

    path: str
    weight: Float[Tensor, "out inside"]
    bias: Float[Tensor, " out"] | None
    new_weight: Float[Tensor, "out inside"]
    new_bias: Float[Tensor, " out"] | None
    is_embedding: bool = False
    scale_in: Float[Tensor, " inside"] | None = None
    scale_out: Float[Tensor, " out"] | None = None

    @property
    def is_scaling(self) -> bool:
        """Whether all that happens is that its inputs are multiplied, or its outputs, and not both."""
        if self.scale_in is None or self.scale_out is None:
            return False
        return bool((self.scale_in == 1).all()) or bool((self.scale_out == 1).all())


def merge(model: Model, gates: Sequence[Gate], *, inputs: Inputs | None = None) -> Model:
    """The model with gates merged into its weights: a copy, whose plain logits are the gated ones up to rounding.

    The given model stays as it is. Biases that a Linear did not have are new parameters of the copy: whoever saves its state
    must say so in the config that it is loaded with. Dropout between a projection and the stream is taken as in evaluation.

    Args:
        inputs: on which the merged logits are compared with the gated ones; random tokens when None.

    Raises:
        BadGate: a gate is conditional, not linear, or at a place where weights cannot do what it does; the message says why.
        CheckFailed: the merged logits are not the gated ones on these inputs.
        BadOption: there is no gate, or the model does not say what random tokens to take.
        GateShape, GateDtype, GateNotFinite, UnknownSite, SiteUnavailable: a gate does not fit the model.
    """
    changes = weight_changes(model, gates)
    name = f"{model.name} with {len(gates)} gate(s) merged"
    merged = Model(_changed_copy(model, changes), model.table, model.tokenizer, name)
    _prove(model, gates, merged, _inputs(model) if inputs is None else inputs)
    return merged


def weight_changes(model: Model, gates: Sequence[Gate]) -> tuple[WeightChange, ...]:
    """What gates do, as changes of weights, one for each module that changes.

    Raises:
        BadGate, BadOption, GateShape, GateDtype, GateNotFinite, UnknownSite, SiteUnavailable: as from `merge`.
    """
    if not gates:
        raise BadOption(f"merge into {model.name}", "there is no gate", next_step="give at least one")
    steps = [step for gate in gates for step in _steps(model, gate)]
    changes: dict[str, WeightChange] = {}
    for step in _in_order(steps):
        change = changes.get(step.path) or _unchanged(model.submodule(step.path), step.path)
        changes[step.path] = _apply(change, step)
    for change in changes.values():
        _refuse_shared(model, change)
    return tuple(changes.values())


@final
@dataclass(frozen=True, eq=False)
class Added:
    """What an adapter adds to weights: W <- W + weight, b <- b + bias, in float64."""

    weight: Float[Tensor, "out inside"]
    bias: Float[Tensor, " out"]


@final
@dataclass(frozen=True, eq=False)
class _Step:
    """One gate at one site, as a map at one side of one module.

    Attributes:
        rank: gates act in this order: on what a module reads (0), on what it writes (1), on what the module around it
            writes (2), and on the stream that this is added to (3).
    """

    path: str
    is_input: bool
    rank: int
    map: FlatMap | Added


def _in_order(steps: Sequence[_Step]) -> list[_Step]:
    """From the weights outwards: what acts first on the outputs is next to them, as is what acts last on the inputs.

    The inputs come last: an adapter, which is added to the weights at its turn among the outputs, reads what they become.
    """
    inputs = [step for step in steps if step.is_input]
    return sorted((step for step in steps if not step.is_input), key=lambda step: step.rank) + inputs[::-1]


def _steps(model: Model, gate: Gate) -> Iterator[_Step]:
    for site in select_sites(model, gate.site):
        check_value(model, gate, site)
        if isinstance(gate.actuator, Adapted):
            yield _added(model, gate, gate.actuator, site)
            continue
        path, is_input, rank = _target(model, gate, site)
        found = flat_map(gate, site, _width(model.submodule(path), is_input))
        if rank == 3 and not found.is_shift:
            raise _refused(
                gate, site, "the residual stream holds what all earlier blocks wrote, which no weight of this block touches",
                "only op.add can be merged there; put others at attn_out and mlp_out of each block that writes",
            )  # fmt: skip
        yield _Step(path, is_input, rank, found)


def _added(model: Model, gate: Gate, adapter: Adapted, site: Site) -> _Step:
    """An adapter beside the Linear that it reads with is one with its weights."""
    refuse_conditional(gate, site)
    place = site.place
    own = f"module:{place.path}.in"
    is_beside = place.port == "out" and str(adapter.reads_at) == own and not site.name.select
    if not is_beside or not _is_linear(model.submodule(place.path), place):
        step = "hold it with op.gates"
        raise _refused(gate, site, f"it is not beside a Linear that reads the same ({own})", step)
    up, down = adapter.up.detach().cpu().double(), adapter.down.detach().cpu().double()
    bias = torch.zeros(len(up), dtype=torch.float64) if adapter.bias is None else adapter.bias.detach().cpu().double()
    return _Step(place.path, False, 1, Added(gate.strength * (up @ down), gate.strength * bias))


def _target(model: Model, gate: Gate, site: Site) -> tuple[str, bool, int]:
    """The module whose weights do what the gate does, the side of it, and the rank of the step."""
    place, kind = site.place, site.name.kind
    if place.how == "port" and _is_linear(model.submodule(place.path), place):
        return place.path, place.port == "in", 0 if place.port == "in" else 1
    if kind in WRITERS:
        return _writer(model, gate, site, kind), False, 2
    if kind in ("resid_mid", "resid_post", "resid_pre"):
        return _stream_writer(model, gate, site), False, 3
    found = f"no Linear reads or writes there alone ({_what_is_there(model, place)})"
    step = "attn.result is attn.z through one projection: make it at attn.z" if kind == "attn.result" else ""
    raise _refused(gate, site, found, step or "make it where a Linear reads or writes: attn.z, mlp.post, attn_out, mlp_out")


def _what_is_there(model: Model, place: Place) -> str:
    if place.how != "port":
        return f"it is the {place.how} of {place.path or 'the model'}"
    return f"the module {place.path or 'itself'} is a {type(model.submodule(place.path)).__name__}"


def _writer(model: Model, gate: Gate, site: Site, kind: str) -> str:
    """The projection whose output a site of this kind is, in the site's layer."""
    reads, norm = WRITERS[kind]
    if norm in model.table.places:
        found = "this family puts a norm between the projection and the stream"
        raise _refused(gate, site, found, "make it at the projection's own output: module:PATH.out")
    if reads not in model.table.places or model.table.places[reads].how != "port":
        raise _refused(gate, site, model.table.absent.get(reads, f"the model has no {reads}"), "hold it with op.gates")
    layer = "" if site.name.layers is None else str(site.name.layers)
    place = model.table.places[reads]
    path = place.path.replace("{L}", layer)
    if not _is_linear(model.submodule(path), replace(place, path=path)):
        found = f"what writes there is a {type(model.submodule(path)).__name__}"
        raise _refused(gate, site, found, "hold it with op.gates")
    return path


def _stream_writer(model: Model, gate: Gate, site: Site) -> str:
    """The last projection that writes to the stream before a site in it."""
    kind, layers = site.name.kind, site.name.layers
    layer = None if layers is None else layers.single
    if model.table.is_post_norm:
        found = "this family's norms are in the stream itself, after each sum"
        raise _refused(gate, site, found, "hold it with op.gates")
    if kind == "resid_pre" and layer == 0:
        found = "it would have to be added to every embedding, which mostly are the unembedding too"
        raise _refused(gate, site, found, "add it at blocks.0.resid_post, or hold it with op.gates")
    if layer is None:
        raise _refused(gate, site, "it is in no block", "hold it with op.gates")
    before = site.name.at(layer=layer - 1) if kind == "resid_pre" else site.name
    has_mlp = "mlp_out" in model.table.places
    return _writer(model, gate, Site(before, site.place), "mlp_out" if kind != "resid_mid" and has_mlp else "attn_out")


def _is_linear(module: nn.Module, place: Place) -> bool:
    """Whether a module does nothing but W h + b, in torch's own way or GPT-2's."""
    if isinstance(module, nn.Embedding):
        return place.port == "out" and type(module).forward is nn.Embedding.forward and module.max_norm is None
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward or is_transposed(module)


def is_transposed(module: nn.Module) -> bool:
    """Whether this is GPT-2's Linear, whose weight is [in, out]."""
    return type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils"


def _width(module: nn.Module, is_input: bool) -> int:
    return _weight(module).shape[1 if is_input else 0]


def _weight(module: nn.Module) -> Tensor:
    """[out, in]; of an embedding [feature, token]."""
    weight: Any = module.weight
    found: Tensor = weight.T if isinstance(module, nn.Embedding) or is_transposed(module) else weight
    return found.detach()


def _unchanged(module: nn.Module, path: str) -> WeightChange:
    weight = _weight(module).cpu().double()
    if isinstance(module, nn.Embedding):
        return WeightChange(path, weight, None, weight, None, is_embedding=True)
    own: Any = getattr(module, "bias", None)
    bias = None if own is None else own.detach().cpu().double()
    ones = (torch.ones(size, dtype=torch.float64) for size in weight.shape[::-1])
    return WeightChange(path, weight, bias, weight, bias, False, *ones)


def _apply(change: WeightChange, step: _Step) -> WeightChange:
    """The change with one map more."""
    found, weight, bias = step.map, change.new_weight, change.new_bias
    if isinstance(found, Added):
        new_bias = _shifted(bias, found.bias)
        return replace(change, new_weight=weight + found.weight, new_bias=new_bias, scale_in=None, scale_out=None)
    if change.is_embedding:  # what is added goes to each of its rows
        return replace(change, new_weight=found.after(weight) + found.bias[:, None])
    shift = weight @ found.bias if step.is_input else found.bias
    weight = found.before(weight) if step.is_input else found.after(weight)
    if bias is not None and not step.is_input:
        bias = found.after(bias[:, None])[:, 0]
    return _rescaled(replace(change, new_weight=weight, new_bias=_shifted(bias, shift)), found, step.is_input)


def _shifted(bias: Tensor | None, shift: Tensor) -> Tensor | None:
    if not bool(shift.any()):
        return bias
    return shift if bias is None else bias + shift


def _rescaled(change: WeightChange, found: FlatMap, is_input: bool) -> WeightChange:
    if change.scale_in is None or change.scale_out is None or not found.is_scaling:
        return replace(change, scale_in=None, scale_out=None)
    if is_input:
        return replace(change, scale_in=change.scale_in * found.weight)
    return replace(change, scale_out=change.scale_out * found.weight)


def _refuse_shared(model: Model, change: WeightChange) -> None:
    """A weight that two modules own, such as an embedding that is the unembedding too, cannot change for one of them."""
    module = model.submodule(change.path)
    pairs = {"weight": (change.weight, change.new_weight), "bias": (change.bias, change.new_bias)}
    for name, (old, new) in pairs.items():
        if old is None or new is None or torch.equal(old, new):
            continue
        own = getattr(module, name)
        owners = [path for path, one in model.module.named_modules() if any(p is own for p in one.parameters(recurse=False))]
        if len(owners) > 1:
            found = f"its {name} is shared by {' and '.join(owners)}, which would change too"
            raise BadGate(f"merge into {change.path} of {model.name}", found, next_step="hold the gate with op.gates")


def _changed_copy(model: Model, changes: Sequence[WeightChange]) -> nn.Module:
    for path, module in model.module.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            found = f"{path or 'it'} carries hooks, which a copy would carry for good"
            raise BadGate(f"merge into {model.name}", found, next_step="do it outside of op.gates, and without other hooks")
    whole = copy.deepcopy(model.module)
    for change in changes:
        _write(whole.get_submodule(change.path), change)
    return whole


@torch.no_grad()
def _write(module: Any, change: WeightChange) -> None:
    weight = module.weight
    if not torch.equal(change.weight, change.new_weight):
        is_turned = change.is_embedding or is_transposed(module)
        weight.copy_(change.new_weight.T if is_turned else change.new_weight)
    if change.new_bias is None:
        return
    if module.bias is None:
        module.bias = nn.Parameter(change.new_bias.to(weight.device, weight.dtype), requires_grad=weight.requires_grad)
    else:
        module.bias.copy_(change.new_bias)


def _prove(model: Model, gates: Sequence[Gate], merged: Model, inputs: Inputs) -> None:
    """Compare merged logits with gated ones, in evaluation mode; mode and gradients are as before afterwards."""
    with _evaluating(model.module), _evaluating(merged.module), torch.no_grad():
        with holding(model, *gates):
            gated = _answer(run(model, inputs))
        found = _answer(run(merged, inputs))
    gap = float((gated - found).abs().max() / gated.abs().max().clamp(min=1))
    if not gap <= TOLERANCE.get(model.dtype, 0.05):
        raise CheckFailed(
            f"merge into {model.name}", f"the merged logits differ from the gated ones by {gap:.2g} of the largest",
            next_step="hold the gates with op.gates: something else stands between these weights and their site",
        )  # fmt: skip


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(one, one.training) for one in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for one, mode in modes:
            one.training = mode


def _inputs(model: Model) -> Inputs:
    size = getattr(getattr(model.module, "config", None), "vocab_size", None)
    if not isinstance(size, int) or getattr(model.module, "main_input_name", "input_ids") != "input_ids":
        found = "it does not say what tokens it takes, to compare merged logits with gated ones"
        raise BadOption(f"merge into {model.name}", found, next_step="give inputs=")
    return torch.randint(size, (2, 4), generator=torch.Generator().manual_seed(0))


def _answer(output: Any) -> Tensor:
    for name in ("logits", "last_hidden_state"):
        if isinstance(getattr(output, name, None), Tensor):
            found: Tensor = getattr(output, name)
            return found
    if not isinstance(output, Tensor):
        found_kind = f"the model returned {type(output).__name__}, which holds no logits to compare"
        raise BadOption("merge", found_kind, next_step="load the part of it that returns a tensor")
    return output


def _refused(gate: Gate, site: Site, found: str, step: str) -> BadGate:
    return BadGate(f"into weights: {gate.at(site.name)}", found, next_step=step)
