"""A study is one file: a paper, its claims, how they are measured from one random seed, and the figures.

`run` measures every seed, keeps each as soon as it is there, and judges the claims over all of them.
"""

import math
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, cast, final, get_args

from optrode.claims import Claim, Figures, Line, Map, Measured, Paper, Slides, StudyRun, find
from optrode.errors import BadFile, BadOption, nearest
from optrode.provenance import provenance
from optrode.records import read_named, write_named
from optrode.trial.run import Progress, no_progress

Profile = Literal["quick", "measured"]
PROFILES: Final = get_args(Profile)

NAMES: Final = (
    "induction-formation",
    "data-dependence",
    "rational-icl",
    "icl-representations",
    "icl-inference-circuit",
    "cot-training",
    "rnn-hmm",
    "massive-activations",
    "rlvr-off-principals",
    "thinking-sparks",
    "global-workspace",
    "lineas",
    "guiding-giants",
    "repe-reasoning",
    "activation-reasoning",
    "emotion-circuits",
    "refusal-tokens",
    "refusal-cliff",
)
"""Every study, in the order of the gallery."""


@final
@dataclass(frozen=True)
class Setting:
    """What one run of a study is given.

    Attributes:
        random_seed: of everything drawn.
        profile: "measured", or "quick": a few steps of everything, to see that it runs.
        data: folder of optional data sets, or None; a study that uses one says so and leaves that variant out without it.
        out: folder for training runs that may be taken up again, or None.
    """

    random_seed: int = 0
    profile: Profile = "measured"
    data: Path | None = None
    out: Path | None = None
    progress: Progress = no_progress

    def pick(self, measured: int, quick: int) -> int:
        """A size that depends on the profile."""
        return quick if self.profile == "quick" else measured


@final
@dataclass(frozen=True)
class Outcome:
    """What one run found.

    Attributes:
        measured: claim key -> value and control. A claim that is left out counts as not measured from this seed.
        lines, maps, slides: what the figures are drawn from, by names of the study's own.
        notes: said to the reader: variants that were left out, and why.
        random_seed, time_s: filled in by `run`; processor seconds.
    """

    measured: Mapping[str, Measured]
    lines: Mapping[str, Line] = field(default_factory=dict)
    maps: Mapping[str, Map] = field(default_factory=dict)
    slides: Mapping[str, Slides] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    random_seed: int = 0
    time_s: float = 0.0


@final
@dataclass(frozen=True)
class Study:
    """One paper's claims, and how to measure them.

    Attributes:
        slug: its name, as on the command line.
        paper: that it rebuilds.
        question: the paper's central one, in a sentence.
        claims: in the order of the page.
        run: one random seed's measurements.
        figures: of all seeds' outcomes.
        differences: from the paper, known beforehand.
        random_seeds: of the measured profile.
    """

    slug: str
    paper: Paper
    question: str
    claims: tuple[Claim, ...]
    run: Callable[[Setting], Outcome]
    figures: Callable[[Sequence[Outcome]], Figures]
    differences: tuple[str, ...] = ()
    random_seeds: tuple[int, ...] = (0, 1, 2)


def load(slug: str) -> Study:
    """A study by its name.

    Raises:
        BadOption: there is none of that name.
    """
    if slug not in NAMES:
        step = "`optrode study list` names every study"
        raise BadOption(f"study {slug!r}", "no such study", nearest=nearest(slug, NAMES), next_step=step)
    study: Study = import_module(f"optrode.study.papers.{slug.replace('-', '_')}").STUDY
    return study


def run(
    study: Study, *, profile: str = "measured", random_seeds: Sequence[int] | None = None,
    out: Path | str | None = None, data: Path | str | None = None, progress: Progress = no_progress,
) -> tuple[StudyRun, Figures]:  # fmt: skip
    """Measure a study's claims from several random seeds, judge them, and draw the figures.

    Args:
        out: folder in which each seed's outcome is kept, so that a run that was killed goes on.
        data: folder of optional data sets.

    Raises:
        BadOption: no seed, an unknown profile, or an outcome that names a claim which the study does not make.
    """
    seeds = _seeds(study, profile, random_seeds)
    folder = None if out is None else Path(out)
    outcomes = []
    for done, seed in enumerate(seeds):
        progress(study.slug, done, len(seeds))
        base = Setting(seed, cast(Profile, profile), None if data is None else Path(data), None, progress)
        outcomes.append(_made_or_read(study, base, folder))
    progress(study.slug, len(seeds), len(seeds))
    return summary(study, profile, outcomes), study.figures(outcomes)


def _seeds(study: Study, profile: str, given: Sequence[int] | None) -> tuple[int, ...]:
    if profile not in PROFILES:
        raise BadOption(f"profile {profile!r}", "no such profile", nearest=nearest(profile, PROFILES) or PROFILES)
    seeds = tuple(given) if given is not None else study.random_seeds if profile == "measured" else (0,)
    if not seeds or len(set(seeds)) < len(seeds):
        found = "none is given" if not seeds else "one is given twice"
        raise BadOption(f"random seeds of {study.slug}", found, next_step="give different whole numbers, like 0 1 2")
    return seeds


def _made_or_read(study: Study, setting: Setting, folder: Path | None) -> Outcome:
    file = None if folder is None else folder / f"{setting.profile}-seed-{setting.random_seed}.json"
    if file is not None and file.exists():
        kept: Outcome = read_named(file, {"Outcome": Outcome})
        return kept
    start = time.process_time()  # a study is often measured beside another
    runs = None if folder is None else folder / f"{setting.profile}-seed-{setting.random_seed}"
    found = study.run(replace(setting, out=runs))
    _check_keys(study, found)
    time_s = round(time.process_time() - start, 1)
    whole = _finite(replace(found, random_seed=setting.random_seed, time_s=time_s))
    if file is not None:
        write_named(file, whole)
    return whole


def _finite(outcome: Outcome) -> Outcome:
    """JSON has no NaN: what could not be measured is kept as null."""
    kept = {key: Measured(_or_none(one.value), _or_none(one.control)) for key, one in outcome.measured.items()}
    return replace(outcome, measured=kept)


def _or_none(value: float | int | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _check_keys(study: Study, outcome: Outcome) -> None:
    keys = [claim.key for claim in study.claims]
    unknown = [key for key in outcome.measured if key not in keys]
    if unknown:
        near = nearest(unknown[0], keys) or keys
        raise BadOption(f"outcome of {study.slug}", f"it measures {unknown[0]!r}, which is no claim", nearest=near)


def summary(study: Study, profile: str, outcomes: Sequence[Outcome]) -> StudyRun:
    """The claims judged over all outcomes."""
    nothing = Measured(math.nan, math.nan)
    findings = tuple(find(claim, [o.measured.get(claim.key, nothing) for o in outcomes]) for claim in study.claims)
    seeds = tuple(o.random_seed for o in outcomes)
    time_s = round(sum(o.time_s for o in outcomes), 1)
    notes = tuple(dict.fromkeys(note for o in outcomes for note in o.notes))
    source = replace(provenance(study.slug, "", seeds[0], time_s=time_s), command=f"optrode study run {study.slug}")
    return StudyRun(
        study.slug, study.paper, study.question, profile, study.claims, findings, study.differences, notes, seeds, time_s,
        _commit(), source,
    )  # fmt: skip


def _commit() -> str:
    """Of the checkout that this module is in; "unknown" where it is none, and marked where code was changed since."""
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "..", ":(exclude)results")
        return _git("rev-parse", "--short", "HEAD") + ("-changed" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*words: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def read_summary(file: Path) -> StudyRun:
    """A study run that was kept.

    Raises:
        BadFile: it is missing or damaged.
    """
    found: StudyRun = read_named(file, {"StudyRun": StudyRun})
    if len(found.claims) != len(found.findings):
        raise BadFile(f"study run {file}", "its findings are not those of its claims", next_step="run the study again")
    return found
