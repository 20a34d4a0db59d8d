"""What is claimed of a controller that reads early activations and weights a steering direction, with deciding numbers."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Guiding Giants: Lightweight Controllers for Weighted Activation Steering in LLMs", "Hegazy et al.", 2025,
    "arXiv 2505.20309",
)  # fmt: skip
QUESTION: Final = (
    "Can a small network that reads a prompt's activations decide whether to steer and at which layers, and what does each "
    "of the two gain over steering always, or by a probe?"
)

CLAIMS: Final = (
    Claim(
        "W1", "abstract", "A lightweight controller tells from activations which prompts to steer.",
        "area under the ROC curve of the amount s, requests with the trigger against requests without, of pairs of words "
        "that were in no training prompt",
        Bounds(low=0.99),
        "a controller that reads the input of the first layer, where the last token knows no other", Bounds(0.45, 0.55),
        "own", in_part=Bounds(low=0.95),
    ),
    Claim(
        "W2", "abstract", "It opens for those and stays closed for others.",
        "mean amount s of requests with the trigger, fresh prompts",
        Bounds(low=0.9),
        "the same of requests without", Bounds(high=0.05),
        "own", in_part=Bounds(low=0.6),
    ),
    Claim(
        "W3", "abstract", "The model's behaviour on benign prompts is kept.",
        "KL of the steered from the plain next token after requests without the trigger, nats",
        Bounds(high=0.05),
        "the same where steering is always on, at the same dose", Bounds(low=0.5),
        "own", in_part=Bounds(high=0.2),
    ),
    Claim(
        "W4", "abstract", "Steering by the controller does what steering always does.",
        "share of requests with the trigger that are refused, over that share where steering is always on",
        Bounds(low=0.94),
        "gates that are open at random, in as many rows and as far", Bounds(high=0.7),
        "pilot", in_part=Bounds(low=0.8),
    ),
    Claim(
        "W5", "section on layer weights", "Weights of layers matter: not all layers should be steered alike.",
        "objective with one weight for all layers, trained so, over that with learned weights, less 1; two of four "
        "directions are random",
        Bounds(low=0.1),
        "the same where all four directions are right", Bounds(-0.1, 0.1),
        "own", in_part=Bounds(low=0.03),
    ),
    Claim(
        "W6", "section on layer weights", "The learned weights say which layers steer.",
        "mean weight of layers with the right direction, less that of layers with a random one",
        Bounds(low=0.5),
        "weights trained by the published loss, which pulls them to one half and asks no model", Bounds(-0.15, 0.15),
        "code", in_part=Bounds(low=0.2),
    ),
    Claim(
        "W7", "training, published code", "Layer weights are learned from what steering does.",
        "norm of the gradient of effect and harm into the layer weights, mean over the first epoch",
        Bounds(low=1e-3),
        "the same of the published loss without its penalty", Bounds(0.0, 0.0),
        "code",
    ),
    Claim(
        "W8", "published code", "Every layer that is to be steered is steered.",
        "share of the declared sites that the controller can open, read in a first pass at the last layer",
        Bounds(low=1.0),
        "the same where the last layer is read in the pass itself, as published", Bounds(high=0.25),
        "code",
    ),
    Claim(
        "W9", "published code", "A closed controller leaves refusals alone.",
        "share of requests without the trigger, but with an order not to answer, that are refused",
        Bounds(low=0.99),
        "the published recipe, whose raw score is negative there and steers the other way", Bounds(high=0.9),
        "code", in_part=Bounds(low=0.95),
    ),
    Claim(
        "W10", "baselines", "A learned controller does better than a probe that switches the same directions.",
        "objective under a probe with a threshold, every direction at the same dose, over that under the controller, less 1",
        Bounds(low=0.1),
        "the same over a controller with one weight for all layers", Bounds(high=0.1),
        "own", in_part=Bounds(low=0.03),
    ),
)

DIFFERENCES: Final = (
    "A transformer of 4 layers and width 48 in a language of 84 tokens, trained from nothing; the paper steers language "
    "models of 1 to 8 billion parameters, and judges refusals of harmful prompts by another model. A trigger of two words "
    "stands for harm here: nothing is said of jailbreaks.",
    "The direction is the difference of means between requests that are forbidden and that are not, at each layer; the "
    "paper takes one difference of input embeddings for all layers.",
    "The controller is built otherwise, for reasons that W7, W8 and W9 measure: it reads in a first pass, its amount is a "
    "sigmoid, and it is trained through the frozen model. The published recipe is rebuilt from its description: "
    "cross-entropy of the label on the raw score, and a pull of the weights to one half.",
    "Weights are divided by the largest, so that the amount is how open the most open gate is; the dose is the least at "
    "which steering always refuses 99 % of the triggers of training.",
    "W5, W6: two of the first three layers' directions are replaced by random ones, so that layers differ and it is known "
    "how. Where all are right, this network gains little from weights: that is the control of W5.",
)
"""Said on the page."""
