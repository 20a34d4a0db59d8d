"""Gemma 2 and Gemma 3 (text): a norm before and a norm after each half of the block.

`attn_out` and `mlp_out` are what is added to the residual stream: the outputs of the norms after each half, which also
go by the names `ln1_post` and `ln2_post`. `attn.result` is each head's write before that norm. `embed` includes the
scale by the square root of the width. `attn.q` and `attn.k` come before Gemma 3's norms of q and k; Gemma 2's
`attn.scores` come after the soft cap.
"""

from typing import Any

from optrode.model.adapter import Family, Place, Table, logits_absent
from optrode.model.zoo.llama import attention_places, gated_mlp_places, head_width, stem_places


def _norms(block: str) -> dict[str, Place]:
    after_attn, after_mlp = f"{block}.post_attention_layernorm", f"{block}.post_feedforward_layernorm"
    return {
        "attn_in": Place(f"{block}.input_layernorm", "in"),
        "ln1": Place(f"{block}.input_layernorm"),
        "ln1_post": Place(after_attn),
        "attn_out": Place(after_attn),
        "resid_mid": Place(f"{block}.input_layernorm", "in", how="mid", added=after_attn),
        "mlp_in": Place(f"{block}.pre_feedforward_layernorm", "in"),
        "ln2": Place(f"{block}.pre_feedforward_layernorm"),
        "ln2_post": Place(after_mlp),
        "mlp_out": Place(after_mlp),
    }


def table(config: Any, prefix: str) -> Table:
    """The site table of a Gemma 2 or 3."""
    block = f"{prefix}layers.{{L}}"
    n_heads, n_kv = config.num_attention_heads, config.num_key_value_heads
    return Table(
        family="gemma",
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=n_heads,
        n_kv_heads=n_kv,
        d_head=head_width(config),
        is_causal=not config.use_bidirectional_attention,
        is_parallel=False,
        places=stem_places(prefix, block)
        | attention_places(block, n_heads, n_kv)
        | gated_mlp_places(block)
        | _norms(block),
        absent=logits_absent(prefix),
    )


FAMILY = Family(
    name="gemma",
    model_types=("gemma2", "gemma3_text"),
    understood=frozenset(
        {
            "attention_bias", "attn_logit_softcapping", "cache_implementation", "final_logit_softcapping", "head_dim",
            "hidden_activation", "layer_types", "num_key_value_heads", "query_pre_attn_scalar", "rms_norm_eps",
            "rope_local_base_freq", "sliding_window", "sliding_window_pattern", "use_bidirectional_attention",
        }
    ),
    table=table,
)  # fmt: skip
