"""What is claimed of the growth of massive activations, and what must be measured for each claim to hold."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Hidden Dynamics of Massive Activations in Transformer Training", "Gallego-Feliciano et al.", 2025, "arXiv 2508.03616"
)  # fmt: skip

QUESTION: Final = "Do the largest activations of a transformer grow by one law of five parameters while it trains?"

CLAIMS: Final = (
    Claim(
        "M1a", "Sec. 4", "A e^(-lambda x) ln x + K, x = gamma t + t0, fits the course of each layer's massive ratio.",
        "mean R2 over the layers of two networks (mean 0.984 over 188 layers in the paper, 0.931 at its least fitting size)",
        Bounds(low=0.931), "the larger R2 of two: the same ratios at shuffled steps, an untrained network's on other rows",
        Bounds(high=0.5), "paper", Bounds(low=0.75),
    ),
    Claim(
        "M1b", "Sec. 4", "The law fits better than the response of a linear system to a step, of first or second order.",
        "Akaike's criterion of the better response less the law's; median over layers",
        Bounds(low=2.0), "the same of curves that the response would have made: its values, its residuals shuffled",
        Bounds(high=0.0), "paper", Bounds(low=0.0),
    ),
    Claim(
        "M1c", "ours", "The decay is needed: neither a straight line nor a logarithm alone does as well.",
        "Akaike's criterion of the better of the two less the law's; median over layers",
        Bounds(low=2.0), "the same of curves that the better of the two would have made", Bounds(high=0.0), "own",
    ),
    Claim(
        "M1d", "Sec. 4", "The law peaks at step (e^W(1/lambda) - t0) / gamma, W being Lambert's function.",
        "largest relative difference from the largest value found by looking, over fitted laws that have a peak",
        Bounds(high=1e-3), "least such difference with 1/lambda in place of e^W(1/lambda)", Bounds(low=0.01), "paper",
    ),
    Claim(
        "M1e", "Sec. 4", "Where the law turns within the run, at a peak or, upside down, at a trough, the ratio does.",
        "distance of that step from the largest (smallest) running median of 5 looks, as a share of the run; median over "
        "layers whose law turns",
        Bounds(high=0.1), "distance of the first step of the run, with which a law that says nothing would come as near",
        Bounds(low=0.05), "own", Bounds(high=0.2),
    ),
    Claim(
        "M2", "Sec. 4.2", "The first and the last layer peak early, the layers between grow as a logarithm throughout.",
        "share of layers of which this is so; early is before 0.42 of the run (step 60,000 of 143,000)",
        Bounds(low=0.75), "the same with first and last layers exchanged for those between", Bounds(high=0.5), "paper",
    ),
    Claim(
        "M3", "Sec. 2", "Massive activations form: above 100, and 1000 times the median.",
        "largest massive ratio of any layer at the end", Bounds(low=1000.0), "the same before training", Bounds(high=20.0),
        "paper",
    ),
    Claim(
        "M4", "ours", "The largest activations grow away from the median, massive or not.",
        "ratio at the end over that at the start; median over layers", Bounds(low=2.0),
        "an untrained network: its largest ratio on other rows over its least", Bounds(high=1.5), "pilot", Bounds(low=1.5),
    ),
    Claim(
        "M5", "Sun et al. 2024, Sec. 2", "The largest activations come to sit at the first token.",
        "share of rows in which a layer's largest activation is at the first of 48 tokens, at the end; mean over layers",
        Bounds(low=0.5), "the same before training", Bounds(high=0.2), "third party", Bounds(low=0.3),
    ),
    Claim(
        "M6", "Sun et al. 2024, Sec. 4", "With massive activations come attention sinks.",
        "mean attention to the first token from later ones, at the end, of the head that looks there most; the larger of "
        "two networks",
        Bounds(low=0.5), "the same of the second token", Bounds(high=0.25), "third party", Bounds(low=0.3),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "Two networks of 4 layers and width 64 learn for 1,600 steps of 8 rows of 48 characters; the paper follows nine Pythia "
    "models of 14 million to 12 billion parameters through 143,000 steps.",
    "The text is the source of Python's standard library by characters, each row with a token at its beginning; it differs "
    "between versions of Python.",
    "Ratios are those of 40 rows of 48 characters from modules that are left out (10 sequences in the paper).",
    "Looks are evenly spaced in steps; Pythia's first are spaced by doubling.",
    "Each fit starts from five points in place of one, and all fits of a curve see the same values; fits take no account of "
    "the correlation between neighbouring looks, which makes differences of Akaike's criterion look larger.",
    "The learning rate stays as it is, without warm-up or decay.",
    "What predicts the five parameters from the architecture is not rebuilt: it takes many architectures.",
)
