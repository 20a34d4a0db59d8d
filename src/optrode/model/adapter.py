"""An architecture is a table: site kind -> where it is in the module, and how to view the tensor there.

A family file (`model/zoo/<family>.py`) turns a config into such a table. Nothing here runs a model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from optrode.axes import HEAD_AXES, PATTERN_AXES, RESIDUAL_AXES
from optrode.errors import ConfigRefused, nearest

How = Literal["port", "mid", "result", "scores", "pattern", "router", "logits"]


@dataclass(frozen=True, slots=True)
class View:
    """How the last dimension of a module's tensor splits into the site's axes.

    The last dimension is cut to `[start:stop]` (fused projections laid side by side), split into `heads`, and each
    head is cut to `[head_start:head_stop]` (fused projections interleaved per head, as in GPT-NeoX). None leaves out
    the step.
    """

    axes: tuple[str, ...] = RESIDUAL_AXES
    start: int | None = None
    stop: int | None = None
    heads: int | None = None
    head_start: int | None = None
    head_stop: int | None = None


ORDER = (
    "embed", "pos_embed", "resid_pre", "attn_in", "ln1", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.pattern",
    "attn.z", "attn.result", "ln1_post", "attn_out", "resid_mid", "mlp_in", "ln2", "mlp.router", "mlp.pre", "mlp.pre_linear",
    "mlp.post", "ln2_post", "mlp_out", "resid_post", "final_norm", "logits",
)  # fmt: skip
"""Site kinds in the order of the computation: how they are listed."""

_RESIDUAL_WIDE = frozenset(
    {
        "embed", "pos_embed", "resid_pre", "resid_mid", "resid_post", "ln1", "ln2", "ln1_post", "ln2_post", "attn_out",
        "mlp_out", "attn.result", "final_norm", "attn_in", "mlp_in",
    }
)  # fmt: skip
RESIDUAL = View()
PATTERN = View(axes=PATTERN_AXES)


def heads(n: int, start: int | None = None, stop: int | None = None) -> View:
    """A view of `n` heads of equal width over `[start:stop]` of the last dimension."""
    return View(axes=HEAD_AXES, start=start, stop=stop, heads=n)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a site is.

    Attributes:
        path: module path with `{L}` for the layer; for `how` other than "port" see below.
        port: the module's first input tensor ("in") or first output tensor ("out").
        how: "port" reads and replaces that tensor. "mid" is `path`'s input plus `added`'s output: the residual
            stream between attention and MLP, which no module holds (`path` is the first module to read the block's
            input). "result" is each head's write: the view of `path`'s input times `path`'s weight. "scores" and
            "pattern" are inside the attention module `path`. "router" is the logits of the expert router `path`,
            whose choice is made again when they are replaced. "logits" is the model's own output.
        added: module path of the second summand of "mid".
    """

    path: str
    port: Literal["in", "out"] = "out"
    view: View = RESIDUAL
    how: How = "port"
    added: str = ""


@dataclass(frozen=True)
class Table:
    """Every named site of one model, with the sizes that views and gates need.

    `places` holds the sites that exist, `absent` the standard sites that this architecture does not have, with the
    reason. Sizes: `d_head` is the width of one head, `n_kv_heads` the number of K/V heads (grouped K/V).
    `is_parallel`: attention and MLP both read the block's input. `is_post_norm`: the sum with the residual stream is
    itself normalised (BERT), so that the stream is not the sum of what the blocks add to it.
    """

    family: str
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    is_causal: bool
    is_parallel: bool
    places: Mapping[str, Place]
    absent: Mapping[str, str] = field(default_factory=dict)
    is_post_norm: bool = False

    def in_block(self, kind: str) -> bool:
        """Whether sites of this kind exist once per layer."""
        place = self.places[kind]
        return "{L}" in place.path

    def size(self, kind: str, axis: str) -> int | None:
        """Length of an axis where the table knows it, for checks before any pass runs."""
        if axis == "head":
            return self.places[kind].view.heads or self.n_heads
        if axis == "feature":
            return self._width(kind)
        return None

    def _width(self, kind: str) -> int | None:
        if kind in ("attn.q", "attn.k", "attn.v", "attn.z"):
            return self.d_head
        return self.d_model if kind in _RESIDUAL_WIDE else None


def logits_place(prefix: str) -> dict[str, Place]:
    """The `logits` site of a model with a head; none when `prefix` says that the module is the base model itself."""
    return {"logits": Place("", how="logits")} if prefix else {}


def logits_absent(prefix: str) -> dict[str, str]:
    """The counterpart of `logits_place` for `Table.absent`."""
    return {} if prefix else {"logits": "this is a base model without a head; its last site is what it returns"}


@dataclass(frozen=True)
class Family:
    """One family file.

    Attributes:
        name: how the family prints.
        model_types: the values of `config.model_type` that it covers.
        understood: config fields that `table` reads or that leave every site where the table says it is.
        table: (config, prefix) -> Table; `prefix` is the path of the base model inside the module, "" or "model.".
        refuse: config fields with the only values that the table is right for, e.g. {"add_cross_attention": (False,)}.
    """

    name: str
    model_types: tuple[str, ...]
    understood: frozenset[str]
    table: Callable[[Any, str], Table]
    refuse: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


HARMLESS = frozenset(
    {
        "architectures", "attention_dropout", "auto_map", "bos_token_id", "cls_token_id", "dtype", "eos_token_id",
        "hidden_act", "hidden_size", "id2label", "initializer_range", "intermediate_size", "is_decoder", "label2id",
        "max_position_embeddings", "model_type", "name_or_path", "num_attention_heads", "num_hidden_layers",
        "output_attentions", "output_hidden_states", "pad_token_id", "problem_type", "return_dict", "rope_parameters",
        "rope_scaling", "rope_theta", "sep_token_id", "tie_word_embeddings", "tokenizer_class", "torch_dtype",
        "transformers.js_config", "transformers_version", "unk_token_id", "use_cache", "vocab_size",
    }
)  # fmt: skip
"""Config fields that change numbers but never where a site is; understood by every family."""


def check_config(config: Any, family: Family) -> None:
    """Refuse a config that the family file does not understand.

    Only fields that differ from the config class's defaults are looked at, so that a new field of a newer
    transformers does not stop a model that leaves it alone.

    Raises:
        ConfigRefused: an unknown field is set, or a known one has a value for which the table would be wrong.
    """
    known = HARMLESS | family.understood | set(family.refuse)
    for name, value in config.to_diff_dict().items():
        if name not in known and not name.startswith("_") and value is not None:
            raise ConfigRefused(
                f"{family.name} config field {name}={value!r}",
                f"model/zoo/{family.name}.py does not say what it does to the sites",
                nearest=nearest(name, known),
                next_step="check the field, then add it to the family file's `understood`",
            )
    for name, allowed in family.refuse.items():
        if getattr(config, name, allowed[0]) not in allowed:
            raise ConfigRefused(
                f"{family.name} config field {name}={getattr(config, name)!r}",
                f"the site table is right only for {name} in {list(allowed)}",
                next_step="load the module through the generic route: op.load(module, family=None)",
            )
