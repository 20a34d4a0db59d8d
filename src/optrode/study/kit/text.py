"""Text that every machine has: the sources of Python's own standard library, read character by character.

Another version of Python has another text, so that numbers of a study may differ in their last digits; what the studies
claim of it does not hang on them.

    words = text.corpus()
    rows = text.draw(words.seen, 16, 64, generator)
    text.loss(text.network(), rows)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from optrode.errors import BadOption
from optrode.model.model import Model
from optrode.nn.spec import Spec
from optrode.nn.transformer import as_model, build

MODULES: Final = (
    "argparse", "ast", "configparser", "dataclasses", "difflib", "doctest", "enum", "functools", "inspect", "logging",
    "optparse", "pickle", "shutil", "smtplib", "socket", "statistics", "subprocess", "tarfile", "threading", "typing",
)  # fmt: skip
"""Modules that are read, about 1.3 million characters; the last two are left out of training."""
N_LEFT_OUT: Final = 2

BOS: Final = 0
"""Token before the first character of every row."""
NEWLINE: Final = 1
VOCAB: Final = 97
"""Beginning, newline, and the 95 printable characters of ASCII, in its order."""


@final
@dataclass(frozen=True, eq=False)
class Corpus:
    """Characters as token ids, without `BOS`.

    Attributes:
        seen: to train with.
        unseen: of modules that are left out.
    """

    seen: Int[Tensor, " seen"]
    unseen: Int[Tensor, " unseen"]


def corpus(modules: Sequence[str] = MODULES, n_left_out: int = N_LEFT_OUT) -> Corpus:
    """The sources of modules, one after another.

    Args:
        n_left_out: of the modules, the last ones, are not to be trained with.

    Raises:
        BadOption: a module has no source on this machine, or a part would be empty.
    """
    if not 0 < n_left_out < len(modules):
        found = f"{n_left_out} of {len(modules)} modules would be left out"
        raise BadOption("a corpus in two parts", found, next_step="give at least one module to each part")
    parts = [encode(source(name)) for name in modules]
    return Corpus(torch.cat(parts[:-n_left_out]), torch.cat(parts[-n_left_out:]))


def source(module: str) -> str:
    """The text of a module's file.

    Raises:
        BadOption: there is no such module, or it has no file of text.
    """
    found = find_spec(module)
    file = None if found is None or found.origin is None else Path(found.origin)
    if file is None or file.suffix != ".py" or not file.exists():
        what = "there is no such module" if found is None else "it has no source file here"
        raise BadOption(f"source of the module {module!r}", what, next_step="name others, such as argparse or typing")
    return file.read_text(encoding="utf-8")


def encode(words: str) -> Int[Tensor, " pos"]:
    """Token ids of characters; those that are neither printable ASCII nor a newline are left out."""
    codes = np.frombuffer(words.encode("ascii", errors="ignore"), np.uint8)
    codes = codes[(codes == ord("\n")) | ((codes >= ord(" ")) & (codes <= ord("~")))].astype(np.int64)
    return torch.from_numpy(np.where(codes == ord("\n"), NEWLINE, codes - ord(" ") + 2))


def decode(ids: Int[Tensor, " pos"]) -> str:
    """The characters of token ids; `BOS` becomes the empty text."""
    return "".join("" if ix == BOS else "\n" if ix == NEWLINE else chr(ix - 2 + ord(" ")) for ix in ids.tolist())


def draw(ids: Int[Tensor, " all"], n_rows: int, length: int, generator: torch.Generator) -> Int[Tensor, "row pos"]:
    """Pieces of a text from anywhere in it, `BOS` and `length` characters each, all places alike.

    Raises:
        BadOption: the text is shorter than a piece.
    """
    n_starts = len(ids) - length + 1
    if n_starts < 1:
        found = f"the text has {len(ids)} characters"
        raise BadOption(f"pieces of {length} characters", found, next_step="give a longer text, or ask for shorter ones")
    starts = torch.randint(n_starts, (n_rows, 1), generator=generator)
    pieces = ids[starts + torch.arange(length)]
    return torch.cat([torch.full((n_rows, 1), BOS), pieces], 1)


def network(random_seed: int = 0, *, init: str = "small", **changes: Any) -> Model:
    """A small language model of the usual kind: RMS norm before each half of a block, rotary positions, no biases.

    Args:
        changes: fields of its `Spec` that are to differ.
    """
    spec = Spec(
        n_layers=4, n_heads=4, d_model=64, vocab=VOCAB, n_ctx=128, d_mlp=256, norm="rms", positions="rotary", has_bias=False
    )  # fmt: skip
    return as_model(build(replace(spec, **changes), random_seed, init=init), "language model of characters")


def loss(model: Model, rows: Int[Tensor, "row pos"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of every character given those before it, in nats."""
    logits = model(rows[:, :-1]).logits
    return cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
