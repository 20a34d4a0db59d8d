"""How much memory trials take, estimated before they run, and how many tokens may be in flight for it."""

from collections.abc import Iterable, Sequence
from typing import Final

import psutil
import torch

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.model.names import parse
from optrode.trial.blocks import blocks_of
from optrode.trial.worlds import Worlds

GIB: Final = 2**30
SHARE: Final = 0.5
"""Of the memory that is free, what trials may take by default."""

N_TOKENS: Final = {"cpu": 1280, "cuda": 16384}
"""Tokens in flight, about: enough for the processor to multiply at its full rate, and little enough for its caches."""

N_LOGITS: Final = 2**24
"""Logits computed at a time, at most, unless one trial's rows need more."""


def free_gib(model: Model) -> float:
    """Memory that is free on the model's device, in GiB."""
    if model.device.type == "cuda":
        return float(torch.cuda.mem_get_info(model.device)[0]) / GIB
    return float(psutil.virtual_memory().available) / GIB


def recorded_gib(worlds: Worlds, wanted: Iterable[tuple[str, str]], n_walks: int) -> float:
    """What it takes to hold recordings of (world, site) pairs and the walks, keys and values of `n_walks` worlds."""
    model, table = worlds.model, worlds.model.table
    wanted = set(wanted)
    widths = [_width(model, site) for _, site in wanted]
    per_walk = (table.n_layers + 1) * table.d_model + 2 * table.n_layers * table.n_kv_heads * table.d_head
    n_sources = len({world for world, _ in wanted})
    logits = sum(len(rows) * len(worlds.positions(group)) for group, rows in enumerate(worlds.groups)) * vocabulary(model)
    per_token = sum(widths) + n_walks * per_walk
    return (_tokens(worlds) * per_token + max(n_walks, n_sources) * logits) * _bytes(model) / GIB


def chunk_gib(worlds: Worlds, n_tokens: int, n_columns: int) -> float:
    """What a chunk with so many tokens in flight takes while it runs.

    In a block: the stream and a handful of its copies, the widest layer's input and output, the scores of attention, and
    once over the keys and values of all rows; after it: the logits and a few copies of them.
    """
    model, table = worlds.model, worlds.model.table
    longest = max(worlds.length(group) for group in range(len(worlds.groups)))
    per_token = 12 * table.d_model + 4 * _widest(model) + 3 * table.n_heads * longest
    keys = 4 * table.n_kv_heads * table.d_head * _tokens(worlds)
    logits = 4 * min(N_LOGITS, n_tokens * n_columns)
    return (n_tokens * per_token + keys + logits) * _bytes(model) / GIB


def n_tokens_within(worlds: Worlds, budget_gib: float, held_gib: float, sizes: Sequence[int], n_columns: int) -> int:
    """Tokens that may be in flight.

    Args:
        held_gib: taken by recordings.
        sizes: tokens of each trial; a trial is run whole.

    Raises:
        BadOption: the budget is too small for the recordings and one trial.
    """
    least = max(sizes, default=1)
    needed = held_gib + chunk_gib(worlds, least, n_columns)
    if needed > budget_gib:
        raise BadOption(
            f"{budget_gib:.3g} GiB of memory for task {worlds.task.name}",
            f"recordings take about {held_gib:.3g} GiB, and one trial {needed - held_gib:.3g} GiB",
            next_step=f"give memory_gib={1.1 * needed:.2g} or more, or fewer prompts",
        )  # fmt: skip
    n_tokens = max(least, N_TOKENS.get(worlds.model.device.type, N_TOKENS["cpu"]))
    while n_tokens > least and held_gib + chunk_gib(worlds, n_tokens, n_columns) > budget_gib:
        n_tokens = max(least, n_tokens // 2)
    return n_tokens


def vocabulary(model: Model) -> int:
    """How many logits a position has, as the module's config says; 0 where it does not."""
    return int(getattr(getattr(model.module, "config", None), "vocab_size", 0))


def _tokens(worlds: Worlds) -> int:
    return sum(len(rows) * worlds.length(group) for group, rows in enumerate(worlds.groups))


def _width(model: Model, site: str) -> int:
    name, table = parse(site), model.table
    if name.is_module:
        return table.d_model
    if name.kind.startswith("attn."):
        return (table.size(name.kind, "head") or 1) * table.d_head
    return table.size(name.kind, "feature") or _widest(model)


def _widest(model: Model) -> int:
    blocks = blocks_of(model)
    shapes = [p.shape[-2:] for p in blocks[0].parameters() if p.dim() > 1] if blocks else []
    return max((max(shape) for shape in shapes), default=model.table.d_model)


def _bytes(model: Model) -> int:
    return torch.finfo(model.dtype).bits // 8
