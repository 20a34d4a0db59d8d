"""Phi-3: Llama's block with fused projections: q, k, v (grouped) side by side, and the MLP's two inputs side by side.

`attn_out` and `mlp_out` are what is added to the residual stream, after the residual dropout.
"""

from typing import Any

from optrode.model.adapter import Family, Place, Table, View, heads, logits_absent
from optrode.model.zoo.llama import head_width, mixing_places, pre_norm_places, stem_places


def _attention(attn: str, n_heads: int, n_kv_heads: int, d_head: int) -> dict[str, Place]:
    fused = f"{attn}.qkv_proj"
    k, v = n_heads * d_head, (n_heads + n_kv_heads) * d_head
    return {
        "attn.q": Place(fused, view=heads(n_heads, 0, k)),
        "attn.k": Place(fused, view=heads(n_kv_heads, k, v)),
        "attn.v": Place(fused, view=heads(n_kv_heads, v, v + n_kv_heads * d_head)),
    } | mixing_places(attn, f"{attn}.o_proj", n_heads)


def _mlp(mlp: str, width: int) -> dict[str, Place]:
    return {
        "mlp.pre": Place(f"{mlp}.gate_up_proj", view=View(start=0, stop=width)),
        "mlp.pre_linear": Place(f"{mlp}.gate_up_proj", view=View(start=width, stop=2 * width)),
        "mlp.post": Place(f"{mlp}.down_proj", "in"),
    }


def table(config: Any, prefix: str) -> Table:
    """The site table of a Phi-3."""
    block = f"{prefix}layers.{{L}}"
    n_heads, n_kv, d_head = config.num_attention_heads, config.num_key_value_heads, head_width(config)
    attn_out = f"{block}.resid_attn_dropout"
    added = {
        "attn_out": Place(attn_out),
        "resid_mid": Place(f"{block}.input_layernorm", "in", how="mid", added=attn_out),
        "mlp_out": Place(f"{block}.resid_mlp_dropout"),
    }
    return Table(
        family="phi3",
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=n_heads,
        n_kv_heads=n_kv,
        d_head=d_head,
        is_causal=True,
        is_parallel=False,
        places=stem_places(prefix, block)
        | _attention(f"{block}.self_attn", n_heads, n_kv, d_head)
        | _mlp(f"{block}.mlp", config.intermediate_size)
        | pre_norm_places(block)
        | added,
        absent=logits_absent(prefix),
    )


FAMILY = Family(
    name="phi3",
    model_types=("phi3",),
    understood=frozenset(
        {
            "attention_bias", "embd_pdrop", "head_dim", "num_key_value_heads", "original_max_position_embeddings",
            "partial_rotary_factor", "resid_pdrop", "rms_norm_eps", "sliding_window",
        }
    ),
    table=table,
)  # fmt: skip
