"""Handwritten characters (Omniglot, Lake et al. 2015) as items of in-context classification, where the data set is at hand.

It is neither shipped nor needed: `find` gives None without it, and a study leaves that variant out.
"""

from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Final
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optrode.errors import BadFile, BadOption

N_DRAWINGS: Final = 20
"""Drawings of each character."""


def find(data: Path | None) -> tuple[Path, ...]:
    """The archives `omniglot/*.zip` of a data folder; none where there is no such folder."""
    return () if data is None else tuple(sorted((data / "omniglot").glob("*.zip")))


def read(
    archives: tuple[Path, ...], n_exemplars: int = 1, size: int = 28, random_seed: int = 0
) -> Float[Tensor, "item width"]:  # fmt: skip
    """Characters of all alphabets in random order, each with its first drawings, as ink in 0..1.

    All pixels of all items together have mean 0 and standard deviation 1. A character that stands in several archives is
    taken once.

    Returns:
        [class x n_exemplars, size x size], class by class.

    Raises:
        BadFile: an archive is damaged, or holds no character with so many drawings.
        BadOption: Pillow is not installed.
    """
    found: dict[str, list[Float[np.ndarray, "size size"]]] = {}
    for archive in archives:
        for name, images in _characters(archive, n_exemplars, size).items():
            found.setdefault(name, images)
    if not found:
        where = ", ".join(path.name for path in archives) or "no archive"
        hint = f"give at most {N_DRAWINGS} exemplars, and archives as Omniglot has them: alphabet/character/drawing.png"
        raise BadFile(f"Omniglot in {where}", f"no character with {n_exemplars} drawing(s)", next_step=hint)
    order = np.random.default_rng(random_seed).permutation(len(found))
    names = sorted(found)
    items = np.stack([found[names[ix]] for ix in order]).reshape(-1, size * size)
    return torch.from_numpy((items - items.mean()) / items.std()).float()


def _characters(archive: Path, n_exemplars: int, size: int) -> dict[str, list[Float[np.ndarray, "size size"]]]:
    """Alphabet/character -> its first drawings [size, size]."""
    try:
        with ZipFile(archive) as opened:
            by_character: dict[str, list[str]] = {}
            for name in sorted(opened.namelist()):
                path = PurePosixPath(name)
                if path.suffix == ".png" and len(path.parts) >= 3:
                    by_character.setdefault("/".join(path.parts[-3:-1]), []).append(name)
            return {
                character: [_pixels(opened.read(name), size) for name in names[:n_exemplars]]
                for character, names in by_character.items() if len(names) >= n_exemplars
            }  # fmt: skip
    except (BadZipFile, OSError) as error:
        found = f"not a zip file of images ({error})"
        raise BadFile(f"Omniglot archive {archive}", found, next_step="fetch it anew") from error


def _pixels(png: bytes, size: int) -> Float[np.ndarray, "size size"]:
    """Ink in 0..1: each pixel is the mean of those that it stands for."""
    try:
        from PIL import Image
    except ImportError:
        hint = "pip install 'optrode[studies]'"
        raise BadOption("reading Omniglot's drawings", "Pillow is not installed", next_step=hint) from None
    with Image.open(BytesIO(png)) as image:
        small = image.convert("L").resize((size, size), Image.Resampling.BOX)
        return 1.0 - np.asarray(small, dtype=np.float64) / 255.0
