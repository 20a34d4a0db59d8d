"""What is claimed of learning with representations in context, and what must be measured for each claim to hold."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "How Do Transformers Learn In-Context Beyond Simple Functions? A Case Study on Learning with Representations",
    "Guo et al.", 2023, "arXiv 2310.10616",
)  # fmt: skip

QUESTION: Final = (
    "Does a transformer that regresses on fixed non-linear features in context first compute them, and then solve a linear "
    "problem?"
)

CLAIMS: Final = (
    Claim(
        "I1", "abstract; section 5", "A transformer is close to ridge regression on the true representation.",
        "share of the predictable variance that the network misses at later points (0: ridge on Phi, 1: nothing predicted)",
        Bounds(high=0.15), "the best ridge regression on x and a constant", Bounds(low=0.2), "paper", Bounds(high=0.2),
    ),
    Claim(
        "I2", "abstract; section 5", "Lower layers compute the representation.",
        "R^2 of a linear probe for Phi(x) at x tokens, best layer",
        Bounds(low=0.85), "the same in an untrained network", Bounds(high=0.75), "paper", Bounds(low=0.8),
    ),
    Claim(
        "I3", "abstract; section 5", "The representation is copied to the tokens of the labels.",
        "R^2 of a linear probe for Phi(x) at the y token after x, best layer",
        Bounds(low=0.7), "Phi of the next x, which the token cannot know", Bounds(high=0.05), "paper", Bounds(low=0.5),
    ),
    Claim(
        "I4", "abstract; section 5", "What linear regression predicts is known only in upper layers.",
        "blocks by which a probe for the ridge prediction comes after one for Phi(x): nine tenths from embedding to peak",
        Bounds(low=1.0), "a fixed linear function of Phi(x) instead of the row's ridge prediction", Bounds(high=0.5),
        "paper", Bounds(low=0.5),
    ),
    Claim(
        "I5", "abstract; section 5", "Upper layers alone solve plain linear regression in context; random ones do not.",
        "share of the predictable variance that the upper three blocks miss, between a new linear embedding and readout",
        Bounds(high=0.2), "blocks of an untrained network", Bounds(low=0.4), "paper", Bounds(high=0.3),
    ),
    Claim(
        "I6", "abstract; section 5", "Lower layers do not.",
        "the share that the lower three blocks miss, over the share that the upper three miss",
        Bounds(low=2.0), "two sets of random blocks, one over the other", Bounds(0.5, 2.0), "paper", Bounds(low=1.3),
    ),
    Claim(
        "I7", "section 5", "Upper layers have only to be connected: around them, linear regression is learnt sooner.",
        "updates until half of the predictable variance is missed, around random blocks over around the upper three",
        Bounds(low=3.0), "two sets of random blocks, one over the other", Bounds(0.5, 2.0), "own", Bounds(low=1.5),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "Inputs of width 4, 12 points, 5 blocks of width 64 and 2,000 updates (20, 41, 12 of width 256 and about 300,000 in the "
    "paper): the network stops well above ridge regression, and shares are given of what there is to predict.",
    "Phi has one layer, and is scaled so that y has variance 1 without noise; noise has deviation 0.1.",
    "Pasted blocks are three of five, so that lower and upper ones share the middle one. The embedding is linear, and "
    "tokens of labels also have their x, as lower blocks would have copied it: an embedding that must first learn to copy "
    "needs more updates than we have. The readout is trained anew in every arm: none suffers from one made for others.",
    "What is pasted was redesigned three times after pilots, some of them on the study's own seed 0 (the embedding, two "
    "blocks or three, where x stands in tokens of labels), the level of I4 was moved from half-way to nine tenths, and I7 "
    "was added. "
    "The bounds of I2, I5 and I6 are those of before any pilot.",
    "The mixture of representations is left out.",
)
