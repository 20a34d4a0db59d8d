"""Train a controller through the frozen model, and score it.

    CE(wanted | prompt), over positives  +  kl KL(steered || base), over negatives  +  l1 mean over rows and gates of |s w_l|

all in nats, with the model fixed. Rows that are held out choose the epoch. Of a prompt only what the model says after it
counts: the logits from its last token on.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax

from optrode.control.contrast import Answered, Sample
from optrode.control.controller import Controller
from optrode.control.controller_records import ControllerScore, ControllerTraining, Objective, Recipe
from optrode.control.probing import separation
from optrode.control.reading import check_precision, frozen
from optrode.control.states import read_states
from optrode.errors import BadOption, BadPairs, LossNotFinite
from optrode.gate.conditions import observations
from optrode.gate.gate import Gate
from optrode.gate.held import Held
from optrode.gate.place import gates as hold
from optrode.gate.scorers import Network
from optrode.model.generation import generation
from optrode.model.model import Model
from optrode.site.recording import run
from optrode.trial.run import Progress, no_progress

_ROWS: Final = 64
"""Rows of a pass when a controller is scored."""


@final
@dataclass(frozen=True)
class Case:
    """A prompt with what is said after it.

    Attributes:
        token_ids: of both.
        start: tokens of the prompt.
    """

    token_ids: tuple[int, ...]
    start: int


def train_controller(
    model: Model, controller: Controller, gates: Sequence[Gate], positives: Sequence[Sample],
    wanted: Sample | Sequence[Sample], negatives: Sequence[Sample], *, recipe: Recipe | None = None, random_seed: int = 0,
    progress: Progress = no_progress,
) -> ControllerTraining:  # fmt: skip
    """Train a controller in place; afterwards it has the weights of the epoch that was best on held-out rows.

    The model is left as it was: no weight, gradient, mode or flag of it changes. Equal seeds give equal bits.

    Args:
        gates: of `controller_gates`.
        positives: prompts after which something else is wanted, in the form in which the model will be given them: with
            its chat template and the start of its turn, if it has one.
        wanted: that, for all or one for each: a text, or token ids.
        negatives: prompts that are to be left alone, plain or with the base model's own answers (`Answered`).
        recipe: the objective, epochs, rates; by default those of `Recipe`.
        random_seed: of batches and of what is held out.

    Raises:
        BadOption: gates that are not the controller's, or a model in half precision.
        BadPairs: too few prompts, or not one wanted answer for all or for each.
        LossNotFinite: the objective became NaN or infinite; the controller has its best weights so far.
        BadGate: a gate that what the controller reads cannot open (see `controller_gates`).
    """
    how = recipe or Recipe()
    _check_gates(controller, gates)
    check_precision(model, "a controller")
    draws = torch.Generator().manual_seed(random_seed)
    (fitted, held) = _parted(_positives(model, positives, wanted), _negatives(model, negatives), how.held_out, draws)
    controller.standardise(_features(model, controller, fitted))
    optimizer = torch.optim.AdamW(controller.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    with frozen(model), hold(model, *gates) as placed:
        return _Loop(model, controller, placed, how, optimizer, draws).run(fitted, held, progress)


def score_controller(
    model: Model, controller: Controller, gates: Sequence[Gate], positives: Sequence[Sample],
    wanted: Sample | Sequence[Sample], negatives: Sequence[Sample], *, objective: Objective | None = None,
) -> ControllerScore:  # fmt: skip
    """What a controller does on prompts that it was not trained on.

    Raises:
        As `train_controller`.
    """
    _check_gates(controller, gates)
    rows = _Rows(_positives(model, positives, wanted), _negatives(model, negatives))
    with frozen(model), hold(model, *gates) as placed:
        return _score(model, controller, placed, rows, objective or Objective())


@final
@dataclass(frozen=True, eq=False)
class _Rows:
    """Positives and negatives."""

    positive: tuple[Case, ...]
    negative: tuple[Case, ...]

    def __len__(self) -> int:
        return len(self.positive) + len(self.negative)

    def batches(self, size: int, draws: torch.Generator | None) -> "Iterator[_Rows]":
        """In each batch as large a share of either side as there is, in random order where there are draws."""
        n_parts = math.ceil(len(self) / size)
        sides = [_shuffled(side, draws) for side in (self.positive, self.negative)]
        for part in range(n_parts):
            yield _Rows(*(side[part * len(side) // n_parts : (part + 1) * len(side) // n_parts] for side in sides))


@final
@dataclass(frozen=True, eq=False)
class _Terms:
    """Of one batch, as sums over its rows, with gradients.

    Attributes:
        effect: [positive], harm: [negative], in nats per token.
        opened: [row, gate] s w_l; amounts: [row] s; positives first.
    """

    effect: Float[Tensor, " positive"]
    harm: Float[Tensor, " negative"]
    opened: Float[Tensor, "row gate"]
    amounts: Float[Tensor, " row"]

    def task(self, aim: Objective) -> Tensor:
        """The objective but for the cost."""
        return _mean(self.effect) + aim.kl * _mean(self.harm)

    def cost(self) -> Tensor:
        """Mean of |s w_l|."""
        return self.opened.abs().mean()


@final
@dataclass(eq=False)
class _Loop:
    """A training under way."""

    model: Model
    controller: Controller
    placed: Held
    how: Recipe
    optimizer: torch.optim.Optimizer
    draws: torch.Generator

    def run(self, fitted: _Rows, held: _Rows, progress: Progress) -> ControllerTraining:
        """All epochs; then the best weights."""
        n_epochs, judged = self.how.n_epochs, [self._judged(held)]
        best, best_state, train, slopes = 0, copy.deepcopy(self.controller.state_dict()), [], []
        try:
            for epoch in range(n_epochs):
                progress("controller", epoch, n_epochs)
                loss, slope = self._epoch(fitted)
                train.append(loss)
                slopes.append(slope)
                judged.append(self._judged(held))
                if judged[-1].total < judged[best].total:
                    best, best_state = epoch + 1, copy.deepcopy(self.controller.state_dict())
        finally:
            self.controller.load_state_dict(best_state)
            self.controller.zero_grad()
        progress("controller", n_epochs, n_epochs)
        return ControllerTraining(tuple(train), tuple(judged), best, tuple(slopes), len(fitted), len(held))

    def _judged(self, rows: _Rows) -> ControllerScore:
        return _score(self.model, self.controller, self.placed, rows, self.how.objective)

    def _epoch(self, rows: _Rows) -> tuple[float, float]:
        """Mean objective of the batches, and mean norm of the task's gradient into the layer weights."""
        losses, slopes, aim = [], [], self.how.objective
        for batch in rows.batches(self.how.batch_size, self.draws):
            with torch.enable_grad():
                terms = _terms(self.model, self.controller, self.placed, batch)
                task = terms.task(aim)
                slopes.append(self._slope(task))
                loss = task + aim.l1 * terms.cost()
            losses.append(_finite(loss))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return sum(losses) / len(losses), sum(slopes) / len(slopes)

    def _slope(self, task: Tensor) -> float:
        """Norm of the task's gradient into the layer weights."""
        weights = self.controller.weight_parameters
        if not weights or not task.requires_grad:
            return 0.0
        found = torch.autograd.grad(task, weights, retain_graph=True, allow_unused=True)
        parts = [one.flatten() for one in found if one is not None]
        return float(torch.cat(parts).norm()) if parts else 0.0


def _score(model: Model, controller: Controller, placed: Held, rows: _Rows, aim: Objective) -> ControllerScore:
    with torch.no_grad():
        parts = [_terms(model, controller, placed, batch) for batch in rows.batches(_ROWS, None)]
    n_positive = [len(part.effect) for part in parts]
    effect, harm = torch.cat([part.effect for part in parts]), torch.cat([part.harm for part in parts])
    high = torch.cat([part.amounts[:n] for part, n in zip(parts, n_positive, strict=True)])
    low = torch.cat([part.amounts[n:] for part, n in zip(parts, n_positive, strict=True)])
    cost = torch.cat([part.opened for part in parts]).abs().mean()
    total = _finite(_mean(effect) + aim.kl * _mean(harm) + aim.l1 * cost)
    return ControllerScore(
        total, float(effect.mean()), float(harm.mean()), float(cost), float(high.mean()), float(low.mean()),
        separation(high.double(), low.double()),
    )  # fmt: skip


def _terms(model: Model, controller: Controller, placed: Held, rows: _Rows) -> _Terms:
    """One pass with gates over all rows, and one without over the negatives."""
    cases = (*rows.positive, *rows.negative)
    n = len(rows.positive)
    with _watched(controller) as seen:
        steered = _said(model, cases)
    base = []
    if rows.negative:
        with placed.aside(), torch.no_grad():
            base = _said(model, rows.negative)
    harm = [_divergence(one, two) for one, two in zip(steered[n:], base, strict=True)]
    effect = [_surprise(one, case) for one, case in zip(steered, rows.positive, strict=False)]
    features = seen[-1]
    return _Terms(_stack(effect, features), _stack(harm, features), controller(features), controller.amounts(features))


@contextmanager
def _watched(controller: Controller) -> Iterator[list[Float[Tensor, "row feature"]]]:
    """What the controller reads meanwhile, at each row's prompt."""
    seen: list[Tensor] = []
    handle = controller.register_forward_pre_hook(lambda _, given: seen.append(given[0][:, -1]))
    try:
        yield seen
    finally:
        handle.remove()


def _said(model: Model, cases: Sequence[Case]) -> list[Float[Tensor, "token vocab"]]:
    """Log probabilities of each row's next token, from its prompt's last token on."""
    batch = model.batch([case.token_ids for case in cases])
    with generation([case.start for case in cases]):
        logits: Tensor = run(model, batch).logits
    return [
        log_softmax(row[case.start - 1 : len(case.token_ids)].float(), -1) for row, case in zip(logits, cases, strict=True)
    ]  # fmt: skip


def _surprise(said: Float[Tensor, "token vocab"], case: Case) -> Float[Tensor, ""]:
    wanted = torch.tensor(case.token_ids[case.start :], device=said.device)
    return -said[:-1].gather(1, wanted[:, None]).mean()


def _divergence(steered: Float[Tensor, "token vocab"], base: Float[Tensor, "token vocab"]) -> Float[Tensor, ""]:
    return (steered.exp() * (steered - base)).sum(-1).mean()


def _stack(values: Sequence[Tensor], like: Tensor) -> Float[Tensor, " row"]:
    return torch.stack(list(values)) if values else like.new_zeros(0)


def _mean(values: Float[Tensor, " row"]) -> Float[Tensor, ""]:
    return values.mean() if len(values) else values.sum()


def _finite(loss: Tensor) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise LossNotFinite("training of a controller", f"the objective is {value}", next_step="lower lr, or the dose")
    return value


def _features(model: Model, controller: Controller, rows: _Rows) -> Float[Tensor, "row feature"]:
    """What the controller will read of the base model."""
    prompts = [case.token_ids[: case.start] for case in (*rows.positive, *rows.negative)]
    found = {one.site: one.pooled for one in read_states(model, prompts, controller.sites)}
    joined = torch.cat([found[site] for site in controller.sites], 1)
    return joined.to(controller.centre)


def _positives(model: Model, prompts: Sequence[Sample], wanted: Sample | Sequence[Sample]) -> tuple[Case, ...]:
    asked = _encoded_all(model, prompts, "positives")
    is_one = isinstance(wanted, str) or len(wanted) > 0 and isinstance(wanted[0], int)  # type: ignore[arg-type, index]
    answers: Any = [wanted] * len(asked) if is_one else wanted
    if len(answers) != len(asked):
        found = f"there are {len(asked)} positives and {len(answers)} wanted answers"
        raise BadPairs("what is wanted after positives", found, next_step="give one for all, or one for each")
    said = [_ids(model, one) for one in answers]
    return tuple(Case((*case.token_ids[: case.start], *one), case.start) for case, one in zip(asked, said, strict=True))


def _negatives(model: Model, prompts: Sequence[Sample]) -> tuple[Case, ...]:
    return _encoded_all(model, prompts, "negatives")


def _encoded_all(model: Model, prompts: Sequence[Sample], what: str) -> tuple[Case, ...]:
    if isinstance(prompts, str) or len(prompts) < 2:
        step = "give a list of at least two prompts"
        raise BadPairs(f"{what} of a controller", "there are fewer than two", next_step=step)
    return tuple(_case(model, one) for one in prompts)


def _case(model: Model, sample: Sample) -> Case:
    if isinstance(sample, Answered):
        return Case(sample.token_ids, sample.start)
    token_ids = _ids(model, sample)
    return Case(token_ids, len(token_ids))


def _ids(model: Model, sample: Sample) -> tuple[int, ...]:
    given = list(sample.token_ids) if isinstance(sample, Answered) else sample if isinstance(sample, str) else list(sample)
    return tuple(int(i) for i in model.batch(given).token_ids[0])


def _parted(
    positive: tuple[Case, ...], negative: tuple[Case, ...], held_out: float, draws: torch.Generator
) -> tuple[_Rows, _Rows]:
    """Rows to learn from, and rows that choose the epoch."""
    sides = [_shuffled(side, draws) for side in (positive, negative)]
    ends = [min(len(side) - 1, max(1, round(held_out * len(side)))) for side in sides]
    fitted, held = ([side[part] for side, part in zip(sides, parts, strict=True)] for parts in (
        [slice(end, None) for end in ends], [slice(None, end) for end in ends]
    ))  # fmt: skip
    return _Rows(*fitted), _Rows(*held)


def _shuffled(cases: tuple[Case, ...], draws: torch.Generator | None) -> tuple[Case, ...]:
    if draws is None:
        return cases
    return tuple(cases[ix] for ix in torch.randperm(len(cases), generator=draws).tolist())


def _check_gates(controller: Controller, gates: Sequence[Gate]) -> None:
    read = [one for gate in gates for one in observations(gate.openness)]
    step = "make them with controller_gates(controller, directions)"
    own = [one for one in read if isinstance(one.scorer, Network) and one.scorer.module is controller]
    if sorted(one.index for one in own) != list(range(controller.n_gates)):
        found = f"{len(own)} of {len(gates)} are open as this controller says, and it has {controller.n_gates} output(s)"
        raise BadOption("gates of a controller", found, next_step=step)
    if any(one.read != "prompt" for one in own):
        raise BadOption("gates of a controller", "not all are decided at the prompt", next_step=step)

