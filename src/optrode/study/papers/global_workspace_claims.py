"""What Chateau-Laurent and VanRullen (2025) claim of chains of operations through a workspace, as numbers with bounds."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Learning to Chain Operations by Routing Information Through a Global Workspace", "Chateau-Laurent and VanRullen", 2025,
    "arXiv 2503.01906",
)  # fmt: skip
QUESTION: Final = "Does a controller that routes between modules learn to add in a way that carries over to unseen sums?"

CLAIMS: Final = (
    Claim(
        "G1", "abstract", "The workspace solves unseen sums between those it learnt, with fewer parameters than others.",
        "accuracy on pairs of digits left out, whose sums are no greater than those learnt; half the baselines' parameters",
        Bounds(low=0.95), "the better of an LSTM and a transformer with twice as many parameters or more", Bounds(high=0.5),
        "abstract", Bounds(low=0.75),
    ),
    Claim(
        "G2", "abstract", "It also solves sums greater than any that it learnt.",
        "accuracy on pairs whose sum is above 12, the greatest learnt",
        Bounds(low=0.5), "the better of an LSTM and a transformer", Bounds(high=0.1), "abstract", Bounds(low=0.25),
    ),
    Claim(
        "G3", "abstract", "From the final digit alone, the controller learns the sequence Input, Increments, Output.",
        "share of the pairs of G1 whose widest gates spell as many increments between Input and Output as are to be added",
        Bounds(low=0.9), "the same gates with their steps in random order", Bounds(high=0.3), "abstract", Bounds(low=0.7),
    ),
    Claim(
        "G4", "own", "The gates alone carry the second addend.",
        "share of answers that are first addend + the other's second, under the gates of another pair, both of G1",
        Bounds(low=0.85), "the same with the held gates' steps in random order", Bounds(high=0.3), "own", Bounds(low=0.6),
    ),
    Claim(
        "G5", "own", "A routing that does not depend on the input does not add.",
        "accuracy on unseen pairs with every gate held at its mean over the learnt pairs",
        Bounds(high=0.25), "with every gate held at its own value", Bounds(low=0.7), "own", Bounds(high=0.4),
    ),
    Claim(
        "G6", "abstract", "The chain made by hand, gate by gate, is right; the controller's answers are the chain's.",
        "accuracy on unseen pairs with the chain made by hand held, in place of the controller",
        Bounds(low=1.0), "chains of another second addend", Bounds(high=0.15), "own",
    ),
    Claim(
        "G7", "abstract", "With learned representations of images, too, unseen sums are solved.",
        "accuracy on unseen pairs no greater than learnt, of unseen images (scikit-learn digits), read by a learned encoder",
        Bounds(low=0.7), "an LSTM that reads the same encoder", Bounds(high=0.35), "abstract", Bounds(low=0.5),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "Rebuilt from the abstract: sizes, number of steps, what the controller reads (here both addends at every step) and how "
    "sums are split are ours. No figures of the paper were at hand; bounds are our targets.",
    "Sums are 0 to 18, of two digits. Sums with 0 are always learnt, so that each digit is seen in either place.",
    "Images are scikit-learn's 8 x 8 digits rather than MNIST. Their encoder learns to name digits first and is then kept; "
    "Increment stays made by hand. Learnt from the final digit alone together with the routing, neither came about within "
    "1,500 steps in pilots.",
    "Weight decay is chosen in the baselines' favour (1 for the transformer, which then solves a few unseen sums rather "
    "than none; 0.1 elsewhere).",
)
