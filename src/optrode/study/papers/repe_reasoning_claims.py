"""What is claimed of control vectors for reasoning, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Improving Reasoning Performance in Large Language Models via Representation Engineering", "Højer et al.", 2025,
    "arXiv 2504.19483",
)  # fmt: skip
QUESTION: Final = (
    "Does one vector, read off the states of a model on items that it solves and added to its residual stream, make it "
    "solve more of them?"
)

CLAIMS: Final = (
    Claim(
        "V1", "abstract; R-C", "A vector of solved items less random strings raises accuracy.",
        "accuracy on test items at the dose that is best on validation items, less that of the model left alone",
        Bounds(low=0.05),
        "the same for random vectors of equal norm, each at its own best dose, mean of five", Bounds(high=0.02),
        "third party", in_part=Bounds(low=0.02),
    ),
    Claim(
        "V2", "doses -1 to 1", "Its sign matters: the other way, accuracy falls.",
        "accuracy at that dose less accuracy at the opposite one",
        Bounds(low=0.1),
        "the same for random vectors at the same two doses, mean of five", Bounds(-0.05, 0.05),
        "paper", in_part=Bounds(low=0.05),
    ),
    Claim(
        "V3", "PCA-C", "So does the principal axis of the differences.",
        "accuracy gained at the dose that is best on validation items",
        Bounds(low=0.05),
        "the same for the axis of differences between random strings and other random strings", Bounds(high=0.02),
        "third party", in_part=Bounds(low=0.02),
    ),
    Claim(
        "V4", "R", "So does the mean state on solved items, without a contrast.",
        "accuracy gained at the dose that is best on validation items",
        Bounds(low=0.05),
        "the same for the mean state on random strings", Bounds(high=0.02),
        "third party", in_part=Bounds(low=0.02),
    ),
    Claim(
        "V5", "a variant of it", "Solved items less failed ones say more directly what solving takes.",
        "accuracy gained at the dose that is best on validation items",
        Bounds(low=0.05),
        "the same where solved and failed are shuffled over items, mean of three", Bounds(high=0.02),
        "own", in_part=Bounds(low=0.02),
    ),
    Claim(
        "V6", "answers of a list", "Probability moves to the right answer from the others of the list.",
        "probability of the right answer with the vector of V1, at its dose, less without",
        Bounds(low=0.05),
        "the same for all answers that are not in the list, together", Bounds(-0.05, 0.05),
        "third party", in_part=Bounds(low=0.02),
    ),
    Claim(
        "V7", "KL and accuracy", "At equal change of the answers (KL), other vectors do not help.",
        "accuracy with the vector of V1 at its dose, less with random vectors at the positive dose whose KL from the model "
        "left alone is nearest to its own, mean of five",
        Bounds(low=0.05),
        "the same of vectors with shuffled outcomes in place of it, mean of three", Bounds(-0.05, 0.05),
        "own", in_part=Bounds(low=0.02),
    ),
    Claim(
        "V8", "abstract, of models in general", "A model that has only not learned enough gets better too.",
        "accuracy gained as in V1 by a model whose writers are all careful, stopped early in its training",
        Bounds(low=0.02),
        "the same for random vectors of equal norm, mean of five", Bounds(high=0.02),
        "abstract", in_part=Bounds(low=0.01),
    ),
    Claim(
        "V9", "doses -1 to 1, of models in general", "There too, the sign matters.",
        "that model: accuracy at the dose of V8 less accuracy at the opposite one",
        Bounds(low=0.05),
        "the same for random vectors at the same two doses, mean of five", Bounds(-0.05, 0.05),
        "paper", in_part=Bounds(low=0.02),
    ),
    Claim(
        "V10", "R-C", "What the vector of V1 has read is solving: failed items in their place help less.",
        "accuracy gained with solved items less random strings, less that with failed items less random strings, each at "
        "its best dose on validation items",
        Bounds(low=0.03),
        "the same of one half of the solved items and the other", Bounds(-0.02, 0.02),
        "own", in_part=Bounds(low=0.015),
    ),
)

DIFFERENCES: Final = (
    "A transformer of 2 layers and width 48, trained from nothing, in place of Pythia-1.4B, Pythia-2.8B and "
    "Mistral-7B-Instruct; lists of four names with numbers, in place of IOI, bAbI and GSM8K.",
    "What keeps the model from being right is planted: 45 % of the writers whose texts it learned do not look, and answer "
    "with the last name; style words say, not surely, who writes. V8 and V9 are of a model without such writers, stopped "
    "once it answers 65 % of the items.",
    "Doses are in units of the median norm of the stream, and chosen on validation items from 0.125 to 1; random vectors "
    "and other controls are given the same choice.",
    "The vector is added at every position after the first of two layers, the middle; in four-layer networks of pilots it "
    "gained .01 after the second layer, and .09 after the first.",
    "Added at the last position alone, where it was read, it gained nothing in pilots; the figure shows it.",
    "The paper's readings are taken from an account of it; its bounds are ours.",
)
