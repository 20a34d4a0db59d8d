"""What is claimed of training with the steps written out, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Unveiling the Mechanisms of Explicit CoT Training: How Chain-of-Thought Enhances Reasoning Generalization",
    "Yao et al.", 2025, "arXiv 2502.04667",
)  # fmt: skip
QUESTION: Final = (
    "Why does a network that learns to write the step in between answer two-hop questions over facts that it has never "
    "seen combined, and one that learns the answers alone does not?"
)

NOISE: Final = 0.2
"""Share of the training questions whose answer is a random entity."""
MUCH_NOISE: Final = 0.8

CLAIMS: Final = (
    Claim(
        "C1a", "abstract; learning curves", "With steps, questions whose facts were never combined are answered.",
        "accuracy of questions of two facts out of distribution, bridge and answer written by the network",
        Bounds(low=0.9),
        "the network trained on as many sequences without steps", Bounds(high=0.1),
        "recalled", in_part=Bounds(low=0.7),
    ),
    Claim(
        "C1b", "abstract; learning curves",
        "With steps, left-out questions of combined facts are answered much sooner than without.",
        "accuracy of left-out questions of facts in distribution",
        Bounds(low=0.95),
        "the network trained on as many sequences without steps", Bounds(high=0.6),
        "recalled", in_part=Bounds(low=0.8),
    ),
    Claim(
        "C2", "two-stage circuit", "The second hop starts from the written bridge, not from the question's first entity.",
        "share of left-out questions whose answer, when another entity's embedding is patched in at the bridge, becomes "
        "that which this entity leads to",
        Bounds(low=0.9),
        "the same for another entity in place of the question's first, with the bridge left as written", Bounds(high=0.1),
        "own", in_part=Bounds(low=0.6),
    ),
    Claim(
        "C3a", "noise runs", "Wrong answers in the training hurt out of distribution more than within.",
        f"accuracy lost to {NOISE:.0%} of random answers: out of distribution less in distribution (paper: .175)",
        Bounds(low=0.1),
        "the same where these questions are left out instead", Bounds(-0.1, 0.1),
        "code", in_part=Bounds(low=0.03),
    ),
    Claim(
        "C3b", "noise runs", "With a fifth of the answers wrong, most questions in distribution are still answered.",
        f"accuracy of left-out questions in distribution at {NOISE:.0%} of random answers (paper: .951)",
        Bounds(low=0.8),
        f"the same at {MUCH_NOISE:.0%} (paper: .426)", Bounds(high=0.6),
        "code", in_part=Bounds(low=0.6),
    ),
    Claim(
        "C3c", "noise runs", "Wrong bridges together with wrong answers do far more harm.",
        f"accuracy lost in distribution: bridges and answers random in {NOISE:.0%} less answers alone (paper: .4 at "
        ".05)",
        Bounds(low=0.2),
        "accuracy lost where these questions are left out instead", Bounds(-0.05, 0.05),
        "code", in_part=Bounds(low=0.1),
    ),
    Claim(
        "C4", "abstract; logit lens", "With steps, the bridge is resolved in an earlier layer.",
        "layers until the bridge can be read from the stream, as one less the mean reciprocal rank, added up: without steps "
        "less with steps (left-out questions; three layers)",
        Bounds(low=0.2),
        "the same for another entity's rank", Bounds(-0.1, 0.1),
        "third party", in_part=Bounds(low=0.1),
    ),
)

DIFFERENCES: Final = (
    "100 entities, 10 relations and 10 facts of each entity (paper: 2,000, 200 and 20); 7 % of the facts are out of "
    "distribution (5 %), since fewer would leave too few questions of two of them.",
    "The larger the world, the better the network does out of distribution: in one of 60 entities and 480 facts, a tenth of "
    "them out of distribution, the same runs with steps reached .83 in 600 updates (median of the same three seeds).",
    "A transformer of 3 layers, 4 heads and width 64 (8 layers, 12 heads, 768); 900 updates of 128 sequences at a learning "
    "rate of .002 (8,000 of 512 at .0001); 40 % of a batch are single facts.",
    "Weight decay is .01 (.1): at .1 to 1 the small network learns the same, later.",
    "The place of noise and of probes in the paper's figures is from an account of it and from its stored results.",
    "Where noise is in the bridge, the wrong bridge is also what the network reads before the answer, as in a written text.",
    "The paper shows that the network without steps generalises in distribution after more than a million updates; this "
    "study stops long before.",
)
