"""How the weights of our own models start, as studies publish it.

Norm gains start at 1 and biases at 0; rules differ in the linear weights and embeddings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from optrode.errors import BadOption, nearest


@dataclass(frozen=True)
class Rule:
    """Standard deviations of the weights that a rule draws from normal distributions.

    Attributes:
        gain, relu_gain: of a linear weight, squared and times its number of inputs: `relu_gain` in an MLP and in an
            unembedding with hidden layers, `gain` elsewhere. None for `embedding`, however many the inputs.
        embedding: of an embedding.
        is_truncated: values beyond two standard deviations are drawn again, and the rest widened so that the standard
            deviation stays what is stated.
    """

    gain: float | None
    relu_gain: float | None
    embedding: float
    is_truncated: bool = False


RULES: Final[Mapping[str, Rule]] = MappingProxyType({
    "lecun": Rule(1.0, 1.0, 0.02, is_truncated=True),
    "he": Rule(1.0, 2.0, 0.02),
    "small": Rule(None, None, 0.02),
})  # fmt: skip
"""Name -> rule: "lecun" has variance 1 / inputs (LeCun et al. 1998; Singh et al., arXiv 2404.07129); "he" twice that around
ReLUs (He et al., arXiv 1502.01852; Reddy, arXiv 2312.03002, whose attention has variance 1 / d_model); "small" has standard
deviation 0.02 throughout (GPT-2)."""

_CUT: Final = 2.0
_CUT_SD: Final = 0.8796256610342398
"""Standard deviation of a standard normal variable cut at -2 and 2."""


@torch.no_grad()
def initialise(module: nn.Module, rule: str, random_seed: int = 0) -> None:
    """Draw a module's weights anew; buffers, such as the features of items, are left alone.

    The caller's random state is left alone too, and drawing on CPU gives every device the same numbers.

    Raises:
        BadOption: no such rule.
    """
    if rule not in RULES:
        raise BadOption(f"init={rule!r}", "no such rule", nearest=nearest(rule, RULES) or tuple(RULES))
    generator = torch.Generator().manual_seed(random_seed)
    around = _around_relu(module)
    for name, part in module.named_modules():
        gain = RULES[rule].relu_gain if name.startswith(around) else RULES[rule].gain
        for kind, parameter in part.named_parameters(recurse=False):
            if parameter.dim() < 2:
                parameter.fill_(0.0 if kind.startswith("bias") else 1.0)
            else:
                is_embedding = gain is None or isinstance(part, nn.Embedding)
                deviation = RULES[rule].embedding if is_embedding else (gain / parameter.shape[1]) ** 0.5
                parameter.copy_(_drawn(parameter, RULES[rule].is_truncated, generator) * deviation)


def _around_relu(module: nn.Module) -> tuple[str, ...]:
    """How the names of linear layers before and after a ReLU start."""
    names = [name for name, _ in module.named_modules()]
    mlps = [f"{name}." for name in names if name.rpartition(".")[2] == "mlp"]
    return (*mlps, *(("head.", "unembed") if "head" in names else ()))


def _drawn(like: Tensor, is_truncated: bool, generator: torch.Generator) -> Tensor:
    """Numbers of mean 0 and standard deviation 1."""
    numbers = torch.empty(like.shape, dtype=like.dtype)
    if not is_truncated:
        return numbers.normal_(generator=generator)
    return nn.init.trunc_normal_(numbers, a=-_CUT, b=_CUT, generator=generator) / _CUT_SD
