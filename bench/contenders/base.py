"""What a contender is: it prepares a job (caches clean activations) and runs its cells."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jobs import Cell
from prompts import Prompts, summaries
from torch import Tensor

PLAIN = "one forward pass per cell"


class Base:
    """Common parts of all contenders.

    Attributes:
        packages: packages whose versions are reported, besides torch, transformers and numpy.
        ways: job -> the library's own documented ways of doing it; the fastest is measured.
        by_hand: job -> what else a user could write; tried on a few cells and reported, no more.
    """

    packages: ClassVar[tuple[str, ...]] = ()
    ways: ClassVar[Mapping[str, Sequence[str]]] = {}
    by_hand: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init__(self, prompts: Prompts) -> None:
        self.prompts = prompts

    def prepare(self, job: str) -> None:
        """Cache what cells patch from. Timed apart, since it does not grow with the number of cells."""

    def run(self, job: str, way: str, cells: Sequence[Cell]) -> Any:
        """One value per prompt and cell, or the recorded tensors: residual streams, head outputs, MLP outputs."""
        raise NotImplementedError

    def values(self, job: str, result: Sequence[Tensor]) -> list[list[float]]:
        """[cell][prompt] what is compared between contenders."""
        return summaries(list(result)) if job == "record" else [cell.tolist() for cell in result]

    def more(self, job: str) -> dict[str, Any]:
        """Anything else that a contender reports about the job that it ran last."""
        return {}


def load_llama(prompts: Prompts) -> Any:
    """The plain transformers module that all contenders share the weights of."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(prompts.folder).eval()
