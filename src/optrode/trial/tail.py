"""From residual streams after the last block to logits, through the model's own norm and head."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from optrode.site.tap import tapped
from optrode.trial.blocks import columns_head, reading, starting_at
from optrode.trial.kernels import fast, linears_of
from optrode.trial.memory import N_LOGITS
from optrode.trial.packed import Live, Packer
from optrode.trial.reach import Strip


@torch.no_grad()
def logits_of(
    packer: Packer, strips: Sequence[Strip], finals: Sequence[Tensor],
    columns: Sequence[int] | None,
) -> list[Tensor]:  # fmt: skip
    """Logits of each strip's final streams, [row, read, column].

    Args:
        finals: [row, read, d_model] each, what `Packer.run` returns.
        columns: which token ids; all of them for None.
    """
    width = len(columns) if columns and columns_head(packer.model.module) else _vocabulary(packer)
    found: list[Tensor] = []
    for some in _batches([final.shape[0] * final.shape[1] * width for final in finals]):
        found += _batch(packer, strips[some], finals[some], columns)
    return found


def _vocabulary(packer: Packer) -> int:
    return int(packer.worlds.logits("clean", 0).shape[-1])


def _batches(sizes: Sequence[int]) -> Iterator[slice]:
    start = total = 0
    for ix, size in enumerate(sizes):
        if ix > start and total + size > N_LOGITS:
            yield slice(start, ix)
            start, total = ix, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))


def _batch(
    packer: Packer, strips: Sequence[Strip], finals: Sequence[Tensor], columns: Sequence[int] | None
) -> list[Tensor]:
    model, n_layers = packer.model, len(packer.blocks)
    lives, at = [], 0
    for strip, final in zip(strips, finals, strict=True):
        reads = torch.tensor(packer.worlds.positions(strip.group), device=model.device)
        lives.append(Live(strip, 0, reads, slice(at, at := at + final.shape[0] * final.shape[1])))
    streams = torch.cat([final.flatten(0, 1) for final in finals])[:, None]
    head = columns_head(model.module)
    walk = packer.worlds.walk(strips[0].world, strips[0].group)
    with (
        starting_at(packer.blocks, n_layers, streams, walk), reading(model.module, columns),
        fast(linears_of([head] if head else [])),
        tapped(model, packer.taps(n_layers, lives)),
    ):  # fmt: skip
        logits = model.module(input_ids=torch.zeros(len(streams), 1, dtype=torch.long, device=model.device)).logits
    packer.tally.add(logits=logits.numel())
    return [logits[live.tokens, 0].unflatten(0, live.shape) for live in lives]
