"""Llama and the models that share its block: pre-norm, separate q/k/v/o, gated MLP.

Also serves Mistral, Qwen2 and Qwen3, whose blocks have the same module names. `attn.q`, `attn.k` and `attn.v` are the
outputs of the projections in every family: before rotary position embedding and, in Qwen3, before the norms of q and k
(`module:model.layers.3.self_attn.q_norm.out` is what follows).
"""

from typing import Any

from optrode.model.adapter import PATTERN, Family, Place, Table, heads, logits_absent, logits_place


def head_width(config: Any) -> int:
    """Width of one head: the config's own `head_dim` where it has one."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def projection_places(attn: str, n_heads: int, n_kv_heads: int) -> dict[str, Place]:
    """Sites of separate q, k and v projections in the attention module `attn`."""
    return {
        "attn.q": Place(f"{attn}.q_proj", view=heads(n_heads)),
        "attn.k": Place(f"{attn}.k_proj", view=heads(n_kv_heads)),
        "attn.v": Place(f"{attn}.v_proj", view=heads(n_kv_heads)),
    }


def mixing_places(attn: str, output: str, n_heads: int) -> dict[str, Place]:
    """Scores and pattern inside the attention module `attn`, and both sides of the `output` projection per head."""
    return {
        "attn.scores": Place(attn, view=PATTERN, how="scores"),
        "attn.pattern": Place(attn, view=PATTERN, how="pattern"),
        "attn.z": Place(output, "in", heads(n_heads)),
        "attn.result": Place(output, "in", heads(n_heads), how="result"),
    }


def attention_places(block: str, n_heads: int, n_kv_heads: int) -> dict[str, Place]:
    """Sites inside a `self_attn` module with separate q, k, v and o projections."""
    attn = f"{block}.self_attn"
    return projection_places(attn, n_heads, n_kv_heads) | mixing_places(attn, f"{attn}.o_proj", n_heads)


def gated_mlp_places(block: str) -> dict[str, Place]:
    """Sites inside an `mlp` module of the form down(act(gate(x)) * up(x))."""
    return {
        "mlp.pre": Place(f"{block}.mlp.gate_proj"),
        "mlp.pre_linear": Place(f"{block}.mlp.up_proj"),
        "mlp.post": Place(f"{block}.mlp.down_proj", "in"),
    }


def stem_places(prefix: str, block: str) -> dict[str, Place]:
    """Sites outside the blocks, and the two ends of each block, under Llama's names."""
    return {
        "embed": Place(f"{prefix}embed_tokens"),
        "resid_pre": Place(block, "in"),
        "resid_post": Place(block),
        "final_norm": Place(f"{prefix}norm"),
    } | logits_place(prefix)


def pre_norm_places(block: str) -> dict[str, Place]:
    """Sites of a sequential pre-norm block: what each half reads, adds, and the stream in between."""
    return {
        "attn_in": Place(f"{block}.input_layernorm", "in"),
        "ln1": Place(f"{block}.input_layernorm"),
        "attn_out": Place(f"{block}.self_attn"),
        "resid_mid": Place(f"{block}.input_layernorm", "in", how="mid", added=f"{block}.self_attn"),
        "mlp_in": Place(f"{block}.post_attention_layernorm", "in"),
        "ln2": Place(f"{block}.post_attention_layernorm"),
        "mlp_out": Place(f"{block}.mlp"),
    }


def table(config: Any, prefix: str) -> Table:
    """The site table of a Llama-like model."""
    block = f"{prefix}layers.{{L}}"
    n_heads, n_kv = config.num_attention_heads, config.num_key_value_heads
    return Table(
        family="llama",
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=n_heads,
        n_kv_heads=n_kv,
        d_head=head_width(config),
        is_causal=True,
        is_parallel=False,
        places=stem_places(prefix, block)
        | attention_places(block, n_heads, n_kv)
        | pre_norm_places(block)
        | gated_mlp_places(block),
        absent=logits_absent(prefix),
    )


FAMILY = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    understood=frozenset(
        {
            "attention_bias", "head_dim", "is_llama_config", "layer_types", "max_window_layers", "mlp_bias",
            "num_key_value_heads", "pretraining_tp", "rms_norm_eps", "sliding_window", "use_sliding_window",
        }
    ),
    table=table,
    refuse={"rope_interleaved": (False,), "use_mrope": (False,)},
)  # fmt: skip
