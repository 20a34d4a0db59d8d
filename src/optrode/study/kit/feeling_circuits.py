"""Directions of feelings, the heads and neurons that write them, and gates that turn them up or off.

A direction is group-centred: within each scenario, the mean over feelings is taken away, and what is left is averaged over
scenarios. A part's score is what it writes along its layer's direction, times the importance of its sublayer: by how much
the projection on the last layer's direction grows for each unit that is added along the direction to the sublayer's output
(arXiv 2510.11328: I = change of projection / (dose x sigma)).

Feelings, [feeling], are those of `feelings.FEELINGS`; activations are means over the positions after which a
word of the story comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from optrode.gate.gate import Gate
from optrode.gate.kinds import add, clamp
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.site.recording import record
from optrode.study.kit import feelings
from optrode.study.kit.feelings import BEFORE, N_FEELINGS, PROMPT

SITES: Final = ("attn.z", "mlp.post")
"""Where heads and neurons are read and turned up."""
OUTS: Final = ("attn_out", "mlp_out")
STREAMS: Final = ("resid_mid", "resid_post")
"""The stream after each half of a block."""
DOSE: Final = 1.0
"""In standard deviations, of the change that measures importance."""

Values = Mapping[str, Tensor]
"""Site -> [feeling, ...] centred means."""
Parts = Mapping[str, Tensor]
"""Site -> [feeling, head] or [feeling, neuron], true where it is selected."""


@final
@dataclass(frozen=True, eq=False)
class Centred:
    """Group-centred means over scenarios, and the plain means over feelings.

    Attributes:
        values: site -> [feeling, ...] centred means.
        middles: site -> [...] means over feelings.
        spread: site -> [] root mean square of an activation's norm.
    """

    values: Values
    middles: Mapping[str, Tensor]
    spread: Mapping[str, float]

    def direction(self, site: str) -> Float[Tensor, "feeling d_model"]:
        """Unit directions of feelings."""
        unit: Tensor = torch.nn.functional.normalize(self.values[site], dim=-1)
        return unit


def grouped(
    model: Model, scenarios: Int[Tensor, "scenario 2"], sites: tuple[str, ...], generator: torch.Generator,
    *, n_stories: int = 4,
) -> dict[str, Tensor]:  # fmt: skip
    """Site -> [scenario, feeling, ...] mean activations over stories by the grammar and positions before its words."""
    rows = scenarios.repeat_interleave(N_FEELINGS * n_stories, 0)
    feeling = torch.arange(N_FEELINGS).repeat_interleave(n_stories).repeat(len(scenarios))
    ids = feelings.stories(rows, feeling, generator)
    seen = record(model, {"input_ids": ids}, [f"blocks.*.{site}" for site in sites])
    shape = (len(scenarios), N_FEELINGS, n_stories)
    return {name: held[:, list(BEFORE)].mean(1).unflatten(0, shape).mean(2) for name, held in seen.items()}


def centred(found: Mapping[str, Tensor]) -> Centred:
    """Directions of grouped activations."""
    values = {name: (one - one.mean(1, keepdim=True)).mean(0) for name, one in found.items()}
    middles = {name: one.mean((0, 1)) for name, one in found.items()}
    spread = {name: float(one.flatten(2).norm(dim=-1).square().mean().sqrt()) for name, one in found.items()}
    return Centred(values, middles, spread)


def importance(model: Model, ids: Int[Tensor, "row pos"], directions: Centred) -> Float[Tensor, "layer half feeling"]:
    """Growth of the last layer's projection for each unit added along the direction to what a sublayer writes."""
    n_layers = model.table.n_layers
    last = f"blocks.{n_layers - 1}.resid_post"
    plain = record(model, {"input_ids": ids}, [last, *(f"blocks.*.{out}" for out in OUTS)])
    found = torch.zeros(n_layers, len(OUTS), N_FEELINGS)
    for layer in range(n_layers):
        for half, (out, stream) in enumerate(zip(OUTS, STREAMS, strict=True)):
            units = directions.direction(f"blocks.{layer}.{stream}")
            for feeling, unit in enumerate(units):
                size = DOSE * float((plain[f"blocks.{layer}.{out}"][:, list(BEFORE)] @ unit).std())
                with gates(model, add(f"blocks.{layer}.{out}", size * unit)):
                    moved = record(model, {"input_ids": ids}, last)[last] - plain[last]
                along = moved[:, list(BEFORE)] @ directions.direction(last)[feeling]
                found[layer, half, feeling] = along.mean() / size
    return found


def scores(model: Model, directions: Centred, weights: Float[Tensor, "layer half feeling"]) -> dict[str, Tensor]:
    """Site -> [feeling, head] or [feeling, neuron]: what a part writes along its layer's direction, times importance."""
    found = {}
    for layer in range(model.table.n_layers):
        heads, neurons = (directions.values[f"blocks.{layer}.{site}"] for site in SITES)
        middle, after = (directions.direction(f"blocks.{layer}.{stream}") for stream in STREAMS)
        o, down = (model.module.get_parameter(f"blocks.{layer}.{name}.weight").detach() for name in ("attn.o", "mlp.down"))
        written = (heads * (middle @ o).unflatten(-1, heads.shape[1:])).sum(-1)
        found[f"blocks.{layer}.attn.z"] = written * weights[layer, 0][:, None]
        found[f"blocks.{layer}.mlp.post"] = neurons * (after @ down) * weights[layer, 1][:, None]
    return found


def selected(found: Mapping[str, Tensor], n_heads: int, n_neurons: int) -> dict[str, Tensor]:
    """The highest scores of heads and of neurons over all layers, for each feeling."""
    return _top({name: one for name, one in found.items() if name.endswith("z")}, n_heads) | _top(
        {name: one for name, one in found.items() if name.endswith("post")}, n_neurons
    )


def random_like(found: Mapping[str, Tensor], n_heads: int, n_neurons: int, generator: torch.Generator) -> dict[str, Tensor]:
    """As many heads and neurons, drawn at random."""
    drawn = {name: torch.rand(one.shape, generator=generator) for name, one in found.items()}
    return selected(drawn, n_heads, n_neurons)


def _top(found: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    whole = torch.cat(list(found.values()), 1)
    chosen = torch.zeros_like(whole, dtype=torch.bool).scatter_(1, whole.topk(n, dim=1).indices, True)
    return dict(zip(found, chosen.split([one.shape[1] for one in found.values()], 1), strict=True))


def turned_up(
    values: Values, chosen: Parts, feeling: Int[Tensor, " row"], strength: float | int
) -> tuple[Gate, ...]:  # fmt: skip
    """Selected parts get more of what they do for a row's feeling, from the last token of the prompt on."""
    held = []
    for site, mask in chosen.items():
        value = values[site] * mask.reshape(*mask.shape, *(1,) * (values[site].dim() - 2))
        if bool(mask.any()):
            held.append(add(f"{site}[pos={PROMPT - 1}:]", value[feeling][:, None], strength=strength))
    return tuple(held)


def turned_off(middles: Mapping[str, Tensor], chosen: Parts, feeling: int) -> tuple[Gate, ...]:
    """Selected parts of one feeling are held at their means over feelings."""
    held = []
    for site, masks in chosen.items():
        parts = masks[feeling].nonzero().flatten().tolist()
        axis = "head" if site.endswith("z") else "feature"
        if parts:
            names = "|".join(map(str, parts))
            held.append(clamp(f"{site}[pos={PROMPT - 1}:, {axis}={names}]", middles[site]))
    return tuple(held)


def steered(
    directions: Centred, layers: tuple[int, ...], feeling: Int[Tensor, " row"], dose: float | int
) -> tuple[Gate, ...]:  # fmt: skip
    """A row's direction is added to the stream after layers, in units of the stream's size, from the prompt's end on."""
    sites = [f"blocks.{layer}.resid_post" for layer in layers]
    vectors = {site: directions.direction(site)[feeling][:, None] for site in sites}
    return tuple(
        add(f"{site}[pos={PROMPT - 1}:]", vector, strength=dose * directions.spread[site])
        for site, vector in vectors.items()
    )


def is_read(found: Mapping[str, Tensor], directions: Centred, site: str) -> float:
    """Share of scenarios and feelings whose centred activation is nearest to its own direction."""
    moved = found[site] - found[site].mean(1, keepdim=True)
    nearest = (moved @ directions.direction(site).T).argmax(-1)
    return float((nearest == torch.arange(N_FEELINGS)).float().mean())
