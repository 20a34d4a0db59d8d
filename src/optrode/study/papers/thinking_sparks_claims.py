"""What is claimed of the heads that post-training adds and prunes, with the numbers that decide."""

from typing import Final

from optrode.claims import Bounds, Claim, Paper

PAPER: Final = Paper(
    "Thinking Sparks!: Emergent Attention Heads in Reasoning Models During Post Training",
    "Park et al.", 2025, "arXiv 2509.25758",
)  # fmt: skip
QUESTION: Final = (
    "Does learning from examples add attention heads to a circuit for good, while learning from rewards tries heads out and "
    "prunes them?"
)

CLAIMS: Final = (
    Claim(
        "T1", "Fig. 2", "Supervised fine-tuning adds heads to the circuit.",
        "emergent heads at the end: in the circuit, and not in the base model's",
        Bounds(low=2.0),
        "heads that differ between circuits of the base model from resampled prompts, mean", Bounds(high=1.0),
        "paper", in_part=Bounds(low=1.0),
    ),
    Claim(
        "T2", "Table 3", "Distillation from a better model adds heads too.",
        "emergent heads at the end",
        Bounds(low=2.0),
        "as for T1", Bounds(high=1.0),
        "paper", in_part=Bounds(low=1.0),
    ),
    Claim(
        "T3", "Fig. 2, Table 1", "The circuit after fine-tuning is another one, beyond what chance of prompts would do.",
        "overlap (Jaccard) of the heads of the base model's and the fine-tuned model's circuits",
        Bounds(high=0.8),
        "overlap of the base model's circuits from resampled prompts: the floor", Bounds(low=0.85),
        "own", in_part=Bounds(high=0.9),
    ),
    Claim(
        "T4", "Fig. 3", "Training by reward prunes again most of the heads that it tries.",
        "share of the heads that were emergent at some checkpoint and are not at the end, in training by reward",
        Bounds(low=0.5),
        "the same in supervised fine-tuning", Bounds(high=0.4),
        "paper", in_part=Bounds(low=0.35),
    ),
    Claim(
        "T5", "Fig. 3", "Training by reward ends with fewer emergent heads than fine-tuning that is no better.",
        "emergent heads: of fine-tuning, at the first checkpoint at which it answers as well as training by reward does at "
        "its end, less those of the latter",
        Bounds(low=1.0),
        "of distillation at the first checkpoint as good, less those of fine-tuning at its own", Bounds(-1.0, 1.0),
        "paper", in_part=Bounds(low=0.5),
    ),
    Claim(
        "T6", "Fig. 3", "The number of emergent heads follows the ups and downs of the reward.",
        "rank correlation, over checkpoints of training by reward, of the change of expected reward with that of the number "
        "of emergent heads",
        Bounds(low=0.3),
        "the same reward with the number of emergent heads in fine-tuning", Bounds(-0.3, 0.3),
        "paper", in_part=Bounds(low=0.15),
    ),
    Claim(
        "T7", "Table 5", "The heads that fine-tuning adds are what the new ability rests on.",
        "accuracy lost when all emergent heads of the fine-tuned model are ablated at once (output zero)",
        Bounds(low=0.1),
        "as many random heads that are in neither circuit, mean of 20 draws", Bounds(high=0.05),
        "paper", in_part=Bounds(low=0.05),
    ),
)

DIFFERENCES: Final = (
    "A transformer of 3 layers, 8 heads and width 64 that answers chains of two sums modulo 7 with the step in between, in "
    "place of language models of 1.5 to 8 billion parameters on competition mathematics.",
    "The base model is pretrained on single sums and, in a quarter of the rows, chains, until it answers half of these.",
    "Circuits hold 4 % of the edges: a size at which, in a pilot, the base model's circuit had about a fifth of all heads. "
    "What the paper takes was not found in its text. The last figure shows other sizes.",
    "The clean prompt of a pair is a chain with its right step written, and the corrupt one another chain, where the paper "
    "pairs the openings of the two models' answers.",
    "The teacher is a network of the same size from another random seed, trained on until it answers nearly all chains.",
    "Rewards are for the answer alone. Each batch of answers is used for one update, so that clipping never acts, and "
    "nothing holds the policy to the base model.",
    "Think-on and think-off modes are left out: the small model has none.",
)
