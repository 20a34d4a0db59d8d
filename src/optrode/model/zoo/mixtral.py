"""Mixtral: Llama's attention, and a router that sends each token to a few expert MLPs.

`mlp.router` is the router's logits, [batch, pos, feature] with one feature per expert; a gate there changes which
experts are chosen and with what weight.
"""

from typing import Any

from optrode.model.adapter import Family, Place, Table, logits_absent
from optrode.model.zoo.llama import attention_places, head_width, pre_norm_places, stem_places

NO_NEURONS = "each token's hidden layer is made inside its experts, which one module computes together; see mlp.router"


def table(config: Any, prefix: str) -> Table:
    """The site table of a Mixtral."""
    block = f"{prefix}layers.{{L}}"
    n_heads, n_kv = config.num_attention_heads, config.num_key_value_heads
    return Table(
        family="mixtral",
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
        | {"mlp.router": Place(f"{block}.mlp.gate", how="router", added=f"{block}.mlp")},
        absent=dict.fromkeys(("mlp.pre", "mlp.pre_linear", "mlp.post"), NO_NEURONS) | logits_absent(prefix),
    )


FAMILY = Family(
    name="mixtral",
    model_types=("mixtral",),
    understood=frozenset(
        {
            "head_dim", "num_experts", "num_experts_per_tok", "num_key_value_heads", "num_local_experts",
            "output_router_logits", "rms_norm_eps", "router_aux_loss_coef", "router_jitter_noise", "sliding_window",
        }
    ),
    table=table,
)  # fmt: skip
