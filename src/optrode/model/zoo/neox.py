"""GPT-NeoX and Pythia: parallel or sequential blocks, q, k and v interleaved head by head in one projection.

`attn_out` and `mlp_out` are what is added to the residual stream, after the residual dropout. In a parallel block both
halves read the block's input, and `ln2` is the MLP's own norm of it.
"""

from typing import Any

from optrode.axes import HEAD_AXES
from optrode.model.adapter import Family, Place, Table, View, logits_absent, logits_place
from optrode.model.zoo.llama import mixing_places

NO_MID = "attention and MLP run in parallel, so no residual stream lies between them; use resid_pre, attn_out or mlp_out"


def interleaved_places(fused: str, n_heads: int, d_head: int) -> dict[str, Place]:
    """Sites of a projection `fused` whose output is, head after head, that head's q, k and v."""
    return {
        f"attn.{part}": Place(
            fused, view=View(HEAD_AXES, heads=n_heads, head_start=ix * d_head, head_stop=(ix + 1) * d_head)
        )
        for ix, part in enumerate("qkv")
    }


def _block(block: str, is_parallel: bool) -> dict[str, Place]:
    attn_out = f"{block}.post_attention_dropout"
    places = {
        "resid_pre": Place(block, "in"),
        "attn_in": Place(f"{block}.input_layernorm", "in"),
        "ln1": Place(f"{block}.input_layernorm"),
        "attn_out": Place(attn_out),
        "resid_mid": Place(f"{block}.input_layernorm", "in", how="mid", added=attn_out),
        "mlp_in": Place(f"{block}.post_attention_layernorm", "in"),
        "ln2": Place(f"{block}.post_attention_layernorm"),
        "mlp.pre": Place(f"{block}.mlp.dense_h_to_4h"),
        "mlp.post": Place(f"{block}.mlp.dense_4h_to_h", "in"),
        "mlp_out": Place(f"{block}.post_mlp_dropout"),
        "resid_post": Place(block),
    }
    if is_parallel:
        del places["resid_mid"]
    return places


def table(config: Any, prefix: str) -> Table:
    """The site table of a GPT-NeoX."""
    block = f"{prefix}layers.{{L}}"
    attn = f"{block}.attention"
    n_heads, d_head = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    is_parallel = bool(config.use_parallel_residual)
    return Table(
        family="neox",
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_head,
        is_causal=True,
        is_parallel=is_parallel,
        places={"embed": Place(f"{prefix}embed_in"), "final_norm": Place(f"{prefix}final_layer_norm")}
        | _block(block, is_parallel)
        | interleaved_places(f"{attn}.query_key_value", n_heads, d_head)
        | mixing_places(attn, f"{attn}.dense", n_heads)
        | logits_place(prefix),
        absent=({"resid_mid": NO_MID} if is_parallel else {}) | logits_absent(prefix),
    )


FAMILY = Family(
    name="neox",
    model_types=("gpt_neox",),
    understood=frozenset(
        {
            "attention_bias", "classifier_dropout", "hidden_dropout", "layer_norm_eps", "partial_rotary_factor",
            "rotary_emb_base", "rotary_pct", "use_parallel_residual",
        }
    ),
    table=table,
)  # fmt: skip
