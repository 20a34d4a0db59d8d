"""The page of `docs/methods.py`: its tables, and what they say in sentences made from the numbers."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from optrode.provenance import Provenance
from optrode.truth.programs import PROGRAMS

GRADIENTS = (
    "EAP", "EAP-IG, 5 points", "EAP-IG, 20", "EAP-IG, 100", "clean-corrupted", "EAP-IG on activations, 5", "mask-IG, 20",
    "mask-IG, 200",
)  # fmt: skip
METHODS = (*GRADIENTS, "AtP*, QK", "AtP*, GradDrop", "information-flow routes", "pruning", "ACDC", "exact")
SMOOTH = ("reverse", "xproportion", "pair_balance")

PILOT = {
    **{(case, label): 1.0 for case in SMOOTH for label in (*GRADIENTS[:4], "mask-IG, 20")},
    **{(case, label): 1.0 for case in PROGRAMS for label in ("exact", "ACDC")},
    **{("count_less_freq", label): 0.583 for label in (*GRADIENTS[:4], "mask-IG, 20")},
    **{("induction", label): 1.0 for label in (*GRADIENTS[1:4], "mask-IG, 20")},
    **{("hist", label): 0.625 for label in GRADIENTS[:2]},
    **{("hist", label): 1.0 for label in ("EAP-IG, 20", "EAP-IG, 100", "mask-IG, 20")},
    ("induction", "EAP"): 0.70,
}  # fmt: skip
"""Floored areas by resampling that a pilot measured with an implementation of its own on 24 to 32 pairs."""

PILOT_RAW = {
    ("reverse, zero", "EAP"): 0.996, ("reverse, zero", "mask-IG, 20"): 0.996, ("xproportion, zero", "EAP"): 1.0,
    ("induction, zero", "EAP"): 1.0,
}  # fmt: skip
"""The pilot's raw areas."""

PAGE = """# Edge methods where the circuit is known

Written by `make methods` (`docs/methods.py`) on {machine}, Python {python}, torch {torch}, Optrode {optrode}.
{n_pairs} pairs each, random seed 0 (trained models: seeds {seeds}); programs and gate in float64, trained models in float32.

The cases: six programs compiled into weights (`op.truth.load`), with edges resampled, and three of them with edges zeroed;
two-layer induction models trained from {n_seeds} seeds (`op.truth.train_induction`; figures are means); an OR gate of two
equal heads (`op.truth.or_gate`), of which a hundredth or nothing of the second copy leaks through. The truth of reverse,
xproportion, induction and the gate is known by design; of the other programs it is the set of edges whose exact effect is
not zero; of trained models, of those whose exact effect is at least {matters:.0%} of the whole.

## Floored area under the ROC curve

1 finds every true edge first, .5 is chance. Scores below a thousandth of the largest count as 0, and so as ties. In
brackets: true edges / all edges.

{floored}

## Raw area

Edges outside a program score exactly 0, so that a true edge whose score is rounding noise still ranks above all of them:
the raw area cannot tell a method that works from one that found nothing.

{raw}

## Correlation with exact effects

Pearson's r over all edges.

{correlations}

## Passes

Forward, or forward and backward, passes of the whole batch. ACDC's depend on what it finds; pruning takes 300 steps.

{passes}

## What the numbers say

{findings}

## Where the numbers differ from those of the pilot

The pilot measured these programs with an implementation of its own, before this one was written.

{differences}
"""


@dataclass(frozen=True)
class Row:
    """What one method reached on one case.

    Attributes:
        case, method: column and row of the tables.
        auroc, auroc_floored: of its scores against the true edges.
        correlation: Pearson's r with exact effects.
        n_passes: of the whole batch.
        is_truth: whether the circuit that it chose is exactly the true one; None for methods that choose none.
        total: sum of its scores, as a share of the effect of all edges together.
        share: score of the case's known edge, as a share of its exact effect; None where none is singled out.
        n_true, n_all: edges.
    """

    case: str
    method: str
    auroc: float
    auroc_floored: float
    correlation: float
    n_passes: int
    is_truth: bool | None
    total: float
    share: float | None
    n_true: int
    n_all: int


@dataclass(frozen=True)
class Study:
    """All that was measured.

    Attributes:
        rows: one per case and method; several where a case was measured on several models.
        ratios: case -> joint effect / summed single effects of the edges into the gate.
        sums: points -> sum of mask gradients on hist, as a share of what it should be.
        matters: share of the whole effect from which an edge of a trained model is true.
    """

    rows: tuple[Row, ...]
    ratios: dict[str, float]
    sums: dict[int, float]
    seeds: tuple[int, ...]
    n_pairs: int
    matters: float

    @property
    def cases(self) -> tuple[str, ...]:
        """Columns of the tables."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    def all(self, case: str, method: str) -> list[Row]:
        """Rows of a cell of the tables."""
        return [row for row in self.rows if (row.case, row.method) == (case, method)]

    def __call__(self, case: str, method: str, what: str = "auroc_floored") -> float:
        """The mean of a figure over a cell's rows."""
        return float(np.mean([getattr(row, what) for row in self.all(case, method)]))

    def found(self, method: str) -> list[str]:
        """Cases in which a search chose exactly the true circuit."""
        return [case for case in self.cases if all(row.is_truth for row in self.all(case, method))]

    def table(self, what: str, form: str) -> str:
        """Methods by cases."""
        head = [f"{case} ({row.n_true}/{row.n_all})" for case in self.cases for row in self.all(case, "exact")[:1]]
        lines = [["method", *head], ["---"] * (len(head) + 1)]
        for method in METHODS:
            cells = (form.format(self(case, method, what)) if self.all(case, method) else "-" for case in self.cases)
            lines.append([method, *cells])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(study: Study, origin: Provenance) -> str:
    """The page as Markdown."""
    return PAGE.format(
        machine=origin.machine, n_pairs=study.n_pairs, seeds=", ".join(map(str, study.seeds)), n_seeds=len(study.seeds),
        matters=study.matters, floored=study.table("auroc_floored", "{:.3f}"), raw=study.table("auroc", "{:.3f}"),
        correlations=study.table("correlation", "{:.2f}"), passes=study.table("n_passes", "{:.0f}"),
        findings="\n".join(map(_item, findings(study))), differences=differences(study),
        **{name: origin.versions[name] for name in ("python", "torch", "optrode")},
    )  # fmt: skip


def _item(text: str) -> str:
    return textwrap.fill(text, 125, initial_indent="* ", subsequent_indent="  ", break_on_hyphens=False)


def findings(study: Study) -> Iterator[str]:
    """What the numbers say, in sentences."""
    yield from (of_searches(study), of_smooth(study), of_saturation(study), of_steps(study), of_sums(study))
    yield from (of_zeroing(study), of_training(study), of_redundancy(study), of_routes(study))


def of_searches(s: Study) -> str:
    """Exact effects, ACDC and pruning."""
    right = [case for case in s.cases if s(case, "exact") == 1]
    wrong = [case for case in s.cases if case not in s.found("ACDC")]
    text = (
        f"**Exact effects** put all true edges first in {len(right)} of {len(s.cases)} columns. **ACDC** returns exactly "
        f"the true circuit in {len(s.found('ACDC'))}{f', not for {_names(wrong)}' if wrong else ''}. "
    )
    return text + (
        f"**Pruning**, told the true number of edges and given 300 steps on {s.n_pairs} pairs, does in "
        f"{len(s.found('pruning'))} ({_names(s.found('pruning'))}): its masks learn by gradients, and fail on the steps of "
        f"count_less_freq ({s('count_less_freq', 'pruning'):.3f}) and the saturated attention of induction "
        f"({s('induction', 'pruning'):.3f}) where EAP-IG with 5 points does not ({s('induction', 'EAP-IG, 5 points'):.3f})."
    )


def of_smooth(s: Study) -> str:
    """Programs that gradients like."""
    worst = min(s(case, method) for case in SMOOTH for method in (*GRADIENTS, "AtP*, QK"))
    return (
        f"**Where a program is smooth** ({_names(SMOOTH)}) gradient methods reach {worst:.3f}. The exception is AtP*'s "
        f"GradDrop, with {s('xproportion', 'AtP*, GradDrop'):.3f} on xproportion and "
        f"{s('pair_balance', 'AtP*, GradDrop'):.3f} on pair_balance: in two layers, an edge into the first that acts "
        "through the second has no gradient whichever of them is dropped."
    )


def of_saturation(s: Study) -> str:
    """Saturated attention."""
    share = {method: s("induction", method, "share") for method in ("EAP", *GRADIENTS[1:3], "AtP*, QK")}
    return (
        f"**Saturated attention** (induction): EAP's score of the edge into the keys is {share['EAP']:.0e} of its exact "
        f"effect, and its area {s('induction', 'EAP'):.3f}. Gradients at both ends do not help "
        f"({s('induction', 'clean-corrupted'):.3f}); points between them do (EAP-IG with 5: "
        f"{s('induction', 'EAP-IG, 5 points'):.3f}), though the edge's score is then {share['EAP-IG, 5 points']:.2f} of "
        f"its effect, and {share['EAP-IG, 20']:.2f} with 20. AtP*'s QK correction gives that edge {share['AtP*, QK']:.3f} "
        f"of its effect, but {s('induction', 'AtP*, QK'):.3f} for the whole: the edge before it, into the previous-token "
        "head's values, acts through the saturated keys of a later layer, which the correction does not compute again."
    )


def of_steps(s: Study) -> str:
    """MLPs that compute steps."""
    values = [s("count_less_freq", method) for method in GRADIENTS]
    return (
        "**Steps** (hist, count_less_freq: MLPs that are flat but for narrow ramps) have no gradient at most points. On "
        f"hist EAP-IG reaches {s('hist', 'EAP-IG, 5 points'):.3f} with 5 points, {s('hist', 'EAP-IG, 20'):.3f} with 20 and "
        f"{s('hist', 'EAP-IG, 100'):.3f} with 100. On count_less_freq, where one step follows another, gradient methods "
        f"stay between {min(values):.3f} and {max(values):.3f} (mask-IG with 200 points); only exact effects "
        f"({s('count_less_freq', 'exact'):.3f}) and ACDC ({s('count_less_freq', 'ACDC'):.3f}) find its edges."
    )


def of_sums(s: Study) -> str:
    """The sum rule of mask gradients."""
    smooth = ", ".join(f"{s(case, 'mask-IG, 20', 'total'):.3f}" for case in ("xproportion", "pair_balance", "induction"))
    told = ", ".join(f"{total:.2f} with {n}" for n, total in s.sums.items())
    return (
        f"**The sum rule** of mask-IG holds on xproportion, pair_balance and induction ({smooth} of the whole effect with "
        f"20 points). On hist the sum is {told} points. **A sum that is right does not prove that an integral has "
        "converged**, as with 5 points here; one that is wrong proves that it has not, and is reported."
    )


def of_zeroing(s: Study) -> str:
    """Zero ablation."""
    best = max(GRADIENTS, key=lambda method: s("reverse, zero", method))
    return (
        "**Zeroing** shows more true edges, those that set a task up, and gradients find fewer of them: on reverse EAP "
        f"falls from {s('reverse', 'EAP'):.3f} to {s('reverse, zero', 'EAP'):.3f}, and the best gradient method ({best}) "
        f"stands at {s('reverse, zero', best):.3f}. The raw area of EAP, {s('reverse, zero', 'EAP', 'auroc'):.3f}, hides "
        "it."
    )


def of_training(s: Study) -> str:
    """Trained models."""
    worst = min(s("trained", method) for method in GRADIENTS)
    ladder = ", ".join(f"{label} {s('trained', label, 'correlation'):.2f}" for label in GRADIENTS)
    few, many = (s("trained", label, "correlation") for label in ("EAP", "EAP-IG, 100"))
    text = (
        f"**In trained induction models** few edges matter ({s('trained', 'exact', 'n_true'):.1f} of 81 in the mean of "
        f"{len(s.seeds)} seeds), and gradient methods put them first ({worst:.3f}). Correlations with exact effects "
        f"differ: {ladder}."
    )
    more = (
        " **EAP-IG with more points agrees less with single effects here, not more**: the way from corrupt to clean input "
        "changes everything, an exact effect one edge."
    )
    return text + (more if many < few else "")


def of_redundancy(s: Study) -> str:
    """The planted gate."""
    leaky, tight = s.ratios
    good = [method for method in METHODS if s.all(tight, method) and s(tight, method) == 1]
    return (
        "**Redundancy** (OR gate): while a hundredth leaks through, exact effects rank the two copies above the rest "
        f"({s(leaky, 'exact'):.3f}), though each alone seems to be worth a hundredth of what both are. Where nothing "
        f"leaks, exact effects stand at {s(tight, 'exact'):.3f}, ACDC at {s(tight, 'ACDC'):.3f} and EAP at "
        f"{s(tight, 'EAP'):.3f}: **single effects are not ground truth either**. {_names(good)} find all edges, since on "
        "their ways the gate is not saturated. A proof reports it: ablated together, the edges into m0 cost "
        f"{s.ratios[leaky]:.1f} times the sum of their single effects ({s.ratios[tight]:.0f}, where the ratio is cut off, "
        "if nothing leaks)."
    )


def of_routes(s: Study) -> str:
    """Information-flow routes."""
    values = [s(case, "information-flow routes") for case in s.cases]
    return (
        "**Information-flow routes** score what is written, not what the task needs, and do not tell q from k from v: "
        f"{min(values):.3f} to {max(values):.3f}. They take one run and no corrupt prompt; they do not replace effects."
    )


def differences(study: Study) -> str:
    """Cells in which the pilot had another number."""
    lines = []
    for what, kind, pilot in (("auroc_floored", "floored", PILOT), ("auroc", "raw", PILOT_RAW)):
        for (case, method), theirs in pilot.items():
            ours = study(case, method, what)
            if abs(ours - theirs) > 0.002:
                lines.append(f"* {case} by {method}, {kind}: {ours:.3f} here, {theirs:.3f} there.")
    return "\n".join([f"{len(lines)} of {len(PILOT) + len(PILOT_RAW)} cells:", "", *lines])


def _names(names: Sequence[str]) -> str:
    return "; ".join(names)
