"""What steering costs in language: how likely a text is to the model without gates, how it repeats, how far it strays.

Concept, fluency and relevance are joined by a harmonic mean that is 0 when one of them is, as in AxBench (Wu et al. 2025,
arXiv 2501.17148); there, a language model rates each from 0 to 2, here they are counted.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from optrode.control.continuing import Continuation, forced_logits
from optrode.gate.gate import Gate
from optrode.model.model import Model

MOST_REPEATED: Final = 0.3
STEM: Final = 5
Vector = Mapping[str, float]
STOP_WORDS: Final = frozenset((
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "because", "been", "before",
    "being", "but", "by", "can", "could", "did", "do", "does", "doing", "down", "each", "few", "for", "from", "further",
    "get", "give", "had", "has", "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if", "in",
    "into", "is", "it", "it's", "its", "just", "let", "like", "made", "make", "many", "may", "me", "might", "more",
    "most", "much", "my", "no", "nor", "not", "now", "of", "off", "on", "once", "one", "only", "or", "other", "our",
    "out", "over", "own", "same", "she", "should", "so", "some", "such", "than", "that", "the", "their", "them", "then",
    "there", "these", "they", "this", "those", "through", "to", "too", "under", "until", "up", "us", "use", "used",
    "using", "very", "was", "we", "well", "were", "what", "when", "where", "which", "while", "who", "whom", "why",
    "will", "with", "would", "you", "your",
))  # fmt: skip


@torch.no_grad()
def nll(model: Model, continued: Sequence[Continuation], batch_size: int = 16) -> tuple[float, ...]:
    """[text] negative log-likelihood of continuations, teacher-forced after their own prompts, nats per token.

    Gates held around the call act; without any, this is the yardstick of fluency.
    """
    found: list[float] = []
    for start in range(0, len(continued), batch_size):
        part = continued[start : start + batch_size]
        batch = model.batch([(*one.prompt_ids, *one.ids) for one in part])
        logits = model.module(**batch.arguments()).logits
        found += [_mean_nll(row, one) for row, one in zip(logits, part, strict=True)]
    return tuple(found)


def _mean_nll(logits: Float[Tensor, "pos vocabulary"], one: Continuation) -> float:
    start, n = len(one.prompt_ids), len(one.ids)
    ids = torch.tensor(one.ids, device=logits.device)
    chosen = logits[start - 1 : start - 1 + n].float().log_softmax(-1).gather(1, ids[:, None])
    return float(-chosen.mean())


def kl_to_plain(
    model: Model, gates: Sequence[Gate], continued: Sequence[Continuation], batch_size: int = 16
) -> tuple[float, ...]:
    """[text] KL(gated || plain) in nats, mean over the tokens of plain continuations, with a cache as in generation."""
    found: list[float] = []
    for start in range(0, len(continued), batch_size):
        part = continued[start : start + batch_size]
        plain = forced_logits(model, part).float().log_softmax(-1)
        gated = forced_logits(model, part, gates).float().log_softmax(-1)
        per_token = (gated.exp() * (gated - plain)).sum(-1)
        found += [float(row[: len(one.ids)].mean()) for row, one in zip(per_token, part, strict=True)]
    return tuple(found)


def perplexity(model: Model, text: str, gates: Sequence[Gate] = (), n_prompt: int = 8) -> float:
    """Perplexity of a fixed text under the gated model; its first tokens are the prompt, the rest is taken as generated."""
    ids = model.to_tokens(text)[0].tolist()
    one = Continuation(tuple(ids[:n_prompt]), tuple(ids[n_prompt:]), text)
    chosen = forced_logits(model, [one], gates)[0].float().log_softmax(-1)
    return math.exp(-float(chosen[torch.arange(len(one.ids)), torch.tensor(one.ids)].mean()))


def repeated_bigrams(ids: Sequence[int]) -> float:
    """rep-2: the share of bigrams that occurred before in the same text; 0 for fewer than two tokens."""
    pairs = list(zip(ids, ids[1:], strict=False))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def fluency(d_nll: float, rep2: float) -> float:
    """exp(-max(0, dNLL)), or 0 where more than .3 of the bigrams are repeated: in [0, 1]."""
    return 0.0 if rep2 > MOST_REPEATED or not math.isfinite(d_nll) else math.exp(-max(0.0, d_nll))


def harmonic(*values: float) -> float:
    """Harmonic mean of values in [0, 1]; 0 if any is 0 (or below)."""
    return len(values) / sum(1 / value for value in values) if values and min(values) > 0 else 0.0


def relevance(texts: Sequence[str], plain: Sequence[str], prompts: Sequence[str]) -> tuple[float, ...] | None:
    """[text] closeness to the prompt, scaled by plain texts: 1 is as close as they are on average, 0 as far as they are from
    each other's prompts; within [0, 1].

    Closeness is the cosine of TF-IDF vectors of word stems (the first letters) without English stop words.

    Returns:
        None where it is undefined: plain texts are no closer to their own prompts than to others.
    """
    weights = _idf([*prompts, *plain])
    asked = [_vector(prompt, weights) for prompt in prompts]
    table = np.array([[_cosine(_vector(text, weights), one) for one in asked] for text in plain])
    if len(prompts) < 2:
        return None
    own = float(np.diag(table).mean())
    other = float((table.sum() - np.trace(table)) / (table.size - len(table)))
    if own - other < 1e-3:
        return None
    found = [_cosine(_vector(text, weights), one) for text, one in zip(texts, asked, strict=True)]
    return tuple(min(1.0, max(0.0, (value - other) / (own - other))) for value in found)


def stems(text: str) -> tuple[str, ...]:
    """Word stems of a text, without stop words: the first letters of each word, in lower case."""
    words = [word.lower() for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text)]
    return tuple(word[:STEM] for word in words if word not in STOP_WORDS)


def _idf(texts: Sequence[str]) -> Vector:
    held = Counter(stem for text in texts for stem in set(stems(text)))
    return {stem: math.log((1 + len(texts)) / (1 + n)) + 1 for stem, n in held.items()}


def _vector(text: str, weights: Vector) -> Vector:
    return {stem: n * weights[stem] for stem, n in Counter(stems(text)).items() if stem in weights}


def _cosine(a: Vector, b: Vector) -> float:
    norms = math.sqrt(sum(v * v for v in a.values())) * math.sqrt(sum(v * v for v in b.values()))
    return sum(value * b.get(stem, 0.0) for stem, value in a.items()) / norms if norms else 0.0
