"""GPT-2: pre-norm, learned positions, q, k and v side by side in one `Conv1D` projection.

`attn_out` and `mlp_out` are the modules' outputs, after the residual dropout that they hold.
"""

from typing import Any

from optrode.model.adapter import Family, Place, Table, heads, logits_absent, logits_place
from optrode.model.zoo.llama import mixing_places


def _attention(attn: str, n_heads: int, d_model: int) -> dict[str, Place]:
    fused = f"{attn}.c_attn"
    return {
        "attn.q": Place(fused, view=heads(n_heads, 0, d_model)),
        "attn.k": Place(fused, view=heads(n_heads, d_model, 2 * d_model)),
        "attn.v": Place(fused, view=heads(n_heads, 2 * d_model, 3 * d_model)),
    } | mixing_places(attn, f"{attn}.c_proj", n_heads)


def _block(block: str) -> dict[str, Place]:
    return {
        "resid_pre": Place(block, "in"),
        "attn_in": Place(f"{block}.ln_1", "in"),
        "ln1": Place(f"{block}.ln_1"),
        "attn_out": Place(f"{block}.attn"),
        "resid_mid": Place(f"{block}.ln_1", "in", how="mid", added=f"{block}.attn"),
        "mlp_in": Place(f"{block}.ln_2", "in"),
        "ln2": Place(f"{block}.ln_2"),
        "mlp.pre": Place(f"{block}.mlp.c_fc"),
        "mlp.post": Place(f"{block}.mlp.c_proj", "in"),
        "mlp_out": Place(f"{block}.mlp"),
        "resid_post": Place(block),
    }


def table(config: Any, prefix: str) -> Table:
    """The site table of a GPT-2."""
    block = f"{prefix}h.{{L}}"
    n_heads, d_model = config.num_attention_heads, config.hidden_size
    stem = {
        "embed": Place(f"{prefix}wte"),
        "pos_embed": Place(f"{prefix}wpe"),
        "final_norm": Place(f"{prefix}ln_f"),
    }
    return Table(
        family="gpt2",
        n_layers=config.num_hidden_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_heads,
        d_head=d_model // n_heads,
        is_causal=True,
        is_parallel=False,
        places=stem | _block(block) | _attention(f"{block}.attn", n_heads, d_model) | logits_place(prefix),
        absent=logits_absent(prefix),
    )


FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    understood=frozenset(
        {
            "activation_function", "attn_pdrop", "embd_pdrop", "layer_norm_epsilon", "n_ctx", "n_embd", "n_head",
            "n_inner", "n_layer", "n_positions", "resid_pdrop", "scale_attn_by_inverse_layer_idx",
            "scale_attn_weights", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
            "summary_type", "summary_use_proj", "task_specific_params",
        }
    ),
    table=table,
    refuse={"add_cross_attention": (False,), "reorder_and_upcast_attn": (False,)},
)  # fmt: skip
