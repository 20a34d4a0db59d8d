"""A trained run looked at again from its checkpoints: where its heads look on a few prompts, and how its circuit grows.

    free = op.train.fit(plan, out="runs/free")
    seen = op.train.watch(free, prompts=[op.train.Prompt("When Mary and John went to")], looks={"circuit": size_and_score})
    op.report(free.run, seen).save("runs/free/report.html")
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from optrode.errors import BadOption
from optrode.gate.gate import Gate
from optrode.gate.place import gates as hold
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.site.recording import Inputs, record
from optrode.train.checkpoints import along
from optrode.train.loop import Trained
from optrode.train.records import Emergence, Series, Watched
from optrode.trial.run import Progress, no_progress

PATTERN: Final = "blocks.{layer}.attn.pattern"
Looked = float | int | Mapping[str, float | int]
Looks = Mapping[str, Callable[[Model], Looked]]
Pattern = Float[np.ndarray, "layer head pos src"]


@final
@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt whose attention is watched.

    Attributes:
        inputs: a text, or one row of what `record` takes: token ids, a tensor, keyword arguments.
        tokens: what to call its positions; by default the tokens as text, or the token ids.
    """

    inputs: Inputs
    tokens: tuple[str, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class _Seen:
    """What one checkpoint showed: [prompt] patterns, whose lengths differ; a number that is not finite is None."""

    patterns: tuple[Float[np.ndarray, "layer head _ _"], ...]
    numbers: Mapping[str, float | None]


def watch(
    trained: Trained, *, prompts: Sequence[Prompt] = (), looks: Looks | None = None, layers: Sequence[int] | None = None,
    steps: Sequence[int] | None = None, gates: Sequence[Gate] = (), progress: Progress = no_progress,
) -> Emergence:  # fmt: skip
    """Attention on prompts, and measures of the circuit, at each checkpoint of a run.

    A run with a folder keeps what each checkpoint showed, so that a call that was killed goes on (see `along`).

    Args:
        looks: name -> function of the model that gives a number, or several by name: size and faithfulness of a circuit
            found there, say. One that is not finite is left out of its series.
        layers: whose attention is read; all by default.
        steps: of the checkpoints; all that were kept by default.
        gates: held while looking; without them a run is looked at free, also where it was trained with gates.

    Raises:
        BadOption: neither prompt nor function, no checkpoint at a step, a prompt that is several, labels that do not fit it,
            or layers whose heads differ in number.
        UnknownSite, SiteUnavailable: a layer has no attention that can be read.
    """
    if not prompts and not looks:
        step = 'give prompts=[op.train.Prompt("...")], or looks={"name": function}'
        raise BadOption(f"watch {trained.run.name!r}", "there is nothing to look at", next_step=step)
    start = time.perf_counter()
    chosen = tuple(range(trained.model.table.n_layers) if layers is None else layers) if prompts else ()
    look = partial(_see, tuple(p.inputs for p in prompts), chosen, dict(looks or {}), tuple(gates))
    seen: dict[int, _Seen] = dict(sorted(along(trained, look, kind=_Seen, steps=steps, progress=progress).items()))
    run, model = trained.run, trained.model
    watched = tuple(_watched(model, p, [one.patterns[ix] for one in seen.values()]) for ix, p in enumerate(prompts))
    source = provenance(
        model.name, model.weights_hash, run.provenance.random_seed, time_s=time.perf_counter() - start,
        n_passes=len(prompts) * len(seen),
    )  # fmt: skip
    return Emergence(run.name, tuple(map(str, gates)), tuple(seen), chosen, watched, _series(seen), source)


def _see(
    prompts: tuple[Inputs, ...], layers: tuple[int, ...], looks: Looks, held: tuple[Gate, ...], model: Model
) -> _Seen:  # fmt: skip
    with hold(model, *held):
        patterns = tuple(_patterns(model, inputs, layers) for inputs in prompts)
        numbers = {key: value for name, look in looks.items() for key, value in _numbers(name, look(model)).items()}
    return _Seen(patterns, {key: value if math.isfinite(value) else None for key, value in numbers.items()})


def _patterns(model: Model, inputs: Inputs, layers: tuple[int, ...]) -> Pattern:
    names = [PATTERN.format(layer=layer) for layer in layers]
    found: list[Tensor] = [record(model, inputs, name, device="cpu")[name] for name in names]
    if any(len(one) != 1 for one in found):
        step = "watch several prompts by several Prompt records"
        raise BadOption("attention on a prompt", f"it has {len(found[0])} rows", next_step=step)
    counts = sorted({one.shape[1] for one in found})
    if len(counts) > 1:
        found_words = f"layers have {' and '.join(map(str, counts))} heads"
        raise BadOption("attention of several layers", found_words, next_step="name layers of one kind in `layers`")
    return np.stack([one[0].float().numpy() for one in found])


def _numbers(name: str, value: Looked) -> dict[str, float]:
    if isinstance(value, Mapping):
        return {f"{name}.{part}": float(number) for part, number in value.items()}
    return {name: float(value)}


def _watched(model: Model, prompt: Prompt, patterns: list[Pattern]) -> Watched:
    stacked = np.stack(patterns)
    n_pos = stacked.shape[-1]
    tokens = prompt.tokens or _tokens(model, prompt.inputs) or tuple(map(str, range(n_pos)))
    if len(tokens) != n_pos:
        found = f"it has {n_pos} positions, and {len(tokens)} labels"
        raise BadOption("attention on a prompt", found, next_step="give one label per position")
    return Watched(tokens, stacked)


def _tokens(model: Model, inputs: Inputs) -> tuple[str, ...]:
    """The tokens as text where there is a tokenizer, else the token ids; () where the inputs are no tokens."""
    if isinstance(inputs, str):
        return model.to_str_tokens(inputs)
    if isinstance(inputs, Mapping):
        inputs = inputs.get("input_ids", ())
    if isinstance(inputs, Tensor):
        inputs = [] if inputs.is_floating_point() else inputs.reshape(-1).tolist()
    ids = inputs[0] if isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], (list, tuple, str)) else inputs
    if isinstance(ids, str):
        return model.to_str_tokens(ids)
    if not isinstance(ids, Sequence):
        return ()
    whole = [int(ix) for ix in ids]  # type: ignore[arg-type]
    return model.to_str_tokens(whole) if model.tokenizer is not None else tuple(map(str, whole))


def _series(seen: Mapping[int, _Seen]) -> dict[str, Series]:
    names = dict.fromkeys(name for one in seen.values() for name in one.numbers)
    found = {}
    for name in names:
        known = [(step, value) for step, one in seen.items() if (value := one.numbers.get(name)) is not None]
        found[name] = Series(tuple(step for step, _ in known), tuple(value for _, value in known))
    return found
