"""The ledger: what came of every claim that was measured, kept with the code as one JSON file per study.

Tables of README and docs are generated from it. It says no more than its files: a study without one is *not measured*.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from optrode.claims import VERDICTS, Claim, Finding, Measured, StudyRun, find
from optrode.errors import BadOption
from optrode.records import plain, write_named
from optrode.study.study import NAMES, Study, read_summary

RESULTS: Final = "results"


def results_folder() -> Path:
    """Where the ledger's files are: a folder of this package."""
    return Path(str(files("optrode.study") / RESULTS))


def read_ledger(folder: Path | None = None) -> dict[str, StudyRun]:
    """Every study that was measured, in the order of the gallery: slug -> run.

    Raises:
        BadFile: a file of it is damaged.
    """
    where = folder or results_folder()
    return {name: read_summary(where / f"{name}.json") for name in NAMES if (where / f"{name}.json").exists()}


def enter(run: StudyRun, folder: Path | None = None) -> Path:
    """Enter a study run in the ledger, in place of what it said of that study before.

    Raises:
        BadOption: the run is a quick one, which proves nothing, or has fewer seeds than verdicts need.
    """
    asked = f"enter {run.slug} in the ledger"
    if run.profile != "measured":
        found = f"it was run with the profile {run.profile!r}, whose verdicts mean nothing"
        raise BadOption(asked, found, next_step=f"optrode study run {run.slug} --enter")
    if len(run.random_seeds) < 3:
        found = f"it has {len(run.random_seeds)} random seed(s)"
        raise BadOption(asked, found, next_step="run three random seeds at least")
    return write_named((folder or results_folder()) / f"{run.slug}.json", run)


def stale(study: Study, entry: StudyRun) -> tuple[str, ...]:
    """How an entry differs from what the study now claims, and from what its own numbers say; empty where it is fresh."""
    now = {claim.key: claim for claim in study.claims}
    then = {claim.key: claim for claim in entry.claims}
    changed = [f"claim {key} changed" for key in now if key in then and plain(now[key]) != plain(then[key])]
    missing = [f"claim {key} was not measured" for key in now if key not in then]
    gone = [f"claim {key} is no longer made" for key in then if key not in now]
    wrong = [f"the verdict on {f.claim} is not that of its numbers" for f in entry.findings if f != again(then[f.claim], f)]
    return (*changed, *missing, *gone, *wrong)


def again(claim: Claim, finding: Finding) -> Finding:
    """The finding that the entry's own numbers give."""
    return find(claim, [Measured(v, c) for v, c in zip(finding.values, finding.controls, strict=True)])


def counts(run: StudyRun) -> dict[str, int]:
    """How many claims got each verdict."""
    return {verdict: sum(f.verdict == verdict for f in run.findings) for verdict in VERDICTS}


def overview(ledger: Mapping[str, StudyRun]) -> str:
    """One row per study, as a Markdown table: for the README."""
    head = "| study | paper | claims | " + " | ".join(VERDICTS) + " | processor time |\n|---|---|---|---|---|---|---|---|"
    return "\n".join([head, *(_row(name, ledger.get(name)) for name in NAMES)])


def _row(name: str, run: StudyRun | None) -> str:
    if run is None:
        return f"| {name} | | | | | | | not measured |"
    paper = f"{run.paper.authors} {run.paper.year}, {run.paper.link}"
    numbers = " | ".join(str(n) if n else "" for n in counts(run).values())
    seeds = f"{len(run.random_seeds)} seeds, {_minutes(run.time_s)}"
    return f"| [{name}](docs/studies.md#{name}) | {paper} | {len(run.claims)} | {numbers} | {seeds} |"


def page(ledger: Mapping[str, StudyRun]) -> str:
    """Every claim of every study, as a Markdown page: docs/studies.md."""
    return "\n\n".join(_study(run) for run in ledger.values())


def _study(run: StudyRun) -> str:
    rows = [_claim(claim, finding) for claim, finding in zip(run.claims, run.findings, strict=True)]
    paper = f"{run.paper.title} ({run.paper.authors} {run.paper.year}, {run.paper.link})"
    packages = ", ".join(f"{name} {number}" for name, number in run.provenance.versions.items())
    source = (
        f"Seeds {', '.join(map(str, run.random_seeds))}; {_minutes(run.time_s)} of processor time; commit {run.commit}; "
        f"{run.provenance.date[:10]}; {run.provenance.machine}; {packages}."
    )
    lists = [f"* Differs from the paper: {text}" for text in run.differences] + [f"* {text}" for text in run.notes]
    table = "| | where | the paper says | measured here | expected | median [range] | control | expected | verdict |"
    parts = [f"## {run.slug}", f"{paper}\n\n{run.question}", "\n".join([table, "|---|" + "---|" * 8, *rows])]
    return "\n\n".join([*parts, *(["\n".join(lists)] if lists else []), source])


def _claim(claim: Claim, finding: Finding) -> str:
    value = _spread(finding.median, finding.low, finding.high)
    control = _spread(finding.control_median, finding.control_low, finding.control_high)
    cells = (
        claim.key, claim.place, claim.says, claim.measures, f"{claim.expected} ({claim.source})", value,
        f"{claim.control}: {control}", str(claim.control_expected), f"**{finding.verdict}**",
    )  # fmt: skip
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _spread(middle: float | None, low: float | None, high: float | None) -> str:
    if middle is None or low is None or high is None:
        return "not measured"
    return f"{middle:.3g} [{low:.3g}, {high:.3g}]"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
