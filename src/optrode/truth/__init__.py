"""Models whose circuits are known: compiled programs, planted structures, a trained induction model.

    program = op.truth.load("induction")        # model, task, true edges
    planted = op.truth.or_gate()
    model = op.truth.load_induction()
"""

from optrode.truth.induction import induction_heads, induction_task, load_induction, train_induction
from optrode.truth.planted import Planted, linear, or_gate
from optrode.truth.programs import PROGRAMS, Program, load

__all__ = [
    "PROGRAMS", "Planted", "Program", "induction_heads", "induction_task", "linear", "load", "load_induction", "or_gate",
    "train_induction",
]  # fmt: skip
