"""What one of our own small transformers is: a record, from which the module and its table of sites are built."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

from optrode.errors import BadOption, nearest

Norm = Literal["none", "layer", "rms"]
Positions = Literal["none", "learned", "rotary", "one_hot"]
Activation = Literal["relu", "gelu"]
_CHOICES: Final = {"norm": get_args(Norm), "positions": get_args(Positions), "activation": get_args(Activation)}
_AT_LEAST_ONE: Final = ("n_layers", "n_heads", "d_model", "vocab", "n_ctx", "n_kv", "head_width", "n_columns")
_AT_LEAST_NONE: Final = ("d_mlp", "head_layers", "d_in", "n_items", "d_item")
_LATER: Final = (
    "is_scaled", "has_output", "norm_bias", "unembed_bias", "head_layers", "d_in", "n_items", "d_item",
)  # fmt: skip
"""Fields that specs did not have at first: `to_dict` leaves them out at their default, so that older keys stay valid."""


@dataclass(frozen=True)
class Spec:
    """The architecture; it also stands in as the module's `config`.

    Attributes:
        n_layers, n_heads, d_model: sizes.
        n_kv_heads: heads of keys and values; None for as many as query heads.
        d_head: width of a head; None for d_model / n_heads. n_heads x d_head need not be d_model.
        d_mlp: width of the MLP's hidden layer; 0 for blocks of attention alone.
        vocab: number of token ids with an embedding of their own.
        n_ctx: the longest prompt; with one-hot positions, also the number of dimensions they take.
        norm, eps: norm before each half of a block and before the unembedding, and the number that keeps it finite.
        positions: "learned" adds an embedding of the position, "rotary" turns q and k by it (Su et al., arXiv 2104.09864),
            "one_hot" keeps it in the first n_ctx dimensions of the residual stream and the token in the rest (Reddy,
            arXiv 2312.03002).
        is_causal: a position attends to itself and earlier ones; otherwise to all.
        is_parallel: attention and MLP both read the block's input.
        has_bias: whether the linear layers and the layer norms have biases (the unembedding has its own field).
        d_out: columns of the unembedding; None for `vocab`.
        is_scaled: attention scores are divided by sqrt(d_head).
        has_output: attention has an output projection; otherwise its heads' values, side by side, are what it adds.
        norm_bias: whether layer norms have biases; None for `has_bias`.
        unembed_bias: whether the unembedding, each layer of it, has a bias.
        head_layers: hidden layers of the unembedding: none, or a ReLU MLP of width d_model in its place.
        d_in: width of `inputs_embeds`, read through a linear map; 0 takes them as they are, `token_width` wide.
        n_items, d_item: number and width of items: token ids from `vocab` up, which stand for fixed feature vectors that are
            read through one linear map (Singh et al., arXiv 2404.07129).

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
    is_scaled: bool = True
    has_output: bool = True
    norm_bias: bool | None = None
    unembed_bias: bool = False
    head_layers: int = 0
    d_in: int = 0
    n_items: int = 0
    d_item: int = 0

    def __post_init__(self) -> None:
        _check_words(self)
        _check_sizes(self)
        _check_heads(self)
        _check_inputs(self)

    @property
    def n_kv(self) -> int:
        """Heads of keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.d_model // self.n_heads if self.d_head is None else self.d_head

    @property
    def token_width(self) -> int:
        """Dimensions of the residual stream that a token is written to."""
        return self.d_model - self.n_ctx if self.positions == "one_hot" else self.d_model

    @property
    def n_columns(self) -> int:
        """Columns of the logits."""
        return self.vocab if self.d_out is None else self.d_out

    @property
    def vocab_size(self) -> int:
        """Number of token ids, items included, under the name that configs give it."""
        return self.vocab + self.n_items

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for keys and files; `Spec(**spec.to_dict())` is the spec again."""
        defaults = {field.name: field.default for field in fields(self) if field.name in _LATER}
        return {name: value for name, value in asdict(self).items() if name not in _LATER or value != defaults[name]}


def _check_words(spec: Spec) -> None:
    for name, choices in _CHOICES.items():
        word = getattr(spec, name)
        if word not in choices:
            raise BadOption(f"{name}={word!r}", "no such choice", nearest=nearest(word, choices) or choices)
    if spec.norm_bias and spec.norm != "layer":
        found = "only a layer norm has a bias"
        raise BadOption(f"norm_bias=True with norm={spec.norm!r}", found, next_step='leave it out, or give norm="layer"')


def _check_sizes(spec: Spec) -> None:
    for name in _AT_LEAST_ONE:
        size = getattr(spec, name)
        if size < 1:
            raise BadOption(f"{name}={size}", "a transformer has at least one", next_step="give 1 or more")
    for name in _AT_LEAST_NONE:
        size = getattr(spec, name)
        if size < 0:
            raise BadOption(f"{name}={size}", "it is a number or a width", next_step="give 0 for none, or more")


def _check_heads(spec: Spec) -> None:
    if spec.n_heads % spec.n_kv:
        found = f"{spec.n_heads} query heads do not divide into {spec.n_kv} groups"
        raise BadOption(f"n_kv_heads={spec.n_kv}", found, next_step="give a divisor of n_heads")
    if spec.d_head is None and spec.d_model % spec.n_heads:
        found = f"{spec.n_heads} heads do not divide it"
        raise BadOption(f"d_model={spec.d_model}", found, next_step="give d_head, or a multiple of n_heads")
    if spec.positions == "rotary" and spec.head_width % 2:
        found = "rotary positions turn pairs of dimensions"
        raise BadOption(f"d_head={spec.head_width}", found, next_step="make it even")
    wide = spec.n_heads * spec.head_width
    if not spec.has_output and wide != spec.d_model:
        found = f"{spec.n_heads} heads of width {spec.head_width} put {wide} numbers side by side, d_model is {spec.d_model}"
        raise BadOption("has_output=False", found, next_step="make n_heads x d_head equal d_model")


def _check_inputs(spec: Spec) -> None:
    if spec.token_width < 1:
        found = f"they take n_ctx={spec.n_ctx} of d_model={spec.d_model} dimensions, which leaves none for the token"
        raise BadOption("one-hot positions", found, next_step=f"give d_model={spec.n_ctx + 1} or more, or a smaller n_ctx")
    if bool(spec.n_items) != bool(spec.d_item):
        missing = "d_item" if spec.n_items else "n_items"
        found = "items need a number and a width"
        raise BadOption(f"n_items={spec.n_items}, d_item={spec.d_item}", found, next_step=f"give {missing} too, or neither")
