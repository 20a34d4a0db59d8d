"""What is claimed of emotion circuits, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    'Do LLMs "Feel"? Emotion Circuits Discovery and Control', "Wang et al.", 2025, "arXiv 2510.11328"
)  # fmt: skip
QUESTION: Final = (
    "Is there a direction for each feeling, whatever is told, do few heads and neurons write it, and do they control the "
    "feeling better than one steering vector?"
)

N_HEADS: Final = 4
"""Heads of a circuit, of 24."""
N_NEURONS: Final = 24
"""Neurons of a circuit, of 768."""

CLAIMS: Final = (
    Claim(
        "E1a", "emotion directions", "Directions centred within scenarios say the feeling, whatever is told.",
        "share of other scenarios and feelings whose centred state is nearest to its own direction, mean over layers",
        Bounds(low=0.95),
        "the same of directions made with feelings exchanged within each scenario", Bounds(high=0.4),
        "own", in_part=Bounds(low=0.8),
    ),
    Claim(
        "E1b", "emotion directions", "They do not depend on the scenarios that they are made of.",
        "cosine of a feeling's directions made of two halves of the scenarios, mean over feelings and layers",
        Bounds(low=0.9),
        "cosine with the next feeling's direction", Bounds(high=0.3),
        "own", in_part=Bounds(low=0.7),
    ),
    Claim(
        "E2", "ablation", "Few heads and neurons carry a feeling.",
        f"share of stories of the feeling that the prompt names, with that feeling's {N_HEADS} heads and {N_NEURONS} "
        "neurons held at their means over feelings",
        Bounds(high=0.3),
        "the same with as many random ones, mean over 3", Bounds(low=0.7),
        "own", in_part=Bounds(high=0.5),
    ),
    Claim(
        "E3", "circuit modulation", "Turned up, they give a neutral prompt's story that feeling.",
        "share of stories of the asked feeling (paper: .9965)",
        Bounds(low=0.95),
        "the same with as many random ones at the same strength, mean over 3", Bounds(high=0.5),
        "paper", in_part=Bounds(low=0.8),
    ),
    Claim(
        "E4", "circuit modulation", "That does better than one steering vector.",
        "share of stories that are of the asked feeling and well told: circuit less steering, each at the strength that is "
        "best on other scenarios (paper: .9965 less .9122 of the feeling alone)",
        Bounds(low=0.03),
        "random circuits, at the strength that is best for them, less steering", Bounds(high=-0.1),
        "code", in_part=Bounds(low=0.0),
    ),
    Claim(
        "E5", "circuit modulation", "Stories are told as well as before.",
        "share of well told stories: with the circuit turned up less without",
        Bounds(low=-0.15),
        "the same at twice the strength", Bounds(high=-0.4),
        "own", in_part=Bounds(low=-0.3),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "A made grammar: six feelings, 64 scenarios, stories of eight words, of which half say what happened and half how it "
    "felt; a transformer of 3 layers of 8 heads and width 64 with 768 neurons, trained on it from nothing. The paper has "
    "Llama 3.2 3B and stories in English. That the network feels nothing needs no study.",
    "The feeling of a story is the likeliest by the grammar's law, exactly, and it is well told if every word fits and two "
    "say what happened; the paper asks another language model.",
    "Stories are drawn from the network's distribution as it is: no repetition penalty and no banned n-grams, which would "
    "hide broken stories.",
    "The network knows all scenarios; directions and circuits are of a half of them, strengths are chosen on a quarter, and "
    "results are of the last quarter.",
    "Parts are turned up by adding a multiple of what they do on average for the feeling; a part's score is what it writes "
    "along the direction after its sublayer, times the sublayer's importance. How the paper enhances is from an account.",
    "Steering adds one layer's direction, the best of three; the paper adds directions at ten layers.",
    "Two pilots on other random seeds set the size of the circuit. In them it was about as good as steering (-.05 to +.02), "
    "and cost .12 to .26 of the well told stories; E4 and E5 ask for what the paper says all the same.",
)
