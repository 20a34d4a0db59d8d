"""ViT: a pre-norm encoder over image patches; positions are patches in reading order, after the class token at 0.

`embed` is the patches' embedding, one position per patch and none for the class token, so its position 0 is position 1
everywhere else. `attn_out` and `mlp_out` come before the residual dropout, one module that serves both. The logits of
a classifier have no positions: [batch, feature].
"""

from typing import Any

from optrode.axes import BATCH, FEATURE
from optrode.model.adapter import Family, Place, Table, View, logits_absent
from optrode.model.zoo.llama import head_width, mixing_places, projection_places

NO_POSITIONS = "the position embedding is a parameter of `embeddings`, added inside it; resid_pre of block 0 includes it"


def _block(block: str) -> dict[str, Place]:
    return {
        "resid_pre": Place(block, "in"),
        "attn_in": Place(f"{block}.layernorm_before", "in"),
        "ln1": Place(f"{block}.layernorm_before"),
        "attn_out": Place(f"{block}.attention"),
        "resid_mid": Place(f"{block}.layernorm_before", "in", how="mid", added=f"{block}.attention"),
        "mlp_in": Place(f"{block}.layernorm_after", "in"),
        "ln2": Place(f"{block}.layernorm_after"),
        "mlp.pre": Place(f"{block}.mlp.fc1"),
        "mlp.post": Place(f"{block}.mlp.fc2", "in"),
        "mlp_out": Place(f"{block}.mlp"),
        "resid_post": Place(block),
    }


def table(config: Any, prefix: str) -> Table:
    """The site table of a ViT."""
    block = f"{prefix}layers.{{L}}"
    attn, n_heads = f"{block}.attention", config.num_attention_heads
    stem = {"embed": Place(f"{prefix}embeddings.patch_embeddings"), "final_norm": Place(f"{prefix}layernorm")}
    logits = {"logits": Place("", view=View((BATCH, FEATURE)), how="logits")} if prefix else {}
    return Table(
        family="vit",
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=head_width(config),
        is_causal=False,
        is_parallel=False,
        places=stem
        | _block(block)
        | projection_places(attn, n_heads, n_heads)
        | mixing_places(attn, f"{attn}.o_proj", n_heads)
        | logits,
        absent={"pos_embed": NO_POSITIONS} | logits_absent(prefix),
    )


FAMILY = Family(
    name="vit",
    model_types=("vit",),
    understood=frozenset(
        {
            "attention_probs_dropout_prob", "encoder_stride", "head_dim", "hidden_dropout_prob", "image_size",
            "layer_norm_eps", "num_channels", "patch_size", "pooler_act", "pooler_output_size", "qkv_bias",
        }
    ),
    table=table,
)  # fmt: skip
