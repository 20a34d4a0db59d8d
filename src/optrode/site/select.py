"""A pattern selects an ordered tuple of concrete sites of one model, or says what is nearest."""

from typing import Final

from optrode.axes import POS
from optrode.errors import SiteUnavailable, UnknownSite, nearest
from optrode.model.model import Model
from optrode.model.names import SiteName, parse
from optrode.site.site import Site, indices

_LISTED: Final = "model.site_names() or `optrode sites MODEL` lists every site"


def select_sites(model: Model, pattern: str | SiteName) -> tuple[Site, ...]:
    """The sites a name or pattern stands for, one per layer, in layer order.

    Raises:
        BadName: the text is not a site name.
        UnknownSite: no such site, a layer or head out of range, or a pattern that matches nothing.
        SiteUnavailable: this architecture does not have the site; the message says why.
    """
    name = parse(pattern) if isinstance(pattern, str) else pattern
    if name.is_module:
        model.submodule(model.place(name).path)
        return (Site(name, model.place(name)),)
    _check_kind(model, name)
    sites = tuple(Site(one, model.place(one)) for one in _per_layer(model, name))
    _check_selectors(model, name)
    return sites


def one_site(model: Model, name: str | SiteName) -> Site:
    """The one site that a name without a pattern stands for.

    Raises:
        UnknownSite: the name stands for several sites.
    """
    sites = select_sites(model, name)
    if len(sites) != 1:
        found = f"the pattern matches {len(sites)}"
        raise UnknownSite(f"one site at {name}", found, next_step=f"name one, like {sites[0].name}")
    return sites[0]


def _check_kind(model: Model, name: SiteName) -> None:
    table = model.table
    if name.kind in table.absent:
        raise SiteUnavailable(f"site {name} of {model.name}", table.absent[name.kind], next_step=_LISTED)
    if name.kind not in table.places:
        if not table.places:
            found = "the model came through the generic route, which has only module sites"
            raise UnknownSite(f"site {name}", found, nearest=_module_sites(model), next_step="name a module's .in or .out")
        raise UnknownSite(
            f"site {name} of {model.name}", f"the {table.family} family has no such site",
            nearest=_near_kinds(model, name), next_step=_LISTED,
        )  # fmt: skip
    if table.in_block(name.kind) != (name.layers is not None):
        inside = table.in_block(name.kind)
        right = f"blocks.*.{name.kind}" if inside else name.kind
        found = "this kind of site is in every block" if inside else "this site is outside the blocks"
        raise UnknownSite(f"site {name} of {model.name}", found, nearest=(right,))


def _near_kinds(model: Model, name: SiteName) -> tuple[str, ...]:
    prefix = "" if name.layers is None else f"blocks.{name.layers}."
    kinds = nearest(name.kind, model.table.places)
    return tuple((prefix or "blocks.*.") + k if model.table.in_block(k) else k for k in kinds)


def _module_sites(model: Model) -> tuple[str, ...]:
    return tuple(f"module:{path}.out" for path, _ in model.module.named_modules() if path)[:3]


def _per_layer(model: Model, name: SiteName) -> tuple[SiteName, ...]:
    if name.layers is None:
        return (name,)
    n_layers = model.table.n_layers
    layers = name.layers.resolve(n_layers)
    outside = [part for part in name.layers.parts if isinstance(part, int) and not -n_layers <= part < n_layers]
    if not layers or outside:
        last = n_layers - 1
        found = f"layer {outside[0]} is out of range" if outside else "the pattern matches no layer"
        raise UnknownSite(
            f"site {name} of {model.name}", f"{found}; the model has layers 0 to {last}",
            nearest=(str(name.at(layer=last)),),
        )  # fmt: skip
    return tuple(name.at(layer=layer) for layer in sorted(layers))


def _check_selectors(model: Model, name: SiteName) -> None:
    axes = model.table.places[name.kind].view.axes
    for axis, index in name.select:
        if axis not in axes:
            raise UnknownSite(
                f"selector {axis}={index} at {name.path} of {model.name}", f"the site has the axes {', '.join(axes)}",
                nearest=tuple(a for a in axes if a != "batch"),
            )  # fmt: skip
        size = None if axis == POS else model.table.size(name.kind, axis)
        if size is not None:
            indices(name, axis, index, size)
