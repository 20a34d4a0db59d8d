"""A made-up study run, shaped like a real one: eight claims with every verdict, and figures of every kind."""

import math
import random

from optrode.claims import Bounds, Chart, Claim, Figures, Line, Map, Measured, Paper, Slides, StudyRun, find
from optrode.provenance import Provenance

PAPER = Paper(
    "What needs to go right for an induction head? A mechanistic study of in-context learning circuits and their formation",
    "Singh et al.", 2024, "arXiv 2404.07129",
)  # fmt: skip
QUESTION = "Which parts of the induction circuit form when, and which of them makes the loss fall so abruptly?"
TOKENS = ("item a", "label a", "item b", "label b", "query")
STEPS = (0, 100, 200, 400, 800, 1600)


def claim(key, place, says, expected, control_expected, source="code", in_part=None):
    measures = "sequences seen until the loss is below 0.277 nats, as a multiple of the unclamped run's"
    control = "the same with a clamp on a head of layer 2 to a pattern drawn at random"
    return Claim(key, place, says, measures, expected, control, control_expected, source, in_part)


CLAIMS = (
    claim("S1", "Fig. 1", "Every induction head forms in the same phase change.", Bounds(1.5, 6.0), Bounds(None, 1.2)),
    claim("S2", "Fig. 5b", "Clamping the previous-token pattern is faster.", Bounds(0.3, 0.9), Bounds(0.8)),
    claim("S3", "Fig. 5b", "Clamping layer 1 makes it fall much earlier.", Bounds(None, 0.5), Bounds(0.8), "pilot"),
    claim("S4", "Table 1", "Previous-token heads act through K-composition.", Bounds(0.9), Bounds(None, 0.8)),
    claim("S5", "Fig. 6", "More labels slow subcircuit C, not B.", Bounds(2.0), Bounds(None, 1.3), "paper"),
    claim("S6", "Fig. 8", "Clamping all heads is slower than none.", Bounds(1.1), Bounds(0.0, 1.0), "paper", Bounds(0.9)),
    claim("S7", "Fig. 10", "A clamp is not a progress measure.", Bounds(0.4, 0.6), Bounds(None, 0.1), "own"),
    claim("S8", "Fig. 15", "Anti-induction heads do not generalise.", Bounds(1.0), Bounds(0.0, 0.5), "recalled"),
)  # fmt: skip
MEASURED = {
    "S1": [(2.9, 1.02), (3.4, 0.98), (2.7, 1.1)],
    "S2": [(0.66, 0.97), (0.71, 1.04), (0.58, 0.92)],
    "S3": [(0.27, 0.99), (0.31, 1.02), (0.22, 0.94)],
    "S4": [(0.97, 0.61), (0.99, 0.7), (0.95, 0.66)],
    "S5": [(2.4, 1.1), (2.9, 1.05), (2.2, 1.21)],
    "S6": [(0.97, 0.8), (1.04, 0.9), (0.93, 0.85)],
    "S7": [(0.82, 0.03), (0.78, 0.01), (0.91, 0.05)],
    "S8": [(1.4, 0.1), (math.nan, math.nan), (1.7, 0.2)],
}


def study_run(profile="measured"):
    findings = tuple(find(one, [Measured(*pair) for pair in MEASURED[one.key]]) for one in CLAIMS)
    source = Provenance(
        "induction-formation", "", 0, {"optrode": "0.1.0", "torch": "2.13.0", "python": "3.11.9", "numpy": "2.3.1"},
        "x86_64, 2 cores", "optrode study run induction-formation", "2026-11-20T10:11:12+00:00", 312.4,
    )  # fmt: skip
    differences = (
        "Class vectors are drawn from a normal distribution, not ResNet features of Omniglot.",
        "The learning rate is 3e-4 and not 1e-5, so that a run takes seconds.",
    )
    notes = ("The Omniglot variant was left out: no data folder was given.",)
    return StudyRun(
        "induction-formation", PAPER, QUESTION, profile, CLAIMS, findings, differences, notes, (0, 1, 2), 312.4, "0123abc",
        source,
    )  # fmt: skip


def curves():
    """Loss over sequences seen, three seeds of three conditions, one with a band, one dashed."""
    rng, lines = random.Random(0), []
    x = tuple(float(round(100 * 10 ** (ix / 20))) for ix in range(61))
    for name, middle in (("no clamp", 15000), ("previous-token clamp", 10000), ("layer 1 clamped", 4000)):
        for _ in range(3):
            near = middle * rng.uniform(0.85, 1.18)
            lines.append(Line(name, x, tuple(0.002 + 0.7 / (1 + (at / near) ** 5) for at in x)))
    y = tuple(0.69 / (1 + at / 9000) for at in x)
    lines.append(Line("law", x, y, tuple(0.8 * v for v in y), tuple(1.2 * v for v in y), dashed=True))
    return tuple(lines)


def attention(step):
    def weight(row, column):
        formed = 1 / (1 + math.exp(-(step - 400) / 60))
        goal = 1.0 if (row, column) in ((1, 0), (3, 2), (4, 1)) else 0.0
        return formed * goal + (1 - formed) / (row + 1)

    cells = tuple(tuple(weight(r, c) if c <= r else None for c in range(5)) for r in range(5))
    return Map("Induction pattern", "attends", "attended", TOKENS, TOKENS, cells, "attention", caption="One head.")


def figures():
    bars = tuple(
        Line(name, (0.0, 1.0, 2.0), values, tuple(v - 0.08 for v in values), tuple(v + 0.08 for v in values))
        for name, values in (("K = 50", (1.0, 0.66, 0.27)), ("K = 200", (1.6, 0.9, 0.31)))
    )
    points = tuple(
        Line(name, tuple(float(x) for x in range(8)), tuple(0.1 * x + shift for x in range(8)))
        for name, shift in (("copy", 0.0), ("match", 0.2))
    )
    heads = tuple(str(head) for head in range(8))
    cells = tuple(tuple(round(math.sin(3 * row + column) * 0.9, 3) for column in range(8)) for row in range(2))
    steps, maps = tuple(map(str, STEPS)), tuple(map(attention, STEPS))
    slides = Slides("The head turns to the label that fits", "training step", steps, maps)
    return Figures(
        charts=(
            Chart(
                "Clamping a subcircuit makes the loss fall earlier", "sequences seen", "loss (nats)", curves(), log_x=True,
                log_y=True, marks={"median, no clamp": 15000.0}, levels={"0.4 ln 2": 0.277, "ln 2": 0.693},
                caption="Three random seeds of each condition; the dashed line is a law with its band.",
            ),
            Chart(
                "Layer 1 is what takes longest", "clamp", "time, of the unclamped", bars, "bars",
                ("none", "previous token", "layer 1"), caption="Medians with the range over seeds.",
            ),
            Chart("Matching rises with copying", "head", "strength", points, "points", caption="One point per head."),
        ),
        maps=(Map("Heads feed one another", "layer", "head", ("0", "1"), heads, cells, "composition", True, "Signed."),),
        slides=(slides,),
    )  # fmt: skip
