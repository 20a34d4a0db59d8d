"""What a small transformer reads: token ids, ids of items with fixed features, or vectors; and one-hot positions.

Token and position are each as wide as the residual stream, so that the stream is their sum: with one-hot positions a token
is 0 in the first n_ctx dimensions, a position 0 in the others.
"""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from optrode.errors import BadOption
from optrode.nn.spec import Spec


@final
class TokenEmbedding(nn.Embedding):
    """Token ids, or vectors in their place, as they enter the residual stream.

    Ids below `vocab` have a trained embedding. Ids from `vocab` up are items: `read_item` maps each item's fixed features to
    the stream (Singh et al., arXiv 2404.07129, exemplars of image classes). Vectors are mapped by `read_in`, or taken as
    they are where the spec has d_in = 0.

    Attributes:
        features: [item, d_item] what items are; a buffer, so that they are saved and hashed but never trained. NaN until
            they are given or loaded. None without items.
    """

    features: Tensor | None

    def __init__(self, spec: Spec, items: Float[Tensor, "item d_item"] | None = None) -> None:
        super().__init__(spec.vocab, spec.token_width)
        self.spec = spec
        self.read_in = nn.Linear(spec.d_in, spec.token_width, bias=spec.has_bias) if spec.d_in else None
        self.read_item = nn.Linear(spec.d_item, spec.token_width) if spec.n_items else None
        self.register_buffer("features", _features(spec, items) if spec.n_items or items is not None else None)

    def forward(
        self, read: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_in"]
    ) -> Float[Tensor, "batch pos d_model"]:  # fmt: skip
        """Token ids or vectors as vectors of the residual stream.

        Raises:
            BadOption: vectors of another width than the spec's.
        """
        if read.is_floating_point():
            part = self._of_vectors(read)
        else:
            part = self._of_ids(read) if self.read_item is not None else super().forward(read)
        before = self.spec.d_model - self.spec.token_width
        return nn.functional.pad(part, (before, 0)) if before else part

    def _of_vectors(self, vectors: Float[Tensor, "batch pos d_in"]) -> Float[Tensor, "batch pos token_width"]:
        expected = self.spec.d_in or self.spec.token_width
        if vectors.shape[-1] != expected:
            step = f"give vectors of width {expected}, or build the model with d_in={vectors.shape[-1]}"
            found = f"the model reads vectors of width {expected}"
            raise BadOption(f"inputs_embeds of shape {list(vectors.shape)}", found, next_step=step)
        part: Tensor = vectors if self.read_in is None else self.read_in(vectors)
        return part

    def _of_ids(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos token_width"]:
        assert self.features is not None and self.read_item is not None
        vocab = self.num_embeddings
        items = self.read_item(self.features[(ids - vocab).clamp(min=0)])
        return torch.where((ids >= vocab)[..., None], items, super().forward(ids.clamp(max=vocab - 1)))


@final
class OneHotPositions(nn.Module):
    """Each position as a one-hot vector in the first n_ctx dimensions of the residual stream; nothing is trained."""

    weight: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(spec.n_ctx, spec.d_model), persistent=False)

    def forward(self, positions: Int[Tensor, "rows pos"]) -> Float[Tensor, "rows pos d_model"]:
        """One row of the identity per position."""
        return nn.functional.embedding(positions, self.weight)


def _features(spec: Spec, items: Float[Tensor, "item d_item"] | None) -> Float[Tensor, "item d_item"]:
    if items is None:
        return torch.full((spec.n_items, spec.d_item), torch.nan)
    if tuple(items.shape) != (spec.n_items, spec.d_item):
        found = f"the spec has n_items={spec.n_items}, d_item={spec.d_item}"
        raise BadOption(f"items of shape {list(items.shape)}", found, next_step="give one row of features per item")
    if not bool(items.isfinite().all()):
        row = int((~items.isfinite()).any(1).nonzero()[0])
        raise BadOption(f"items of shape {list(items.shape)}", f"item {row} is not finite", next_step="give finite features")
    return items.detach().clone()
