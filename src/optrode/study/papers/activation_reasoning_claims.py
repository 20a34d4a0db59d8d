"""What is claimed of rules over latents, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "ActivationReasoning: Logical Reasoning in Latent Activation Spaces", "Helff et al.", 2025, "arXiv 2510.18184"
)
QUESTION: Final = (
    "Do rules over an autoencoder's latents, chained forward while a model reads, make it answer what follows from a fact "
    "in many steps?"
)

CLAIMS: Final = (
    Claim(
        "L1", "PrOntoQA, five hops", "With rules over latents the model answers what follows in five steps.",
        "share of right answers to questions five steps away, with rules",
        Bounds(low=0.9),
        "the same with rules off: each concept that is detected is strengthened itself", Bounds(high=0.3),
        "third party", in_part=Bounds(low=0.6),
    ),
    Claim(
        "L2", "accuracy over hops", "With rules, accuracy does not fall with the number of steps.",
        "share of right answers one step away less that five steps away, with rules",
        Bounds(-0.05, 0.05),
        "the same of the model alone", Bounds(low=0.5),
        "abstract", in_part=Bounds(-0.15, 0.15),
    ),
    Claim(
        "L3", "method", "It is the rules: with others, answers are wrong.",
        "share of right answers two to five steps away with the rules, less with rules of another world",
        Bounds(low=0.6),
        "that with rules of another world, less that of the model alone", Bounds(-0.2, 0.2),
        "own", in_part=Bounds(low=0.3),
    ),
    Claim(
        "L4", "method", "It is the latents: with random ones, rules do nothing.",
        "share of right answers two to five steps away with rules, less that of the model alone",
        Bounds(low=0.6),
        "the same with latents drawn at random, each active as often as the one in whose place it is",
        Bounds(high=0.1),
        "own", in_part=Bounds(low=0.3),
    ),
    Claim(
        "L5", "dictionary of concepts", "A latent stands for a concept, not for a word.",
        "area under the ROC curve of a concept's latent on words of it that it was not chosen on, median over concepts",
        Bounds(low=0.95),
        "the same in the untrained network, with an autoencoder of its own", Bounds(high=0.7),
        "own", in_part=Bounds(low=0.85),
    ),
    Claim(
        "L6", "Rail2Country, indirect cues", "So rules act on words that no latent was chosen on.",
        "share of right answers two to five steps away, of facts told in such words, with rules",
        Bounds(low=0.85),
        "the same where the rules begin from the words that latents were chosen on, in place of latents: the model alone",
        Bounds(high=0.4),
        "own", in_part=Bounds(low=0.5),
    ),
    Claim(
        "L7", "composed concepts", "Rules of two premises answer for pairs of facts that the model never saw together.",
        "share of right answers on such pairs, with rules",
        Bounds(low=0.85),
        "the same of the model alone", Bounds(high=0.5),
        "own", in_part=Bounds(low=0.6),
    ),
    Claim(
        "L8", "Rail2Country-Meta",
        "Several concrete concepts make an abstract one; its rule answers for those never taught.",
        "share of right answers to the kind of concepts whose kind was never taught, with rules",
        Bounds(low=0.85),
        "the same of the model alone", Bounds(high=0.6),
        "own", in_part=Bounds(low=0.6),
    ),
    Claim(
        "L9", "method", "Where nothing follows, nothing is steered.",
        "share of prompts without a fact of a chain at which any gate is open",
        Bounds(high=0.05),
        "the same of prompts with such a fact", Bounds(low=0.9),
        "own", in_part=Bounds(high=0.15),
    ),
)

DIFFERENCES: Final = (
    "A transformer of 2 layers and width 64, trained from nothing, in place of Llama-3.1-8B and Gemma-2-9B; its autoencoder "
    "is trained here too. Six chains of six concepts in place of PrOntoQA; a wrong answer is one of many, not of two.",
    "The model is taught one step only. That it fails at more is planted; what is measured is whether rules over what it "
    "holds repair that. The rules are given, and right: they carry the knowledge, the latents say what it is applied to.",
    "Answers are steered by the difference of mean states at the question, by answer, of one-step prompts; the paper adds "
    "decoder rows, where it detects. Rules off adds decoder rows at an equal norm. Here latents are read after the first "
    "layer, and answers steered before the last MLP, at four times the difference: in a pilot, more pairs were right so.",
    "A proposition holds from the token on at which its latent is active by more than a threshold, which is set on labelled "
    "words; the paper searches for thresholds and detects over the prompt.",
    "The paper's number is from its repository's page (95.3 % at five hops, 45 points over the model alone).",
)
