"""The emergence page: loss, measures and circuits over steps of comparable runs, and where heads look as it happens."""

from collections.abc import Mapping, Sequence
from typing import Final

from optrode.reports.blocks import code, facts, paragraph, text
from optrode.reports.blocks import table as html_table
from optrode.reports.charts import tones
from optrode.reports.forming import patterns_section
from optrode.reports.parts import Parts
from optrode.reports.section import Section
from optrode.reports.steps import TALL, Curve, StepAxis, axis_over, by_name, change_words, steps_block, switch
from optrode.reports.words import count, short, whole
from optrode.train.phases import PhaseChange, phase_changes
from optrode.train.records import Emergence, Series, TrainingRun

MOST_CHARTS: Final = 24
Changes = tuple[PhaseChange, ...]
HOW: Final = (
    "A diamond marks a phase change: an abrupt move between two stretches on which the curve hardly moves, where it is "
    "steepest over logarithmic steps. Dotted lines mark the phase changes of the loss, in the colour of their run."
)


def training_title(parts: Parts) -> str:
    """The names of the runs."""
    names = list(dict.fromkeys([run.name for run in parts.runs] + [seen.run for seen in parts.emergences]))
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return f"Training: {' against '.join(shown) if len(names) < 3 else ', '.join(shown)}"


def training_lead(parts: Parts, title: str) -> str:
    """Heading, when the loss fell, and key figures."""
    return (
        f'<header><p class="eyebrow">Optrode report</p><h1>{text(title)}</h1>'
        f'<p class="headline">{text(_sentence(parts))}</p>{facts(_key_figures(parts))}</header>'
    )


def _sentence(parts: Parts) -> str:
    if not parts.runs:
        n_steps = len({step for seen in parts.emergences for step in seen.steps})
        return f"{count(n_steps, 'checkpoint')} of {', '.join(dict.fromkeys(s.run for s in parts.emergences))}."
    moved, still = [], []
    for run, name in zip(parts.runs, run_names(parts.runs), strict=True):
        changes = phase_changes(run.loss)
        if changes:
            largest = max(changes, key=lambda change: abs(change.height))
            moved.append(f"at step {whole(largest.step)} in {name}")
        else:
            still.append(name)
    if not moved:
        return f"The loss of {_joined(still)} has no phase change."
    end = f"; that of {_joined(still)} has no phase change" if still else ""
    return f"The loss changes abruptly {_joined(moved)}{end}."


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _key_figures(parts: Parts) -> list[tuple[str, str, str]]:
    runs = parts.runs
    found = []
    if runs:
        most = max(run.n_steps for run in runs)
        found += [
            ("Runs", str(len(runs)), "overlaid" if len(runs) > 1 else ""),
            ("Steps", whole(most), "of the longest" if len({run.n_steps for run in runs}) > 1 else "each"),
            ("Lowest final loss", short(min(run.loss.values[-1] for run in runs if run.loss.values)), "nats"),
            ("Time", f"{short(sum(run.provenance.time_s for run in runs))} s", "of training"),
        ] if any(run.loss.values for run in runs) else []  # fmt: skip
    if parts.emergences:
        found.append(("Checkpoints", whole(sum(len(seen.steps) for seen in parts.emergences)), "looked at"))
    return found


def run_names(runs: Sequence[TrainingRun]) -> list[str]:
    """Names that tell runs apart: with the random seed where several have one name."""
    names = [run.name for run in runs]
    return [f"{n}, seed {r.provenance.random_seed}" if names.count(n) > 1 else n for n, r in zip(names, runs, strict=True)]


def training_sections(parts: Parts) -> tuple[Section, ...]:
    """Runs, loss, measures, circuits, attention."""
    if not parts.runs and not parts.emergences:
        return ()
    page = _Page(parts)
    found = (page.runs(), page.loss(), page.measures(), page.circuits(), patterns_section(parts.emergences))
    return tuple(section for section in found if section is not None)


class _Page:
    """What the sections share: colours by name, phase changes of the losses, one axis of steps."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        looked = [(seen_name(seen, parts.emergences), seen.circuits) for seen in parts.emergences]
        self.tones = tones([run.name for run in parts.runs] + [name for name, _ in looked])
        self.losses: list[tuple[TrainingRun, Changes]] = [(run, phase_changes(run.loss)) for run in parts.runs]
        marks = {(self.tones[run.name], change.step) for run, changes in self.losses for change in changes}
        self.measured = by_name([(run.name, run.measures) for run in parts.runs])
        self.looked = by_name(looked)
        every = [run.loss for run in parts.runs] + [
            series for named in (self.measured, self.looked) for pairs in named.values() for _, series in pairs
        ]
        self.axis: StepAxis = axis_over([series for series in every if series.steps], sorted(marks))

    def runs(self) -> Section | None:
        """A table of the runs."""
        if not self.parts.runs:
            return None
        names = run_names(self.parts.runs)
        rows = [_row(name, run, changes) for name, (run, changes) in zip(names, self.losses, strict=True)]
        columns = ("run", "steps", "loss, first", "loss, last", "phase change of the loss", "checkpoints", "gates held")
        return Section("runs", "Runs", "The runs", html_table(columns, rows, "Runs on this page", "runs"))

    def loss(self) -> Section | None:
        """The training loss."""
        if not any(run.loss.steps for run in self.parts.runs):
            return None
        curves = [Curve(run.name, self.tones[run.name], run.loss, changes) for run, changes in self.losses if run.loss.steps]
        block, figure = steps_block("Training loss", curves, self.axis, "loss (nats)", "loss-steps", TALL)
        words = "Means over neighbouring steps: at most 48 points in each doubling of the step. Step 0 stands at the left."
        body = switch() + paragraph(HOW) + block + paragraph(words, "muted")
        return Section("loss", "Loss", "Loss", body, {"loss-steps": figure}, {"steps": True})

    def measures(self) -> Section | None:
        """One chart per measure."""
        return self._section("measures", "Measures", "Measures taken while training", self.measured)

    def circuits(self) -> Section | None:
        """One chart per number that was looked at from the checkpoints."""
        seen = [one for one in self.parts.emergences if one.gates]
        held = [f"{one.run} was looked at with {', '.join(one.gates)} held" for one in seen]
        words = paragraph(f"{_joined(held)}.", "muted") if held else ""
        return self._section("growth", "Circuits", "Circuits at the checkpoints", self.looked, words)

    def _section(
        self, key: str, short_title: str, title: str, named: Mapping[str, Sequence[tuple[str, Series]]], words: str = ""
    ) -> Section | None:  # fmt: skip
        if not named:
            return None
        figures, blocks = {}, ""
        for ix, (name, pairs) in enumerate(list(named.items())[:MOST_CHARTS]):
            curves = [Curve(run, self.tones[run], series, phase_changes(series)) for run, series in pairs]
            block, figures[f"{key}-{ix}"] = steps_block(name, curves, self.axis, name, f"{key}-{ix}")
            blocks += block
        rest = list(named)[MOST_CHARTS:]
        more = paragraph(f"Not drawn, but in the record: {', '.join(rest)}.", "muted") if rest else ""
        body = f'{switch()}{words}<div class="row charts">{blocks}</div>{more}'
        return Section(key, short_title, title, body, figures, {"steps": True})


def seen_name(seen: Emergence, every: Sequence[Emergence]) -> str:
    """The run that was looked at; where it was looked at more than once, with what was held meanwhile."""
    is_alone = sum(other.run == seen.run for other in every) == 1
    return f"{seen.run}, {count(len(seen.gates), 'gate')} held" if seen.gates and not is_alone else seen.run


def _row(name: str, run: TrainingRun, changes: Changes) -> tuple[str, ...]:
    values = run.loss.values
    ends = (short(values[0]), short(values[-1])) if values else ("–", "–")
    said = "; ".join(change_words(change) for change in changes) or "none"
    held = "<br>".join(code(gate) for gate in run.gates) or '<span class="muted">none</span>'
    steps = whole(run.n_steps) + (" (stopped)" if run.is_stopped else "")
    return (text(name), steps, *ends, text(said), str(len(run.checkpoints)), held)
