"""One small transformer of our own: ground truth for circuit discovery runs on it, and it needs nothing but torch.

Every choice that a published architecture makes differently is a field of its `Spec`. Norms compute in the parameters'
own type, so that a float64 model is float64 throughout. Blocks get the residual stream first and everything else by name,
and return the stream alone, so that a run can go on from any of them; attention scores and pattern pass through modules
of their own, where they can be read and replaced.
"""

from dataclasses import dataclass
from typing import Any, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.nn.block import Attention, Block, norm_of
from optrode.nn.embed import OneHotPositions, TokenEmbedding
from optrode.nn.init import RULES, initialise
from optrode.nn.sites import table_of
from optrode.nn.spec import Spec

__all__ = ["INITS", "Attention", "Block", "Output", "Spec", "Transformer", "as_model", "build", "table_of"]

_BASE: Final = 10_000.0
"""Of the wavelengths of rotary positions."""
INITS: Final = ("random", "torch", *RULES)
"""What `build` can start from."""


@dataclass
class Output:
    """What the transformer returns: logits [batch, read, column]. A gate at the logits puts others in their place."""

    logits: Tensor


@final
class Transformer(nn.Module):
    """Embedding, blocks, unembedding.

    Attributes:
        config: the spec, under the name that transformers gives it.
    """

    def __init__(self, spec: Spec, items: Float[Tensor, "item d_item"] | None = None) -> None:
        super().__init__()
        self.config = spec
        self.embed = TokenEmbedding(spec, items)
        self.pos_embed = _position_embedding(spec)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.n_layers))
        self.final_norm = norm_of(spec)
        self.head = _head(spec) if spec.head_layers else None
        self.unembed = nn.Linear(spec.d_model, spec.n_columns, bias=spec.unembed_bias)

    def forward(
        self, input_ids: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_in"] | None = None,
        attention_mask: Int[Tensor, "batch pos"] | None = None, logits_to_keep: int | Int[Tensor, " read"] = 0,
        *, inputs_embeds: Float[Tensor, "batch pos d_in"] | None = None,
        position_ids: Int[Tensor, "#batch pos"] | None = None, **unused: Any,
    ) -> Output:  # fmt: skip
        """Logits [batch, read, column].

        Args:
            input_ids: token ids; vectors are taken as `inputs_embeds`.
            attention_mask: 0 at padding, which nobody looks at and which positions do not count.
            logits_to_keep: at the last so many positions (0: at all), or at these.
            inputs_embeds: vectors in place of token ids, read as `TokenEmbedding` says.
            position_ids: positions to embed in place of 0, 1, ...; sites' own positions still count from 0.

        Raises:
            BadOption: the prompt or a position is beyond the spec's `n_ctx`, vectors are not of the width that the model
                reads, or there are not either ids or vectors.
        """
        read = _one_of(input_ids, inputs_embeds)
        positions = self._positions(read, attention_mask) if position_ids is None else self._checked(position_ids)
        stream = self.embed(read)
        if self.pos_embed is not None:
            stream = stream + self.pos_embed(positions)
        around = {"closed": self._closed(read, attention_mask), "turn": self._turn(positions)}
        for block in self.blocks:
            stream = block(stream, **around)
        kept = slice(-logits_to_keep or None, None) if isinstance(logits_to_keep, int) else logits_to_keep
        end = self.final_norm(stream[:, kept])
        return Output(self.unembed(end if self.head is None else self.head(end)))

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.embed

    def get_output_embeddings(self) -> nn.Linear | None:
        """The unembedding, when it reads the residual stream; None where hidden layers stand between them."""
        return self.unembed if self.head is None else None

    def _positions(self, read: Tensor, mask: Tensor | None) -> Int[Tensor, "rows pos"]:
        """The position of each token: one row where all rows have the same."""
        n_pos, n_ctx = read.shape[1], self.config.n_ctx
        if n_pos > n_ctx:
            step = f"give prompts of at most {n_ctx} tokens"
            raise BadOption(f"a prompt of {n_pos} tokens", f"the model was built for n_ctx={n_ctx}", next_step=step)
        if mask is None:
            return torch.arange(n_pos, device=read.device)[None]
        return (mask.long().cumsum(1) - 1).clamp(min=0)

    def _checked(self, positions: Int[Tensor, "rows pos"]) -> Int[Tensor, "rows pos"]:
        """The caller's own positions, if the model has them."""
        low, high, n_ctx = int(positions.min()), int(positions.max()), self.config.n_ctx
        if low < 0 or high >= n_ctx:
            found = f"the model was built for n_ctx={n_ctx}"
            raise BadOption(f"position_ids from {low} to {high}", found, next_step=f"give positions from 0 to {n_ctx - 1}")
        return positions

    def _closed(self, read: Tensor, mask: Tensor | None) -> Bool[Tensor, "rows 1 pos src"]:
        """True where a position may not look."""
        n_pos = read.shape[1]
        later = torch.ones(n_pos, n_pos, dtype=torch.bool, device=read.device).triu(1)
        closed = (later if self.config.is_causal else torch.zeros_like(later))[None, None]
        return closed if mask is None else closed | ~mask.bool()[:, None, None]

    def _turn(self, positions: Int[Tensor, "rows pos"]) -> Float[Tensor, "2 rows pos half"] | None:
        """Cosine and sine of the angles that each position turns pairs of dimensions by."""
        if self.config.positions != "rotary":
            return None
        width, weight = self.config.head_width, self.embed.weight
        wavelengths = _BASE ** (torch.arange(0, width, 2, device=weight.device, dtype=torch.float64) / width)
        angles = positions[..., None] / wavelengths
        return torch.stack([angles.cos(), angles.sin()]).to(weight.dtype)


def as_model(module: Transformer, name: str = "transformer") -> Model:
    """The module with its table of sites."""
    return Model(module.eval(), table_of(module.config), name=name)


def build(
    spec: Spec, random_seed: int = 0, dtype: torch.dtype = torch.float32, *, init: str = "random",
    items: Float[Tensor, "item d_item"] | None = None,
) -> Transformer:  # fmt: skip
    """A transformer with weights drawn from a seed; the caller's random state is left alone.

    Args:
        init: "random" for ground truth, no bias 0 and no norm's gain 1, so that none of them can be left out unnoticed;
            "torch" as torch draws them; "lecun", "he" or "small", from which studies train (`nn/init.py`).
        items: [item, d_item] fixed features of the spec's items.

    Raises:
        BadOption: no such rule, or the spec has items and none or others are given.
    """
    if init not in INITS:
        raise BadOption(f"init={init!r}", "no such rule", nearest=nearest(init, INITS) or INITS)
    if spec.n_items and items is None:
        asked = f"a model of {spec.n_items} items"
        raise BadOption(asked, "no features are given", next_step="give items=, one row of features per item")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed)
        module = Transformer(spec, items).to(dtype)
        if init == "random":
            _blur(module)
    if init in RULES:
        initialise(module, init, random_seed)
    return module.eval()


def _blur(module: nn.Module) -> None:
    """Biases and gains away from the numbers at which they do nothing."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)


def _one_of(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    if (input_ids is None) == (inputs_embeds is None):
        found = "there is neither" if input_ids is None else "there are both"
        raise BadOption("input_ids or inputs_embeds", found, next_step="give one of them")
    read = input_ids if inputs_embeds is None else inputs_embeds
    assert read is not None
    return read


def _position_embedding(spec: Spec) -> nn.Embedding | OneHotPositions | None:
    if spec.positions == "learned":
        return nn.Embedding(spec.n_ctx, spec.d_model)
    return OneHotPositions(spec) if spec.positions == "one_hot" else None


def _head(spec: Spec) -> nn.Sequential:
    """The hidden layers before the unembedding; those after their ReLU are `module:head.1.out`, `module:head.3.out`, ..."""
    wide = [nn.Linear(spec.d_model, spec.d_model, bias=spec.unembed_bias) for _ in range(spec.head_layers)]
    return nn.Sequential(*(part for linear in wide for part in (linear, nn.ReLU())))
