"""What needs to go right for an induction head? A circuit watched while it forms, and clamped meanwhile.

The claims are in `induction_formation_claims`, the experiments in the kits `formation` and `formed`.
"""

from typing import Final

from optrode.study.kit import formation, formed
from optrode.study.papers.induction_formation_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.induction_formation_figures import figures
from optrode.study.study import Outcome, Setting, Study


def run(setting: Setting) -> Outcome:
    """All experiments of one random seed; free runs serve several of them."""
    lab, found = formation.lab_of(setting), formation.Found()
    whole = formed.whole(lab, found)
    free = formation.single_heads(lab, found)
    formation.clamped(lab, found, free)
    formation.anti_induction(lab, found)
    formation.data_dependence(lab, found)
    formation.grafted(lab, found, whole)
    formation.toy(lab, found)
    formed.characters(lab, found, whole)
    return Outcome(found.measured, found.lines, found.maps, found.slides, tuple(found.notes))


STUDY: Final = Study("induction-formation", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
