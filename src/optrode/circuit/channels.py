"""Singular-vector channels of a head, edits along them, and what a later head's attention loses by them.

W_OV or W_QK = sum over i of s_i u_iᵀ v_i. The head reads its (normalised) input along u_i and, for OV, writes along v_i;
for QK it matches u_i on the query's side with v_i on the key's. One or a few such channels can carry what one head tells
another (Merullo et al., arXiv 2406.09519). An edit is a gate on the head's z: with v_i = c_i W_O and w_i = W_O v_iᵀ,

    z' = z + (f - 1) (z w_i) c_i,    so that    z' W_O = z W_O + (f - 1) (z W_O v_iᵀ) v_i,

scales what is written along v_i by f, and nothing else, without a d_model x d_model matrix. For QK the same is done to q,
with W_Kᵀ in the place of W_O.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from optrode.circuit.edge.wiring import Wiring, wiring_of
from optrode.circuit.heads import KINDS, factors_of, linear_part, singular
from optrode.circuit.nodes import HEADS
from optrode.circuit.pick import pick, whole_node
from optrode.errors import BadOption, nearest
from optrode.gate.gate import Gate
from optrode.gate.kinds import add, affine
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.model.names import SiteName
from optrode.provenance import Provenance, provenance
from optrode.site.recording import recording, run
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench, Progress, no_progress


@dataclass(frozen=True, eq=False)
class Channels:
    """The strongest singular components of one head's matrix.

    Attributes:
        head: site name, "blocks.3.attn.z[head=2]".
        kind: "ov" or "qk".
        values: [channel] singular values, descending.
        inputs: [channel, d_model] unit vectors u: what is read (OV), or read on the query's side (QK).
        outputs: [channel, d_model] unit vectors v: what is written, before any norm of the attention's output (OV), or what
            is read on the key's side (QK).
        share: the part of the matrix that these channels are, sum of s² over them / over all.
        is_folded: u (and for QK v) read the residual stream, with the norm's gain and centring folded in; else what the
            norm gives.
    """

    head: str
    kind: str
    values: Float[Tensor, " channel"]
    inputs: Float[Tensor, "channel d_model"]
    outputs: Float[Tensor, "channel d_model"]
    share: float
    is_folded: bool
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Inhibition:
    """Attention of a mover on a route, with channels of an earlier head taken out.

    Attributes:
        task, head, kind, mover: whose.
        route: the reading and the read position, by the names of marks or as numbers.
        plain: mean attention in the clean run.
        effects: [channel] mean change when that channel alone is taken out; positive: the channel keeps attention away.
        per_prompt: [channel][prompt].
        together: mean change when all of the channels are taken out at once.
    """

    task: str
    head: str
    kind: str
    mover: str
    route: tuple[str, str]
    plain: float
    effects: tuple[float, ...]
    per_prompt: tuple[tuple[float, ...], ...]
    together: float
    provenance: Provenance


def channels(
    model: Model, head: str, kind: str = "ov", n: int | None = None, *, fold_norm: bool = True
) -> Channels:  # fmt: skip
    """The `n` strongest channels of one head, of all d_head by default. No pass of the model is made.

    Args:
        head: site name of one head's output, "blocks.3.attn.z[head=2]".
        kind: "ov" or "qk"; rotary position embeddings are left out of QK.
        fold_norm: let u read the residual stream (but for its size) rather than the normalised one.

    Raises:
        BadOption: not one head, no such kind, or `n` out of range; norms that cannot be folded.
        BadName, UnknownSite, SiteUnavailable: from the head's name, or weights that cannot be taken apart by head.
    """
    if kind not in KINDS:
        raise BadOption(f"kind={kind!r}", "a head has the matrices OV and QK", nearest=nearest(kind, KINDS) or KINDS)
    name, started, wiring = _one_head(model, head), time.monotonic(), wiring_of(model)
    layer, ix = _at(name)
    found = singular(factors_of(wiring, layer, kind, fold_norm=fold_norm, fold_write=False))
    rank = found.s.shape[-1]
    if n is not None and not 1 <= n <= rank:
        raise BadOption(f"n={n}", f"{name} has {rank} channels", nearest=(f"n={min(max(n, 1), rank)}",))
    s, kept = found.s[ix], slice(n)
    return Channels(
        head=str(name), kind=kind, values=s[kept], inputs=found.u[ix, kept], outputs=found.v[ix, kept],
        share=float(s[kept].square().sum() / s.square().sum()), is_folded=fold_norm,
        provenance=provenance(model.name, model.weights_hash, 0, time_s=time.monotonic() - started),
    )  # fmt: skip


def edit(
    model: Model, found: Channels, which: Sequence[int] | int, scale: float = 0.0, *, keep_constant: bool = True
) -> Gate:  # fmt: skip
    """A gate that scales what a head writes along some of its channels, or takes it out (0); the rest is as it was.

    For QK it scales what those channels add to the attention scores, on the query's side; exactly so where no rotary
    position embedding, no norm of q or k and no bias of k stands between.

    Args:
        which: indices of channels.
        scale: factor, 0 to take them out.
        keep_constant: leave what the head always writes there, whatever it reads (from biases), as it is, so that the
            rank-1 parts of the matrix and nothing else are scaled. False scales all that is written there.

    Raises:
        BadOption: no such channel, or channels of another model.
    """
    into, out_of, constant = _coordinates(model, found, which)
    weight = torch.eye(into.shape[0], dtype=into.dtype, device=into.device) + (scale - 1) * (into @ out_of)
    bias = (1 - scale) * (constant @ into @ out_of) if keep_constant else torch.zeros_like(constant)
    return affine(_site(found), weight.T.contiguous().to(model.dtype), bias.to(model.dtype))


def move(model: Model, found: Channels, which: Sequence[int] | int, by: Sequence[float] | float) -> Gate:
    """A gate that adds to what a head writes along some channels: `by` units of each unit vector v.

    Raises:
        BadOption: no such channel, not one number for each, channels of another model, or of QK, which writes nothing.
    """
    if found.kind != "ov":
        asked = f"move along {found.kind} of {found.head}"
        raise BadOption(asked, "only OV writes", next_step='use channels(..., kind="ov")')
    _, out_of, _ = _coordinates(model, found, which)
    amounts = torch.as_tensor(by, dtype=out_of.dtype, device=out_of.device).reshape(-1)
    if len(amounts) not in (1, len(out_of)):
        asked = f"{len(amounts)} amounts along {len(out_of)} channels"
        raise BadOption(asked, "each channel takes one", next_step="give one number, or one for each")
    return add(_site(found), (amounts.expand(len(out_of)) @ out_of).to(model.dtype))


def inhibition(
    model: Model, task: Task, found: Channels, mover: str, route: tuple[str | int, str | int], *,
    progress: Progress = no_progress, bench: Bench | None = None,
) -> Inhibition:  # fmt: skip
    """How much a later head's attention on a route changes when an earlier head's channels are taken out, one by one.

    Costs one pass, and one more for each channel and for all together.

    Args:
        mover: site name of the later head's output.
        route: (reading position, read position), names of the pairs' marks or numbers: ("end", "io").

    Raises:
        BadOption: not one head, one that does not come later, or a pair without a mark of the route.
        BadName, UnknownSite, SiteUnavailable: from the mover's name.
    """
    later = _one_head(model, mover)
    if _at(later)[0] <= _at(_one_head(model, found.head))[0]:
        asked = f"attention of {later} without channels of {found.head}"
        raise BadOption(asked, "it does not come later", next_step="give a head of a later layer as the mover")
    started, bench = time.monotonic(), bench or Bench(model, task)
    passes, n = bench.worlds.n_passes, len(found)
    held = [(), *((edit(model, found, ix),) for ix in range(n)), (edit(model, found, range(n)),)]
    rows = []
    for step, some in enumerate(held):
        rows.append(_attention(bench, later, route, some))
        progress("inhibition", step + 1, len(held))
    plain, *without, together = torch.stack(rows).double()
    return Inhibition(
        task=task.name, head=found.head, kind=found.kind, mover=str(later), route=(str(route[0]), str(route[1])),
        plain=float(plain.mean()), effects=tuple(float((one - plain).mean()) for one in without),
        per_prompt=tuple(tuple((one - plain).tolist()) for one in without), together=float((together - plain).mean()),
        provenance=provenance(
            model.name, model.weights_hash, task.random_seed, time_s=time.monotonic() - started,
            n_passes=bench.worlds.n_passes - passes,
        ),
    )  # fmt: skip


@torch.no_grad()
def _attention(
    bench: Bench, head: SiteName, route: tuple[str | int, str | int], held: Sequence[Gate]
) -> Float[Tensor, " prompt"]:  # fmt: skip
    """[prompt] attention of a head on a route in the clean run, with gates held."""
    layer, ix = _at(head)
    site = f"blocks.{layer}.attn.pattern[head={ix}]"
    found = torch.zeros(len(bench.task), dtype=bench.model.dtype)
    for group, members in enumerate(bench.worlds.groups):
        bench.worlds.n_passes += 1
        with gates(bench.model, *held), recording(bench.model, site) as seen:
            run(bench.model, bench.worlds.tokens("clean", group))
        pairs = bench.worlds.pairs(group)
        at, of = ([_position(pair, end) for pair in pairs] for end in route)
        found[list(members)] = seen[site][range(len(pairs)), 0, at, of].cpu()
    return found


def _position(pair: Pair, end: str | int) -> int:
    if isinstance(end, int):
        if not -pair.length <= end < pair.length:
            text = f"a prompt has {pair.length} tokens"
            raise BadOption(f"position {end} of a route", text, nearest=(str(pair.length - 1),))
        return end
    if end not in pair.marks:
        known = tuple(pair.marks)
        raise BadOption(f"mark {end!r} of a route", "a pair has no such mark", nearest=nearest(end, known) or known)
    return pair.marks[end]


def _coordinates(
    model: Model, found: Channels, which: Sequence[int] | int
) -> tuple[Float[Tensor, "d_head some"], Float[Tensor, "some d_head"], Float[Tensor, " d_head"]]:  # fmt: skip
    """(w, c, constant): z w is what is written along the channels, c in z writes them, z is constant without input."""
    wiring, name = wiring_of(model), _one_head(model, found.head)
    layer, ix = _at(name)
    fresh = factors_of(wiring, layer, found.kind, fold_norm=found.is_folded, fold_write=False)
    right = fresh.right[ix]
    outputs = found.outputs[_chosen(found, which)].to(right)
    if outputs.shape[1] != right.shape[1]:
        asked, text = f"channels of {found.head}", f"they have {outputs.shape[1]} features, {model.name} {right.shape[1]}"
        raise BadOption(asked, text, next_step="take them from this model")
    into = right @ outputs.T
    out_of = outputs @ torch.linalg.pinv(right)
    if not torch.allclose(out_of @ right, outputs, atol=1e-3):
        asked = f"channels of {found.head} in {model.name}"
        raise BadOption(asked, "its head does not write them", next_step="take them from this model, where s is not 0")
    return into, out_of, _constant(wiring, layer, ix, found)


def _constant(wiring: Wiring, layer: int, head: int, found: Channels) -> Float[Tensor, " d_head"]:
    """What z (or q) is of a head that reads nothing: from the projection's bias and, where it is folded in, the norm's."""
    weight, bias = wiring.input_weights(layer, "v" if found.kind == "ov" else "q")
    at = head * weight.shape[0] // wiring.model.table.n_heads
    norm = wiring.input_norm(layer)
    with torch.no_grad():
        read = weight.new_zeros(1, 1, weight.shape[1])
        if found.is_folded and linear_part(norm, wiring).gain is not None:
            read = norm(read)
        given = read[0, 0] @ weight[at]
    return (given if bias is None else given + bias[at].detach()).to(found.outputs.dtype)


def _chosen(found: Channels, which: Sequence[int] | int) -> list[int]:
    indices = [which] if isinstance(which, int) else list(which)
    odd = next((ix for ix in indices if not 0 <= ix < len(found)), None)
    if odd is not None or not indices or len(set(indices)) < len(indices):
        text = f"there are channels 0 to {len(found) - 1}, each to be named once"
        raise BadOption(f"channels {indices} of {found.head}", text, nearest=(str(len(found) - 1),))
    return indices


def _site(found: Channels) -> str:
    return found.head if found.kind == "ov" else found.head.replace(HEADS, "attn.q")


def _one_head(model: Model, name: str) -> SiteName:
    nodes = [whole_node(node) for node in pick(model, [name])]
    if len(nodes) != 1 or nodes[0].kind != HEADS:
        found = f"it stands for {len(nodes)} nodes" if len(nodes) != 1 else "it is no head"
        raise BadOption(f"one head at {name}", found, next_step=f"write it like blocks.3.{HEADS}[head=2]")
    return nodes[0]


def _at(name: SiteName) -> tuple[int, int]:
    """(layer, head)."""
    head = name.index("head")
    assert name.layers is not None and name.layers.single is not None and head is not None and head.single is not None
    return name.layers.single, head.single
