"""A network as a mixture of two predictors, weighted by a posterior that grows with training (Wurgaft et al., 2506.17859).

The log posterior of a strategy s, memorising (M) or generalising (G), after n training steps is

    -ln 2 * K_s^beta - gamma * n^(1 - alpha) * L_s

with K_s its complexity in bits and L_s its mean loss on the training tasks in nats. Its three parameters are those of a
network that prefers short programs (beta) and takes evidence in slower than it comes (alpha, gamma). The prediction is the
two predictors' mixture at the posterior's weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.special import expit

from optrode.errors import BadOption

Cells = Float[np.ndarray, " cell"]
START: Final = (0.6, 0.2, 0.85)
"""Initial guesses of (alpha, beta, gamma) for balls and urns in the paper's code."""
_LOG_BOUNDS: Final = tuple((np.log(low), np.log(high)) for low, high in ((1e-3, 0.999), (1e-3, 1.0), (1e-4, 1e5)))
_N_NODES: Final = 33


@final
@dataclass(frozen=True)
class Pair:
    """The two strategies for one set of tasks.

    Attributes:
        bits_m, bits_g: their complexity, in bits.
        loss_m, loss_g: their mean loss on the training tasks, in nats.
    """

    bits_m: float
    bits_g: float
    loss_m: float
    loss_g: float


@final
@dataclass(frozen=True)
class Posterior:
    """The three parameters."""

    alpha: float
    beta: float
    gamma: float

    def log_odds(self, pair: Pair, step: float) -> float:
        """Log posterior odds of memorising after so many training steps."""
        return self._gain(pair) * float(step ** (1 - self.alpha)) - self._price(pair)

    def weight(self, pair: Pair, step: float) -> float:
        """Weight of the memorising predictor."""
        return float(expit(self.log_odds(pair, step)))

    def switch_step(self, pair: Pair) -> float:
        """Training step at which both strategies weigh the same; NaN where memorising never pays or always did.

        N = (ln 2 (K_M^beta - K_G^beta) / (gamma (L_G - L_M)))^(1 / (1 - alpha)).
        """
        price, gain = self._price(pair), self._gain(pair)
        return float((price / gain) ** (1 / (1 - self.alpha))) if price > 0 and gain > 0 else float("nan")

    def _price(self, pair: Pair) -> float:
        """What memorising costs in log odds."""
        return float(np.log(2) * (pair.bits_m**self.beta - pair.bits_g**self.beta))

    def _gain(self, pair: Pair) -> float:
        """What it gains per step, at the first."""
        return self.gamma * (pair.loss_g - pair.loss_m)


def nodes() -> Float[np.ndarray, " node"]:
    """Weights of memorising at which a cell's misfit is tabulated: Chebyshev's, dense at 0 and 1, where it bends."""
    found: Float[np.ndarray, " node"] = (1 - np.cos(np.pi * np.arange(_N_NODES) / (_N_NODES - 1))) / 2
    return found


@final
@dataclass(frozen=True)
class Cell:
    """A network after some training on one set of tasks.

    Attributes:
        group: of the set of tasks, such as their number.
        pair: the strategies.
        step: training steps.
        misfit: [node] divergence in nats of the mixture from the network, at weights `nodes()` of the memorising predictor.
    """

    group: int
    pair: Pair
    step: float
    misfit: tuple[float, ...]

    @property
    def best_weight(self) -> float:
        """The weight of the mixture that is nearest to the network."""
        fine = np.linspace(0, 1, 401)
        return float(fine[np.argmin(CubicSpline(nodes(), self.misfit)(fine))])


def fit_posterior(cells: Sequence[Cell], starts: Sequence[tuple[float, float, float]] = (START,)) -> Posterior:
    """The parameters whose mixtures are nearest to the networks: L-BFGS-B on the logarithms of the three.

    Args:
        starts: initial (alpha, beta, gamma), of which the best end is taken.

    Raises:
        BadOption: fewer cells than parameters.
    """
    if len(cells) < len(START):
        step = "measure at more steps, or of more sets of tasks"
        raise BadOption(f"fit of {len(START)} parameters", f"there are {len(cells)} cells", next_step=step)
    splines = [CubicSpline(nodes(), cell.misfit) for cell in cells]

    def mean_misfit(logs: Float[np.ndarray, " parameter"]) -> float:
        posterior = Posterior(*map(float, np.exp(logs)))
        at = (posterior.weight(cell.pair, cell.step) for cell in cells)
        return float(np.mean([float(spline(weight)) for spline, weight in zip(splines, at, strict=True)]))

    ends = [minimize(mean_misfit, np.log(start), method="L-BFGS-B", bounds=_LOG_BOUNDS) for start in starts]
    return Posterior(*map(float, np.exp(min(ends, key=lambda end: float(end.fun)).x)))


def held_out(cells: Sequence[Cell], starts: Sequence[tuple[float, float, float]] = (START,)) -> list[float]:
    """[cell] predicted weight of memorising, by parameters that were fitted without the cell's group."""
    fitted = {
        group: fit_posterior([cell for cell in cells if cell.group != group], starts)
        for group in dict.fromkeys(cell.group for cell in cells)
    }
    return [fitted[cell.group].weight(cell.pair, cell.step) for cell in cells]


def slope(x: Sequence[float | int], y: Sequence[float]) -> float:
    """Exponent of the power law that fits best on logarithmic axes; NaN for fewer than two finite points."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if np.isfinite(b) and b > 0]
    if len(pairs) < 2:
        return float("nan")
    return float(np.polyfit(np.log([a for a, _ in pairs]), np.log([b for _, b in pairs]), 1)[0])
