"""What is claimed of in-context learning strategies, and what must be measured for each claim to hold."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper("In-Context Learning Strategies Emerge Rationally", "Wurgaft et al.", 2025, "arXiv 2506.17859")

QUESTION: Final = (
    "Can one tell, from the loss and the complexity of two strategies alone, when a network memorises its tasks "
    "and when it generalises?"
)

CLAIMS: Final = (
    Claim(
        "W1a", "abstract", "A posterior over two strategies, of three parameters, predicts where between them a network is.",
        "correlation of the predicted weight of memorising with the network's relative distance, over sets of 4 to 256 urns "
        "and their checkpoints; parameters fitted on the other sets",
        Bounds(low=0.9), "the same predictions, given to the wrong sets: the largest's to the smallest, and so on",
        Bounds(high=0.3), "code", Bounds(low=0.7),
    ),
    Claim(
        "W1b", "abstract", "The predicted weight is right in absolute terms.",
        "mean difference of predicted weight and relative distance, fitted on the other sets",
        Bounds(high=0.12), "the best constant weight, fitted on all sets", Bounds(low=0.2), "code", Bounds(high=0.2),
    ),
    Claim(
        "W2a", "abstract", "The time from generalising to memorising grows faster than the number of tasks.",
        "exponent of the time at which the posterior is even, over 16 to 4096 urns, rows of 128 draws, at the initial "
        "guesses of the parameters; 1.43 in a pilot",
        Bounds(1.2, 1.8), "the same with the loss that memorising saves held, so that complexity alone grows",
        Bounds(high=1.0), "pilot", Bounds(1.0, 2.5),
    ),
    Claim(
        "W2b", "abstract", "Networks switch later than in proportion to the number of tasks.",
        "exponent of the training step at which relative distance passes one half, over 8 to 64 urns",
        Bounds(low=1.0), "exponent of the step at which the network has become a mixture of the two at all",
        Bounds(high=0.9), "own", Bounds(low=0.7),
    ),
    Claim(
        "W2c", "introduction", "Generalisation is transient: trained longer on few tasks, a network does worse on others.",
        "divergence from the truth on other urns at the end, less its least while training on 16 urns, over the difference "
        "of the two predictors",
        Bounds(low=0.1), "a network that gets fresh urns in each row", Bounds(high=0.05), "own", Bounds(low=0.05),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "Rows have 32 draws and batches 32 rows (64 of 128 or more in the paper), and networks train for 256 to 2,048 steps at "
    "a learning rate of 0.002 without warm-up (100,000 at 0.0005): switches come earlier, and 256 urns stay generalised.",
    "Six sets of urns stand in for eleven, 8 symbols for 8, 12 and 16, one MLP width for three; regression and "
    "classification are left out.",
    "Parameters are fitted without the set that is predicted; the paper fits on all sets together, which is easier (0.992 "
    "for this task).",
    "Checkpoints count from the first on at which the nearest mixture's divergence is below 15 % of an untrained network's; "
    "the paper's threshold is defined otherwise.",
    "Complexity is the shortest of zlib, bz2 and LZMA (the paper adds Brotli and Zstandard) of the table and of our own "
    "predictors' source, which is shorter than the paper's: at its length the computed exponent would be larger.",
)
