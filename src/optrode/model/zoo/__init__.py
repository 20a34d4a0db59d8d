"""One file per architecture family. A new family is one new file and one line here."""

from importlib import import_module
from typing import Any, Final

from optrode.errors import UnsupportedArchitecture, nearest
from optrode.model.adapter import Family

FAMILY_OF: Final = {
    "llama": "llama", "mistral": "llama", "qwen2": "llama", "qwen3": "llama",
    "gpt2": "gpt2",
    "gpt_neox": "neox",
    "gemma2": "gemma", "gemma3_text": "gemma",
    "phi3": "phi3",
    "olmo2": "olmo2",
    "bloom": "bloom",
    "mixtral": "mixtral",
    "bert": "bert",
    "vit": "vit",
}  # fmt: skip
"""config.model_type -> file in this folder."""


def find_family(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        UnsupportedArchitecture: no family file covers its `model_type`.
    """
    model_type = config.model_type
    if model_type not in FAMILY_OF:
        raise UnsupportedArchitecture(
            f"architecture {model_type!r}",
            f"no family file covers it (known: {', '.join(sorted(FAMILY_OF))})",
            nearest=nearest(model_type, FAMILY_OF),
            next_step="load the module yourself and pass op.load(module, family=None): every module is then a site",
        )
    family: Family = import_module(f"optrode.model.zoo.{FAMILY_OF[model_type]}").FAMILY
    return family
