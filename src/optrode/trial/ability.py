"""What a model's trials can share: tried out on its own plain run, so that no family has to be trusted."""

import torch
from torch import Tensor

from optrode.errors import OptrodeError
from optrode.trial.blocks import starting_at
from optrode.trial.packed import Packer
from optrode.trial.plan import Abilities
from optrode.trial.reach import Strip
from optrode.trial.tail import logits_of
from optrode.trial.worlds import read_logits


def abilities(packer: Packer, world: str) -> Abilities:
    """Run one prompt of the task without gates in each way, and compare with the plain run."""
    if not packer.blocks:
        return Abilities(packs=False, restarts=False, reason=packer.refusal() or "")
    why_not = _restart_differs(packer, world)
    if why_not:
        return Abilities(packs=False, restarts=False, reason=why_not)
    why_not = packer.refusal() or _pack_differs(packer, world)
    return Abilities(packs=not why_not, restarts=True, reason=why_not or "")


def _restart_differs(packer: Packer, world: str) -> str | None:
    """Go on from the middle of the model."""
    worlds, layer = packer.worlds, len(packer.blocks) // 2
    walk = worlds.walk(world, 0)
    if len(walk.streams) != len(packer.blocks):
        return f"a pass goes through {len(walk.streams)} blocks, not {len(packer.blocks)}"
    with torch.no_grad(), starting_at(packer.blocks, layer, walk.before(layer)[:1], walk):
        found = read_logits(packer.model, worlds.inputs(world, 0)[:1], worlds.positions(0))
    return _differ(f"a run from block {layer} on", found, worlds.logits(world, 0)[:1])


def _pack_differs(packer: Packer, world: str) -> str | None:
    """Run the second half of the first prompt, and all of the last one, as if a gate had changed something there."""
    worlds = packer.worlds
    last = len(worlds.groups) - 1
    middle = min(worlds.length(0) // 2, *worlds.positions(0)) if packer.model.table.is_causal else 0
    strips = [
        Strip(0, world, 0, (0,), ((0, middle),), ()),
        Strip(1, world, last, (len(worlds.groups[last]) - 1,), ((0, 0),), ()),
    ]
    try:
        logits = logits_of(packer, strips, packer.run(strips), None)
    except OptrodeError as error:
        return str(error)
    plain = [worlds.logits(world, strip.group)[list(strip.rows)] for strip in strips]
    differ = [_differ("a packed run", one, wanted) for one, wanted in zip(logits, plain, strict=True)]
    return next((why for why in differ if why), None)


def _differ(what: str, found: Tensor, wanted: Tensor) -> str | None:
    tolerance = min(0.05, 1000 * torch.finfo(wanted.dtype).eps) * float(wanted.abs().max())
    far = float((found - wanted).abs().max())
    return None if far <= tolerance else f"{what} gives logits that are off by {far:.2g}"
