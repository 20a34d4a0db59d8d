"""The figures of where reward and example move weights."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, nan
from statistics import median

from optrode.claims import Chart, Figures, Line
from optrode.study.study import Outcome

MOVES = ("spectral shift", "shift per norm", "largest angle", "energy", "norm")
OTHER = "other answers"
COMMON = ("reward again", "example", "example again", "other answers", "shuffled")


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """All figures over all seeds."""
    draw = (_moves, _angles, _sparsity, _common, _turned, _masked, _reward)
    return Figures(tuple(one(outcomes) for one in draw))


def _middle(outcomes: Sequence[Outcome], key: str, part: str = "value") -> float:
    found = [getattr(one.measured[key], part) for one in outcomes if key in one.measured]
    known = [value for value in found if value is not None and isfinite(value)]
    return median(known) if known else nan


def _lines(outcomes: Sequence[Outcome], start: str) -> list[Line]:
    """All seeds' lines of a kind, those of one name next to each other."""
    found = [line for one in outcomes for key, line in one.lines.items() if key.startswith(start)]
    names = list(dict.fromkeys(line.name for line in found))
    return sorted(found, key=lambda line: names.index(line.name))


def _over_seeds(outcomes: Sequence[Outcome], key: str) -> tuple[float, ...]:
    """Medians of a line's values."""
    return tuple(median(values) for values in zip(*(one.lines[key].y for one in outcomes), strict=True))


def _moves(outcomes: Sequence[Outcome]) -> Chart:
    middle, places = _over_seeds(outcomes, "move/example"), tuple(map(float, range(len(MOVES))))
    bars = []
    for name in ("reward", "reward again", "example again", OTHER):
        pairs = [(one.lines[f"move/{name}"].y, one.lines["move/example"].y) for one in outcomes]
        over = tuple(median(run[ix] / usual[ix] for run, usual in pairs) for ix in range(len(MOVES)))
        bars.append(Line(name, places, over))
    title = (
        f"Reward shifts the spectrum {_middle(outcomes, 'P2l', 'control'):.2f} times as far as example does; other answers "
        f"shift it {_middle(outcomes, 'P2l'):.1f} times as far"
    )
    caption = (
        "How far tuning to a reward of 0.9 moved the matrices of the blocks, over how far tuning by example did; means over "
        "matrices, medians over random seeds. Spectral shift: change of the singular values over their size; per norm: over "
        "that of the update. Largest angle: of the 16 principal directions. Energy: share of the update between the "
        f"principal subspaces. Tuning by example itself has {', '.join(f'{value:.3g}' for value in middle)}: the spectral "
        "shift, the shift per norm, degrees, energy over that of a random update, norm over that of the weights."
    )
    axis = "over tuning by example"
    return Chart(title, "measure", axis, tuple(bars), kind="bars", labels=MOVES, levels={"example": 1.0}, caption=caption)


def _angles(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Example turns the principal directions {_middle(outcomes, 'P2c'):.2f} times as far as reward does, and "
        f"other answers {_last(outcomes, 'other answers') / _last(outcomes, 'reward'):.1f} times as far"
    )
    caption = (
        "Angles between the spaces of the 16 largest singular vectors before and after tuning, smallest first, mean over "
        "matrices and both sides; one line for each random seed. All runs end at a reward of 0.9."
    )
    lines = tuple(_lines(outcomes, "angles/"))
    return Chart(title, "principal angle", "degrees", lines, caption=caption)


def _last(outcomes: Sequence[Outcome], name: str) -> float:
    """The largest principal angle of a run, mean over its matrices."""
    return _over_seeds(outcomes, f"angles/{name}")[-1]


def _sparsity(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"How sparse an update looks in bfloat16 depends on its size: reward and example differ by "
        f"{_middle(outcomes, 'P2h'):.3f} at equal norm, and both changed {_middle(outcomes, 'P2g'):.1%} of the weights"
    )
    caption = (
        "Share of weights whose bfloat16 value stays the same, when the update that a run made is made smaller and smaller. "
        "Right end: the update as it was. Dashed: the update by reward gathered in the tenth of the weights that changed "
        "most, which is sparse at any size. The paper's runs by reward leave 0.36 to 0.92 unchanged, those by example 0.006 "
        "to 0.19."
    )
    levels = {"by reward, paper's least": 0.36}
    lines = tuple(_lines(outcomes, "unchanged/"))
    return Chart(
        title, "norm of the update over that of the weights", "share unchanged in bfloat16", lines, log_x=True,
        levels=levels, caption=caption,
    )  # fmt: skip


def _common(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Runs by reward change the same weights most, {_middle(outcomes, 'P2j'):.2f} above chance; example changes "
        f"{_middle(outcomes, 'P2k'):.2f} times as many of them, other answers {_middle(outcomes, 'P2k', 'control'):.2f}"
    )
    caption = (
        "Jaccard index of the tenth of each matrix that changed most in one run by reward with that in another run, less "
        "what independent sets have; mean over matrices, median over random seeds."
    )
    bars = (Line("above chance", tuple(map(float, range(len(COMMON)))), _over_seeds(outcomes, "common")),)
    return Chart(title, "other run", "Jaccard index above chance", bars, kind="bars", labels=COMMON, caption=caption)


def _turned(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"Turning the coordinates of one layer's attention leaves {_middle(outcomes, 'P1d'):.2f} of the overlap of runs "
        f"there, and {_middle(outcomes, 'P1d', 'control'):.2f} elsewhere"
    )
    caption = (
        "Jaccard index above chance of the weights that two runs by reward changed most, by matrix: q, k, v, o of attention "
        "and up, down of the MLP, layer after layer. Medians over random seeds. Turned: the second run starts from "
        "weights whose layer 1 attention has other coordinates, which changes nothing that the policy does."
    )
    n = len(outcomes[0].lines["turned/as it was"].x)
    parts = ("q", "k", "v", "o", "up", "down")
    labels = tuple(f"{ix // len(parts)}.{parts[ix % len(parts)]}" for ix in range(n))
    bars = tuple(Line(name, tuple(map(float, range(n))), _over_seeds(outcomes, f"turned/{name}"))
                 for name in ("as it was", "one layer turned"))  # fmt: skip
    return Chart(title, "layer and matrix", "Jaccard index above chance", bars, kind="bars", labels=labels, caption=caption)


def _masked(outcomes: Sequence[Outcome]) -> Chart:
    title = (
        f"With low or non-principal weights alone reward reaches {_middle(outcomes, 'P3a'):.2f} of the gain, with as many "
        f"at random {_middle(outcomes, 'P3a', 'control'):.2f}; low half less principal half: {_middle(outcomes, 'P3b'):+.2f}"
    )
    caption = (
        "Mean probability of the right answer while tuning by reward where only some of each matrix's weights may change; "
        "one line for each random seed. Dashed: random masks of the same number of weights."
    )
    lines = [*(replace(one, name="all weights") for one in _lines(outcomes, "reward/reward") if one.name == "reward")]
    shown = (*lines, *_lines(outcomes, "masked/"))
    return Chart(title, "training steps", "mean reward", shown, levels={"wanted": 0.9}, caption=caption)


def _reward(outcomes: Sequence[Outcome]) -> Chart:
    steps = {name: median(one.lines[f"reward/{name}"].x[-1] for one in outcomes) for name in ("reward", "example", OTHER)}
    title = (
        f"Known answers are sharpened in {steps['reward']:.0f} steps by reward and {steps['example']:.0f} by example; "
        f"other answers are learnt in {steps[OTHER]:.0f}"
    )
    caption = "Mean probability of the wanted answer over all 144 questions; one line for each random seed."
    return Chart(title, "training steps", "mean reward", tuple(_lines(outcomes, "reward/")), caption=caption)
