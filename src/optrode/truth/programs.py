"""Programs compiled into weights: models whose circuits are known exactly, down to the edge.

tracr (Lindner et al., arXiv 2301.05062) turns a program of RASP (Weiss et al., arXiv 2106.06981) into a transformer without
norms. `scripts/compile_programs.py` made the weights here. Which edges matter depends on how they are ablated, so there is a
set for each way; where there is none, the truth is the set of edges whose exact effect is not zero.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from random import Random
from typing import Any, Final, Literal, get_args

import torch
from safetensors.torch import load as load_tensors

from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.nn.transformer import Spec, Transformer, as_model
from optrode.trial.metric import Metric
from optrode.trial.prompts import Pair, Task
from optrode.trial.run import Bench
from optrode.truth.draw import drawn
from optrode.truth.projection import NAME as PROJECTION
from optrode.truth.projection import projection

Ablation = Literal["resample", "zero"]
LEAK: Final = 1e-6
"""Effects smaller than this share of the whole come from attention that is not quite hard: tracr's selectors have scores of
50 / sqrt(d_head) to spare, so that a few ten-millionths leak. Zeroing `embed -> a3.h0.q` of `reverse` is such a one."""


@dataclass(frozen=True)
class About:
    """What is known of a program besides its weights.

    Attributes:
        does: what it puts out at each position, for people.
        n_tokens: of a task's prompts, after the BOS token.
        edges: ablation -> the edges that matter.
        is_shuffled: prompts hold every letter equally often.
    """

    does: str
    n_tokens: int
    edges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_shuffled: bool = False


_REVERSE: Final = ("embed -> a3.h0.v", "a3.h0 -> logits")
_XPROPORTION: Final = ("embed -> m0", "m0 -> a1.h0.v", "a1.h0 -> logits")
_INDUCTION: Final = (
    "embed -> a0.h0.v", "a0.h0 -> a1.h0.k", "embed -> a1.h0.q", "embed -> a1.h0.v", "a1.h0 -> logits",
)  # fmt: skip
_REVERSE_ZERO: Final = (
    "m2 -> a3.h0.q", "embed -> a3.h0.k", "m1 -> m2", "m0 -> m1", "embed -> m1", "a0.h0 -> m0", "embed -> m0",
    "embed -> a0.h0.v",
)  # fmt: skip

PROGRAMS: Final = {
    # With five tokens, as many as it can take, zeroing the length that it counts changes nothing: it takes 0 for 5.
    "reverse": About("the tokens in reverse order", 3, {"resample": _REVERSE, "zero": _REVERSE + _REVERSE_ZERO}),
    "xproportion": About("the share of x among the tokens so far", 5, {
        "resample": _XPROPORTION, "zero": (*_XPROPORTION, "embed -> a1.h0.q", "embed -> a1.h0.k"),
    }),
    "hist": About("how often the token occurs", 5),
    "pair_balance": About("the share of ( minus the share of ) among the tokens so far", 5),
    "count_less_freq": About("how many tokens occur at most twice", 5),
    # With each letter twice, at most one token can follow: attention is never torn between two, so that it is saturated.
    "induction": About("the token that followed this one before", 8, {
        "resample": _INDUCTION, "zero": (*_INDUCTION, "embed -> a0.h0.q", "embed -> a0.h0.k", "embed -> a1.h0.k"),
    }, is_shuffled=True),
}  # fmt: skip
"""Name -> what is known of it; edges are named as in `circuit/edge/graph.py`."""


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled program.

    Attributes:
        name: one of `PROGRAMS`.
        model: the transformer that runs it.
        vocabulary: the token of each id.
        columns: what each column of the logits stands for: a value, or the number itself where there is one column.
        letters: the tokens that prompts are made of.
        bos, pad: ids of the token that starts every prompt, and of the one that the program never sees.
        max_tokens: of a prompt, after BOS.
    """

    name: str
    model: Model
    vocabulary: tuple[str, ...]
    columns: tuple[str, ...]
    letters: str
    bos: int
    pad: int
    max_tokens: int

    @property
    def about(self) -> About:
        """What it does, and its true edges."""
        return PROGRAMS[self.name]

    def encode(self, tokens: Iterable[str]) -> tuple[int, ...]:
        """Token ids of a prompt, BOS first.

        Raises:
            BadOption: a token that the program does not know, or too many of them.
        """
        found = list(tokens)
        unknown = [token for token in found if token not in self.letters]
        if unknown:
            raise BadOption(f"token {unknown[0]!r} of program {self.name}", f"it reads the tokens {', '.join(self.letters)}")
        if len(found) > self.max_tokens:
            raise BadOption(f"{len(found)} tokens for program {self.name}", f"it takes at most {self.max_tokens}")
        return (self.bos, *(self.vocabulary.index(token) for token in found))

    @torch.no_grad()
    def __call__(self, tokens: Sequence[str]) -> list[str] | list[float]:
        """What the model puts out at each token: a value, or a number.

        Raises:
            BadOption: see `encode`.
        """
        device = self.model.device
        logits = self.model.module(torch.tensor([self.encode(tokens)], device=device)).logits[0, 1:]
        if len(self.columns) == 1:
            return [float(number) for number in logits[:, 0]]
        return [self.columns[column] for column in logits.argmax(-1).tolist()]

    def task(self, n: int = 24, random_seed: int = 0) -> Task:
        """Pairs of random prompts of one length, whose outputs differ; every position after BOS is read.

        Its metric is `metric(task)`, which has to be given to a Bench along with it, as `bench` does.

        Raises:
            BadOption: `n` is less than 1.
        """
        about = self.about
        task = Task(self.name, f"{self.name}: {about.does}.", PROJECTION, (), random_seed)
        return drawn(self.model, task, self._pairs(Random(random_seed)), n)

    def metric(self, task: Task) -> Metric:
        """The task's metric: 1 apart in the two worlds for every pair."""
        return projection(self.model, task)

    def bench(self, n: int = 24, random_seed: int = 0, **options: Any) -> Bench:
        """A Bench of the model, its task and its metric; `options` go to the Bench.

        Raises:
            BadOption: see `task`.
        """
        task = self.task(n, random_seed)
        return Bench(self.model, task, self.metric(task), **options)

    def edges(self, ablation: str = "resample") -> tuple[str, ...] | None:
        """The edges that matter, by name; None where they are those whose exact effect is not zero.

        Raises:
            BadOption: the truth is not known for this ablation.
        """
        ways = get_args(Ablation)
        if ablation not in ways:
            asked = f"true edges of {self.name} by ablation {ablation!r}"
            raise BadOption(asked, "not known for it", nearest=nearest(ablation, ways) or ways)
        return self.about.edges.get(ablation)

    def _pairs(self, rng: Random) -> Iterator[Pair]:
        said = cache(self._columns_of)
        while True:
            clean, corrupt = (self._drawn(rng) for _ in range(2))
            yield self._pair(clean, corrupt, said(clean))

    def _drawn(self, rng: Random) -> str:
        n_tokens = self.about.n_tokens
        if self.about.is_shuffled:
            return "".join(rng.sample(self.letters * (n_tokens // len(self.letters)), n_tokens))
        return "".join(rng.choices(self.letters, k=n_tokens))

    def _columns_of(self, tokens: str) -> list[int]:
        """[pos] the column that says what the program puts out at each token."""
        return [0 if isinstance(value, float) else self.columns.index(value) for value in self(tokens)]

    def _pair(self, clean: str, corrupt: str, said: Sequence[int]) -> Pair:
        return Pair(
            clean=self.encode(clean), corrupt=self.encode(corrupt), right=(said[-1],), wrong=(),
            clean_tokens=(self.vocabulary[self.bos], *clean), corrupt_tokens=(self.vocabulary[self.bos], *corrupt),
            right_tokens=(self.columns[said[-1]],), targets=tuple(enumerate(said, start=1)),
        )  # fmt: skip


def load(name: str, dtype: torch.dtype = torch.float64) -> Program:
    """A program by name.

    Raises:
        BadOption: there is no such program.
    """
    if name not in PROGRAMS:
        raise BadOption(f"program {name!r}", "there is none", nearest=nearest(name, PROGRAMS) or tuple(PROGRAMS))
    folder = files("optrode.truth") / "programs"
    about = json.loads((folder / f"{name}.json").read_text())
    module = Transformer(Spec(**about["spec"])).to(dtype)
    module.load_state_dict(load_tensors((folder / f"{name}.safetensors").read_bytes()))
    return Program(
        name, as_model(module, name), tuple(about["vocabulary"]), tuple(about["columns"]), about["letters"], about["bos"],
        about["pad"], about["max_tokens"],
    )  # fmt: skip
