"""The faster of torch's two matrix products for float32 linear layers on a CPU.

torch multiplies float32 matrices through MKL. On the AMD processor of `docs/benchmark.md`, oneDNN, which torch carries too,
multiplies twice as fast; other makes were not measured. The products are the same up to rounding.
Only `nn.Linear` itself is served; anything else computes as it always does.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optrode.trial.blocks import replaced


def linears_of(modules: Sequence[nn.Module]) -> tuple[nn.Linear, ...]:
    """The linear layers inside modules that the faster product can serve."""
    if not _is_there():
        return ()
    found = (part for module in modules for part in module.modules() if type(part) is nn.Linear)
    return tuple(part for part in found if part.weight.device.type == "cpu" and part.weight.dtype == torch.float32)


@contextmanager
def fast(linears: Sequence[nn.Linear]) -> Iterator[None]:
    """Linear layers go through oneDNN inside the context. Only without gradients."""
    with ExitStack() as stack:
        for linear in linears:
            if "forward" not in linear.__dict__:  # else somebody else has taken its place
                stack.enter_context(replaced(linear, _Fast(linear)))
        yield


class _Fast:
    """A linear layer's forward."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear

    def __call__(self, input: Tensor) -> Tensor:  # the name that nn.Linear gives it
        weight, bias = self.linear.weight, self.linear.bias
        if input.dtype != torch.float32 or torch.is_grad_enabled():
            return nn.functional.linear(input, weight, bias)
        product: Tensor = _operator()(input, weight, bias, "none", [], "")
        return product


def _is_there() -> bool:
    return bool(torch.backends.mkldnn.is_available()) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _operator() -> Any:
    return torch.ops.mkldnn._linear_pointwise
