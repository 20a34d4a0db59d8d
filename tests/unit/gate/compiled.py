"""Gates on compiled modules, in a process of their own: the tests' checker of annotations cannot be compiled.

Prints JSON: case -> what came of it. Arguments: backend; "looks" or "default" (whether compiled code looks for hooks); and
"few" or "all" cases.
"""

import json
import sys

import torch
import torch._dynamo

import optrode as op
from optrode.errors import OptrodeError
from optrode.model.source import from_source
from tests.unit.gate.models import TOKENS, loss_of, own

BACKEND, LOOKS, N_CASES = sys.argv[1], sys.argv[2] == "looks", sys.argv[3]
torch._dynamo.config.skip_nnmodule_hook_guards = not LOOKS
GATES = {
    "head": lambda: op.zero("blocks.0.attn.z[head=1]"),
    "pattern": lambda: op.clamp("blocks.1.attn.pattern", 0.1),
    "middle": lambda: op.scale("blocks.0.resid_mid", 0.5),
    "first pass": lambda: op.patch("blocks.1.attn.pattern", op.first_pass(op.scale("embed", 0.5))),
    "reads": lambda: op.compute("blocks.1.mlp_out", lambda h, p: h * p["blocks.0.mlp_out"], reads="blocks.0.mlp_out"),
    "scheduled": lambda: op.scale("blocks.0.mlp_out", 0.3, when=op.when(until=2)),
}


def fresh():
    torch._dynamo.reset()
    return own(torch.float32)


def near(one, two):
    return bool(torch.allclose(one, two, atol=1e-5))


def whole(model):
    """The module compiled in place, and run before."""
    model.module.compile(backend=BACKEND)
    model.module(TOKENS)
    return model.module


def wrapped(model):
    """torch.compile around it, and run before."""
    compiled = torch.compile(model.module, backend=BACKEND)
    compiled(TOKENS)
    return compiled


def first_inside(model):
    """Compiled by the first call with the gate held."""
    return torch.compile(model.module, backend=BACKEND)


def block(model):
    """One block compiled, and run before."""
    model.module.blocks[1].compile(backend=BACKEND)
    model.module(TOKENS)
    return model.module


WAYS = (whole, wrapped, first_inside, block)


def logits_of(call):
    return call(TOKENS).logits.detach()


def case(name, way):
    """Whether the gate acted, was gone afterwards, and another one acted on the same compiled code."""
    make, other = GATES[name], op.scale("blocks.1.resid_pre", 3.0)
    eager = fresh()
    plain = logits_of(eager.module)
    with op.gates(eager, make()):
        gated = logits_of(eager.module)
    with op.gates(eager, other):
        scaled = logits_of(eager.module)
    model = fresh()
    call = way(model)
    found = {}
    acts = [("acts", make(), gated), ("other acts", other, scaled), ("acts again", make(), gated)]
    for key, gate, expected in acts[:2] if N_CASES == "few" else acts:
        try:
            with op.gates(model, gate):
                value = logits_of(call)
            found[key] = near(value, expected)
        except OptrodeError as error:
            found[key] = str(error)
        found["gone" if key == "acts" else f"gone after {key}"] = near(logits_of(call), plain)
    return found


def training(model, compiled):
    """Weights after four steps with a gate in the first two."""
    call = torch.compile(model.module, backend=BACKEND) if compiled else model.module
    optimizer = torch.optim.SGD(model.module.train().parameters(), lr=0.1)
    ending = op.zero("blocks.0.attn.z[head=1]", when=op.when(until=2))
    rising = op.scale("blocks.1.mlp_out", 0.5, when=op.when(ramp=3))
    with op.gates(model, ending, rising, optimizer=optimizer):
        for _ in range(4):
            optimizer.zero_grad()
            logits = call(TOKENS).logits
            torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()).backward()
            optimizer.step()
    return dict(model.module.state_dict())


def trained_alike():
    one, two = training(fresh(), True), training(fresh(), False)
    loss_of(fresh())
    return all(near(value, two[name]) for name, value in one.items())


def loaded():
    """A compiled module that was loaded, its sites reached by module path."""
    compiled = torch.compile(fresh().module, backend=BACKEND)
    plain = logits_of(compiled)
    try:
        with op.gates(from_source(compiled), op.scale("module:_orig_mod.blocks.0.out", 2.0)):
            changed = not near(logits_of(compiled), plain)
    except OptrodeError as error:
        changed = str(error)
    return {"acts": changed, "gone": near(logits_of(compiled), plain)}


if __name__ == "__main__":
    few = (("head", whole), ("first pass", wrapped))
    chosen = few if N_CASES == "few" else tuple((name, way) for name in GATES for way in WAYS)
    found = {f"{name}, {way.__name__}": case(name, way) for name, way in chosen} | {"loaded": loaded()}
    if LOOKS and N_CASES == "all":
        found["trained alike"] = trained_alike()
    json.dump(found, sys.stdout)
