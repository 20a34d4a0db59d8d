"""Drawings from archives as Omniglot has them."""

from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from optrode.errors import BadFile
from optrode.study.kit import omniglot

Image = pytest.importorskip("PIL.Image")


def _png(ink):
    pixels = np.full((8, 8), 255, dtype=np.uint8)
    pixels[:, : ink // 8] = 0
    out = BytesIO()
    Image.fromarray(pixels).convert("1").save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def data(tmp_path):
    (tmp_path / "omniglot").mkdir()
    for archive, names in (("one", ("A/c1", "A/c2")), ("two", ("A/c2", "B/c1"))):
        with ZipFile(tmp_path / "omniglot" / f"{archive}.zip", "w") as opened:
            for ix, name in enumerate(names):
                for drawing in range(3):
                    opened.writestr(f"{archive}/{name}/{drawing:02}.png", _png(16 + 16 * ix + 8 * drawing))
            opened.writestr(f"{archive}/README.txt", "no drawing")
    return tmp_path


def test_without_a_folder_there_is_nothing(tmp_path):
    assert omniglot.find(None) == () and omniglot.find(tmp_path) == ()


def test_each_character_is_taken_once_and_pixels_are_centred(data):
    items = omniglot.read(omniglot.find(data), n_exemplars=2, size=4)
    assert items.shape == (3 * 2, 16)
    assert abs(float(items.mean())) < 1e-6
    assert torch.allclose(items.std(correction=0), torch.tensor(1.0), atol=1e-5)


def test_drawings_of_a_character_stand_together_and_ink_is_positive(data):
    items = omniglot.read(omniglot.find(data), n_exemplars=2, size=8)
    ink = items.sum(1).reshape(3, 2)
    assert (ink[:, 1] > ink[:, 0]).all()  # each next drawing has one more column of ink
    order = [tuple(omniglot.read(omniglot.find(data), size=8, random_seed=seed).sum(1).tolist()) for seed in range(6)]
    assert len(set(order)) > 1


def test_damaged_or_other_archives_are_refused(data, tmp_path):
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no zip")
    with pytest.raises(BadFile, match="not a zip file of images"):
        omniglot.read((bad,))
    with pytest.raises(BadFile, match="no character with 9 drawing"):
        omniglot.read(omniglot.find(data), n_exemplars=9)
