"""Files of sparse autoencoders in SAELens's format: a folder with `cfg.json` and `sae_weights.safetensors`.

Only what is understood is loaded: an autoencoder read under wrong assumptions gives numbers that look right. Known are the
architectures standard, jumprelu and topk, of inputs that are not normalised.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from optrode.control.sae import SAE, shape_fault
from optrode.errors import BadFile, BadName, ConfigRefused, UnsupportedArchitecture, nearest
from optrode.model.names import SiteName, parse
from optrode.records import read_json, write_bytes, write_text

CONFIG: Final = "cfg.json"
WEIGHTS: Final = "sae_weights.safetensors"
ARCHITECTURES: Final = {"standard": "relu", "jumprelu": "jumprelu", "topk": "topk"}
"""SAELens's architectures that are read, and their activations here."""

_NEEDED: Final = ("W_enc", "b_enc", "W_dec", "b_dec")
_UNSET: Final[Mapping[str, tuple[Any, ...]]] = {
    "normalize_activations": (None, "none"), "reshape_activations": (None, "none"),
    "finetuning_scaling_factor": (None, False), "hook_head_index": (None,),
    "rescale_acts_by_decoder_norm": (None, False), "multi_topk": (None, False),
}  # fmt: skip
"""Settings that change what an autoencoder computes, with the values under which they do not."""


@dataclass(frozen=True)
class _Config:
    """A configuration file: its own entries, and those of the metadata within it."""

    path: Path
    held: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        inner = self.held.get("metadata")
        return self.held.get(key, inner.get(key) if isinstance(inner, dict) else None)

    @property
    def asked(self) -> str:
        return f"autoencoder {self.path.parent}"


def load_sae(folder: str | Path, *, site: str | None = None, dtype: torch.dtype | None = None) -> SAE:
    """An autoencoder from a folder in SAELens's format, on the processor.

    Args:
        folder: with cfg.json and sae_weights.safetensors.
        site: whose states it takes; the configuration's `hook_name` by default.
        dtype: of its numbers; as they are in the file by default.

    Raises:
        BadFile: a file is missing or torn, or the two do not fit.
        UnsupportedArchitecture: an architecture or activation that is not known here; the message names it.
        ConfigRefused: a setting that is not supported, such as normalised inputs, or no site.
        BadOption, GateNotFinite: its numbers make no autoencoder.
    """
    path = Path(folder) / CONFIG
    data = read_json(path)
    if not isinstance(data, dict):
        raise BadFile(f"file {path}", "not a configuration", next_step="download the folder again")
    config = _Config(path, data)
    activation = _activation(config)
    _check_settings(config)
    weights = _weights(Path(folder) / WEIGHTS, config, activation)
    weights = {name: tensor if dtype is None else tensor.to(dtype) for name, tensor in weights.items()}
    k = _k(config) if activation == "topk" else None
    centres = config["apply_b_dec_to_input"] in (None, True)  # files of before the setting do
    return SAE(site or _site(config), **weights, activation=activation, k=k, centres_input=centres)


def save_sae(sae: SAE, folder: str | Path, *, model_name: str = "") -> Path:
    """Write an autoencoder as cfg.json and sae_weights.safetensors.

    Args:
        model_name: whose states it takes, for people and SAELens.

    Returns:
        The folder.

    Raises:
        BadFile: the files cannot be written.
    """
    path = Path(folder)
    n_features, n_latents = sae.W_enc.shape
    architecture = next(name for name, activation in ARCHITECTURES.items() if activation == sae.activation)
    hook = {"hook_name": hook_name(parse(sae.site)), "model_name": model_name, "hook_head_index": None}
    config = {
        "architecture": architecture, "d_in": n_features, "d_sae": n_latents, "dtype": str(sae.W_enc.dtype).split(".")[-1],
        "device": "cpu", "apply_b_dec_to_input": sae.centres_input, "normalize_activations": "none",
        "reshape_activations": "none", **hook, "metadata": hook,
    } | ({} if sae.k is None else {"k": sae.k})  # fmt: skip
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sae.tensors().items()}
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_bytes(path / WEIGHTS, save(tensors))
        write_text(path / CONFIG, json.dumps(config, indent=1) + "\n")
    except OSError as error:
        found = f"it cannot be written ({error.strerror})"
        raise BadFile(f"autoencoder {path}", found, next_step="give another folder, or make room") from error
    return path


def hook_name(name: SiteName) -> str:
    """A site's name as TransformerLens spells it: blocks.3.attn.z is blocks.3.attn.hook_z."""
    if name.is_module:
        return str(name)
    head, _, last = name.path.rpartition(".")
    return f"{head}.hook_{last}" if head else f"hook_{last}"


def _activation(config: _Config) -> Any:
    name = config["architecture"] or "standard"  # which early files leave out
    if name not in ARCHITECTURES:
        known = nearest(str(name), ARCHITECTURES) or tuple(ARCHITECTURES)
        step = "convert it to one of these, if it can be"
        raise UnsupportedArchitecture(config.asked, f"its architecture is {name!r}", nearest=known, next_step=step)
    function = config["activation_fn_str"] or config["activation_fn"] or "relu"
    if function not in ("relu", "topk", "jumprelu"):
        found = f"its activation is {function!r}"
        raise UnsupportedArchitecture(config.asked, found, nearest=("relu", "topk", "jumprelu"))
    return "topk" if function == "topk" else ARCHITECTURES[name]


def _check_settings(config: _Config) -> None:
    for key, harmless in _UNSET.items():
        if config[key] not in harmless:
            found = f"{key} is {config[key]!r} in {config.path.name}, which is not supported"
            step = f"fold it into the weights where it was trained, and save it with {key}={harmless[-1]!r}"
            raise ConfigRefused(config.asked, found, next_step=step)


def _k(config: _Config) -> int:
    inner = config["activation_fn_kwargs"]
    found = config["k"] or (inner.get("k") if isinstance(inner, dict) else None)
    if not isinstance(found, int):
        step = 'add "k": the number of latents that are active at once'
        raise ConfigRefused(config.asked, f"{config.path.name} has no k, and the activation is topk", next_step=step)
    return found


def _site(config: _Config) -> str:
    name = config["hook_name"]
    try:
        return str(parse(str(name or "")))
    except BadName as error:
        found = f"{config.path.name} names no site that is known here (hook_name is {name!r})"
        raise ConfigRefused(config.asked, found, next_step='say which: site="blocks.8.resid_post"') from error


def _weights(path: Path, config: _Config, activation: str) -> dict[str, Tensor]:
    try:
        held = load(path.read_bytes())
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*.safetensors"))[:3]
        raise BadFile(f"tensor file {path}", "no such file", nearest=there, next_step="download the folder again") from None
    except (SafetensorError, OSError) as error:
        found = f"not safetensors, or torn ({error})"
        raise BadFile(f"tensor file {path}", found, next_step="download the folder again") from error
    wanted = (*_NEEDED, *(["threshold"] if activation == "jumprelu" else []))
    _check_held(path, config, held, wanted)
    return {name: held[name] for name in wanted}


def _check_held(path: Path, config: _Config, held: Mapping[str, Tensor], wanted: tuple[str, ...]) -> None:
    missing, extra = [n for n in wanted if n not in held], sorted(set(held) - set(wanted))
    if missing or extra:
        found = f"it has no {missing[0]!r}" if missing else f"it holds {extra[0]!r}, which has no place in this architecture"
        raise BadFile(f"tensor file {path}", found, nearest=sorted(held)[:5], next_step="check the architecture in cfg.json")
    fault, said = shape_fault(held), (config["d_in"], config["d_sae"])
    if fault is None and any(n is not None and n != m for n, m in zip(said, held["W_enc"].shape, strict=True)):
        fault = f"W_enc has the shape {tuple(held['W_enc'].shape)}, and {CONFIG} says {said}"
    if fault is not None:
        raise BadFile(f"tensor file {path}", fault, next_step="keep the two files of one autoencoder together")
