"""What Torre et al. (2025) claim of RNNs that emulate hidden Markov models, as numbers with bounds."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Mechanistic Interpretability of RNNs emulating Hidden Markov Models", "Torre et al.", 2025, "arXiv 2510.25674"
)
QUESTION: Final = "How does a deterministic network make random jumps between discrete states out of noise?"

CLAIMS: Final = (
    Claim(
        "H1", "section 2", "A ReLU RNN driven by noise learns a hidden Markov model's emissions.",
        "Sinkhorn divergence of emitted sequences, from 0 (the model's own) to 1 (memoryless, equally frequent symbols)",
        Bounds(high=0.15), "the untrained network", Bounds(low=0.8), "code", Bounds(high=0.3),
    ),
    Claim(
        "H2", "section 2", "Its emissions follow each other as the model's do.",
        "mean absolute error of the probabilities of each symbol after the two states' own symbols",
        Bounds(high=0.05), "memoryless symbols, equally frequent", Bounds(low=0.2), "code", Bounds(high=0.1),
    ),
    Claim(
        "H3", "abstract", "Without input, activity collapses to a single fixed point.",
        "fixed points found from 40 states of the driven network, and starts that led to none",
        Bounds(1, 1), "the same search in a planted bistable network (two attractors and a saddle)",
        Bounds(2, 3), "abstract",
    ),
    Claim(
        "H4", "abstract", "With noise, states turn around a closed orbit.",
        "net turns for each two switches, in the plane of greatest variance (1: always the same way round)",
        Bounds(low=0.7, high=1.3), "the untrained network under the same noise", Bounds(high=0.3), "abstract",
        Bounds(low=0.4, high=1.6),
    ),
    Claim(
        "H5", "state-space figure", "The orbit's radius grows linearly with the input's size.",
        "distance from 1 of the exponent of radius over the noise's standard deviation, 1/8 to 4 times that of training",
        Bounds(high=0.02), "the same network with a constant input held, which is no longer homogeneous", Bounds(low=0.1),
        "third party",
    ),
    Claim(
        "H6", "abstract", "Slow regions are driven by noise; transitions between them are deterministic.",
        "share of kick-zone states (residency of 2 to 8 steps) that change sides without noise, minus that of clusters",
        Bounds(low=0.5), "the same with zones shuffled", Bounds(-0.2, 0.2), "abstract", Bounds(low=0.25),
    ),
    Claim(
        "H7", "local dynamics", "Differences grow in kick zones and shrink in clusters.",
        "share of kick-zone states whose Jacobian has an eigenvalue above 1 in size, minus that of cluster states",
        Bounds(low=0.5), "the same with zones shuffled", Bounds(-0.2, 0.2), "third party", Bounds(low=0.15),
    ),
    Claim(
        "H8", "single-unit interventions", "Kick units silenced, the network is trapped on one side.",
        "crossings between sides (sure to 0.8 on both) with one side's three kick units held at 0, over those "
        " of the free network; mean of both sides",
        Bounds(high=0.2), "the median of ten random choices of other units", Bounds(low=0.5), "third party",
        Bounds(high=0.5),
    ),
    Claim(
        "H9", "single-unit interventions", "Kick units doubled, the state overshoots.",
        "greatest size of the state within 20 steps from a side's kick zone, its three kick units doubled for the first "
        "four, over that of the free network; mean of both sides",
        Bounds(low=1.4), "the median of ten random choices of other units", Bounds(high=1.2), "third party",
        Bounds(low=1.2),
    ),
    Claim(
        "H10", "connectivity", "Kick units of one side excite each other and inhibit those of the other.",
        "mean weight within the two groups of three minus that between them, in standard deviations of all weights",
        Bounds(low=0.5), "the median of ten random choices of other units", Bounds(-0.3, 0.3), "third party",
        Bounds(low=0.2),
    ),
    Claim(
        "H11", "training dynamics", "The second drop of the loss comes with the onset of unstable directions.",
        "step at which a tenth of the states has an eigenvalue above 1, over that at which the loss is half way from the "
        "memoryless level to the model's own",
        Bounds(0.5, 1.5), "the step of the first drop, half way from the untrained level to the memoryless, over the same",
        Bounds(high=0.4), "third party", Bounds(0.33, 3.0),
    ),
)  # fmt: skip

DIFFERENCES: Final = (
    "50 units and 10 inputs, the smallest of the paper's sizes but one; the paper takes apart a network of 150 and 100.",
    "192 fresh sequences a step rather than 10,000 kept ones in batches of 4,096. With so few in 300 dimensions the "
    "divergence hardly tells a network that switches a little too seldom.",
    "Weights start with variance 1 / inputs, wider than torch's: from those, two of three pilots stayed at the "
    "memoryless level for 900 steps.",
    "Kick units are found by what they add to the noise-free push out of the kick zone, an exact sum over units in a "
    "network without biases (Euler's theorem); the paper reads them off activity and weights of one network.",
    "A ReLU network without biases is homogeneous: that its radius is linear in the noise's standard deviation (and so goes "
    "with the square root of its variance) holds for any weights, trained or not. The control takes the homogeneity away.",
    "Doubled throughout, any well-connected units make a homogeneous network grow without bound; they are doubled for four "
    "steps. Silenced on both sides at once, kick units leave a network that flickers rather than one that is trapped.",
)
