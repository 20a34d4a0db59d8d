"""The section that lets a number be measured again: model, weights, seeds, versions, commands, times."""

from optrode.provenance import Provenance
from optrode.reports.blocks import code, heading, table, text
from optrode.reports.parts import Parts
from optrode.reports.section import Section
from optrode.reports.studies import study_source
from optrode.reports.words import short, whole

COLUMNS = ("record", "model", "weights", "seed", "passes", "seconds", "date (UTC)", "command")


def provenance_section(parts: Parts) -> Section | None:
    """One row per record, and the packages and machines behind them."""
    if not parts.sources:
        return None
    study = parts.study.provenance if parts.study else None
    rows = [_row(name, source) for name, source in parts.sources if source is not study]
    about = study_source(parts.study) if parts.study else ""
    body = about + _warning(parts) + (table(COLUMNS, rows, "Where each record came from", "sources") if rows else "")
    return Section("provenance", "Provenance", "Provenance", body + heading("Versions and machine") + _versions(parts))


def _row(name: str, source: Provenance) -> tuple[str, ...]:
    weights = f'<code title="{text(source.weights_hash)}">{text(source.weights_hash[:12])}</code>'
    passes = whole(source.n_passes)
    date = text(source.date.replace("T", " ").removesuffix("+00:00"))
    cells = (text(name), text(source.model), weights, str(source.random_seed), passes, short(source.time_s), date)
    return (*cells, code(source.command))


def _warning(parts: Parts) -> str:
    """Records of different weights may stand on one page, but never unnoticed; training runs always differ."""
    if parts.study or parts.is_training:
        return ""
    hashes = {source.weights_hash for _, source in parts.sources}
    if len(hashes) < 2:
        return ""
    return f'<p class="warn">These records were measured on {len(hashes)} different sets of weights.</p>'


def _versions(parts: Parts) -> str:
    """Packages and machine, once for all records that share them."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, source in parts.sources:
        key = (source.machine, *(f"{package} {number}" for package, number in sorted(source.versions.items())))
        groups.setdefault(key, []).append(name)
    lines = []
    for (machine, *packages), names in groups.items():
        owners = "" if len(groups) == 1 else f"<small>{text(', '.join(names))}</small>"
        lines.append(f"<li>{text(' · '.join(packages))}<br>{text(machine)}{owners}</li>")
    return f'<ul class="plain versions">{"".join(lines)}</ul>'
