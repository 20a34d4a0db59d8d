"""What is claimed of abrupt learning and of what the data favour, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "The mechanistic basis of data dependence and abrupt learning in an in-context classification task",
    "Reddy", 2023, "arXiv 2312.03002",
)  # fmt: skip
QUESTION: Final = (
    "Which laws of the data make a network look labels up in the context instead of learning them by heart, "
    "and why does it learn to do so all at once?"
)

N_NESTED: Final = 8
"""N of the nested logits."""

CLAIMS: Final = (
    Claim(
        "R1a", "abstract", "In-context learning appears abruptly, after a few hundred updates of Adam.",
        "updates until new classes in context are labelled right more often than half-way between 1/N and 1",
        Bounds(300.0, 800.0),
        "layer 1 silenced while it trains: accuracy with new classes after 800 updates", Bounds(high=0.45),
        "pilot", in_part=Bounds(150.0, 1600.0),
    ),
    Claim(
        "R1b", "an account of it", "Before that it picks any label from the context: accuracy goes from 1/L to 1/N.",
        "share of the context's probability that the right label has beyond chance, when the context's labels together "
        "first have half-way between 1/N and 1",
        Bounds(-0.1, 0.1),
        "the same at the end of the run", Bounds(low=0.5),
        "third party", in_part=Bounds(-0.2, 0.2),
    ),
    Claim(
        "R1c", "an account of it", "The mass of the labels in context rises first; both attention patterns follow.",
        "updates to half of its rise: the earlier of ILA1 and TILA2, over CLA",
        Bounds(low=1.3),
        "ILA1 over TILA2", Bounds(0.8, 1.25),
        "third party", in_part=Bounds(low=1.1),
    ),
    Claim(
        "R2a", "abstract", "Many classes favour learning in context, few favour learning in the weights.",
        "accuracy in context less accuracy from the weights: with 512 classes less with 32",
        Bounds(low=1.0),
        "the same difference where the context never holds the query's class", Bounds(-0.3, 0.3),
        "abstract", in_part=Bounds(low=0.5),
    ),
    Claim(
        "R2b", "abstract", "Burstiness favours learning in context.",
        "accuracy in context less accuracy from the weights: with bursts less without (512 classes)",
        Bounds(low=1.0),
        "the same for bursts of which the query is independent", Bounds(-0.3, 0.3),
        "abstract", in_part=Bounds(low=0.5),
    ),
    Claim(
        "R2c", "abstract", "Variation within classes favours learning in context.",
        "accuracy in context less accuracy from the weights: at noise 0.4 less at 0.1 (256 classes)",
        Bounds(low=0.1),
        "the same with 32 classes", Bounds(-0.15, 0.1),
        "abstract", in_part=Bounds(low=0.02),
    ),
    Claim(
        "R2d", "test IC2", "What was learnt in context obeys the context against the weights.",
        "512 classes: share of rows with exchanged labels that get the context's label (IC2)",
        Bounds(low=0.7),
        "the same with 32 classes", Bounds(high=0.15),
        "third party", in_part=Bounds(low=0.5),
    ),
    Claim(
        "R3a", "nested logits", "Nested logits learn from nothing where more labels exist than are in context (L > N).",
        "updates until the loss is below 0.2 nats: L = 32, N = 8, all gains 0 at first",
        Bounds(102.0, 112.0),
        "L = N = 8: loss after 6,000 updates, nats", Bounds(low=2.05),
        "pilot",
    ),
    Claim(
        "R3b", "nested logits", "The nearer L is to N, the longer they wait.",
        "updates to 0.2 nats with L = 9, over those with L = 32",
        Bounds(2.2, 2.4),
        "the same where both layers' attention is there from the start", Bounds(high=1.2),
        "pilot",
    ),
    Claim(
        "R3c", "Figs. A.4, A.5", "For L = N it depends on the initialisation.",
        "updates to 0.2 nats from random gains: 90th percentile over 10th, of 64 starts of deviation 0.1",
        Bounds(low=2.0),
        "L = 32: the same", Bounds(high=1.3),
        "third party",
    ),
    Claim(
        "R4", "progress measures", "The slow phase waits for the attention of layer 1: given that, it is not there.",
        "updates from the context's labels having half-way between 1/N and 1 to accuracy being there, layer 1 held at "
        "its final pattern, over the same of the free run",
        Bounds(high=0.25),
        "layer 1 held at a pattern as sharp that looks at wrong items: accuracy after 600 updates", Bounds(high=0.45),
        "own", in_part=Bounds(high=0.5),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "Small: N = 4 pairs, L = 16 labels, D = 31 and 17 one-hot positions, where the paper has N = 8, L = 32, D = 63 and 65; "
    "K goes from 32 to 512.",
    "Adam at 1e-3 without weight decay, 300 to 1,200 updates; the paper's gradient descent at 0.01 takes 150,000.",
    "The classifier is three linear layers with ReLUs between them, and biases for each unit.",
    "IC and IWL have one item of each class in context, whatever the bursts in training, so that chance is the same.",
    "Progress measures and claims are taken from accounts of the paper; its bounds are ours. The nested logits are a "
    "reconstruction from memory, not its equation.",
    "That L = N is a saddle is shown of the nested logits alone, not of the network.",
)
