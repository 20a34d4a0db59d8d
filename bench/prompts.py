"""The prompts of the benchmark as tensors, the metric, and a summary of recordings. The same file for all environments."""

import json
from pathlib import Path
from typing import final

import torch
from torch import Tensor


@final
class Prompts:
    """Clean and corrupt token ids [prompt, pos], and the metric on them."""

    def __init__(self, path: Path) -> None:
        read = json.loads(path.read_text())
        self.folder: str = read["model"]
        self.clean, self.corrupt = (torch.tensor([pair[world] for pair in read["pairs"]]) for world in ("clean", "corrupt"))
        self.right, self.wrong = (torch.tensor([pair[kind] for pair in read["pairs"]]) for kind in ("right", "wrong"))
        self._rows = torch.arange(len(self.clean))

    def metric(self, logits: Tensor) -> Tensor:
        """[prompt] logit of the right answer minus that of the wrong one, after the last token."""
        last = logits[:, -1]
        return last[self._rows, self.right] - last[self._rows, self.wrong]


def summaries(recorded: list[Tensor]) -> list[list[float]]:
    """[tensor][prompt] one number of order 1 per recorded tensor and prompt: its projection on a fixed direction.

    Divided by the tensor's own size, so that streams of very different size can be compared with each other.
    """
    return [_summary(tensor.detach().flatten(1).double()) for tensor in recorded]


def _summary(rows: Tensor) -> list[float]:
    direction = torch.sin(torch.arange(rows.shape[1], dtype=rows.dtype) * 1.7 + 0.3)
    sizes = rows.norm(dim=1) * direction.norm() / rows.shape[1] ** 0.5
    values: list[float] = (rows @ direction / sizes).tolist()
    return values
