"""Exact effects of edges by their definition: one edge, one run, written out with hooks. Slow, and for tests only."""

from contextlib import ExitStack

import torch

from optrode.circuit.edge.graph import Graph


def graph_of(model):
    table = model.table
    return Graph(table.n_layers, table.n_heads, table.n_kv_heads, "mlp_out" in table.places, table.is_parallel)


def writes_of(module, inputs):
    """Sender -> what it adds to the residual stream, [batch, pos, d_model]."""
    held = {}
    with ExitStack() as stack:
        def keep(name, tensor):
            held[name] = tensor.detach().clone()

        stack.callback(module.blocks[0].register_forward_pre_hook(lambda m, args: keep("embed", args[0])).remove)
        for layer, block in enumerate(module.blocks):
            stack.callback(block.attn.o.register_forward_pre_hook(lambda m, a, at=layer: keep(f"z{at}", a[0])).remove)
            if block.mlp is not None:
                stack.callback(block.mlp.register_forward_hook(lambda m, a, o, at=layer: keep(f"m{at}", o)).remove)
        logits = module(inputs).logits
    for layer, block in enumerate(module.blocks):
        width, z = module.config.head_width, held.pop(f"z{layer}")
        for head in range(module.config.n_heads):
            mine = slice(head * width, (head + 1) * width)
            held[f"a{layer}.h{head}"] = z[..., mine] @ block.attn.o.weight[:, mine].T
    return held, logits


def run_with(module, inputs, end, change):
    """Logits when one receiver alone reads `change` more than the residual stream. No norms."""
    with ExitStack() as stack:
        if end.kind == "logits":
            reader = module.final_norm
        elif end.kind == "mlp":
            reader = module.blocks[end.layer].mlp
        else:
            linear = getattr(module.blocks[end.layer].attn, end.kind)
            width = module.config.head_width
            mine = slice(end.head * width, (end.head + 1) * width)

            def projected(m, args, output):
                moved = output.clone()
                moved[..., mine] += change @ linear.weight[mine].T
                return moved

            stack.callback(linear.register_forward_hook(projected).remove)
            return module(inputs).logits
        stack.callback(reader.register_forward_pre_hook(lambda m, args: (args[0] + change,)).remove)
        return module(inputs).logits


@torch.no_grad()
def exact_effects(model, task, metric, ablation="resample"):
    """Edge name -> mean over pairs of m(clean, with the edge ablated) - m(clean)."""
    module, graph = model.module, graph_of(model)
    assert module.config.norm == "none" and task.length is not None
    read = list(metric.positions(task.pairs[0]))
    clean, corrupt = (torch.tensor([pair.world(world) for pair in task.pairs]) for world in ("clean", "corrupt"))
    before, logits = writes_of(module, clean)
    after = writes_of(module, corrupt)[0]
    base = metric.function(logits[:, read], task.pairs)
    effects = {}
    for receiver, sender in graph.ends:
        name = graph.senders[sender]
        change = (after[name] if ablation == "resample" else 0) - before[name]
        found = run_with(module, clean, graph.receiver_ends[receiver], change)
        effects[graph.name(len(effects))] = float((metric.function(found[:, read], task.pairs) - base).mean())
    return effects
