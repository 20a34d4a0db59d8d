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
        "emergent heads at the end: active, and not active in the base model",
        Bounds(low=2.0),
        "emergent heads between two resamples of the prompts, of the base model, mean", Bounds(high=1.5),
        "paper", in_part=Bounds(low=1.0),
    ),
    Claim(
        "T2", "Table 3", "Distillation from a better model adds heads too.",
        "emergent heads at the end",
        Bounds(low=2.0),
        "as for T1", Bounds(high=1.5),
        "paper", in_part=Bounds(low=1.0),
    ),
    Claim(
        "T3", "Fig. 2, Table 1", "The circuit after fine-tuning is another one, beyond what chance of prompts would do.",
        "overlap (Jaccard) of the base model's and the fine-tuned model's active heads",
        Bounds(high=0.75),
        "overlap of the base model's active heads by resampled prompts: the floor", Bounds(low=0.8),
        "own", in_part=Bounds(high=0.85),
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
        "accuracy lost when emergent heads of the fine-tuned model are ablated at once (output zero): all, or as many as "
        "there are others, mean of 20 draws",
        Bounds(low=0.1),
        "as many random heads that are active in neither model", Bounds(high=0.05),
        "paper", in_part=Bounds(low=0.05),
    ),
)

DIFFERENCES: Final = (
    "A transformer of 3 layers, 8 heads and width 64 that answers chains of two sums modulo 5, in place of language models "
    "of 1.5 to 8 billion parameters on competition mathematics. The step in between is computed, not written: with it "
    "written, the first layer alone did the task in a pilot, and no training added a head.",
    "The base model is pretrained on single sums and, in half of the rows, chains, until it answers half of these.",
    "Heads are taken by exact ablation, not from circuits of edges by EAP-IG: a head is active where ablating it alone "
    "loses a tenth of the gap between clean and corrupt chains. In a pilot, circuits of 4 % of the edges differed by two "
    "heads between resamples of the prompts. The last figure shows other bounds than a tenth.",
    "The teacher is the base model itself, trained on examples at four times the rate until it answers nine chains of ten; "
    "the student sees its probabilities, not sampled answers.",
    "Rewards are for the answer alone. Each batch of answers is used for one update, so that clipping never acts, and "
    "nothing holds the policy to the base model.",
    "Think-on and think-off modes are left out: the small model has none.",
)
