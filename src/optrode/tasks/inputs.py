"""Tasks made of a module's own inputs: images, feature vectors."""

from collections.abc import Sequence

from torch import Tensor

from optrode.errors import BadOption
from optrode.trial.example import Example
from optrode.trial.prompts import Task


def examples(
    clean: Tensor, corrupt: Tensor, right: Sequence[int], wrong: Sequence[int], *, name: str = "examples",
    description: str = "Pairs of inputs.", metric: str = "logit_gap",
) -> Task:  # fmt: skip
    """A task made of a module's own inputs.

    Args:
        clean, corrupt: [example, ...] inputs as the module takes them, e.g. pixel values.
        right, wrong: [example] the index of the clean input's right output, and that of a wrong one.

    Raises:
        BadOption: their numbers or shapes differ.
    """
    if clean.shape != corrupt.shape or len(right) != len(clean) or len(wrong) != len(clean):
        raise BadOption(
            f"task {name}", f"clean is {tuple(clean.shape)}, corrupt {tuple(corrupt.shape)}, with {len(right)} right and "
            f"{len(wrong)} wrong answers", next_step="give as many of each, in one shape",
        )  # fmt: skip
    pairs = [Example(c, x, (int(r),), (int(w),)) for c, x, r, w in zip(clean, corrupt, right, wrong, strict=True)]
    return Task(name, description, metric, tuple(pairs))
