"""Three nested logits that learn in turn: a model of abrupt learning in the spirit of Reddy, arXiv 2312.03002.

It is a reconstruction from memory, not the paper's equation. Layer 1 finds the item before each label with gain beta among
c competitors, layer 2 finds the right label with gain alpha times that, and the classifier prefers what was found with gain
xi:

    q1 = e^beta / (e^beta + c)
    q2 = e^(alpha q1) / (e^(alpha q1) + N - 1)
    loss = -ln [ e^(xi q2) / (e^(xi q2) + (N - 1) e^(xi (1 - q2) / (N - 1)) + L - N) ]

With all gains 0 the loss is ln L, and its slope along xi is -(1/N - 1/L): nothing pulls where all labels are in context.
"""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optrode.errors import BadOption
from optrode.model.model import Model


@final
class Nested(nn.Module):
    """Several independent runs of the model side by side.

    Attributes:
        n_pairs: [run] N, pairs in context.
        n_labels: [run] L, labels in all.
        n_competing: [run] c, keys that layer 1 has to tell from the right one.
        gains: [run, 3] beta, alpha, xi.
    """

    n_pairs: Tensor
    n_labels: Tensor
    n_competing: Tensor

    def __init__(
        self, sizes: Sequence[tuple[int, int]], start: Float[Tensor, "run 3"], n_competing: float | int | None = None
    ) -> None:
        """Args:
            sizes: (N, L) of each run.
            start: the gains to begin with.
            n_competing: None for N.

        Raises:
            BadOption: fewer labels than pairs, or not one start per run.
        """
        super().__init__()
        if not sizes or any(n < 2 or wide < n for n, wide in sizes):
            found = "a context has at least 2 pairs, of different labels"
            raise BadOption(f"(N, L) = {tuple(sizes)}", found, next_step="give 2 <= N <= L")
        if len(start) != len(sizes):
            raise BadOption(f"{len(start)} starts", f"there are {len(sizes)} runs", next_step="give a row of gains for each")
        pairs, labels = torch.tensor(sizes, dtype=torch.float64).T
        self.register_buffer("n_pairs", pairs)
        self.register_buffer("n_labels", labels)
        self.register_buffer("n_competing", pairs if n_competing is None else torch.full_like(pairs, n_competing))
        self.gains = nn.Parameter(start.double().clone())

    def forward(self) -> Float[Tensor, " run"]:
        """Loss of each run, in nats."""
        beta, alpha, xi = self.gains.unbind(1)
        others = self.n_pairs - 1
        q1 = torch.sigmoid(beta - self.n_competing.log())
        q2 = torch.sigmoid(alpha * q1 - others.log())
        logits = [xi * q2, xi * (1 - q2) / others + others.log(), (self.n_labels - self.n_pairs).log()]
        total = torch.stack(logits).logsumexp(0)
        found: Tensor = total - logits[0]
        return found


def nested(sizes: Sequence[tuple[int, int]], start: Float[Tensor, "run 3"], n_competing: float | int | None = None) -> Model:
    """`Nested` as a model that can be trained with `op.train`."""
    return Model(Nested(sizes, start, n_competing), name="nested logits")


def summed(model: Model, batch: None) -> Tensor:
    """The loss of all runs together: their gradients do not meet, so that each goes its own way."""
    total: Tensor = model().sum()
    return total
