"""A study that takes no time."""

from optrode.claims import Bounds, Chart, Claim, Figures, Line, Map, Measured, Paper, Slides
from optrode.study.study import Outcome, Study

PAPER = Paper("What rises", "Riser et al.", 2024, "arXiv 2400.00001")
CLAIMS = tuple(
    Claim(key, "Fig. 1", f"{key} rises | much", "rise", Bounds(0.5), "shuffled", Bounds(None, 0.1), "pilot")
    for key in ("S1", "S2")
)


def run(setting):
    seed = setting.random_seed
    measured = {"S1": Measured(0.6 + seed / 10, 0.0)} | ({"S2": Measured(float("nan"), 0.2)} if seed else {})
    cells = ((0.1, None), (0.3, 0.4))
    picture = Map("m", "row", "column", ("a", "b"), ("c", "d"), cells)
    slides = Slides("s", "step", ("0", "1"), (picture, picture))
    line = Line("free", (0.0, 1.0), (1.0, float(seed)))
    return Outcome(measured, {"loss": line}, {"m": picture}, {"s": slides}, ("no data",))


def figures(outcomes):
    lines = tuple(outcome.lines["loss"] for outcome in outcomes)
    return Figures((Chart("It falls", "step", "loss (nats)", lines),), (outcomes[0].maps["m"],), (outcomes[0].slides["s"],))


STUDY = Study("induction-formation", PAPER, "Does it rise?", CLAIMS, run, figures, ("smaller",))
