"""BERT: an encoder whose norms stand after the sum with the residual stream.

In a block, `resid_mid` = `resid_pre` + `attn_out` is what the first norm reads; its output `ln1` is what the MLP reads
and what `mlp_out` is added to; that sum through the second norm is `ln2`, which is also the block's output
`resid_post`. `embed` is the word embedding alone; token types and the embeddings' norm are reached as modules.
"""

from typing import Any

from optrode.model.adapter import Family, Place, Table, heads, logits_absent, logits_place
from optrode.model.zoo.llama import mixing_places

NO_FINAL_NORM = "each block ends with its own norm; the last resid_post is what the head reads"


def _attention(attn: str, n_heads: int) -> dict[str, Place]:
    return {
        "attn.q": Place(f"{attn}.self.query", view=heads(n_heads)),
        "attn.k": Place(f"{attn}.self.key", view=heads(n_heads)),
        "attn.v": Place(f"{attn}.self.value", view=heads(n_heads)),
        "attn_in": Place(f"{attn}.self", "in"),
        "attn_out": Place(f"{attn}.output.dropout"),
        "resid_mid": Place(f"{attn}.output.LayerNorm", "in"),
        "ln1": Place(f"{attn}.output.LayerNorm"),
    } | mixing_places(f"{attn}.self", f"{attn}.output.dense", n_heads)


def _rest(block: str) -> dict[str, Place]:
    return {
        "resid_pre": Place(block, "in"),
        "mlp_in": Place(f"{block}.intermediate.dense", "in"),
        "mlp.pre": Place(f"{block}.intermediate.dense"),
        "mlp.post": Place(f"{block}.output.dense", "in"),
        "mlp_out": Place(f"{block}.output.dropout"),
        "ln2": Place(f"{block}.output.LayerNorm"),
        "resid_post": Place(block),
    }


def table(config: Any, prefix: str) -> Table:
    """The site table of a BERT."""
    block = f"{prefix}encoder.layer.{{L}}"
    n_heads, d_model = config.num_attention_heads, config.hidden_size
    stem = {
        "embed": Place(f"{prefix}embeddings.word_embeddings"),
        "pos_embed": Place(f"{prefix}embeddings.position_embeddings"),
    }
    return Table(
        family="bert",
        n_layers=config.num_hidden_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_model // n_heads,
        is_causal=bool(config.is_decoder),
        is_parallel=False,
        places=stem | _attention(f"{block}.attention", n_heads) | _rest(block) | logits_place(prefix),
        absent={"final_norm": NO_FINAL_NORM} | logits_absent(prefix),
        is_post_norm=True,
    )


FAMILY = Family(
    name="bert",
    model_types=("bert",),
    understood=frozenset(
        {
            "attention_probs_dropout_prob", "classifier_dropout", "directionality", "gradient_checkpointing",
            "hidden_dropout_prob", "layer_norm_eps", "pooler_fc_size", "pooler_num_attention_heads",
            "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "type_vocab_size",
        }
    ),
    table=table,
    refuse={"add_cross_attention": (False,), "chunk_size_feed_forward": (0,), "position_embedding_type": ("absolute",)},
)  # fmt: skip
