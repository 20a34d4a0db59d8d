"""Regression in context on fixed features: y = <w, Phi(x)> + noise, with one Phi for all rows and a fresh w in each.

Guo et al., arXiv 2310.10616. Phi is a random MLP with orthogonal weights and leaky ReLUs, or the identity. A row is read as
x_1, y_1, x_2, y_2, ...; each token is a vector of width d_x + 1, x before y, and 0 in the part that it has not. Where rows
are paired, the token of y has its x as well, in a part of its own before y. Predictions are read at x tokens.
"""

from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optrode.errors import BadOption
from optrode.model.model import Model

SLOPE: Final = 0.01
"""Of the leaky ReLUs below 0."""

_N_SCALE: Final = 10_000
"""Draws from which the scale of Phi is estimated."""

Points = Float[Tensor, "row point"]
Features = Float[Tensor, "row point feature"]


@final
@dataclass(frozen=True)
class Representation:
    """Phi: each layer maps by an orthogonal matrix and a leaky ReLU; the whole is scaled to a mean square length of 1.

    Attributes:
        layers: the matrices, first to last; none for the identity.
        d_x: width of x, and of Phi(x).
        scale: makes the mean of |Phi(x)|^2 one, and so the variance of y without noise.
    """

    layers: tuple[Float[Tensor, "d_x d_x"], ...]
    d_x: int
    scale: float

    def __call__(self, xs: Float[Tensor, "row point d_x"]) -> Float[Tensor, "row point d_x"]:
        """Phi of each x."""
        for layer in self.layers:
            xs = nn.functional.leaky_relu(xs @ layer.T, SLOPE)
        return xs * self.scale


def draw_representation(d_x: int, n_layers: int, generator: torch.Generator) -> Representation:
    """A random Phi; without layers, x over the root of its width.

    Orthogonal matrices are the Q of a normal matrix, with signs that make them uniform. The scale is estimated.
    """
    layers = []
    for _ in range(n_layers):
        q, r = torch.linalg.qr(torch.randn(d_x, d_x, generator=generator))
        layers.append(q * r.diagonal().sign())
    if not layers:
        return Representation((), d_x, d_x**-0.5)
    bare = Representation(tuple(layers), d_x, 1.0)
    square = bare(torch.randn(1, _N_SCALE, d_x, generator=generator)).square().sum(-1).mean()
    return Representation(bare.layers, d_x, float(square) ** -0.5)


@final
@dataclass(frozen=True)
class Prompts:
    """Rows of points.

    Attributes:
        xs: standard normal.
        features: Phi(x).
        ys: <w, Phi(x)> + noise.
        noise: standard deviation of the noise; w is standard normal.
        is_paired: tokens of labels have their x as well, so that nothing need be copied from token to token.
    """

    xs: Float[Tensor, "row point d_x"]
    features: Float[Tensor, "row point d_x"]
    ys: Points
    noise: float
    is_paired: bool = False

    @property
    def read(self) -> Float[Tensor, "row token d_in"]:
        """What a network reads: x and y in turn."""
        n_rows, n_points, d_x = self.xs.shape
        tokens = torch.zeros(n_rows, n_points, 2, (2 if self.is_paired else 1) * d_x + 1)
        tokens[:, :, 0, :d_x], tokens[:, :, 1, -1] = self.xs, self.ys
        if self.is_paired:
            tokens[:, :, 1, d_x:-1] = self.xs
        return tokens.flatten(1, 2)


def draw_prompts(
    phi: Representation, n_rows: int, n_points: int, noise: float, generator: torch.Generator, *, is_paired: bool = False
) -> Prompts:  # fmt: skip
    """Fresh rows."""
    xs = torch.randn(n_rows, n_points, phi.d_x, generator=generator)
    w = torch.randn(n_rows, phi.d_x, generator=generator)
    features = phi(xs)
    ys = torch.einsum("rpf,rf->rp", features, w) + noise * torch.randn(n_rows, n_points, generator=generator)
    return Prompts(xs, features, ys, noise, is_paired)


def ridge(features: Features, ys: Points, penalty: float) -> Points:
    """The prediction at each point by ridge regression on the points before it, 0 at the first.

    With the features that y is linear in, and the penalty (noise / deviation of w)^2, this is the least mean squared error.

    Raises:
        BadOption: a penalty that leaves the first points' equations without a solution.
    """
    if penalty <= 0:
        step = "give a small positive one for no noise"
        raise BadOption(f"ridge with penalty {penalty:g}", "fewer points than features have no one solution", next_step=step)
    wide = features.double()
    before = (wide[..., :, None] * wide[..., None, :]).cumsum(1).roll(1, 1)
    along = (wide * ys.double()[..., None]).cumsum(1).roll(1, 1)
    before[:, 0], along[:, 0] = 0, 0
    weights = torch.linalg.solve(before + penalty * torch.eye(wide.shape[-1], dtype=wide.dtype), along)
    predicted: Points = (weights * wide).sum(-1).to(ys.dtype)
    return predicted


def predictions(model: Model, prompts: Prompts) -> Points:
    """The network's prediction of each y, with a gradient where that is on."""
    found: Points = model(inputs_embeds=prompts.read).logits[:, ::2, 0]
    return found


def loss(model: Model, prompts: Prompts) -> Tensor:
    """Mean squared error over all points."""
    error: Tensor = (predictions(model, prompts) - prompts.ys).square().mean()
    return error


def risk(predicted: Points, ys: Points) -> Float[Tensor, " point"]:
    """Mean squared error at each point, over rows."""
    return (predicted - ys).square().mean(0)


def probe(
    hidden: Float[Tensor, "row point d_model"], target: Float[Tensor, "row point wanted"], penalty: float = 1e-3
) -> float:  # fmt: skip
    """Share of the target's variance that a linear probe explains in rows that it was not fitted on.

    The probe is fitted by ridge regression on the first half of the rows; R^2 on the second half, over all dimensions of the
    target together, is 1 for a perfect probe and 0 (or, overfitted, less) for one that knows nothing.

    Args:
        penalty: times the mean square of the activations.

    Raises:
        BadOption: fewer than two rows.
    """
    if len(hidden) < 2:
        raise BadOption(f"probe of {len(hidden)} row(s)", "it is fitted on one half and tested on the other",
                        next_step="give at least two rows")  # fmt: skip
    half = len(hidden) // 2
    (fit_x, test_x), (fit_y, test_y) = ((t.double()[:half].flatten(0, 1), t.double()[half:].flatten(0, 1))
                                        for t in (hidden, target))  # fmt: skip
    x_mean, y_mean = fit_x.mean(0), fit_y.mean(0)
    centred = fit_x - x_mean
    scatter = centred.T @ centred
    scatter = scatter + penalty * scatter.diagonal().mean() * torch.eye(len(scatter), dtype=scatter.dtype)
    weights = torch.linalg.solve(scatter, centred.T @ (fit_y - y_mean))
    error = (test_y - y_mean - (test_x - x_mean) @ weights).square().sum()
    return 1 - float(error / (test_y - test_y.mean(0)).square().sum())
