"""Where a model comes from: an embedded name, a local folder, a hub id, or the user's own module."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from torch import nn

from optrode.errors import ForeignHooks, UnknownModel, nearest
from optrode.model import embedded
from optrode.model.adapter import Family, Table, check_config
from optrode.model.model import GENERIC, Model
from optrode.model.zoo import find_family

EMBEDDED: Final[dict[str, Callable[[], Path]]] = {embedded.NAME: embedded.smollm2_folder}
"""Models known by a short name: name -> function that returns their folder."""

AUTO: Final = object()
"""Default of `family`: choose the family file by the config's `model_type`."""


def from_source(source: str | Path | nn.Module, *, tokenizer: Any = None, family: Any = AUTO, **options: Any) -> Model:
    """The Model of a name, a folder, a hub id or a module, with its table not yet proven.

    Args:
        source: "smollm2", a folder with config.json and safetensors, a hub id "owner/name", or any nn.Module.
        tokenizer: for a module; folders and hub ids bring their own.
        family: a `Family` of the caller's own, or None for the generic route (only `module:` sites).
        options: passed to transformers' `from_pretrained` (dtype, device_map, revision, ...).

    Raises:
        UnknownModel: no such name or folder, or the folder holds no model.
        UnsupportedArchitecture, ConfigRefused: no family file covers the architecture or config.
    """
    if isinstance(source, nn.Module):
        module, name = source, type(source).__name__
    else:
        name = str(source)
        module, tokenizer = _load_pretrained(_locate(name), name, options)
    _warn_of_hooks(module)
    return Model(module, _table(module, family), tokenizer, name)


def _locate(name: str) -> str:
    if name in EMBEDDED:
        return str(EMBEDDED[name]())
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UnknownModel(
                f"model folder {name!r}", "it holds no config.json", next_step="give a folder that save_pretrained wrote"
            )
        return name
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name
    raise UnknownModel(
        f"model {name!r}", "neither a known name, a folder, nor a hub id like owner/name",
        nearest=nearest(name, EMBEDDED) or tuple(EMBEDDED),
        next_step="`optrode models` lists the known names and families",
    )  # fmt: skip


def _load_pretrained(where: str, name: str, options: dict[str, Any]) -> tuple[nn.Module, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForMaskedLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise UnknownModel(
            f"model {name!r}", f"transformers could not read it ({str(error).splitlines()[0]})",
            nearest=nearest(name, EMBEDDED), next_step="check the folder or hub id, or download the model first",
        ) from error  # fmt: skip
    find_family(config)
    loaders = {"bert": AutoModelForMaskedLM, "vit": AutoModelForImageClassification}
    loader = loaders.get(config.model_type, AutoModelForCausalLM)
    return _load_weights(loader, where, name, options).eval(), _load_tokenizer(where)


def _load_weights(loader: Any, where: str, name: str, options: dict[str, Any]) -> nn.Module:
    from safetensors import SafetensorError

    asked = f"weights of model {name!r}"
    try:
        loaded = loader.from_pretrained(where, **({"use_safetensors": True} | options), output_loading_info=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UnknownModel(
            asked, f"transformers could not load them ({str(error).splitlines()[0].rstrip('.! ')})",
            next_step="save or download the model again, as safetensors",
        ) from error  # fmt: skip
    module: nn.Module = loaded[0]
    missing = sorted(loaded[1]["missing_keys"])
    if missing:  # transformers draws them at random and goes on
        raise UnknownModel(
            asked, f"{len(missing)} are not in the file and would be random numbers, the first {missing[0]}",
            next_step="save or download the model again, or load the module yourself and pass it to op.load",
        )  # fmt: skip
    return module


def _load_tokenizer(where: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where)
    except Exception as error:  # tokenizers raises bare Exceptions
        broken = Path(where) / "tokenizer.json"
        if broken.is_file():
            raise UnknownModel(
                f"tokenizer {broken}", f"transformers could not read it ({str(error).splitlines()[0]})",
                next_step="save or download it again, or remove the file to use the model with token ids",
            ) from error  # fmt: skip
        return None  # vision models, and folders saved without one, are used with tensors


def _table(module: nn.Module, family: Any) -> Table:
    config = getattr(module, "config", None)
    if family is None or (family is AUTO and not hasattr(config, "to_diff_dict")):
        return GENERIC
    chosen: Family = find_family(config) if family is AUTO else family
    if hasattr(config, "to_diff_dict"):
        check_config(config, chosen)
    return chosen.table(config, _prefix(module))


def _prefix(module: nn.Module) -> str:
    base = getattr(module, "base_model_prefix", "")
    return f"{base}." if base and hasattr(module, base) else ""


def _warn_of_hooks(module: nn.Module) -> None:
    hooked = [name or "(the model itself)" for name, m in module.named_modules() if m._forward_hooks or m._forward_pre_hooks]
    if hooked:
        shown = ", ".join(hooked[:5]) + (", ..." if len(hooked) > 5 else "")
        warnings.warn(
            ForeignHooks(
                f"{len(hooked)} modules carry forward hooks that Optrode did not place: {shown}. They stay and run before "
                "Optrode's, so what is recorded includes their effect; remove them first if that is not meant."
            ),
            stacklevel=4,
        )
