"""What is claimed of where reward and example move weights, and what must be measured for each claim to hold."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper("The Path Not Taken: RLVR Provably Learns Off the Principals", "Zhu et al.", 2025, "arXiv 2511.08567")

QUESTION: Final = "Does training by reward move a network's weights elsewhere than training by example does?"

CLAIMS: Final = (
    Claim(
        "P1a", "Sec. 2", "|w' - w| <= 0.001 max(|w|, |w'|) says of bfloat16 values that they are equal, exactly.",
        "pairs of bfloat16 values, up to 3 neighbours apart, of which it says the wrong thing",
        Bounds(high=0.0), "the same with 2^-7 in place of 0.001", Bounds(low=1.0), "paper",
    ),
    Claim(
        "P1b", "Sec. 4, theory", "No principal angle exceeds Wedin's bound, no singular value moves further than ||dW||.",
        "largest quotient of sine and bound, over tuned, random and near-crossing matrices",
        Bounds(high=1.0 + 1e-9), "the same over ||dW|| / gap with the gap of the matrix before alone",
        Bounds(low=1.0 + 1e-3), "paper",
    ),
    Claim(
        "P1c", "Sec. 4.3", "An update that does not know of a mask overlaps with it by the mask's share of the weights.",
        "distance from 0.5 of the overlap of random updates with principal masks, mean over matrices and draws",
        Bounds(high=0.02), "the same of updates drawn within the mask", Bounds(low=0.3), "paper",
    ),
    Claim(
        "P1d", "Sec. 5", "Turning one layer's coordinates, which changes no output, breaks the overlap of runs there alone.",
        "overlap above chance of two runs' tenths of weights that changed most, in the turned attention, over what it is "
        "without turning",
        Bounds(high=0.15), "the same in all other matrices", Bounds(low=0.5), "paper", Bounds(high=0.3),
    ),
    Claim(
        "P2a", "Fig. 4", "Reward shifts the singular values less than example does, at the same reward.",
        "spectral shift by example over that by reward, means over matrices", Bounds(low=3.0),
        "a second run by example, over the first", Bounds(0.67, 1.5), "paper", Bounds(low=1.5),
    ),
    Claim(
        "P2b", "pilot", "At this size there is no difference: per size of the update the spectrum shifts by as much.",
        "spectral shift per relative norm of the update, by reward over that by example (1.05 and 1.14 in a pilot)",
        Bounds(0.8, 1.25), "updates of the same norm that lengthen the weights, over that by example", Bounds(low=2.0),
        "pilot", Bounds(0.67, 1.5),
    ),
    Claim(
        "P2c", "Fig. 4", "Reward turns the principal subspaces less than example does.",
        "largest principal angle of 16 by example over that by reward, means over matrices", Bounds(low=2.0),
        "a second run by example, over the first", Bounds(0.67, 1.5), "paper", Bounds(low=1.3),
    ),
    Claim(
        "P2d", "Fig. 5", "What reward updates avoids the principal weights.",
        "share of the principal mask less its overlap with the update by reward", Bounds(low=0.05),
        "the same of the same update at shuffled places", Bounds(-0.02, 0.02), "paper", Bounds(low=0.02),
    ),
    Claim(
        "P2e", "Fig. 5", "What reward updates prefers small weights.",
        "overlap of the update by reward with the mask of low weights, less the mask's share", Bounds(low=0.05),
        "the same of the same update at shuffled places", Bounds(-0.02, 0.02), "paper", Bounds(low=0.02),
    ),
    Claim(
        "P2f", "Table 1", "Reward leaves many weights as they were in bfloat16, example few.",
        "share of weights unchanged by reward (0.36 to 0.92 in the paper)", Bounds(low=0.36),
        "the same by example (0.006 to 0.188 in the paper)", Bounds(high=0.188), "paper", Bounds(low=0.2),
    ),
    Claim(
        "P2g", "pilot", "At this size nearly every weight changes, by reward too.",
        "share of weights whose bfloat16 value reward changes (0.995 in a pilot)", Bounds(low=0.98),
        "the same of a thousandth of the update", Bounds(high=0.3), "pilot",
    ),
    Claim(
        "P2h", "ours", "How sparse an update looks depends on its size, not on what made it.",
        "difference of the shares unchanged by reward and by example, both made so small that example leaves 0.6",
        Bounds(high=0.05), "the same of an update of that norm in a tenth of the weights", Bounds(low=0.2), "own",
    ),
    Claim(
        "P2i", "Table 2", "Runs on other data update the same weights.",
        "Jaccard index above chance of two runs by reward, of weights that changed visibly (0.14 to 0.18 in the paper)",
        Bounds(low=0.1), "the same with one update at shuffled places", Bounds(-0.02, 0.02), "paper", Bounds(low=0.05),
    ),
    Claim(
        "P2j", "Table 2, ours", "Runs on other data change the same tenth of the weights most.",
        "Jaccard index above chance of two runs by reward, of the tenth of each matrix that changed most", Bounds(low=0.2),
        "the same with one update at shuffled places", Bounds(-0.02, 0.02), "own", Bounds(low=0.1),
    ),
    Claim(
        "P2k", "ours", "Reward and example change the same tenth of the weights most.",
        "Jaccard index above chance of reward and example on other questions, over that of two runs by reward",
        Bounds(low=0.8), "the same of example towards other answers", Bounds(high=0.5), "own", Bounds(low=0.5),
    ),
    Claim(
        "P2l", "pilot", "The target matters more than the algorithm: new answers shift the spectrum further.",
        "spectral shift by example towards other answers over that towards the known ones", Bounds(low=1.5),
        "spectral shift by reward over that by example", Bounds(0.67, 1.5), "pilot",
    ),
    Claim(
        "P2m", "pilot", "New answers are learnt in the principal directions more than known ones are sharpened there.",
        "energy of the update between the principal subspaces, towards other answers over towards the known ones (2.7 and "
        "3.6 in a pilot)", Bounds(low=1.5), "by reward over by example", Bounds(0.67, 1.5), "pilot", Bounds(low=1.2),
    ),
    Claim(
        "P3a", "Sec. 6.1", "Reward learns as well where it may change only low and non-principal weights.",
        "share of the unmasked run's gain that it reaches in as many steps", Bounds(low=0.95),
        "the same with a random mask of as many weights", Bounds(high=0.9), "paper",
    ),
    Claim(
        "P3b", "Sec. 6.1", "Reward learns worst where it may change principal weights alone.",
        "share of the gain with low weights alone less that with principal weights alone, half of the weights each",
        Bounds(low=0.1), "difference of two random halves", Bounds(-0.05, 0.05), "paper", Bounds(low=0.05),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "A policy of three layers and width 64 answers 144 questions with one token; the paper tunes language models of "
    "billions of parameters on mathematics and code.",
    "Reward and example start from the same weights, with the same optimiser and learning rate, and end at the same reward; "
    "in the paper they are recipes that differ in data, length and learning rate.",
    "Reward sharpens what is known already from 0.5 to 0.9, and so does example on the same answers; examples of the paper "
    "are often new text, which tuning towards other answers stands for here.",
    "Only the matrices of the blocks are tuned and measured. Weights are float32 throughout, and rounded to bfloat16 where "
    "visibility is asked; there is no KL term, and no clipping.",
    "Since nearly all weights change, overlaps of runs are also measured of the tenth of each matrix that changed most.",
    "The pilot whose figures are named pretrained its policy otherwise; its energies towards other answers do not come "
    "back.",
    "Masks are compared by the reward that is reached in as many steps as the unmasked run takes, in the paper by their "
    "curves of KL.",
    "LoRA and PiSSA are left out.",
)
