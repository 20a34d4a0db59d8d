"""Blocks of a trained transformer, frozen, between a new embedding and a new readout, to see what they do by themselves.

Guo et al., arXiv 2310.10616, section 5: only what is new is trained, on a task that is simpler than the first.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.transformer import Transformer, as_model, build


def pasted(
    source: Transformer, layers: Sequence[int], random_seed: int, *, d_in: int | None = None, init: str = "torch"
) -> Model:  # fmt: skip
    """A transformer of some of another's blocks, which stay as they are, with a fresh embedding, norm and unembedding.

    Args:
        layers: numbers of the blocks in the source, in the order in which they are to stand.
        d_in: width of the vectors that the new embedding reads; the source's by default.
        init: what the fresh weights start from; see `build`.

    Raises:
        BadOption: no block, or one that the source does not have.
    """
    n_layers = len(source.blocks)
    odd = [layer for layer in layers if not 0 <= layer < n_layers]
    if odd or not layers:
        found = f"the source has blocks 0 to {n_layers - 1}" if odd else "there is no block"
        raise BadOption(f"blocks {list(layers)}", found, next_step="name blocks that the source has")
    spec = replace(source.config, n_layers=len(layers), d_in=source.config.d_in if d_in is None else d_in)
    module = build(spec, random_seed, init=init)
    module.blocks = nn.ModuleList(copy.deepcopy(source.blocks[layer]) for layer in layers)
    module.blocks.requires_grad_(False)
    return as_model(module, f"blocks {', '.join(map(str, layers))}")
