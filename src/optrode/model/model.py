"""A Model is the user's own module, never edited, with a table of named sites and, for text, a tokenizer."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from optrode.errors import BadOption, SiteUnavailable, UnsupportedArchitecture, nearest
from optrode.model.adapter import ORDER, Place, Table, View
from optrode.model.generation import generation
from optrode.model.names import SiteName

Text = str | Sequence[str]
Tokens = Sequence[int] | Sequence[Sequence[int]] | Tensor

_SAMPLED: Final = 8
"""Numbers of each tensor that are compared to see whether it was changed."""

GENERIC: Final = Table(
    family="generic", n_layers=0, d_model=0, n_heads=0, n_kv_heads=0, d_head=0, is_causal=False, is_parallel=False,
    places={},
)  # fmt: skip
"""The table of a module that no family describes: only `module:` sites."""


@dataclass(frozen=True)
class Batch:
    """Prompts as the model takes them, padded on the right.

    Attributes:
        token_ids: [batch, pos].
        mask: [batch, pos], true at real tokens; None when no row is padded.
    """

    token_ids: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of real tokens of each row."""
        n_rows, n_pos = self.token_ids.shape
        return (n_pos,) * n_rows if self.mask is None else tuple(int(n) for n in self.mask.sum(1))

    def arguments(self) -> dict[str, Tensor]:
        """Keyword arguments for a transformers forward."""
        return {"input_ids": self.token_ids} | ({} if self.mask is None else {"attention_mask": self.mask.long()})


@final
class Model:
    """The user's module with its table of sites.

    Attributes:
        module: the module itself; hooks are placed on it only while something is recorded or gated.
        table: site kind -> place, from a family file (or `GENERIC`).
        tokenizer: a Hugging Face tokenizer, or None.
        name: how the model was asked for.
    """

    def __init__(self, module: nn.Module, table: Table = GENERIC, tokenizer: Any = None, name: str = "module") -> None:
        self.module, self.table, self.tokenizer, self.name = module, table, tokenizer, name
        self._hashed: tuple[tuple[tuple[str, int, int, tuple[float, ...]], ...], str] | None = None

    def __repr__(self) -> str:
        size = f"{sum(p.numel() for p in self.module.parameters()):,} parameters"
        table = self.table
        shape = f", {table.n_layers} layers, {table.n_heads} heads, d_model {table.d_model}" if table.n_layers else ""
        return f"Model({self.name!r}, {table.family}{shape}, {size})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module. A text or list of texts is tokenised first."""
        if args and (isinstance(args[0], str) or _is_texts(args[0])):
            return self.module(*args[1:], **self.batch(args[0]).arguments(), **kwargs)
        return self.module(*args, **kwargs)

    @cached_property
    def device(self) -> torch.device:
        """Device of the first parameter (the input's device when a model spans several)."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the first floating parameter."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.get_default_dtype())

    @property
    def weights_hash(self) -> str:
        """SHA-256 over the names and bytes of all parameters and buffers, as they are now.

        It is made anew only when a tensor was replaced, written to by torch, or differs at a few places, since fused
        optimisers write unnoticed. An edit of single weights through `.data` or NumPy may go unnoticed.
        """
        state = self.module.state_dict()
        stamp = tuple((name, tensor.data_ptr(), tensor._version, _sample(tensor)) for name, tensor in state.items())
        if self._hashed is None or self._hashed[0] != stamp:
            self._hashed = stamp, _hash_of(state)
        return self._hashed[1]

    def site_names(self) -> tuple[SiteName, ...]:
        """Every named site, in the order of the computation, one name per layer."""
        table = self.table
        kinds = sorted(table.places, key=ORDER.index)
        stem = [SiteName(kind) for kind in kinds if not table.in_block(kind)]
        blocks = [
            SiteName(k).at(layer=layer) for layer in range(table.n_layers) for k in kinds if table.in_block(k)
        ]
        ends = ("final_norm", "logits")
        return (*(n for n in stem if n.kind not in ends), *blocks, *(n for n in stem if n.kind in ends))

    def place(self, name: SiteName) -> Place:
        """Where a named or module site is, with its layer filled in.

        Raises:
            SiteUnavailable: this architecture does not have the site, with the reason.
        """
        if name.is_module:
            path, _, port = name.kind.removeprefix("module:").rpartition(".")
            return Place(path, "in" if port == "in" else "out", View(axes=()))
        if name.kind in self.table.absent:
            raise SiteUnavailable(f"site {name}", self.table.absent[name.kind], next_step="see model.site_names()")
        place = self.table.places[name.kind]
        layer = "" if name.layers is None else str(name.layers)
        return Place(place.path.replace("{L}", layer), place.port, place.view, place.how, place.added.replace("{L}", layer))

    # Text. Names are TransformerLens's, so that its users find them.

    def to_tokens(self, text: Text) -> Int[Tensor, "batch pos"]:
        """Token ids of one or more texts, right-padded. No special token is added."""
        return self.batch(text).token_ids

    def to_str_tokens(self, text: str | Sequence[int]) -> tuple[str, ...]:
        """Each token of a text (or of token ids) as the text it stands for."""
        ids = self._encode(text) if isinstance(text, str) else text
        return tuple(self._tokenizer().decode([int(i)]) for i in ids)

    def to_string(self, token_ids: Sequence[int] | Tensor) -> str:
        """The text of token ids."""
        return str(self._tokenizer().decode(token_ids))

    def to_single_token(self, text: str) -> int | None:
        """The id of a text that is exactly one token, or None."""
        ids = self._encode(text)
        return ids[0] if len(ids) == 1 else None

    def batch(self, prompts: Text | Tokens) -> Batch:
        """Prompts (texts, token id lists or a tensor [batch, pos]) as one right-padded batch on the model's device.

        Raises:
            BadOption: there is no prompt, one of no token, or a token id outside the vocabulary.
        """
        if isinstance(prompts, Tensor):
            self._check_ids(prompts.tolist() if prompts.dim() > 1 else [prompts.tolist()])
            return Batch(torch.atleast_2d(prompts).to(self.device), None)
        is_one = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
        rows = [prompts] if is_one else prompts
        return self._pad(self._encode_rows(cast(Any, rows)))

    @torch.no_grad()
    def generate(
        self, prompts: Text, *, max_new_tokens: int = 20, do_sample: bool = False, **kwargs: Any
    ) -> str | list[str]:
        """Continue one or more texts with the module's own `generate`; returns the new text only.

        Gates held around the call act on every pass. Rows are padded on the left, as generation needs. Further
        keyword arguments go to `generate` as they are.

        Raises:
            BadOption: there is no prompt, or one of no token.
        """
        encoded = self._encode_rows([prompts] if isinstance(prompts, str) else list(prompts))
        width = max(len(row) for row in encoded)
        pad = self.pad_id
        token_ids = torch.tensor([[pad] * (width - len(r)) + r for r in encoded], device=self.device)
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in encoded], device=self.device)
        with generation([len(row) for row in encoded]):
            out = self.module.generate(  # type: ignore[operator]
                input_ids=token_ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=do_sample,
                pad_token_id=pad, **kwargs,
            )  # fmt: skip
        texts = [str(self._tokenizer().decode(row[width:], skip_special_tokens=True)) for row in out]
        return texts[0] if isinstance(prompts, str) else texts

    def _pad(self, rows: list[list[int]]) -> Batch:
        width = max(len(row) for row in rows)
        token_ids = torch.tensor([row + [self.pad_id] * (width - len(row)) for row in rows], device=self.device)
        if all(len(row) == width for row in rows):
            return Batch(token_ids, None)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        return Batch(token_ids, torch.arange(width, device=self.device) < lengths[:, None])

    def _encode_rows(self, rows: Sequence[str | Sequence[int]]) -> list[list[int]]:
        encoded = [self._encode(row) if isinstance(row, str) else [int(i) for i in row] for row in rows]
        self._check_ids(encoded)
        return encoded

    def _check_ids(self, rows: list[list[int]]) -> None:
        asked = f"prompts for {self.name}"
        if not rows:
            raise BadOption(asked, "there is none", next_step="give at least one text or list of token ids")
        if [] in rows:
            raise BadOption(asked, f"prompt {rows.index([])} has no token", next_step="leave it out, or give it a text")
        size = getattr(getattr(self.module, "config", None), "vocab_size", None)
        outside = [i for row in rows for i in row if size is not None and not 0 <= i < size]
        if outside:
            found = f"token id {outside[0]} is not in the vocabulary of {size} tokens"
            raise BadOption(asked, found, next_step="encode the prompts with this model's own tokenizer")

    @property
    def pad_id(self) -> int:
        """The token that fills rows up."""
        return int(getattr(self.tokenizer, "pad_token_id", None) or 0)

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """The token ids of one prompt, checked.

        Raises:
            BadOption: it has no token, or one outside the vocabulary.
        """
        return self._encode_rows([prompt])[0]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer().encode(text, add_special_tokens=False))

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise UnsupportedArchitecture(
                f"text for {self.name}", "the model was loaded without a tokenizer",
                next_step="give token ids, or load with op.load(module, tokenizer=...)",
            )  # fmt: skip
        return self.tokenizer

    def submodule(self, path: str) -> nn.Module:
        """The module at a dotted path.

        Raises:
            SiteUnavailable: there is no such module; the message names the nearest paths.
        """
        try:
            return self.module.get_submodule(path)
        except AttributeError:
            paths = [name for name, _ in self.module.named_modules() if name]
            raise SiteUnavailable(
                f"module {path!r} of {self.name}", "no such module", nearest=nearest(path, paths),
                next_step="`optrode sites MODEL --modules` lists every module path",
            ) from None  # fmt: skip


def _hash_of(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _sample(tensor: Tensor) -> tuple[float, ...]:
    """A few of a tensor's numbers, from all over it."""
    if not tensor.numel() or tensor.is_complex() or tensor.is_meta:
        return ()
    flat = tensor.detach().reshape(-1)
    return tuple(flat[:: max(1, flat.numel() // _SAMPLED)].float().nan_to_num().tolist())


def _is_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], str)
