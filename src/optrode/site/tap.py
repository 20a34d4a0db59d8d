"""Taps: functions that see a site's tensor as it comes by, and may replace it.

Recording and gating are both taps. Taps are forward hooks on the user's own modules: placed on entering the context,
removed on leaving it, whatever happened in between. At one site they run in the order in which they were placed.

A pass made aside (`aside`) is seen only by taps placed inside it: a gate can run its own model once more, and measures can
look at a model as it is without the gates that are held on it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast, final

import torch
from jaxtyping import Int
from torch import Tensor, nn

from optrode.errors import SiteUnavailable
from optrode.model.generation import Generation, under_way
from optrode.model.model import Model
from optrode.site.attend import probed_attention
from optrode.site.site import Around, Moment, Site, join, split

_DEPTH: Final[ContextVar[int]] = ContextVar("depth", default=0)
"""How many passes aside the present one is inside of."""

Function = Callable[[Tensor, Moment], Tensor | None]
"""(viewed tensor, moment) -> its replacement, or None to leave it alone."""


@contextmanager
def tapped(model: Model, taps: Sequence[tuple[Site, Function]]) -> Iterator["Clock"]:
    """Hold taps on a model. Hooks, mode and random state are as before when the context ends.

    Yields:
        The clock, which knows the positions of the pass under way.

    Raises:
        SiteUnavailable: a site's module does not exist, or cannot be tapped.
    """
    with ExitStack() as stack:
        clock = stack.enter_context(_ticking(model))
        for site, function in taps:
            _refuse_compiled(model, site)
            _TAPS[site.place.how](model, site, _Tap(function, clock), stack)
        yield clock


@contextmanager
def aside() -> Iterator[None]:
    """Passes made inside are seen only by taps placed inside."""
    token = _DEPTH.set(_DEPTH.get() + 1)
    try:
        yield
    finally:
        _DEPTH.reset(token)


@final
class Clock:
    """Positions of the pass under way, read off the arguments of the outermost call.

    Attributes:
        around: what else gates were promised of the pass; None where nobody asked.
        on_pass: called with the arguments at the start of each pass, before anything is computed.
        n_past: positions that the K/V cache held when the pass began.
        is_first: whether the pass is the first over its rows.
        n_prompts: rows of the generation under way before beams; None outside of one.
        cache: the pass's K/V cache, or None.
    """

    def __init__(self) -> None:
        self.pass_ix, self.depth, self.is_open = 0, _DEPTH.get(), True
        self.row_pos: Int[Tensor, "batch pos"] | None = None
        self.prompt_len: Int[Tensor, " batch"] | None = None
        self.around: Around | None = None
        self.on_pass: Callable[[tuple[Any, ...], dict[str, Any]], None] | None = None
        self.n_past, self.is_first, self.n_prompts = 0, True, cast("int | None", None)
        self.cache: Any = None
        self._generation: Generation | None = None

    @property
    def is_watching(self) -> bool:
        """Whether the pass under way is one that this clock's taps may see."""
        return self.is_open and self.depth == _DEPTH.get()

    def start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a new pass: rows, new positions, and how many positions the K/V cache already holds."""
        if not self.is_watching:
            return
        self.pass_ix += 1
        self._count(args, kwargs)
        if self.on_pass is not None:
            self.on_pass(args, kwargs)

    def _count(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = _first(kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args)
        if tokens is None or tokens.dim() != (3 if tokens.is_floating_point() else 2):
            self.row_pos = self.prompt_len = self.cache = None  # images, feature vectors: nothing that has positions
            self.n_past, self.is_first, self.n_prompts = 0, True, None
            return
        self.cache = kwargs.get("past_key_values")
        self.n_past = int(self.cache.get_seq_length()) if hasattr(self.cache, "get_seq_length") else 0
        self.row_pos = _row_positions(tokens, kwargs.get("attention_mask"), self.n_past)
        self._place_in_generation(len(tokens))

    def _place_in_generation(self, n_rows: int) -> None:
        assert self.row_pos is not None
        now = under_way()
        lengths = None if now is None else now.by_row(n_rows)
        self.is_first = self.n_past == 0 and (lengths is None or now is not self._generation)
        self._generation, self.n_prompts = (now, len(now.lengths)) if now and lengths is not None else (None, None)
        if lengths is not None:
            self.prompt_len = lengths.to(self.row_pos.device)
        elif self.n_past == 0 or self.prompt_len is None:
            self.prompt_len = self.row_pos.amax(1) + 1

    def moment(self, call_ix: int) -> Moment:
        """The current moment for a site that has come by `call_ix` times in this pass."""
        return Moment(self.row_pos, self.prompt_len, call_ix, around=self.around)


def _first(*values: Any) -> Tensor | None:
    return next((v for v in values if isinstance(v, Tensor)), None)


def _row_positions(tokens: Tensor, mask: Tensor | None, n_past: int) -> Int[Tensor, "batch pos"]:
    n_rows, n_new = tokens.shape[:2]
    if mask is None or mask.dim() != 2:
        return torch.arange(n_past, n_past + n_new, device=tokens.device).expand(n_rows, n_new)
    real = mask.bool()
    return torch.where(real, real.long().cumsum(1) - 1, -1)[:, -n_new:]


@contextmanager
def _ticking(model: Model) -> Iterator[Clock]:
    clock = Clock()

    def start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        clock.start(args, kwargs)

    handle = model.module.register_forward_pre_hook(start, with_kwargs=True, prepend=True)
    try:
        yield clock
    finally:
        clock.is_open = False  # code compiled while the hooks were there may still call them
        handle.remove()


def _refuse_compiled(model: Model, site: Site) -> None:
    """Compiled code does not notice hooks that are placed after it was made, unless it was told to look."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None or not getattr(dynamo.config, "skip_nnmodule_hook_guards", True):
        return
    parts = site.place.path.split(".") if site.place.path else []
    for path in (".".join(parts[:n]) for n in range(len(parts) + 1)):
        module = model.submodule(path)
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            step = "set torch._dynamo.config.skip_nnmodule_hook_guards = False, or leave that part uncompiled"
            found = f"{path or 'the module'} was compiled, and compiled code would not see the hook"
            raise SiteUnavailable(f"site {site.name}", found, next_step=step)


@final
class _Tap:
    """A function with its count of calls within the pass."""

    def __init__(self, function: Function, clock: Clock) -> None:
        self.function, self.clock = function, clock
        self.pass_ix, self.call_ix = -1, 0

    def __call__(self, tensor: Tensor) -> Tensor | None:
        if not self.clock.is_watching:
            return None
        self.call_ix = self.call_ix + 1 if self.pass_ix == self.clock.pass_ix else 0
        self.pass_ix = self.clock.pass_ix
        return self.function(tensor, self.clock.moment(self.call_ix))

    def per_row(self, tensor: Tensor) -> Tensor:
        """`tensor` for every row of the pass: position embeddings are computed once for all of them."""
        rows = self.clock.row_pos
        return tensor if rows is None or len(tensor) != 1 else tensor.expand(len(rows), *tensor.shape[1:])


def _tap_port(model: Model, site: Site, tap: _Tap, stack: ExitStack) -> None:
    module, view = model.submodule(site.place.path), site.place.view

    def replaced(tensor: Tensor) -> Tensor | None:
        tensor = tap.per_row(tensor) if view.axes else tensor
        new = tap(split(tensor, view))
        return None if new is None else join(tensor, view, new)

    stack.callback(_on_input(module, replaced) if site.place.port == "in" else _on_output(module, replaced))


def _tap_mid(model: Model, site: Site, tap: _Tap, stack: ExitStack) -> None:
    """The residual stream between attention and MLP: (block input) + (attention's output)."""
    inputs: list[Tensor] = []

    def remember(tensor: Tensor) -> None:
        inputs[:] = [tensor]

    def replaced(added: Tensor) -> Tensor | None:
        before = inputs[0]
        stream = before + added
        new = tap(stream)
        if new is None:
            return None
        return _with_path(torch.where(new == stream, added, new - before), new - before)

    stack.callback(_on_input(model.submodule(site.place.path), remember))
    stack.callback(_on_output(model.submodule(site.place.added), replaced))
    stack.callback(inputs.clear)


def _tap_result(model: Model, site: Site, tap: _Tap, stack: ExitStack) -> None:
    """Each head's write to the residual stream, z W_O per head; a change is added to the projection's output."""
    module, view = model.submodule(site.place.path), site.place.view

    def hook(called: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        result = torch.einsum("bphe,hed->bphd", split(args[0], view), _head_weights(called, view.heads or 1))
        new = tap(result)
        if new is None:
            return None
        change = torch.where(new == result, torch.zeros_like(new), new - result).sum(2)
        bias = getattr(called, "bias", None)
        return _with_path(output + change, new.sum(2) if bias is None else new.sum(2) + bias)

    stack.callback(module.register_forward_hook(hook).remove)


def _head_weights(module: nn.Module, n_heads: int) -> Tensor:
    """W_O as [head, d_head, d_model]; nn.Linear stores its transpose, GPT-2's Conv1D does not."""
    weight = module.weight
    if not isinstance(weight, Tensor):
        raise SiteUnavailable(f"attn.result of {type(module).__name__}", "the module has no weight tensor")
    rows = weight.T if isinstance(module, nn.Linear) else weight
    by_head: Tensor = rows.unflatten(0, (n_heads, -1))
    return by_head


def _tap_router(model: Model, site: Site, tap: _Tap, stack: ExitStack) -> None:
    """The logits by which experts are chosen, flat [batch * pos, expert] inside; new ones are routed again."""
    shape: list[int] = []

    def remember(tensor: Tensor) -> None:
        shape[:] = tensor.shape[:2]

    def hook(called: nn.Module, args: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        new = tap(output[0].unflatten(0, shape))
        return None if new is None else _route(called, new.flatten(0, 1))

    stack.callback(_on_input(model.submodule(site.place.added), remember))
    stack.callback(model.submodule(site.place.path).register_forward_hook(hook).remove)


def _route(router: nn.Module, logits: Tensor) -> tuple[Tensor, ...]:
    """What a router returns for given logits: them, the weights of the chosen experts, and which they are."""
    weights, chosen = torch.topk(torch.softmax(logits.float(), dim=-1), int(router.top_k), dim=-1)  # type: ignore[arg-type]
    return logits, weights / weights.sum(dim=-1, keepdim=True), chosen


def _tap_attention(model: Model, site: Site, tap: _Tap, stack: ExitStack) -> None:
    def replaced(tensor: Tensor) -> Tensor:
        new = tap(tensor)
        return tensor if new is None else new

    stack.enter_context(probed_attention(model.submodule(site.place.path), site.place.how, replaced))


def _tap_logits(model: Model, site: Site, tap: _Tap, stack: ExitStack) -> None:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(getattr(output, "logits", None), Tensor):
            raise SiteUnavailable(f"logits of {type(module).__name__}", f"it returned {type(output).__name__} without any")
        new = tap(output.logits)
        if new is not None:
            output.logits = new
        return output

    stack.callback(model.module.register_forward_hook(hook).remove)


_TAPS: dict[str, Callable[[Model, Site, _Tap, ExitStack], None]] = {
    "port": _tap_port,
    "mid": _tap_mid,
    "result": _tap_result,
    "scores": _tap_attention,
    "pattern": _tap_attention,
    "router": _tap_router,
    "logits": _tap_logits,
}


def _with_path(value: Tensor, path: Tensor) -> Tensor:
    """`value` exactly, with the gradient of `path` (their values differ only by rounding)."""
    if not (torch.is_grad_enabled() and path.requires_grad):
        return value
    return value.detach() + (path - path.detach())


def _on_input(module: nn.Module, function: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
    def hook(called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and isinstance(args[0], Tensor):
            new = function(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        named = [k for k, v in kwargs.items() if isinstance(v, Tensor)]
        key = "hidden_states" if "hidden_states" in named else next(iter(named), None)
        if key is None:
            raise SiteUnavailable(f"input of {type(called).__name__}", "it was called with no tensor")
        new = function(kwargs[key])
        return None if new is None else (args, {**kwargs, key: new})

    return module.register_forward_pre_hook(hook, with_kwargs=True).remove


def _on_output(module: nn.Module, function: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
    def hook(called: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return function(output)
        if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
            new = function(output[0])
            return None if new is None else (new, *output[1:])
        if isinstance(output, dict) and isinstance(next(iter(output.values()), None), Tensor):
            key = next(iter(output))
            new = function(output[key])
            if new is not None:
                output[key] = new
            return output
        raise SiteUnavailable(f"output of {type(called).__name__}", f"it returned {type(output).__name__}, not a tensor")

    return module.register_forward_hook(hook).remove
