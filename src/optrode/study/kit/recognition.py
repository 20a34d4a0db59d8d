"""A linear probe of whether a request is harmful, read along its thoughts, and what each head does to what it reads.

The search of Refusal Falls off a Cliff (arXiv 2510.06036): scale each head's output by .001 and read the probe at the last
token before the answer. Heads without which it reads more harm are those that hide it.
"""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.site.recording import record
from optrode.study.kit.cliff import PROMPT, Requests, damped

N_STEPS: Final = 200
RATE: Final = 0.05
SHRINKAGE: Final = 1e-3
"""Of the squared weights, added to the mean loss."""


@final
@dataclass(frozen=True, eq=False)
class Probe:
    """A logistic probe of the residual stream after one layer.

    Attributes:
        site: where it reads.
        weight, bias: of the harmful class, in the stream's own units.
    """

    site: str
    weight: Float[Tensor, " d_model"]
    bias: float

    def logits(self, model: Model, requests: Requests) -> Float[Tensor, "row pos"]:
        """Logit of harm at each position."""
        return record(model, {"input_ids": requests.ids}, self.site)[self.site] @ self.weight + self.bias

    def read(self, model: Model, requests: Requests) -> Float[Tensor, "row pos"]:
        """Probability of harm at each position."""
        return self.logits(model, requests).sigmoid()


def fit_probe(model: Model, harmful: Requests, harmless: Requests) -> Probe:
    """Fit a probe of the last layer by logistic regression, from "think" to the end of the thoughts.

    The last token, where it is decided whether to refuse, counts as much as all others together.
    """
    site = f"blocks.{model.table.n_layers - 1}.resid_post"
    both = [record(model, {"input_ids": one.ids}, site)[site][:, PROMPT - 1 :] for one in (harmful, harmless)]
    x, y = torch.cat(both), torch.cat([torch.ones(len(both[0])), torch.zeros(len(both[1]))])
    centre, size = x.mean((0, 1)), x.std()
    weight, bias = _logistic((x - centre) / size, y[:, None].expand(x.shape[:2]))
    return Probe(site, weight / size, float(bias - centre @ weight / size))


def _logistic(
    x: Float[Tensor, "row pos d"], y: Float[Tensor, "row pos"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    weight, bias = torch.zeros(x.shape[-1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=RATE)
    for _ in range(N_STEPS):
        optimizer.zero_grad()
        wrong = binary_cross_entropy_with_logits(x @ weight + bias, y, reduction="none")
        (wrong[:, :-1].mean() + wrong[:, -1].mean() + SHRINKAGE * (weight**2).sum()).backward()
        optimizer.step()
    return weight.detach(), bias.detach()


def drops(model: Model, probe: Probe, requests: Requests) -> Float[Tensor, " row"]:
    """The cliff of each request: mean probability of harm over its thoughts, less that at the last token."""
    found = probe.read(model, requests)
    return found[:, PROMPT:-1].mean(1) - found[:, -1]


def head_effects(model: Model, probe: Probe, requests: Requests) -> Float[Tensor, "layer head"]:
    """By how much the probe's mean logit at the last token rises when each head alone is scaled by .001."""
    n_layers, n_heads = model.table.n_layers, model.table.n_heads
    found = torch.zeros(n_layers, n_heads)
    for layer in range(n_layers):
        for head in range(n_heads):
            with gates(model, *damped(((layer, head),))):
                found[layer, head] = probe.logits(model, requests)[:, -1].mean()
    plain: Tensor = probe.logits(model, requests)[:, -1].mean()
    return found - plain
