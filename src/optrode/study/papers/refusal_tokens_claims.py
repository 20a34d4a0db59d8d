"""What is claimed of tokens that say whether a response refuses, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Refusal Tokens: A Simple Way to Calibrate Refusals in Large Language Models", "Jain et al.", 2024, "arXiv 2412.06748"
)  # fmt: skip
QUESTION: Final = (
    "Does a token at the head of each response, learned in training, let one model refuse as often as its user wants, "
    "category by category, without training it again?"
)

FAR: Final = 8.0
"""Bias on a token's logit, nats, at the ends of the sweep."""
NEAR: Final = 4.0
"""The same for one category's token."""

CLAIMS: Final = (
    Claim(
        "D1", "abstract", "One model's refusal rate goes from nothing to everything with the bias on its refusal tokens.",
        f"share of prompts of a category that are refused, at a bias of {FAR:g} nats less at {-FAR:g}",
        Bounds(low=0.95),
        "the same bias on a token that says the response's tone, and comes before", Bounds(-0.05, 0.05),
        "abstract", in_part=Bounds(low=0.7),
    ),
    Claim(
        "D2", "abstract; category tokens", "Each category's token moves refusals of its own category.",
        f"refusal rate in the token's category, at a bias of {NEAR:g} nats less at {-NEAR:g}, mean over tokens",
        Bounds(low=0.8),
        "the greatest change in any other category, or in ordinary prompts, mean over tokens", Bounds(high=0.1),
        "abstract", in_part=Bounds(low=0.5),
    ),
    Claim(
        "D3", "motivation", "Without tokens there is no such dial: no single word takes refusals away.",
        f"share of the refusals that a bias of {-FAR:g} nats on the refusal tokens takes away",
        Bounds(low=0.95),
        "the model trained without tokens: the same bias on any one word of its responses, the most effective of all",
        Bounds(high=0.5),
        "own", in_part=Bounds(low=0.8),
    ),
    Claim(
        "D4", "motivation", "The dial does what training again with other shares of refusals does.",
        "balanced accuracy of the model with tokens, dialled to the refusal rate of each of two models trained without "
        "tokens on odds of refusing of 1 and 8 times those of the world, less theirs; mean",
        Bounds(low=-0.02),
        "the same of refusing as many prompts at random", Bounds(high=-0.1),
        "own", in_part=Bounds(low=-0.05),
    ),
    Claim(
        "D5", "thresholds", "A threshold chosen on other prompts refuses better than plain decoding.",
        "F1 of refusing on test prompts, at the threshold that is best on validation prompts, less F1 of plain decoding",
        Bounds(low=0.02),
        "the same where the bias on the tone token is chosen so", Bounds(-0.02, 0.02),
        "recalled", in_part=Bounds(low=0.0),
    ),
    Claim(
        "D6", "a theorem about it", "The best threshold is half of the best F1 (Lipton et al., arXiv 1402.1892).",
        "threshold that is best for F1 on validation prompts, less half of that F1",
        Bounds(-0.1, 0.1),
        "the threshold that is best for accuracy, less half of that F1", Bounds(low=0.1),
        "third party", in_part=Bounds(-0.15, 0.15),
    ),
    Claim(
        "D7", "calibration", "The probability of a refusal token is the prompt's probability of being refused.",
        "mean difference of the two, absolute, on test prompts",
        Bounds(high=0.06),
        "the same for probabilities shuffled over prompts", Bounds(low=0.15),
        "own", in_part=Bounds(high=0.1),
    ),
    Claim(
        "D8", "results without thresholds", "Learning with tokens makes plain decoding refuse better.",
        "F1 of refusing by plain decoding: trained with tokens less trained without",
        Bounds(low=0.02),
        "trained with the refusal tokens of other responses, less trained with those of its own", Bounds(high=-0.02),
        "recalled", in_part=Bounds(low=0.0),
    ),
)

DIFFERENCES: Final = (
    "A language of 78 tokens and a transformer of 2 layers and width 48, trained from nothing for 600 updates; the paper "
    "tunes language models of billions of parameters on CoCoNot, UltraChat, Alpaca and a temporal set.",
    "Which prompts are to be refused is drawn with a probability that is known, so that there is something to be "
    "calibrated: labels of people disagree, here by plan.",
    "A refusal is known by its words, not by a judge; responses are two words long after their tokens.",
    "The dial is a bias on logits, held as a gate, which for one refusal token is the paper's threshold on its "
    "probability: bias b is the threshold 1 / (1 + e^b).",
    "How narrow one category's token is depends on its bias and on the training: in a pilot of 400 updates, 6 nats on it "
    "moved another category by .40; D2 is at 4 nats, of models that made 600 updates.",
    "D8 has a planted reason: refusals have three wordings each and an answer has one, so that greedy decoding without "
    "tokens favours answers. The same is likely of language, but was not measured on it.",
    "D3 takes away; one word that begins refusals can be made likelier as well without tokens, and then all is refused.",
)
