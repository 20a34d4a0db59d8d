"""What the server's tests serve: a tiny model that chats, gate sets, and an engine that waits to be let go."""

import copy
import threading
from functools import cache

import torch

import optrode as op
from optrode.control.generate import Request, Written
from optrode.gate import conditions
from optrode.model.model import Model
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from tests.words import WORDS, tokenizer

RESID = "blocks.1.resid_post"
PROMPT = "When Mary and John went to the store, John gave"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}{% if add_generation_prompt %}So{% endif %}"


@cache
def chatty() -> Model:
    """A tiny model with a chat template."""
    words = copy.deepcopy(tokenizer())
    words.chat_template = TEMPLATE
    module = tiny("llama", vocab_size=len(WORDS), max_position_embeddings=128)
    return from_source(module, tokenizer=words)


def vector(seed: int) -> torch.Tensor:
    return torch.randn(48, generator=torch.Generator().manual_seed(seed))


def steer(dose: float):
    """Adds a vector."""
    return (op.add(RESID, vector(1), strength=3 * dose),)


def late(dose: float):
    return (op.add("blocks.*.resid_post", vector(2), strength=2 * dose, scope="generated"),)


def mute(dose: float):
    return (op.zero("blocks.0.attn.z[head=1]", strength=dose), op.scale("blocks.2.mlp_out", -1.0, strength=dose))


def probed(dose: float):
    """Adds a vector where a probe is above a threshold."""
    opens = conditions.probe("blocks.0.resid_post", vector(3), above=0.5)
    return (op.add(RESID, vector(4), strength=4 * dose, openness=opens),)


FUNCTIONS = {"steer": steer, "late": late, "mute": mute, "probed": probed}


class Held:
    """An engine that writes one token a time, each when it is let go: to see what happens meanwhile."""

    def __init__(self, n_tokens: int = 3) -> None:
        self.n_tokens = n_tokens
        self.batches: list[tuple[Request, ...]] = []
        self.began, self.go, self.ended = threading.Event(), threading.Semaphore(0), threading.Event()

    def __call__(self, requests, *, on_token, cancelled):
        self.batches.append(tuple(requests))
        self.ended.clear()
        self.began.set()
        live = set(range(len(requests)))
        for _ in range(self.n_tokens):
            while live and not self.go.acquire(timeout=0.01):
                live -= {row for row in live if cancelled(row)}
            for row in live:
                on_token(row, "a")
        self.ended.set()
        finish = {row: "length" if row in live else "cancelled" for row in range(len(requests))}
        return tuple(Written("a" * self.n_tokens, (1,) * self.n_tokens, finish[r], 1) for r in range(len(requests)))
