"""A controller that routes between modules through a workspace learns to add (Chateau-Laurent and VanRullen 2025)."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, nll_loss

import optrode as op
from optrode.claims import Line, Map, Measured
from optrode.model.model import Model
from optrode.study.kit import addition, workspace
from optrode.study.kit.addition import Split, accuracy
from optrode.study.kit.digits import N_PIXELS, Digits, has_digits, load_digits
from optrode.study.papers.global_workspace_claims import CLAIMS, DIFFERENCES, PAPER, QUESTION
from optrode.study.papers.global_workspace_figures import figures
from optrode.study.study import Outcome, Setting, Study

SHOWN: Final = (0, 1, 2, 3, 4, 5, 6)
"""Second addends whose gates are drawn, after a first one of 3."""


def train_all(setting: Setting, data: Split) -> dict[str, op.train.Trained]:
    """The workspace and two baselines on the same sums."""
    seed, n = setting.random_seed, setting.pick(400, 3)
    kinds = {
        "workspace": (addition.make_workspace, addition.ask_workspace, n, 1e-2, 0.1),
        "LSTM": (addition.make_lstm, addition.ask_lstm, n, 1e-2, 0.1),
        "transformer": (addition.make_transformer, addition.ask_transformer, 2 * n, 3e-3, 1.0),
    }
    return {
        name: op.train.fit(addition.plan(name, make, ask, data, steps, lr, seed).but(optimizer=op.train.adamw(
            lr, weight_decay=decay)), progress=setting.progress)
        for name, (make, ask, steps, lr, decay) in kinds.items()
    }  # fmt: skip


def against_others(trained: dict[str, op.train.Trained], part: str) -> Measured:
    """G1, G2: final accuracy of the workspace, and of the better baseline."""
    last = {name: one.run.measures[f"accuracy.{part}"].values[-1] for name, one in trained.items()}
    return Measured(last["workspace"], max(last["LSTM"], last["transformer"]))


@torch.no_grad()
def ask(model: Model, pairs: Tensor, gates: Tensor | None = None) -> workspace.WorkspaceOutput:
    """A workspace's output for pairs, its gates [pair, step, gate] held or its own."""
    first, second = (addition.vectors(pairs[:, ix]) for ix in (0, 1))
    held = op.Recording(dict(workspace.by_site(gates))) if gates is not None else None
    with op.gates(model, *(op.patch(site, held) for site in workspace.SITES if held is not None)):
        found: workspace.WorkspaceOutput = model(first, second)
    return found


def in_random_order(gates: Tensor, generator: torch.Generator) -> Tensor:
    """The steps of each pair's gates, shuffled."""
    order = torch.rand(gates.shape[:2], generator=generator).argsort(1)
    return gates.gather(1, order[:, :, None].expand_as(gates))


def chains(model: Model, pairs: Tensor, generator: torch.Generator) -> Measured:
    """G3: whether the widest gates spell the chain made by hand."""
    gates = ask(model, pairs).gates
    both = gates, in_random_order(gates, generator)
    return Measured(*(float((workspace.chain_lengths(one) == pairs[:, 1]).double().mean()) for one in both))


def swapped(model: Model, pairs: Tensor, generator: torch.Generator) -> Measured:
    """G4: answers under the gates of another pair, whose second addend is another."""
    givers = pairs[torch.randperm(len(pairs), generator=generator)]
    keeps = (givers[:, 1] != pairs[:, 1]) & (givers[:, 1] + pairs[:, 0] < addition.N_SUMS)
    pairs, givers = pairs[keeps], givers[keeps]
    gates, wanted = ask(model, givers).gates, pairs[:, 0] + givers[:, 1]
    both = gates, in_random_order(gates, generator)
    return Measured(*(accuracy(ask(model, pairs, one).logits, wanted) for one in both))


def frozen(model: Model, data: Split) -> Measured:
    """G5: one routing for all."""
    mean = ask(model, data.learnt).gates.mean(0).expand(len(data.unseen), -1, -1).contiguous()
    own = ask(model, data.unseen).gates
    return Measured(*(accuracy(ask(model, data.unseen, gates).logits, data.unseen.sum(1)) for gates in (mean, own)))


def by_hand(model: Model, pairs: Tensor) -> Measured:
    """G6: the chain made by hand, of the right second addend and of the next one."""
    seconds = pairs[:, 1], (pairs[:, 1] + 1) % addition.N_DIGITS
    held = (workspace.hand_chain(second, addition.N_DIGITS) for second in seconds)
    return Measured(*(accuracy(ask(model, pairs, gates).logits, pairs.sum(1)) for gates in held))


def train_encoder(setting: Setting, images: Digits) -> Model:
    """A workspace whose encoder has learnt to name digits."""
    spec = workspace.WorkspaceSpec(addition.N_DIGITS, d_pixels=N_PIXELS)

    def make(seed: int) -> Model:
        module = workspace.build(spec, seed).requires_grad_(False)
        module.encoder.requires_grad_(True)
        return workspace.as_model(module)

    def batch(_: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(images.digits), (128,), generator=generator)
        return images.pixels[rows], images.digits[rows]

    def loss(model: Model, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nll_loss(encode(model, batch[0]).clamp(min=1e-6).log(), batch[1])

    plan = op.train.Plan(
        "encoder", make, batch, loss, setting.pick(300, 2), op.train.adam(1e-2), random_seed=setting.random_seed
    )
    return op.train.fit(plan, progress=setting.progress).model


def encode(model: Model, pixels: Tensor) -> Tensor:
    """[image, digit] probabilities."""
    found: Tensor = model.submodule("encoder")(pixels)
    return found


def from_images(setting: Setting, data: Split, generator: torch.Generator) -> Measured:
    """G7: unseen sums of unseen images, by a workspace and by an LSTM on the same encoder."""
    train, test = load_digits(generator)
    encoder = train_encoder(setting, train)
    pairs = data.between.repeat(10, 1)
    asked = [encode(encoder, test.draw(pairs[:, ix], generator)).detach() for ix in (0, 1)]

    def batch(_: int, drawn: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        rows = data.learnt[torch.randint(len(data.learnt), (64,), generator=drawn)]
        first, second = (encode(encoder, train.draw(rows[:, ix], drawn)).detach() for ix in (0, 1))
        return first, second, rows.sum(1)

    def fitted(make: Callable[[int], Model], answer: Callable[[Model, Tensor, Tensor], Tensor]) -> float:
        def loss(model: Model, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            return cross_entropy(answer(model, batch[0], batch[1]), batch[2])

        plan = op.train.Plan(
            "images", make, batch, loss, setting.pick(500, 2), op.train.adamw(1e-2, weight_decay=0.1), clip_norm=1.0,
            random_seed=setting.random_seed,
        )  # fmt: skip
        model = op.train.fit(plan, progress=setting.progress).model
        with torch.no_grad():
            return accuracy(answer(model, *asked), pairs.sum(1))

    return Measured(fitted(addition.make_workspace, _of_workspace), fitted(addition.make_lstm, _of_lstm))


def _of_workspace(model: Model, first: Tensor, second: Tensor) -> Tensor:
    found: Tensor = model(first, second).logits
    return found


def _of_lstm(model: Model, first: Tensor, second: Tensor) -> Tensor:
    inputs = torch.cat([first, second], 1)[:, None].expand(-1, addition.N_DIGITS + 1, -1).contiguous()
    found: Tensor = model(inputs).logits[:, -1]
    return found


def lines_of(trained: dict[str, op.train.Trained]) -> dict[str, Line]:
    """What the figures are drawn from."""
    lines = {}
    for name, one in trained.items():
        size = float(addition.n_parameters(one.model))
        for part in ("learnt", "between", "beyond"):
            series = one.run.measures[f"accuracy.{part}"]
            lines[f"{name}.{part}"] = Line(name, tuple(map(float, series.steps)), series.values)
            lines[f"{name}.{part}.size"] = Line(name, (size,), series.values[-1:])
    return lines


def gate_map(model: Model) -> Map:
    """The widest gate of every step, for some second addends."""
    pairs = torch.tensor([[3, second] for second in SHOWN])
    gates = ask(model, pairs).gates
    rows = tuple(f"3 + {second}: {name}" for second in SHOWN for name in workspace.GATES)
    columns = tuple(str(step + 1) for step in range(gates.shape[1]))
    cells = tuple(tuple(round(float(value), 3) for value in row) for pair in gates for row in pair.T)
    return Map("", "sum and gate", "step", rows, columns, cells, "gate")


def run(setting: Setting) -> Outcome:
    """All measurements from one random seed."""
    generator = torch.Generator().manual_seed(setting.random_seed)
    data = addition.split(generator)
    trained = train_all(setting, data)
    model = trained["workspace"].model
    measured = {
        "G1": against_others(trained, "between"), "G2": against_others(trained, "beyond"),
        "G3": chains(model, data.between, generator), "G4": swapped(model, data.between, generator),
        "G5": frozen(model, data), "G6": by_hand(model, data.unseen),
    }  # fmt: skip
    notes = () if has_digits() else ("Claim G7 needs scikit-learn, which is not installed.",)
    if has_digits():
        measured["G7"] = from_images(setting, data, generator)
    return Outcome(measured, lines_of(trained), {"gates": gate_map(model)}, notes=notes)


STUDY: Final = Study("global-workspace", PAPER, QUESTION, CLAIMS, run, figures, DIFFERENCES)
