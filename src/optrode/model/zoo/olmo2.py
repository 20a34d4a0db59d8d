"""OLMo 2: no norm before attention and MLP, one after each; q and k are normalised across all heads.

`attn_out` and `mlp_out` are what is added to the residual stream: the outputs of the norms, which also go by the names
`ln1_post` and `ln2_post`. `attn.result` is each head's write before that norm, `attn.q` and `attn.k` come before the
norms of q and k.
"""

from typing import Any

from optrode.model.adapter import Family, Place, Table, logits_absent
from optrode.model.zoo.llama import attention_places, gated_mlp_places, head_width, stem_places

NO_PRE_NORM = "attention and MLP read the residual stream without a norm; their norms come after, at ln1_post and ln2_post"


def _norms(block: str) -> dict[str, Place]:
    after_attn, after_mlp = f"{block}.post_attention_layernorm", f"{block}.post_feedforward_layernorm"
    return {
        "attn_in": Place(f"{block}.self_attn", "in"),
        "mlp_in": Place(f"{block}.mlp", "in"),
        "ln1_post": Place(after_attn),
        "attn_out": Place(after_attn),
        "resid_mid": Place(f"{block}.self_attn", "in", how="mid", added=after_attn),
        "ln2_post": Place(after_mlp),
        "mlp_out": Place(after_mlp),
    }


def table(config: Any, prefix: str) -> Table:
    """The site table of an OLMo 2."""
    block = f"{prefix}layers.{{L}}"
    n_heads, n_kv = config.num_attention_heads, config.num_key_value_heads
    return Table(
        family="olmo2",
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=n_heads,
        n_kv_heads=n_kv,
        d_head=head_width(config),
        is_causal=True,
        is_parallel=False,
        places=stem_places(prefix, block)
        | attention_places(block, n_heads, n_kv)
        | gated_mlp_places(block)
        | _norms(block),
        absent={"ln1": NO_PRE_NORM, "ln2": NO_PRE_NORM} | logits_absent(prefix),
    )


FAMILY = Family(
    name="olmo2",
    model_types=("olmo2",),
    understood=frozenset({"attention_bias", "head_dim", "num_key_value_heads", "rms_norm_eps"}),
    table=table,
)
