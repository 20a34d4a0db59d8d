"""The order of sites is enforced: what comes later in a pass cannot decide what was done earlier in it."""

from typing import Final

from optrode.errors import BadGate, GateDevice, GateShape
from optrode.gate.conditions import Observed, Reading, observations
from optrode.gate.gate import Gate
from optrode.gate.scorers import Linear
from optrode.model.adapter import ORDER
from optrode.model.model import Model
from optrode.model.names import SiteName
from optrode.site.select import one_site, select_sites

_STEP: Final = 'read earlier; or in a first pass, source=op.first_pass(); or at the token before, read="previous"'


def check_condition(model: Model, gate: Gate) -> None:
    """Check all that can be known of a gate's conditions before anything runs.

    Raises:
        BadGate: a condition reads, in the same pass, what comes after a site that it is to open.
        GateShape, GateDevice: what it computes with does not fit what it reads.
        BadName, UnknownSite, SiteUnavailable: what it reads does not exist.
    """
    for one in observations(gate.openness):
        for reading in one.readings:
            owner = (reading.source and reading.source.model) or model
            one_site(owner, reading.site)
            if reading.source is None and one.read != "previous":
                _check_order(model, gate, reading)
        _check_fit(model, one)


def _check_order(model: Model, gate: Gate, reading: Reading) -> None:
    read = _place(model, one_site(model, reading.site).name)
    sites = [site.name for site in select_sites(model, gate.site)]
    early = [name for name in sites if (there := _place(model, name)) and read and there < read]
    if not early:
        return
    asked = f"{gate.actuator} at {gate.site} opened by {reading.site}"
    works = f"only {len(sites) - len(early)} of its {len(sites)} sites come after it" if len(sites) > 1 else "it comes later"
    raise BadGate(asked, f"{works} in the same pass; {early[0]} is over before", next_step=_STEP)


def _place(model: Model, name: SiteName) -> tuple[int, int] | None:
    """Where a site is in the computation; None for modules of no table, of which it is not known."""
    if name.is_module or name.kind not in ORDER:
        return None
    layer = name.layers.single if name.layers is not None else None
    is_end = name.kind in ("final_norm", "logits")
    return (model.table.n_layers if is_end else -1 if layer is None else layer), ORDER.index(name.kind)


def _check_fit(model: Model, one: Observed) -> None:
    width = one.scorer.width
    found = 0
    for reading in one.readings:
        size = _width(reading, model)
        if size is None:
            return
        found += size
    asked = f"gate open {one}"
    if width is not None and width != found:
        raise GateShape(asked, f"it is made for {width} features, and {found} are read", next_step="fit it at that site")
    for tensor in one.scorer.tensors:
        if tensor.device != model.device:
            step = f'tensor.to("{model.device}")'
            raise GateDevice(asked, f"it computes on {tensor.device}, the model on {model.device}", next_step=step)
    n_scores = len(one.scorer.weight) if isinstance(one.scorer, Linear) else None
    if n_scores is not None and not 0 <= one.index < n_scores:
        raise BadGate(asked, f"it has {n_scores} score(s), and number {one.index} is asked for", next_step="count from 0")


def _width(reading: Reading, model: Model) -> int | None:
    """Number of features of a reading; None where it is not known before a pass."""
    owner = (reading.source and reading.source.model) or model
    name = reading.site
    if name.is_module or name.kind == "logits" or name.select:
        return None
    feature = owner.table.size(name.kind, "feature")
    heads = owner.table.size(name.kind, "head") if "head" in owner.table.places[name.kind].view.axes else 1
    return None if feature is None or heads is None else feature * heads
