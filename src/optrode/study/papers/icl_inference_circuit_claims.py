"""What is claimed of the steps of in-context classification, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Revisiting In-context Learning Inference Circuit in Large Language Models", "Cho et al.", 2025, "arXiv 2410.04468"
)
QUESTION: Final = (
    "Does in-context classification run through input encoding, semantics merge, and retrieval with copying, so that "
    "cutting any one of these steps ends it?"
)

_LEFT: Final = (
    "share of accuracy above chance (1/2) that is left when {} is cut in all layers, of a network that was trained freely"
)
_RANDOM: Final = "as many other arrows, drawn at random: mean over 20 draws"
_GONE: Final = Bounds(high=0.25)
_STAYS: Final = Bounds(low=0.75)
_HALF: Final = Bounds(high=0.5)

CLAIMS: Final = (
    Claim(
        "I1", "abstract; ablations", "Cutting the query's encoding, from its words to its forerunner token, ends it.",
        _LEFT.format("x_q > s_q"), _GONE, _RANDOM, _STAYS, "abstract", in_part=_HALF,
    ),
    Claim(
        "I2", "abstract; ablations", "Cutting the demonstrations' encoding, from words to forerunner tokens, ends it.",
        _LEFT.format("x_i > s_i"), _GONE, _RANDOM, _STAYS, "abstract", in_part=_HALF,
    ),
    Claim(
        "I3", "abstract; ablations", "Cutting the merge, from forerunner tokens to labels, ends it.",
        _LEFT.format("s_i > y_i"), _GONE, _RANDOM, _STAYS, "abstract", in_part=_HALF,
    ),
    Claim(
        "I4", "abstract; ablations", "Cutting retrieval and copying, from labels to the query's forerunner token, ends it.",
        _LEFT.format("y_i > s_q"), _GONE, _RANDOM, _STAYS, "abstract", in_part=_HALF,
    ),
    Claim(
        "I5", "abstract: bypasses", "Where a step can be cut, a bypass stands in: labels read the words themselves.",
        _LEFT.format("both s_i > y_i and the bypass x_i > y_i"), _GONE,
        "share left when s_i > y_i alone is cut", Bounds(low=0.5), "abstract", in_part=_HALF,
    ),
    Claim(
        "I6", "abstract; ablations", "With the bypass x_i > y_i closed while it trains, every step is needed.",
        "the largest share of accuracy above chance that is left when one of the four steps is cut",
        _GONE, "as many other arrows as the largest step has, at random: mean over 20 draws", _STAYS, "own", in_part=_HALF,
    ),
    Claim(
        "I7", "abstract", "The steps and the bypass do it alone.",
        "share of accuracy above chance when attention has only x > s, s > y, x > y and y > s_q, in all layers",
        Bounds(low=0.75), "as many arrows, drawn at random: mean over 20 draws", Bounds(high=0.25), "own",
        in_part=Bounds(low=0.5),
    ),
    Claim(
        "I8", "kernel alignment", "Forerunner tokens come to hold what the text means.",
        "kernel alignment (15 nearest neighbours) of the query's forerunner token with the classes' own vectors, its "
        "greatest over layers",
        Bounds(low=0.3), "the same of the network before training", Bounds(high=0.15), "abstract", in_part=Bounds(low=0.15),
    ),
    Claim(
        "I9", "induction correctness", "Induction heads look from the forerunner token at the right label.",
        "induction correctness: attention to the right label less that to the wrong one, of the best head",
        Bounds(low=0.3), "the same of the best head before training", Bounds(high=0.1), "abstract",
        in_part=Bounds(low=0.15),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "Three layers of attention trained from nothing on rows of eleven vectors, where the paper has language models of 7 to "
    "70 billion weights on six text data sets; none of its numbers can be compared.",
    "Two demonstrations with two noisy words each, where the paper has four with whole sentences. Chance is one half: the "
    "label of a random demonstration.",
    "Reading is trained beside in-context learning, as a second loss at every forerunner token; a language model brings it "
    "along.",
    "Steps are cut in all heads of all layers, or of one layer; the paper cuts in ranges of layers.",
    "Known of the paper by its abstract and the names in its code; bounds are ours.",
)
