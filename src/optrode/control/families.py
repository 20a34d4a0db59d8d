"""Directions of several concepts at once, and of answers' lengths.

A family has one direction for each group of texts, the group's mean minus the mean over groups: what makes it one of this
family (the emotions of arXiv 2510.11328). Where the i-th texts of all groups tell the same scenario, this is the mean over
scenarios of what an emotion adds to its scenario's mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from optrode.control.contrast import Answered, Contrast, Sample
from optrode.control.direction import Direction, direction_along, directions
from optrode.control.probing import along
from optrode.control.rollout import sampled
from optrode.control.states import Read, States, read_states
from optrode.errors import BadOption, BadPairs
from optrode.model.model import Model
from optrode.train.loop import batch_seed

IsRight = Callable[[str | tuple[int, ...], str | tuple[int, ...]], bool]
"""(prompt, answer) -> whether the answer may be used; texts, or token ids where the model has no tokenizer."""


def family(
    model: Model, groups: Mapping[str, Sequence[Sample]], sites: str | Sequence[str] = "blocks.*.resid_post", *,
    read: Read = "last", held_out: float = 0.25, random_seed: int = 0, with_sink: bool = False,
) -> Mapping[str, tuple[Direction, ...]]:  # fmt: skip
    """For each group one direction for each site: its mean minus the mean of all groups' means.

    Their vectors add up to 0 before they are normalised. Separation is that of the group's held-out texts from those of the
    other groups.

    Args:
        groups: name -> texts.
        sites, read, held_out, random_seed, with_sink: as in `directions`. With groups of equal size the i-th texts of all
            of them are held out together.

    Raises:
        BadPairs: fewer than two groups, a group without texts, or groups whose states do not differ.
        BadOption: a share out of range.
        BadName, UnknownSite, SiteUnavailable: from the sites.
    """
    if len(groups) < 2:
        raise BadPairs("a family of directions", f"{len(groups)} group(s)", next_step="give at least two groups of texts")
    fitted, held = _split(groups, held_out, random_seed)
    texts = [text for part in (fitted, held) for side in part.values() for text in side]
    cuts = [len(side) for part in (fitted, held) for side in part.values()]
    found: dict[str, list[Direction]] = {name: [] for name in groups}
    for states in read_states(model, texts, sites, read=read, with_sink=with_sink):
        parts = states.pooled.split(cuts)
        fit_on, judge_on = parts[: len(groups)], parts[len(groups) :]
        for ix, name in enumerate(groups):
            found[name].append(_member(model, states, name, ix, fit_on, judge_on, read, with_sink))
    return {name: tuple(members) for name, members in found.items()}


def shortest_minus_longest(
    model: Model, prompts: Sequence[str | tuple[int, ...]], sites: str | Sequence[str] = "blocks.*.resid_post",
    method: str = "difference", *, n_samples: int = 4, max_new_tokens: int = 64, temperature: float = 1.0,
    is_right: IsRight | None = None, random_seed: int = 0, **options: Any,
) -> tuple[Direction, ...]:  # fmt: skip
    """Directions from the model's longest towards its shortest answers to the same prompts (arXiv 2506.15647).

    Args:
        prompts: texts or token ids.
        n_samples: answers drawn for each prompt.
        max_new_tokens, temperature: of the sampling.
        is_right: leave out answers that are not right.
        options: of `directions`; `read` is "mean" unless said otherwise, over the answers' tokens.

    Raises:
        BadOption: fewer than two samples.
        BadPairs: no prompt had answers of different length.
        As `directions`.
    """
    contrast = length_contrast(
        model, prompts, n_samples=n_samples, max_new_tokens=max_new_tokens, temperature=temperature, is_right=is_right,
        random_seed=random_seed,
    )  # fmt: skip
    return directions(model, contrast, sites, method, random_seed=random_seed, **({"read": "mean"} | options))


def length_contrast(
    model: Model, prompts: Sequence[str | tuple[int, ...]], *, n_samples: int = 4, max_new_tokens: int = 64,
    temperature: float = 1.0, is_right: IsRight | None = None, random_seed: int = 0,
) -> Contrast:  # fmt: skip
    """The shortest (positive) and the longest answer that the model gives to each prompt, in pairs.

    A prompt whose answers are all of one length is left out.

    Raises:
        BadOption: fewer than two samples, or a temperature that is not positive.
        BadPairs: no prompt had answers of different length.
    """
    if n_samples < 2:
        raise BadOption(f"n_samples={n_samples}", "there is no shortest and longest of one", nearest=("n_samples=4",))
    shortest, longest = [], []
    for ix, prompt in enumerate(prompts):
        seed = batch_seed(random_seed, ix)
        ids, answers = sampled(model, prompt, n_samples, max_new_tokens, temperature, seed)
        right = [a for a in answers if is_right is None or is_right(prompt, _said(model, a))]
        lengths = sorted(right, key=len)
        if lengths and len(lengths[0]) < len(lengths[-1]):
            shortest.append(Answered((*ids, *lengths[0]), len(ids)))
            longest.append(Answered((*ids, *lengths[-1]), len(ids)))
    if not shortest:
        found = f"none of {len(prompts)} prompts had answers of different length"
        step = "raise max_new_tokens so that answers end, or draw more samples"
        raise BadPairs("shortest minus longest", found, next_step=step)
    return Contrast(tuple(shortest), tuple(longest))


def _said(model: Model, answer: tuple[int, ...]) -> str | tuple[int, ...]:
    return answer if model.tokenizer is None else model.to_string(answer)


def _split(
    groups: Mapping[str, Sequence[Sample]], held_out: float, random_seed: int
) -> tuple[dict[str, tuple[Sample, ...]], dict[str, tuple[Sample, ...]]]:
    """Texts to find directions from, and those to judge them on (none with held_out=0)."""
    if not 0 <= held_out < 1:
        raise BadOption(f"held_out={held_out}", "a share in [0, 1) of the texts", nearest=("0.25",))
    fitted, held = {}, {}
    for name, texts in groups.items():
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(random_seed)).tolist()
        n_held = max(1, round(held_out * len(texts))) if held_out else 0
        chosen = set(order[:n_held])
        fitted[name] = tuple(text for ix, text in enumerate(texts) if ix not in chosen)
        held[name] = tuple(text for ix, text in enumerate(texts) if ix in chosen)
        if not fitted[name]:
            step = "give every group at least two texts, or one and held_out=0.0"
            raise BadPairs(f"group {name!r} of a family", f"it has {len(texts)} text(s)", next_step=step)
    return fitted, held if held_out else {}


def _member(
    model: Model, states: States, name: str, ix: int, fit_on: Sequence[Tensor],
    judge_on: Sequence[Tensor], read: Read, with_sink: bool,
) -> Direction:  # fmt: skip
    means = torch.stack([part.mean(0) for part in fit_on])
    raw = means[ix] - means.mean(0)
    norm = float(raw.norm())
    if norm == 0:
        step = "give groups that differ where they are read, or read them otherwise"
        raise BadPairs(f"group {name!r} at {states.site}", "its mean is that of all groups", next_step=step)
    sides = [(parts[ix], _others(parts, ix)) for parts in (fit_on, judge_on) if parts]
    axis = along(raw / norm, *sides[0])
    found = direction_along(model, axis, states, f"family, {name}", sum(map(len, fit_on)), *sides[1:])
    return replace(found, read=read, with_sink=with_sink)


def _others(parts: Sequence[Tensor], ix: int) -> Tensor:
    return torch.cat([part for at, part in enumerate(parts) if at != ix])
