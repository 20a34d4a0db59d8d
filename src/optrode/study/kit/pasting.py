"""Blocks of a trained transformer, frozen, between a new embedding and a new readout, to see what they do by themselves.

Guo et al., arXiv 2310.10616, section 5: only what is new is trained, on a task that is simpler than the first. The embedding
can be a linear map, or a linear map and blocks, which can copy from token to token before the pasted ones compute.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.transformer import Transformer, as_model, build


def pasted(
    source: Transformer, layers: Sequence[int], random_seed: int, *, n_fresh: int = 0, init: str = "torch"
) -> Model:  # fmt: skip
    """A transformer of some of another's blocks, which stay as they are, with a fresh embedding, norm and unembedding.

    Args:
        layers: numbers of the blocks in the source, in the order in which they are to stand.
        n_fresh: blocks of the embedding, before them.
        init: what the fresh weights start from; see `build`.

    Raises:
        BadOption: no block, or one that the source does not have.
    """
    n_layers = len(source.blocks)
    odd = [layer for layer in layers if not 0 <= layer < n_layers]
    if odd or not layers:
        found = f"the source has blocks 0 to {n_layers - 1}" if odd else "there is no block"
        raise BadOption(f"blocks {list(layers)}", found, next_step="name blocks that the source has")
    module = build(replace(source.config, n_layers=n_fresh + len(layers)), random_seed, init=init)
    frozen = [copy.deepcopy(source.blocks[layer]).requires_grad_(False) for layer in layers]
    module.blocks = nn.ModuleList([*list(module.blocks)[:n_fresh], *frozen])
    return as_model(module, f"blocks {', '.join(map(str, layers))}")
