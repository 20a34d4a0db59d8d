"""Edges by their definitions, on a forward pass written out: every receiver reads a tensor of its own, head by head.

    r_v = (sum of what was sent before v, with all biases) + sum over senders u of (1 - a_uv) (ablated u - u)

Nothing of the library's edge kit is used. Slow, and for tests only. As exact as the model's type: float64 in the tests,
norms too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from optrode.trial.prompts import Pair, Task


@dataclass(frozen=True)
class Layer:
    norm1: Callable
    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    norm2: Callable
    mlp: Callable | None


@dataclass(frozen=True)
class Net:
    """A model taken apart. `has_own_keys`: every query head reads its k and v from inputs of its own."""

    embed: Callable
    turn: Callable | None
    layers: tuple[Layer, ...]
    final: Callable
    unembed: torch.Tensor
    n_heads: int
    n_kv: int
    is_causal: bool = True
    is_parallel: bool = False
    has_own_keys: bool = False

    @property
    def senders(self):
        found = ["embed"]
        for ix, layer in enumerate(self.layers):
            found += [f"a{ix}.h{head}" for head in range(self.n_heads)] + ([f"m{ix}"] if layer.mlp else [])
        return found

    @property
    def n_keys(self):
        return self.n_heads if self.has_own_keys else self.n_kv

    @property
    def sights(self):
        """(receiver, senders before it), in the order in which edges are counted."""
        seen, found, letter = ["embed"], [], "h" if self.n_keys == self.n_heads else "g"
        for ix, layer in enumerate(self.layers):
            heads = [f"a{ix}.h{head}" for head in range(self.n_heads)]
            found += [(f"{head}.q", list(seen)) for head in heads]
            found += [(f"a{ix}.{letter}{key}.{part}", list(seen)) for part in "kv" for key in range(self.n_keys)]
            within = list(seen) if self.is_parallel else seen + heads
            seen += heads
            if layer.mlp:
                found.append((f"m{ix}", within))
                seen.append(f"m{ix}")
        return [*found, ("logits", list(seen))]

    @property
    def edges(self):
        """(sender, receiver)."""
        return [(sender, receiver) for receiver, seen in self.sights for sender in seen]


@dataclass
class Run:
    sent: dict = field(default_factory=dict)
    z: dict = field(default_factory=dict)
    reads: dict = field(default_factory=dict)
    logits: torch.Tensor | None = None


def net_of(module, has_own_keys=False):
    """`optrode.nn.transformer.Transformer`."""
    spec = module.config
    layers = tuple(
        Layer(
            _norm(block.ln1, spec), block.attn.q, block.attn.k, block.attn.v, block.attn.o, _norm(block.ln2, spec),
            None if block.mlp is None else _mlp(block.mlp, spec),
        )
        for block in module.blocks
    )  # fmt: skip

    def embed(ids):
        rows = module.embed.weight[ids]
        return rows if spec.positions != "learned" else rows + module.pos_embed.weight[: ids.shape[1]]

    def turn(x):
        half, n_pos = x.shape[-1] // 2, x.shape[1]
        angle = torch.arange(n_pos)[:, None] / 10_000 ** (torch.arange(half, dtype=torch.float64) / half)
        one, two, cos, sin = x[..., :half], x[..., half:], angle.cos(), angle.sin()
        return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)

    return Net(
        embed, turn if spec.positions == "rotary" else None, layers, _norm(module.final_norm, spec), module.unembed.weight,
        spec.n_heads, spec.n_kv, spec.is_causal, spec.is_parallel, has_own_keys,
    )  # fmt: skip


def net_of_llama(module, has_own_keys=False):
    """A Llama of transformers whose norms are `nn.RMSNorm`."""
    inner, config = module.model, module.config
    layers = tuple(
        Layer(
            one.input_layernorm.forward, one.self_attn.q_proj, one.self_attn.k_proj, one.self_attn.v_proj,
            one.self_attn.o_proj, one.post_attention_layernorm.forward, _llama_mlp(one.mlp),
        )
        for one in inner.layers
    )  # fmt: skip

    def turn(x):
        half, n_pos = x.shape[-1] // 2, x.shape[1]
        cos, sin = (part[0] for part in inner.rotary_emb(x, torch.arange(n_pos)[None]))
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    return Net(
        lambda ids: inner.embed_tokens.weight[ids], turn, layers, inner.norm.forward, module.lm_head.weight,
        config.num_attention_heads, config.num_key_value_heads, has_own_keys=has_own_keys,
    )  # fmt: skip


def _llama_mlp(mlp):
    def write(x):
        gate, up = x @ mlp.gate_proj.weight.T, x @ mlp.up_proj.weight.T
        return (gate * gate.sigmoid() * up) @ mlp.down_proj.weight.T

    return write


def _norm(norm, spec):
    if spec.norm == "none" or norm is None:
        return lambda x: x
    if spec.norm == "rms":
        return lambda x: x / (x.square().mean(-1, keepdim=True) + spec.eps).sqrt() * norm.weight

    def layer_norm(x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + spec.eps).sqrt() * norm.weight
        return scaled if norm.bias is None else scaled + norm.bias

    return layer_norm


def _mlp(mlp, spec):
    def write(x):
        hidden = _linear(mlp.up, x)
        half = hidden.clamp(min=0) if spec.activation == "relu" else hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        return _linear(mlp.down, half)

    return write


def _linear(linear, x, rows=slice(None)):
    found = x @ linear.weight[rows].T
    return found if linear.bias is None else found + linear.bias[rows]


def forward(net, ids, keep=None, ablated=None, held=None, detached=None):
    """One run.

    Args:
        keep: [row, receiver, sender] a; None for 1 everywhere.
        ablated: sender -> what it gives where it is ablated.
        held: sender -> what it gives instead of its own output, as a constant.
        detached: a layer whose heads and MLP no gradient goes through.
    """
    run, names, held = Run(), net.senders, held or {}
    receivers = [receiver for receiver, _ in net.sights]

    def send(name, value, layer=None):
        value = held.get(name, value)
        run.sent[name] = value.detach() if layer is not None and layer == detached or name in held else value
        return run.sent[name]

    def read(receiver, seen, plain):
        own = plain + 0
        for sender in seen if keep is not None else ():
            share = keep[:, receivers.index(receiver), names.index(sender)][:, None, None]
            own = own + (1 - share) * (ablated[sender] - run.sent[sender])
        run.reads[receiver] = own
        return own

    start = held["embed"] if "embed" in held else net.embed(ids)
    run.sent["embed"] = stream = start.detach().requires_grad_()
    sights = dict(net.sights)
    for ix, layer in enumerate(net.layers):
        before, bias = stream, 0 if layer.o.bias is None else layer.o.bias
        keys = {key: [_key(net, layer, ix, part, key, read, before, sights) for part in "kv"] for key in range(net.n_keys)}
        for head in range(net.n_heads):
            receiver = f"a{ix}.h{head}.q"
            width = layer.q.weight.shape[0] // net.n_heads
            mine = slice(head * width, (head + 1) * width)
            q = _turned(net, _linear(layer.q, layer.norm1(read(receiver, sights[receiver], before)), mine))
            k, v = keys[head // (net.n_heads // net.n_keys)]
            run.z[ix, head] = z = attention(net, q, k, v)
            stream = stream + send(f"a{ix}.h{head}", z @ layer.o.weight[:, mine].T, ix)
        stream = stream + bias
        if layer.mlp:
            receiver = f"m{ix}"
            seen = read(receiver, sights[receiver], before if net.is_parallel else stream)
            stream = stream + send(receiver, layer.mlp(layer.norm2(seen)), ix)
    run.logits = net.final(read("logits", sights["logits"], stream)) @ net.unembed.T
    return run


def _key(net, layer, ix, part, key, read, before, sights):
    receiver = f"a{ix}.{'h' if net.n_keys == net.n_heads else 'g'}{key}.{part}"
    linear, group = getattr(layer, part), key // (net.n_keys // net.n_kv)
    width = linear.weight.shape[0] // net.n_kv
    rows = slice(group * width, (group + 1) * width)
    found = _linear(linear, layer.norm1(read(receiver, sights[receiver], before)), rows)
    return _turned(net, found) if part == "k" else found


def _turned(net, x):
    return x if net.turn is None else net.turn(x)


def attention(net, q, k, v):
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    if net.is_causal:
        scores = scores.masked_fill(torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1) @ v


def gap(run, pairs):
    """[row] logit of the right answer minus that of the wrong one, after the last token."""
    return torch.stack([run.logits[ix, -1, p.right[0]] - run.logits[ix, -1, p.wrong[0]] for ix, p in enumerate(pairs)])


@dataclass(frozen=True)
class Group:
    """Pairs of one length, with both plain runs."""

    net: Net
    pairs: tuple[Pair, ...]
    metric: Callable = gap
    ablation: str = "resample"

    def ids(self, world):
        return torch.tensor([pair.world(world) for pair in self.pairs])

    def run(self, world="clean", **options):
        return forward(self.net, self.ids(world), **options)

    def value(self, **options):
        with torch.no_grad():
            return self.metric(self.run(**options), self.pairs)

    def ablated(self):
        with torch.no_grad():
            clean, corrupt = self.run().sent, self.run("corrupt").sent
        if self.ablation == "resample":
            return corrupt
        if self.ablation == "zero":
            return {name: torch.zeros_like(value) for name, value in clean.items()}
        return {name: value.mean(0, keepdim=True).expand_as(value) for name, value in clean.items()}

    def slopes(self, **options):
        """A run, and receiver -> gradient of each row's own metric."""
        run = self.run(**options)
        found = torch.autograd.grad(self.metric(run, self.pairs).sum(), list(run.reads.values()), allow_unused=True)
        pairs = zip(run.reads.items(), found, strict=True)
        return run, {name: torch.zeros_like(read) if slope is None else slope for (name, read), slope in pairs}

    def products(self, changes, slopes):
        """[row, edge] change of u times gradient at v, positions and features summed."""
        shares = [(changes[u] * slopes[v]).detach().sum((1, 2)) for u, v in self.net.edges]
        return torch.stack(shares, 1)

    def products_by_pos(self, changes, slopes):
        """[row, edge, pos] the same, features summed."""
        return torch.stack([(changes[u] * slopes[v]).detach().sum(2) for u, v in self.net.edges], 1)

    def changes(self):
        with torch.no_grad():
            own, ablated = self.run().sent, self.ablated()
        return {name: ablated[name] - own[name] for name in own}

    def ones(self):
        return torch.ones(len(self.pairs), len(self.net.sights), len(self.net.senders), dtype=torch.float64)

    def mask(self, kept):
        """[row, receiver, sender] of [edge] kept."""
        found, receivers = self.ones(), [receiver for receiver, _ in self.net.sights]
        for is_kept, (u, v) in zip(kept, self.net.edges, strict=True):
            found[:, receivers.index(v), self.net.senders.index(u)] = float(is_kept)
        return found


def _in_order(net, task: Task, function, **options):
    """[prompt, ...] of a function of a group."""
    found = {}
    for length in {pair.length for pair in task.pairs}:
        members = [ix for ix, pair in enumerate(task.pairs) if pair.length == length]
        values = function(Group(net, tuple(task.pairs[ix] for ix in members), **options))
        found |= dict(zip(members, values.detach().numpy(), strict=True))
    return np.stack([found[ix] for ix in range(len(task))])


def along_inputs(net, task, points, **options):
    """EAP at points between what enters the first block in the ablated run (0) and in the clean one (1)."""

    def of(group):
        changes, ablated, clean = group.changes(), group.ablated()["embed"], group.run().sent["embed"].detach()
        shares = [
            group.products(changes, group.slopes(held={"embed": ablated + point * (clean - ablated)})[1]) for point in points
        ]
        return torch.stack(shares).mean(0)

    return _in_order(net, task, of, **options)


def eap_by_pos(net, task, **options):
    """[prompt, edge, pos] EAP without the sum over positions."""
    return _in_order(net, task, lambda group: group.products_by_pos(group.changes(), group.slopes()[1]), **options)


def along_activations(net, task, n_steps, **options):
    """One site at a time, the embedding, a layer's heads, or an MLP, between ablated (0) and clean (1): k = 1..n_steps."""

    def of(group):
        changes, ablated, clean = group.changes(), group.ablated(), group.run().sent
        sites = [["embed"]]
        for ix, layer in enumerate(net.layers):
            sites += [[f"a{ix}.h{head}" for head in range(net.n_heads)]] + ([[f"m{ix}"]] if layer.mlp else [])
        shares = []
        for site in sites:
            for step in range(1, n_steps + 1):
                k = step / n_steps
                held = {name: (k * clean[name] + (1 - k) * ablated[name]).detach() for name in site}
                shares.append(group.products(changes, group.slopes(held=held)[1]))
        return torch.stack(shares).mean(0)

    return _in_order(net, task, of, **options)


def along_masks(net, task, points, **options):
    """Minus the mean of dm/da_e over points where every a is the same."""

    def of(group):
        receivers, ablated = [receiver for receiver, _ in net.sights], group.ablated()
        total = 0
        for point in points:
            keep = (group.ones() * point).requires_grad_()
            value = group.metric(group.run(keep=keep, ablated=ablated), group.pairs).sum()
            total = total - torch.autograd.grad(value, keep)[0] / len(points)
        return torch.stack([total[:, receivers.index(v), net.senders.index(u)] for u, v in net.edges], 1)

    return _in_order(net, task, of, **options)


def exact(net, task, **options):
    """m(clean, r_v gets the ablated u) - m(clean)."""

    def of(group):
        ablated, base = group.ablated(), group.value()
        every = np.ones(len(net.edges))
        one_off = [group.mask(every - (np.arange(len(every)) == edge)) for edge in range(len(every))]
        return torch.stack([group.value(keep=keep, ablated=ablated) - base for keep in one_off], 1)

    return _in_order(net, task, of, **options)


def circuits(net, task, masks, **options):
    """[circuit][prompt] metric with all edges outside a circuit ablated; masks may hold shares."""

    def of(group):
        ablated = group.ablated()
        return torch.stack([group.value(keep=group.mask(mask), ablated=ablated) for mask in masks], 1)

    return _in_order(net, task, of, **options).T


def with_attention_again(net, task, **options):
    """EAP, but for edges into q and k the head's z is computed again, and only what z does is linearised."""

    def of(group):
        changes = group.changes()
        run, slopes = group.slopes()
        shares = group.products(changes, slopes)
        later = group.run()
        z_slopes = torch.autograd.grad(group.metric(later, group.pairs).sum(), list(later.z.values()), allow_unused=True)
        at_z = dict(zip(later.z, z_slopes, strict=True))
        for edge, (sender, receiver) in enumerate(net.edges):
            if receiver.endswith((".q", ".k")):
                shares[:, edge] = _again(net, run, changes[sender], receiver, at_z)
        return shares

    return _in_order(net, task, of, **options)


@torch.no_grad()
def _again(net, run, change, receiver, at_z):
    ix, part = int(receiver[1 : receiver.index(".")]), receiver[-1]
    who = int(receiver.split(".")[1][1:])
    per_key = net.n_heads // net.n_keys
    heads = [who] if part == "q" else range(who * per_key, (who + 1) * per_key)
    total = 0
    for head in heads:
        moved = {"q": 0, "k": 0, "v": 0} | {part: change}
        q, k, v = (_projected(net, run, ix, one, head, moved[one]) for one in "qkv")
        slope = at_z[ix, head]
        total = total + (0 if slope is None else ((attention(net, q, k, v) - run.z[ix, head]) * slope).sum((1, 2)))
    return total


def _projected(net, run, ix, part, head, change):
    layer, key = net.layers[ix], head // (net.n_heads // net.n_keys)
    letter = "h" if part == "q" or net.n_keys == net.n_heads else "g"
    name, n = (f"a{ix}.h{head}.q", net.n_heads) if part == "q" else (f"a{ix}.{letter}{key}.{part}", net.n_kv)
    place = head if part == "q" else head // (net.n_heads // net.n_kv)
    linear = getattr(layer, part)
    width = linear.weight.shape[0] // n
    found = _linear(linear, layer.norm1(run.reads[name] + change), slice(place * width, (place + 1) * width))
    return found if part == "v" else _turned(net, found)


def with_drops(net, task, **options):
    """GradDrop: sum over layers of |EAP with that layer's outputs detached| / (L - 1), with the sign of EAP."""

    def of(group):
        changes = group.changes()
        plain = group.products(changes, group.slopes()[1])
        parts = [group.products(changes, group.slopes(detached=ix)[1]).abs() for ix in range(len(net.layers))]
        return plain.sign() * sum(parts) / (len(parts) - 1)

    return _in_order(net, task, of, **options)


def acdc(net, values_of, tau):
    """Edges that stay, tested one by one, the last counted first. `values_of(mask)` gives [prompt] metrics."""
    kept = np.ones(len(net.edges), dtype=bool)
    full = values_of(kept)
    current = 0.0
    for edge in reversed(range(len(kept))):
        trial = kept.copy()
        trial[edge] = False
        distance = float(np.abs(full - values_of(trial)).mean())
        if distance - current < tau:
            kept, current = trial, distance
    return kept
