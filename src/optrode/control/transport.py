"""Maps that carry the activations of some texts over to those of others, in closed form.

Linear-AcT (Rodriguez et al., arXiv 2410.23054): per feature, the samples of source and target are sorted and paired; the
least-squares line through the pairs is beta = sum(x y) / sum(x^2) of the centred samples, alpha = mean(y) - beta mean(x).
Sites are fitted in the order of the computation, each under the maps of those before it.

AurA (Suau et al., arXiv 2407.12824): features that tell the source from the target are damped, by 1 - 2 (AUROC - 1/2).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from optrode.control.reading import (
    Rows,
    Samples,
    Sampling,
    chosen_sites,
    frozen,
    in_order,
    read_all,
    read_one,
    rows_of,
    sampling,
)
from optrode.control.wasserstein import paired, wasserstein
from optrode.errors import BadOption
from optrode.gate.gate import Gate
from optrode.gate.maps import rescale
from optrode.gate.place import gates
from optrode.model.model import Model
from optrode.model.names import SiteName, parse
from optrode.site.recording import Inputs, Patterns
from optrode.site.site import Site
from optrode.trial.run import Progress, no_progress


@final
@dataclass(frozen=True, eq=False)
class Map:
    """h -> w h + b at one site, feature by feature, within a support.

    Attributes:
        site: where, with the positions at which the map acts.
        weight, bias: [feature], or [head, feature].
        low, high: the support, in the same shape, or None.
    """

    site: SiteName
    weight: Float[Tensor, "*feature"]
    bias: Float[Tensor, "*feature"]
    low: Float[Tensor, "*feature"] | None = None
    high: Float[Tensor, "*feature"] | None = None

    @property
    def changed(self) -> Bool[Tensor, "*feature"]:
        """Which features are not left exactly as they are."""
        return (self.weight != 1) | (self.bias != 0)

    def gate(self, strength: float | int = 1.0, **options: Any) -> Gate:
        """The map as a gate."""
        return rescale(
            self.site, self.weight, self.bias, low=self.low, high=self.high, strength=float(strength), **options
        )  # fmt: skip

    def to(self, dtype: torch.dtype) -> "Map":
        """The same map in another type."""
        low, high = (None if end is None else end.to(dtype) for end in (self.low, self.high))
        return Map(self.site, self.weight.to(dtype), self.bias.to(dtype), low, high)


@final
@dataclass(frozen=True, eq=False)
class Maps:
    """Maps at several sites, learned together or one after another.

    Attributes:
        maps: in the order of the computation.
        method: "Linear-AcT", "LinEAS", "AurA".
        pool: how tokens became samples.
        losses: the sum over sites and features of W2^2 at each step of learning, over its value without maps; empty for
            closed forms.
    """

    maps: tuple[Map, ...]
    method: str
    pool: str
    losses: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return f"Maps({self.method}, {len(self.maps)} sites, {self.identity_share:.0%} of features untouched)"

    @property
    def identity_share(self) -> float:
        """Share of features, over all sites, that are left exactly as they are."""
        return 1 - sum(int(one.changed.sum()) for one in self.maps) / sum(one.weight.numel() for one in self.maps)

    def gates(self, strength: float | int = 1.0, **options: Any) -> tuple[Gate, ...]:
        """One gate per site; `strength` goes from 0, nothing, to 1, the whole map. Sites left untouched have no gate.

        Args:
            options: of every gate: scope, detach, each, when.

        Raises:
            BadOption: every feature is left untouched, so that there is nothing to hold.
        """
        held = tuple(one.gate(strength, **options) for one in self.maps if bool(one.changed.any()))
        if not held:
            found = "they leave every feature as it is"
            raise BadOption(f"gates of {self.method} maps", found, next_step="fit them with less of l1 and group")
        return held

    def to(self, dtype: torch.dtype) -> "Maps":
        """The same maps in another type."""
        return replace(self, maps=tuple(one.to(dtype) for one in self.maps))


def linear_act(
    model: Model, source: Inputs, target: Inputs, sites: Patterns, *, support: tuple[float, float] | None = (0.0, 1.0),
    progress: Progress = no_progress, **reading: Any,
) -> Maps:  # fmt: skip
    """Maps in closed form, fitted site by site; later sites see the maps of earlier ones (Linear-AcT, arXiv 2410.23054).

    Args:
        source, target: texts (or inputs of any form that `op.record` takes), unpaired, of any two numbers.
        sites: names or patterns of whole sites.
        support: quantiles of what the source has there, at every single token, between which a feature is mapped at all;
            None for everywhere.
        reading: how activations become samples: pool="mean" over a text's tokens, "all" tokens or the "last";
            skip_first=True neither reads nor maps each text's first token; batch_size= texts per pass.

    Raises:
        BadOption: fewer than two texts on a side, a site that has no map, a support that is empty, or no such option.
    """
    rows, wanted_rows = rows_of(model, source, "source texts"), rows_of(model, target, "target texts")
    chosen = chosen_sites(model, sites)
    _check_support(support)
    how = sampling(**reading)
    done: list[Map] = []
    with frozen(model):
        wanted = read_all(model, wanted_rows, chosen, how)
        for ix, site in enumerate(in_order(chosen, wanted)):
            progress("Linear-AcT", ix, len(chosen))
            done.append(_fit(model, rows, site, wanted, done, support, how))
    progress("Linear-AcT", len(chosen), len(chosen))
    return Maps(tuple(done), "Linear-AcT", how.pool)


def _fit(
    model: Model, rows: Rows, site: Site, wanted: Samples, done: Sequence[Map], support: tuple[float, float] | None,
    how: Sampling,
) -> Map:  # fmt: skip
    """The map of one site under those before it."""
    with gates(model, *(one.gate() for one in done)):
        found, tokens = (one.values[site.name] for one in read_one(model, rows, site, how, replace(how, pool="all")))
    weight, bias = line(found, wanted.values[site.name])
    low, high = (None, None) if support is None else quantiles(tokens, support)
    return Map(acting_at(site.name, wanted, how.skip_first), weight, bias, low, high)


def line(
    x: Float[Tensor, "n *feature"], y: Float[Tensor, "m *feature"]
) -> tuple[Float[Tensor, "*feature"], Float[Tensor, "*feature"]]:
    """Weight and bias of the least-squares line through sorted samples, feature by feature.

    A feature that never varies in x is shifted by the difference of the means.
    """
    left, right, how = paired(x.double(), y.double())
    mean_x, mean_y = how.mean(left), how.mean(right)
    left, right = left - mean_x, right - mean_y
    spread = how.mean(left.square())
    is_still = spread <= 1e-12 * (1e-12 + mean_x.square())
    weight = torch.where(is_still, 1.0, how.mean(left * right) / spread.clamp(min=1e-300))
    return weight.to(x.dtype), (mean_y - weight * mean_x).to(x.dtype)


def quantiles(
    x: Float[Tensor, "n *feature"], at: tuple[float, float]
) -> tuple[Float[Tensor, "*feature"], Float[Tensor, "*feature"]]:
    """Two quantiles of each feature, on the line between neighbouring samples."""
    ordered = x.sort(0).values
    ends = []
    for share in at:
        place = share * (len(x) - 1)
        below = min(int(place), len(x) - 2) if len(x) > 1 else 0
        upper = ordered[min(below + 1, len(x) - 1)]
        ends.append(ordered[below] + (place - below) * (upper - ordered[below]) if place > below else ordered[below])
    return ends[0], ends[1]


def _check_support(support: tuple[float, float] | None) -> None:
    if support is not None and not 0 <= support[0] < support[1] <= 1:
        found = "it takes two quantiles, from 0 to 1, the lower first"
        raise BadOption(f"support={support!r}", found, next_step="write (0.0, 1.0), or None for no support")


def acting_at(name: SiteName, read: Samples, skip_first: bool) -> SiteName:
    """Where a map of a site acts: at the positions that were read."""
    return parse(f"{name}[pos=1:]") if skip_first and name in read.along else name


def distance(
    model: Model, source: Inputs, target: Inputs, sites: Patterns, *held: Gate, **reading: Any
) -> dict[str, Float[Tensor, "*feature"]]:
    """W2^2 at each site and feature, between the source with gates held and the target without.

    What LinEAS makes small; on texts that the maps were not fitted on, what they are worth.

    Args:
        held: gates that are held on the source's passes, such as `*maps.gates()`.
        reading: as in `linear_act`.

    Raises:
        BadOption: fewer than two texts on a side, a site that has no map, or no such option.
    """
    rows, wanted_rows = rows_of(model, source, "source texts"), rows_of(model, target, "target texts")
    chosen = chosen_sites(model, sites)
    how = sampling(**reading)
    with frozen(model):
        wanted = read_all(model, wanted_rows, chosen, how).values
        with gates(model, *held):
            found = read_all(model, rows, chosen, how).values
    return {str(site.name): wasserstein(found[site.name], wanted[site.name]) for site in chosen}


def aura(model: Model, source: Inputs, target: Inputs, sites: Patterns, **reading: Any) -> Maps:
    """Damp features by how well they tell source from target: w = 1 - 2 (AUROC - 1/2) where AUROC > 1/2 (AurA).

    Args:
        source: texts of what is to be damped.
        reading: as in `linear_act`, but that all tokens are samples by default.

    Raises:
        BadOption: fewer than two texts on a side, a site that has no map, or no such option.
    """
    rows, wanted_rows = rows_of(model, source, "source texts"), rows_of(model, target, "target texts")
    chosen = chosen_sites(model, sites)
    how = sampling(**({"pool": "all"} | reading))
    with frozen(model):
        found, other = (read_all(model, part, chosen, how) for part in (rows, wanted_rows))
    maps = []
    for site in in_order(chosen, found):
        x, y = found.values[site.name], other.values[site.name]
        weight = (1 - 2 * (area(x, y) - 0.5)).clamp(max=1.0)
        maps.append(Map(acting_at(site.name, found, how.skip_first), weight, torch.zeros_like(weight)))
    return Maps(tuple(maps), "AurA", how.pool)


def area(x: Float[Tensor, "n *feature"], y: Float[Tensor, "m *feature"]) -> Float[Tensor, "*feature"]:
    """AUROC of each feature: the share of pairs in which x is the greater, ties counting half."""
    ordered = y.flatten(1).T.contiguous().sort(1).values
    asked = x.flatten(1).T.contiguous()
    below = torch.searchsorted(ordered, asked) + torch.searchsorted(ordered, asked, right=True)
    return (below.to(x.dtype).mean(1) / (2 * len(y))).reshape(x.shape[1:])
