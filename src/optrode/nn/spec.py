"""What one of our own small transformers is: a record, from which the module and its table of sites are built."""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

from optrode.errors import BadOption, nearest

Norm = Literal["none", "layer", "rms"]
Positions = Literal["none", "learned", "rotary"]
Activation = Literal["relu", "gelu"]
_CHOICES: Final = {"norm": get_args(Norm), "positions": get_args(Positions), "activation": get_args(Activation)}


@dataclass(frozen=True)
class Spec:
    """The architecture; it also stands in as the module's `config`.

    Attributes:
        n_layers, n_heads, d_model: sizes.
        n_kv_heads: heads of keys and values; None for as many as query heads.
        d_head: width of a head; None for d_model / n_heads. n_heads x d_head need not be d_model.
        d_mlp: width of the MLP's hidden layer; 0 for blocks of attention alone.
        vocab: number of token ids.
        n_ctx: the longest prompt.
        norm, eps: norm before each half of a block and before the unembedding, and the number that keeps it finite.
        positions: "learned" adds an embedding of the position, "rotary" turns q and k by it (Su et al., arXiv 2104.09864).
        is_causal: a position attends to itself and earlier ones; otherwise to all.
        is_parallel: attention and MLP both read the block's input.
        has_bias: whether the linear layers and the layer norms have biases (the unembedding has none).
        d_out: columns of the unembedding; None for `vocab`.

    Raises:
        BadOption: sizes that do not fit each other, or a word that is none of the choices.
    """

    n_layers: int
    n_heads: int
    d_model: int
    vocab: int
    n_ctx: int
    n_kv_heads: int | None = None
    d_head: int | None = None
    d_mlp: int = 0
    norm: str = "layer"
    eps: float = 1e-5
    positions: str = "learned"
    is_causal: bool = True
    is_parallel: bool = False
    activation: str = "gelu"
    has_bias: bool = True
    d_out: int | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            word = getattr(self, name)
            if word not in choices:
                raise BadOption(f"{name}={word!r}", "no such choice", nearest=nearest(word, choices) or choices)
        for name in ("n_layers", "n_heads", "d_model", "vocab", "n_ctx", "n_kv", "head_width", "n_columns"):
            size = getattr(self, name)
            if size < 1:
                raise BadOption(f"{name}={size}", "a transformer has at least one", next_step="give 1 or more")
        if self.n_heads % self.n_kv:
            found = f"{self.n_heads} query heads do not divide into {self.n_kv} groups"
            raise BadOption(f"n_kv_heads={self.n_kv}", found, next_step="give a divisor of n_heads")
        if self.d_head is None and self.d_model % self.n_heads:
            found = f"{self.n_heads} heads do not divide it"
            raise BadOption(f"d_model={self.d_model}", found, next_step="give d_head, or a multiple of n_heads")
        if self.positions == "rotary" and self.head_width % 2:
            found = "rotary positions turn pairs of dimensions"
            raise BadOption(f"d_head={self.head_width}", found, next_step="make it even")

    @property
    def n_kv(self) -> int:
        """Heads of keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def n_columns(self) -> int:
        """Columns of the logits."""
        return self.vocab if self.d_out is None else self.d_out

    @property
    def vocab_size(self) -> int:
        """Number of token ids, under the name that configs give it."""
        return self.vocab

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for keys and files."""
        return asdict(self)
