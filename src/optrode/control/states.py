"""What a site shows of texts: one state for each text, the typical norm of its tokens, or all tokens' states.

Position 0 and padding are left out. In many models the first token is an attention sink, whose state has a norm of a hundred
times that of the others (Sun et al., arXiv 2402.17762): it would swamp any mean and any unit of dose.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from optrode.axes import BATCH, FEATURE, HEAD, POS
from optrode.control.contrast import Answered, Sample
from optrode.errors import BadOption, BadPairs, SinkIncluded, SiteUnavailable, nearest
from optrode.model.model import Batch, Model
from optrode.model.names import parse
from optrode.site.recording import Recording, record
from optrode.site.select import one_site, select_sites
from optrode.site.site import Site

Read = Literal["last", "mean"]
READS: Final = ("last", "mean")
Through = Callable[[Tensor], Tensor]
"""States float64 [row, pos, feature] on the processor -> float64 [row, pos, other]."""

_STEP: Final = 16
"""Texts of one pass."""


@dataclass(frozen=True, eq=False)
class States:
    """Of one site.

    Attributes:
        site: its name.
        pooled: one state for each text.
        typical: median norm of the texts' tokens.
    """

    site: str
    pooled: Float64[Tensor, "text feature"]
    typical: float


@dataclass(frozen=True, eq=False)
class _Part:
    """Texts of one pass: which they are, and which of their tokens count.

    Attributes:
        chosen: tokens that may be read and are counted for the typical norm.
        read: tokens that are read: those of the answer, where there is one.
    """

    rows: tuple[int, ...]
    batch: Batch
    chosen: Bool[Tensor, "row pos"]
    read: Bool[Tensor, "row pos"]


def read_states(
    model: Model, texts: Sequence[Sample], sites: str | Sequence[str] = "blocks.*.resid_post", *, read: Read = "last",
    with_sink: bool = False, batch_size: int = _STEP, through: Through | None = None,
) -> tuple[States, ...]:  # fmt: skip
    """One state for each text, at each site: that of its last token, or the mean over its tokens.

    Results do not depend on how texts are batched or padded, but for rounding. Sums are in float64.

    Args:
        sites: names or patterns of sites with the axes batch, pos, feature; of a site with heads, one head.
        read: "last" token or "mean" over tokens; over the answer's, for a prompt with an answer.
        with_sink: let position 0 count too. That warns.
        through: what to make of the tokens' states before they are pooled. Norms are of the states themselves.

    Raises:
        BadOption: no such way to read, or no text.
        BadPairs: a text of which no token is left, as it has one token only.
        BadName, UnknownSite, SiteUnavailable: from the sites' names, or a site without one vector for each token.
    """
    if read not in READS:
        ways = "a text is read at its last token or by the mean"
        raise BadOption(f"read={read!r}", ways, nearest=nearest(read, READS) or READS)
    if with_sink:
        text = "position 0 counts too: where it is an attention sink, means and norms are the sink's"
        warnings.warn(SinkIncluded(text), stacklevel=2)
    chosen = _checked_sites(model, sites)
    found: dict[str, list[tuple[tuple[int, ...], Tensor, Tensor]]] = {str(site.name): [] for site in chosen}
    for part in _parts(model, texts, with_sink, batch_size):
        held = record(model, part.batch, [site.name for site in chosen])
        for site in chosen:
            states = _by_token(site, held)
            norms = states.norm(dim=-1)[part.chosen]
            made = states if through is None else through(states)
            found[str(site.name)].append((part.rows, _pooled(made, part.read, read), norms))
    return tuple(_joined(name, parts) for name, parts in found.items())


def token_states(
    model: Model, texts: Sequence[Sample], site: str, *, with_sink: bool = False, batch_size: int = _STEP
) -> Float64[Tensor, "token feature"]:
    """The states of all tokens at one site, text after text: what an autoencoder is trained on.

    Raises:
        As `read_states`.
    """
    one_site(model, site)
    (one,) = _checked_sites(model, site)
    parts: list[tuple[int, Tensor]] = []
    for part in _parts(model, texts, with_sink, batch_size):
        states = _by_token(one, record(model, part.batch, one.name))
        parts += [(row, states[ix][part.read[ix]]) for ix, row in enumerate(part.rows)]
    return torch.cat([states for _, states in sorted(parts, key=lambda part: part[0])])


def typical_norm(model: Model, texts: Sequence[Sample], site: str, *, with_sink: bool = False) -> float:
    """Median norm of the tokens' states at a site: the unit of relative doses. Position 0 is left out.

    Raises:
        As `read_states`.
    """
    one_site(model, site)
    return read_states(model, texts, site, with_sink=with_sink)[0].typical


def _checked_sites(model: Model, sites: str | Sequence[str]) -> tuple[Site, ...]:
    patterns = [sites] if isinstance(sites, str) else list(sites)
    if not patterns:
        raise BadOption("states of texts", "no site is named", next_step='name some, like "blocks.*.resid_post"')
    found = {str(site.name): site for pattern in patterns for site in select_sites(model, pattern)}
    for site in found.values():
        if site.name.index(POS) is not None or site.name.index(FEATURE) is not None:
            step = 'leave the selector out; positions are chosen by read="last" or "mean"'
            raise SiteUnavailable(f"states at {site.name}", "a direction is of whole states", next_step=step)
    return tuple(found.values())


def _by_token(site: Site, held: Recording) -> Float64[Tensor, "row pos feature"]:
    """A site's recording as one vector for each token, on the processor."""
    tensor = held[str(site.name)]
    axes = site.axes(tensor.dim())
    if axes == (BATCH, POS, HEAD, FEATURE) and tensor.shape[2] == 1:
        tensor, axes = tensor[:, :, 0], (BATCH, POS, FEATURE)
    if axes != (BATCH, POS, FEATURE):
        found = f"its tensor has the axes {', '.join(axes)}, and a direction needs one vector for each token"
        step = f"choose one head, like {site.name.at(head=0)}" if HEAD in axes else "choose another site"
        raise SiteUnavailable(f"states at {site.name}", found, next_step=step)
    return tensor.detach().cpu().double()


def _parts(model: Model, texts: Sequence[Sample], with_sink: bool, batch_size: int) -> Iterator[_Part]:
    """Texts of about one length in each pass, so that little is padded."""
    if batch_size < 1:
        raise BadOption(f"batch_size={batch_size}", "a pass has at least one row", nearest=(str(_STEP),))
    if isinstance(texts, str) or not texts:
        raise BadOption("states of texts", "there is no sequence of texts", next_step="give at least one text, in a list")
    encoded = [_encoded(model, text) for text in texts]
    order = sorted(range(len(encoded)), key=lambda ix: len(encoded[ix][0]))
    for at in range(0, len(order), batch_size):
        rows = tuple(order[at : at + batch_size])
        yield _part(model, rows, [encoded[ix] for ix in rows], with_sink)


def _encoded(model: Model, text: Sample) -> tuple[list[int], int]:
    """Token ids, and from which position on they are read."""
    if isinstance(text, Answered):
        return list(text.token_ids), text.start
    return model.batch(text).token_ids[0].tolist(), 0


def _part(model: Model, rows: tuple[int, ...], encoded: list[tuple[list[int], int]], with_sink: bool) -> _Part:
    batch = model.batch([token_ids for token_ids, _ in encoded])
    n_pos = batch.token_ids.shape[1]
    at, lengths = torch.arange(n_pos), torch.tensor(batch.lengths)[:, None]
    chosen = (at < lengths) & (at >= (0 if with_sink else 1))
    read = chosen & (at >= torch.tensor([start for _, start in encoded])[:, None])
    if not bool(read.any(1).all()):
        row = rows[int((~read.any(1)).nonzero()[0])]
        step = "give longer texts, or with_sink=True"
        raise BadPairs(f"states of text {row}", "it has no token after position 0, which is left out", next_step=step)
    return _Part(rows, batch, chosen, read)


def _pooled(
    states: Float64[Tensor, "row pos feature"], read_at: Bool[Tensor, "row pos"], read: Read
) -> Float64[Tensor, "row feature"]:
    if read == "mean":
        kept = torch.where(read_at[..., None], states, 0.0)
        return kept.sum(1) / read_at.sum(1, keepdim=True)
    last = torch.where(read_at, torch.arange(read_at.shape[1]), -1).amax(1)
    return states[torch.arange(len(states)), last]


def _joined(name: str, parts: list[tuple[tuple[int, ...], Tensor, Tensor]]) -> States:
    order = torch.tensor([row for rows, _, _ in parts for row in rows]).argsort()
    pooled = torch.cat([states for _, states, _ in parts])[order]
    return States(str(parse(name)), pooled, float(torch.cat([norms for _, _, norms in parts]).median()))
