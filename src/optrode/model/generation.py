"""The generation under way: how long its prompts are, which a pass alone does not say.

With a K/V cache the first pass is the prompt. Without one every pass looks like a prompt, and with beams there are more
rows than prompts. Whoever generates says so here, and scopes and latched gates mean the same in all these cases.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Int
from torch import Tensor


@final
@dataclass(frozen=True, eq=False)
class Generation:
    """One call of `generate`.

    Attributes:
        lengths: tokens of each prompt, without padding.
    """

    lengths: Int[Tensor, " prompt"]

    def by_row(self, n_rows: int) -> Int[Tensor, " row"] | None:
        """The prompt length of each row of a pass, beams of one prompt side by side; None if the rows are not ours."""
        n_beams, rest = divmod(n_rows, len(self.lengths))
        return None if rest or not n_beams else self.lengths.repeat_interleave(n_beams)


_UNDER_WAY: Final[ContextVar[Generation | None]] = ContextVar("generation", default=None)


@contextmanager
def generation(lengths: "Int[Tensor, ' prompt'] | list[int]") -> Iterator[Generation]:
    """Passes made inside belong to one generation from prompts of these lengths."""
    found = Generation(torch.as_tensor(lengths))
    token = _UNDER_WAY.set(found)
    try:
        yield found
    finally:
        _UNDER_WAY.reset(token)


def under_way() -> Generation | None:
    """The generation that passes made now belong to."""
    return _UNDER_WAY.get()
