"""Tiny random transformers of every covered architecture, built offline, for tests, documentation and demos.

Their sizes are odd on purpose: no two axes have the same length, so that a mixed-up axis shows. Biases and norms are
not at their usual 0 and 1, so that leaving one out shows too.
"""

from typing import Any, Final

import torch
from torch import nn

from optrode.errors import UnsupportedArchitecture, nearest

_TEXT: Final[dict[str, Any]] = {
    "vocab_size": 61, "num_hidden_layers": 3, "max_position_embeddings": 64, "initializer_range": 0.25,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
_LLAMA: Final[dict[str, Any]] = _TEXT | {
    "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 56,
}  # fmt: skip
_GEMMA: Final[dict[str, Any]] = _LLAMA | {
    "head_dim": 10, "query_pre_attn_scalar": 10, "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip

CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "llama": _LLAMA | {"attention_bias": True},
    "mistral": _LLAMA | {"sliding_window": 4},
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | {"head_dim": 10},
    "gpt2": _TEXT | {"n_embd": 36, "n_head": 4, "n_inner": 50},
    "gpt_neox": _TEXT | {"hidden_size": 48, "num_attention_heads": 6, "intermediate_size": 50},
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "phi3": _LLAMA,
    "olmo2": _LLAMA,
    "bloom": _TEXT | {"hidden_size": 36, "n_head": 6},
    "mixtral": _LLAMA | {"num_local_experts": 5, "num_experts_per_tok": 2},
    "bert": _TEXT | {"hidden_size": 36, "num_attention_heads": 4, "intermediate_size": 50},
    "vit": {
        "hidden_size": 36, "num_attention_heads": 4, "intermediate_size": 50, "num_hidden_layers": 3, "image_size": 12,
        "patch_size": 4, "num_channels": 3, "num_labels": 7, "initializer_range": 0.25,
    },
}  # fmt: skip
"""config.model_type -> the config fields of its tiny module."""

_MODEL_TYPE: Final = {"neox": "gpt_neox", "gemma": "gemma2"}
"""Families whose name is not one of their model types."""


def tiny(name: str, *, random_seed: int = 0, has_head: bool = True, **overrides: Any) -> nn.Module:
    """A tiny random transformers module, in evaluation mode.

    Args:
        name: a `model_type` ("gpt_neox") or a family ("neox").
        random_seed: of the weights; the caller's random state is left alone.
        has_head: with the language-model (or classifier) head; the base model otherwise.
        overrides: config fields to set otherwise, and `attn_implementation`.

    Raises:
        UnsupportedArchitecture: no tiny module of that name.
    """
    model_type = _MODEL_TYPE.get(name, name)
    if model_type not in CONFIGS:
        known = (*CONFIGS, *_MODEL_TYPE)
        raise UnsupportedArchitecture(
            f"tiny model {name!r}", f"there is none (known: {', '.join(sorted(known))})", nearest=nearest(name, known)
        )
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type, **(CONFIGS[model_type] | overrides))
    with torch.random.fork_rng():
        torch.manual_seed(random_seed)
        module: nn.Module = _auto_class(model_type, has_head).from_config(config)
        _stir(module)
    return module.eval()


def _auto_class(model_type: str, has_head: bool) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM

    if not has_head:
        return AutoModel
    return {"bert": AutoModelForMaskedLM, "vit": AutoModelForImageClassification}.get(model_type, AutoModelForCausalLM)


def _stir(module: nn.Module) -> None:
    """Move biases and the scales of norms off the constants that they start from."""
    for name, parameter in module.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
        elif name.endswith("cls_token"):
            nn.init.normal_(parameter)
