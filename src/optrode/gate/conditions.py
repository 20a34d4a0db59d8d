"""Conditions: how open a gate is, decided by what a pass shows, row by row and token by token.

What is read where (`Reading`), what is made of it (`Scorer`), when it is decided (`Read`), and a threshold:

    token       at every position, from that position: gates at the same or a later site of the same pass
    prompt      once per row, from its prompt, and held from then on ("latched"); the same order of sites
    previous    at every generated position, from the position before; any site, closed throughout the prompt

A reading with a source is made in a pass aside (`op.first_pass()`, `op.other_model(...)`), which is over before the pass
begins: then any site may open gates at any other. This is the two-pass form.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, final, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from optrode.errors import BadGate, GateNotFinite, nearest
from optrode.gate.gate import Aside
from optrode.gate.openness import Desk, Openness
from optrode.gate.scorers import Chance, Cosine, Disagreement, Features, Linear, Scorer
from optrode.model.names import SiteName, parse

Read = Literal["token", "prompt", "previous"]
READS: Final = get_args(Read)
Pool = Literal["last", "mean"]
Link = Literal["linear", "logistic", "softplus"]
LINKS: Final = get_args(Link)


@final
@dataclass(frozen=True, eq=False)
class Reading:
    """A site that a condition reads, whole or a selected part, in the pass itself or in a pass aside."""

    site: SiteName
    source: Aside | None = None

    def __str__(self) -> str:
        return str(self.site) if self.source is None else f"{self.site} in {self.source}"


@final
@dataclass(frozen=True, eq=False)
class Observed(Openness):
    """Openness from what is read at sites.

    Attributes:
        scorer: what is computed of it; conditions that share one compute it once.
        readings: what it reads.
        read: when it is decided.
        pool: of the prompt: its last position, or the mean over its positions but the first, which is often a sink.
        above, below: open (1) beyond, else closed (0); without either, as open as the linked score says.
        link: what is made of a score before it is compared: nothing, sigmoid, or softplus.
        hold: for how many tokens more it stays as open as it was.
        index: which of the scorer's scores.
    """

    scorer: Scorer
    readings: tuple[Reading, ...]
    read: Read = "token"
    pool: Pool = "last"
    above: float | None = None
    below: float | None = None
    link: Link = "linear"
    hold: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        for word, known, what in (
            (self.read, READS, "read"),
            (self.pool, get_args(Pool), "pool"),
            (self.link, LINKS, "link"),
        ):
            if word not in known:
                raise BadGate(f"{what}={word!r} of {self.scorer}", "no such thing", nearest=nearest(word, known) or known)
        for bound in (self.above, self.below):
            if bound is not None and not math.isfinite(bound):
                raise GateNotFinite(
                    f"{self}", f"its threshold {bound} is not a finite number", next_step="give a finite one"
                )
        if self.hold < 0 or self.above is not None and self.below is not None and self.above >= self.below:
            found = "hold counts tokens from 0, and above lies under below"
            raise BadGate(f"{self}", found, next_step="give above=0.2, below=0.8 for between them")

    def __str__(self) -> str:
        bounds = [f"above {self.above:g}"] if self.above is not None else []
        bounds += [f"below {self.below:g}"] if self.below is not None else []
        where = " and ".join(map(str, self.readings))
        whens = {"token": "", "prompt": f" at the prompt's {self.pool}", "previous": " at the token before"}
        how = f"by {self.scorer} of {where}{whens[self.read]}"
        held = [f"for {self.hold} tokens more"] if self.hold else []
        return ", ".join([how, *bounds, *held])

    def decide(self, desk: Desk) -> Float[Tensor, "rows columns"]:
        return desk.observed(self)

    def opened(self, scores: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Openness from scores."""
        linked = _linked(scores, self.link)
        if self.above is None and self.below is None:
            return linked
        is_open = torch.ones_like(linked, dtype=torch.bool)
        is_open = is_open if self.above is None else is_open & (linked > self.above)
        is_open = is_open if self.below is None else is_open & (linked < self.below)
        return is_open.to(linked.dtype)


def _linked(scores: Float[Tensor, "rows columns"], link: Link) -> Float[Tensor, "rows columns"]:
    if link == "linear":
        return scores
    return torch.sigmoid(scores) if link == "logistic" else nn.functional.softplus(scores)


@final
@dataclass(frozen=True, eq=False)
class Replayed(Openness):
    """Openness as it was once: a trace, by row and position in the row; closed beyond it."""

    values: Float[Tensor, "rows pos"]

    def __str__(self) -> str:
        return f"as in a trace of {tuple(self.values.shape)}"

    def decide(self, desk: Desk) -> Float[Tensor, "rows columns"]:
        return desk.recorded(self.values)


@final
@dataclass(frozen=True, eq=False)
class PerRow(Openness):
    """One given number for each row of the batch: doses by request, or an oracle's decisions."""

    values: Float[Tensor, " rows"]

    def __str__(self) -> str:
        return f"by row ({len(self.values)} rows)"

    def decide(self, desk: Desk) -> Float[Tensor, "rows columns"]:
        return desk.recorded(self.values[:, None])


def probe(
    site: str | SiteName, weight: Tensor, bias: float | int | Tensor = 0.0, *, above: float | int | None = None,
    below: float | int | None = None, link: Link = "logistic", read: str = "token", pool: Pool = "last",
    source: Aside | None = None, hold: int = 0,
) -> Observed:  # fmt: skip
    """Openness by a linear probe: `op.add(site, v, openness=op.probe("blocks.10.resid_post", w, b, above=0.5))`.

    Args:
        weight: [feature]; features of heads are joined.
        above, below: on the linked score; without either the gate is as open as the linked score says.
        read: "token", "prompt" (latched), "previous"; or "first_pass", short for source=op.first_pass().
        source: the pass aside to read in.

    Raises:
        BadGate, GateNotFinite: weight, bias, a threshold or a word that makes no condition.
    """
    values = torch.as_tensor(bias, dtype=weight.dtype, device=weight.device).reshape(-1)
    _check_vector(site, weight, "weight")
    _check_vector(site, values, "bias")
    return _observed(Linear(weight[None], values), site, read, source, pool, above, below, link, hold)


def cosine(
    site: str | SiteName, direction: Tensor, *, above: float | int | None = None, below: float | int | None = None,
    projected: bool = False, read: str = "prompt", pool: Pool = "mean", source: Aside | None = None, hold: int = 0,
) -> Observed:  # fmt: skip
    """Openness by a cosine; with `projected=True`, `read="prompt"`, `pool="mean"` as in conditional activation steering.

    Raises:
        BadGate, GateNotFinite: a direction of length zero, a threshold or a word that makes no condition.
    """
    _check_vector(site, direction, "direction")
    if not bool(direction.any()):
        raise BadGate(f"cosine at {site}", "its direction is zero", next_step="give a direction")
    return _observed(Cosine(direction, projected), site, read, source, pool, above, below, "linear", hold)


def chance(
    token_ids: int | Sequence[int], *, above: float | int | None = None, below: float | int | None = None,
    read: str = "previous", source: Aside | None = None, hold: int = 0,
) -> Observed:  # fmt: skip
    """Openness by the probability of tokens at the logits: a refusal token's, say."""
    ids = (token_ids,) if isinstance(token_ids, int) else tuple(token_ids)
    return _observed(Chance(ids), "logits", read, source, "last", above, below, "linear", hold)


def oracle(other: Aside, *, first: Aside | None = None, hold: int = 0) -> Observed:
    """Open where another model would say another token than this one: `op.oracle(op.other_model(model))`.

    Source: Venhoff et al. 2025, arXiv 2510.07364: steering the base model only where the thinking model's argmax differs.
    This model's own word comes from a pass without the gates. Both run at every token: it shows what could be done, and is
    no controller to deploy.
    """
    mine = Reading(parse("logits"), first or Aside())
    return Observed(Disagreement(), (mine, Reading(parse("logits"), other)), above=0.5, hold=hold)


def controlled(
    scorer: Scorer, sites: Sequence[str | SiteName], index: int = 0, *, read: str = "prompt", pool: Pool = "last",
    link: Link = "linear", source: Aside | None = None, above: float | int | None = None,
) -> Observed:  # fmt: skip
    """Openness by any scorer of several sites; gates that share the scorer each take one of its scores.

    Gradients flow through what it computes: this is how a controller is trained with the model frozen.
    """
    mode, aside = _mode(read, source)
    names = tuple(Reading(_whole(site), aside) for site in sites)
    return Observed(scorer, names, mode, pool, None if above is None else float(above), None, link, 0, index)


def by_row(values: Float[Tensor, " rows"] | Sequence[float | int]) -> PerRow:
    """Openness by row of the batch: a dose for each prompt.

    Raises:
        GateNotFinite: one of them is not a finite number.
    """
    found = torch.as_tensor(values, dtype=torch.get_default_dtype()) if not isinstance(values, Tensor) else values
    _check_vector("rows", found, "values")
    return PerRow(found)


def observations(openness: Openness | None) -> tuple[Observed, ...]:
    """All conditions on readings that an openness is made of."""
    if openness is None:
        return ()
    own = (openness,) if isinstance(openness, Observed) else ()
    return own + tuple(one for part in openness.parts for one in observations(part))


def _observed(
    scorer: Scorer, site: str | SiteName, read: str, source: Aside | None, pool: Pool, above: float | int | None,
    below: float | int | None, link: Link, hold: int,
) -> Observed:  # fmt: skip
    mode, aside = _mode(read, source)
    bounds = (None if above is None else float(above), None if below is None else float(below))
    return Observed(scorer, (Reading(_whole(site), aside),), mode, pool, *bounds, link, hold)


def _mode(read: str, source: Aside | None) -> tuple[Read, Aside | None]:
    if read == "first_pass":
        return "token", source or Aside()
    if read not in READS:
        known = (*READS, "first_pass")
        raise BadGate(f"read={read!r}", "no such way to read", nearest=nearest(read, known) or known)
    return next(mode for mode in READS if mode == read), source


def _whole(site: str | SiteName) -> SiteName:
    name = parse(site) if isinstance(site, str) else site
    if name.index("pos") is not None:
        step = 'say when it is decided instead: read="prompt", pool="last"'
        raise BadGate(f"condition on {name}", "a condition reads all positions", next_step=step)
    if name.layers is not None and name.layers.single is None:
        raise BadGate(f"condition on {name}", "a reading is one site", next_step="name one layer")
    return name


def _check_vector(site: object, value: object, what: str) -> None:
    if not isinstance(value, Tensor) or value.dim() != 1 or not value.is_floating_point():
        found = f"its {what} is {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
        raise BadGate(f"condition on {site}", found, next_step=f"give a floating tensor [feature] as {what}")
    if not bool(torch.isfinite(value).all()):
        raise GateNotFinite(f"condition on {site}", f"its {what} holds NaN or infinity", next_step="find out where from")


Columns = Int[Tensor, "rows columns"]


def pooled(
    features: Features, positions: Columns, lengths: Int[Tensor, " rows"], pool: Pool
) -> Float[Tensor, "rows 1 feature"]:
    """What a prompt shows: its last position, or the mean over its positions but the first.

    Args:
        positions: of each column in its row, -1 at padding.
        lengths: of the prompts.

    Raises:
        BadGate: the prompt's end is not among the columns: it was processed in chunks.
    """
    if pool == "last":
        hit = positions == (lengths - 1)[:, None]
    else:
        hit = (positions < lengths[:, None]) & ((positions > 0) | (lengths[:, None] == 1) & (positions == 0))
    if not bool(hit.any(1).all()) or bool((positions.amax(1) < lengths - 1).any()):
        found = "the pass ends before the prompt does"
        raise BadGate("condition on the prompt", found, next_step="process the prompt in one pass, not in chunks")
    weight = hit.to(features.dtype)
    total = (torch.where(hit[..., None], features, 0) * weight[..., None]).sum(1, keepdim=True)
    return total / weight.sum(1)[:, None, None]
