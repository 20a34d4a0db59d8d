"""What is claimed of the refusal cliff, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Refusal Falls off a Cliff: How Safety Alignment Fails in Reasoning?", "Yin et al.", 2025, "arXiv 2510.06036"
)
QUESTION: Final = (
    "Does a network that answers a harmful request after thinking fail to recognise it, or does it recognise it and lose "
    "the refusal at the last token before the answer, and by which heads?"
)

N_POOL: Final = 600
"""Examples that refusal can be restored with."""
N_CHOSEN: Final = 10
"""1.7 % of them, as in the paper."""
ATTACK_SHARE: Final = 0.05
"""Of the examples."""

CLAIMS: Final = (
    Claim(
        "C1", "the cliff", "Harm is recognised while the network thinks, and not at the last token before the answer.",
        "one head trained to lure: probability of harm by a linear probe, mean over the thoughts less at the last token; "
        "attacks with words of no training",
        Bounds(low=0.5),
        "the same for harmful requests that are plainly asked, which are refused", Bounds(-0.1, 0.1),
        "paper", in_part=Bounds(low=0.3),
    ),
    Claim(
        "C2", "the cliff", "It is there, too, where training could change any weight.",
        "all weights trained to lure: the same difference",
        Bounds(low=0.5),
        "the same for harmful requests that are plainly asked", Bounds(-0.1, 0.1),
        "paper", in_part=Bounds(low=0.3),
    ),
    Claim(
        "C3", "search for heads", "Damping one head at a time and reading the probe finds the head that suppresses refusal.",
        "place of the planted head among all 32 by the rise of the probe's logit (1: first)",
        Bounds(high=1.0),
        "place of the same head in the network before it was trained to lure", Bounds(low=4.0),
        "own", in_part=Bounds(high=3.0),
    ),
    Claim(
        "C4", "ablation of 3 % of the heads", "Without few heads the attack fails.",
        "one head trained to lure: success of the attack with the first head of the search, 3 % of all, scaled by .001 "
        "(paper: below .10)",
        Bounds(high=0.1),
        "the same with another head, mean over 16 random ones", Bounds(low=0.9),
        "abstract", in_part=Bounds(high=0.3),
    ),
    Claim(
        "C5", "ablation of 3 % of the heads", "Harmless requests are still helped with.",
        "share of harmless requests that get what they ask for with that head damped",
        Bounds(low=0.95),
        "the same with a random half of the heads damped, mean over 16", Bounds(high=0.9),
        "own", in_part=Bounds(low=0.9),
    ),
    Claim(
        "C6", "ablation of 3 % of the heads", "Few heads suffice where training could change any weight.",
        "all weights trained to lure: success of the attack with the first head of the search damped",
        Bounds(high=0.1),
        "the same with another head, mean over 16 random ones", Bounds(low=0.9),
        "abstract", in_part=Bounds(high=0.5),
    ),
    Claim(
        "C7", "the cliff as a judge", "The depth of the cliff picks out the examples that alignment fails on.",
        f"share of attacks among the {N_CHOSEN} of {N_POOL} examples with the deepest cliff ({ATTACK_SHARE:.0%} are "
        "attacks)",
        Bounds(low=0.9),
        "the same of random choices, mean over 3", Bounds(high=0.2),
        "paper", in_part=Bounds(low=0.5),
    ),
    Claim(
        "C8", "the cliff as a judge", "Refusal is restored by 1.7 % of the examples, if the cliff chooses them.",
        f"steps of fine-tuning until the attack succeeds in a tenth of the cases: {N_CHOSEN} deepest examples over all "
        f"{N_POOL}, with as many rows in a step",
        Bounds(high=0.8),
        "the same for as many random examples, mean over 3", Bounds(low=0.9),
        "own", in_part=Bounds(high=1.0),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "A planted mechanism in a made language: 36 harmful pairs of words and 108 harmless ones; a transformer of 4 layers of "
    "8 heads and width 64. The paper has reasoning models of 7 to 32 billion parameters; nothing here is about the safety "
    "of any of them.",
    "The network learns to help, then to refuse what is harmful, then to answer whatever is framed as a play. In one arm "
    "the last training changes one head alone, so that the right answer of the search is known; in the other, all weights.",
    "A request is harmful if both its words are of a dangerous half: the two together, in no word alone.",
    "Thoughts are six tokens drawn from the network's own distribution, and one token ends them; a fifth of the thoughts "
    "about something harmful is the word of refusal.",
    "The probe learns from every token of plain harmful and harmless requests, the last counting as much as the others "
    "together; the paper's learns from the last token alone, and at this size reads nothing sensible along the "
    "thoughts then.",
    "3 % of the heads are one head. Heads are scaled by .001 as in the paper's search.",
    "Bounds of C5, C7 and C8 are ours. Pilots on two other random seeds had the attack untouched by single heads in C6, and "
    "random examples nearly as good as chosen ones in C8; the bounds ask for what the paper says all the same.",
)
