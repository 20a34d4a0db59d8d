"""BLOOM: the attention module and the MLP add the residual stream inside themselves; q, k and v are interleaved.

So `attn_out` and `mlp_out` are the outputs of the last projections, before the residual dropout and the addition, and
`resid_mid` is the attention module's output. `embed` comes before the norm of the embeddings. Positions enter as a
bias on the scores (ALiBi).
"""

from typing import Any

from optrode.model.adapter import PATTERN, Family, Place, Table, heads, logits_absent, logits_place
from optrode.model.zoo.neox import interleaved_places

NO_SCORES = "they are made, biased and masked within one function call that no module holds; attn.pattern is there"


def _attention(attn: str, n_heads: int, d_head: int) -> dict[str, Place]:
    return interleaved_places(f"{attn}.query_key_value", n_heads, d_head) | {
        "attn.pattern": Place(f"{attn}.attention_dropout", "in", PATTERN),
        "attn.z": Place(f"{attn}.dense", "in", heads(n_heads)),
        "attn.result": Place(f"{attn}.dense", "in", heads(n_heads), how="result"),
        "attn_out": Place(f"{attn}.dense"),
        "resid_mid": Place(attn),
    }


def _rest(block: str) -> dict[str, Place]:
    return {
        "resid_pre": Place(block, "in"),
        "attn_in": Place(f"{block}.input_layernorm", "in"),
        "ln1": Place(f"{block}.input_layernorm"),
        "mlp_in": Place(f"{block}.post_attention_layernorm", "in"),
        "ln2": Place(f"{block}.post_attention_layernorm"),
        "mlp.pre": Place(f"{block}.mlp.dense_h_to_4h"),
        "mlp.post": Place(f"{block}.mlp.dense_4h_to_h", "in"),
        "mlp_out": Place(f"{block}.mlp.dense_4h_to_h"),
        "resid_post": Place(block),
    }


def table(config: Any, prefix: str) -> Table:
    """The site table of a BLOOM."""
    block = f"{prefix}h.{{L}}"
    n_heads, d_model = config.num_attention_heads, config.hidden_size
    return Table(
        family="bloom",
        n_layers=config.num_hidden_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_model // n_heads,
        is_causal=True,
        is_parallel=False,
        places={"embed": Place(f"{prefix}word_embeddings"), "final_norm": Place(f"{prefix}ln_f")}
        | _attention(f"{block}.self_attention", n_heads, d_model // n_heads)
        | _rest(block)
        | logits_place(prefix),
        absent={"attn.scores": NO_SCORES} | logits_absent(prefix),
    )


FAMILY = Family(
    name="bloom",
    model_types=("bloom",),
    understood=frozenset(
        {
            "attention_softmax_in_fp32", "bias_dropout_fusion", "hidden_dropout", "layer_norm_epsilon",
            "masked_softmax_fusion", "n_embed", "n_head", "n_inner", "n_layer", "offset_alibi", "pretraining_tp",
            "seq_length", "skip_bias_add", "skip_bias_add_qkv",
        }
    ),
    table=table,
    refuse={"apply_residual_connection_post_layernorm": (False,), "slow_but_exact": (False,)},
)  # fmt: skip
