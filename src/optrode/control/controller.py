"""A learned controller: a small network that reads a prompt's state and says how much to steer, and at which layers.

    controller = controller_for(model, directions, observe="blocks.15.resid_post")
    gates = controller_gates(controller, directions, dose=0.3)
    trained = train_controller(model, controller, gates, positives, wanted, negatives)  # control/controller_training.py

Weighted activation steering (Hegazy et al., arXiv 2505.20309): h_l + s w_l dose_l d_l, one amount s and a weight w_l for
each layer. Here s is a sigmoid (or softplus), so that the controller can close but never steer the other way; what it reads
is over before anything is steered, so that every gate acts; and s w_l is trained through the frozen model. Weights are
divided by the largest of them, where the paper leaves them as sigmoids: s is how open the most open gate is.
"""

from collections.abc import Sequence
from typing import Final, Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optrode.control.direction import Direction
from optrode.errors import BadGate, BadOption, GateShape, nearest
from optrode.gate.conditions import controlled
from optrode.gate.gate import Aside, Gate, Scope
from optrode.gate.scorers import Network
from optrode.model.model import Model
from optrode.site.select import one_site

Amount = Literal["sigmoid", "softplus", "linear"]
Weights = Literal["learned", "uniform"]
_CHOICES: Final = {"amount": get_args(Amount), "weights": get_args(Weights)}


@final
class Controller(nn.Module):
    """Features of a prompt -> s w_l for each gate l; one hidden layer with ReLU.

    Args:
        sites: that it reads, in the order in which their features are joined.
        n_features: of all of them together.
        n_gates: outputs.
        n_hidden: width of the hidden layer.
        amount: s is a "sigmoid", at most 1, or a "softplus", without limit. "linear" is the raw score, which is negative
            where the controller should be closed: the fault of the published code, kept for comparison.
        weights: w_l is a sigmoid of the prompt's features, over the largest of all gates ("learned"), or 1 ("uniform").
        random_seed: of the initial weights; the caller's random state is left alone.

    Attributes:
        centre, spread: [n_features], subtracted from features and divided by; see `standardise`.

    Raises:
        BadOption: a size below 1, or a word that is none of the choices.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, sites: Sequence[str], n_features: int, n_gates: int, *, n_hidden: int = 64, amount: str = "sigmoid",
        weights: str = "learned", random_seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_choices({"amount": amount, "weights": weights})
        _check_sizes({"sites": len(sites), "n_features": n_features, "n_gates": n_gates, "n_hidden": n_hidden})
        self.sites, self.n_features, self.n_gates, self.amount = tuple(sites), n_features, n_gates, amount
        self.register_buffer("centre", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        with torch.random.fork_rng():
            torch.manual_seed(random_seed)
            self.hidden = nn.Linear(n_features, n_hidden)
            self.to_amount = nn.Linear(n_hidden, 1)
            self.to_weights = nn.Linear(n_hidden, n_gates) if weights == "learned" else None

    def forward(self, features: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows gate"]:
        """S w_l.

        Raises:
            GateShape: features of another number than it was made for.
        """
        held = self._hidden(features)
        return self._amount(held) * self._weights(held)

    def amounts(self, features: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows"]:
        """S: how open it is."""
        return self._amount(self._hidden(features))[..., 0]

    def layer_weights(self, features: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows gate"]:
        """W_l: how it divides what it opens among the gates."""
        return self._weights(self._hidden(features))

    def raw_weights(self, features: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows gate"]:
        """The same before they are divided by the largest."""
        held = self._hidden(features)
        return held.new_ones(*held.shape[:-1], self.n_gates) if self.to_weights is None else self._raw(self.to_weights, held)

    @torch.no_grad()
    def standardise(self, features: Float[Tensor, "row feature"]) -> None:
        """Take the features' means off from now on, and divide each site's by their root mean square.

        Args:
            features: of the prompts that it is to be trained on.
        """
        centre = features.mean(0)
        parts = (features - centre).reshape(len(features), len(self.sites), -1)
        size = parts.square().mean((0, 2)).sqrt().clamp(min=1e-8)
        self.centre.copy_(centre)
        self.spread.copy_(size[:, None].expand(parts.shape[1:]).flatten())

    @property
    def weight_parameters(self) -> tuple[nn.Parameter, ...]:
        """Of the layer weights; none where they are uniform."""
        return () if self.to_weights is None else tuple(self.to_weights.parameters())

    def _hidden(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self.n_features:
            found = f"it is made for {self.n_features} features, and {features.shape[-1]} are read"
            raise GateShape(f"controller of {' and '.join(self.sites)}", found, next_step="make it with controller_for")
        shown = (features.to(self.centre.dtype) - self.centre) / self.spread
        return torch.relu(self.hidden(shown))

    def _amount(self, held: Tensor) -> Tensor:
        raw: Tensor = self.to_amount(held)
        if self.amount == "linear":
            return raw
        return torch.sigmoid(raw) if self.amount == "sigmoid" else nn.functional.softplus(raw)

    def _weights(self, held: Tensor) -> Tensor:
        if self.to_weights is None:
            return held.new_ones(*held.shape[:-1], self.n_gates)
        raw = self._raw(self.to_weights, held)
        return raw / raw.amax(-1, keepdim=True)

    @staticmethod
    def _raw(layer: nn.Linear, held: Tensor) -> Tensor:
        return torch.sigmoid(layer(held))


def controller_for(
    model: Model, directions: Sequence[Direction], observe: str | Sequence[str], *, n_hidden: int = 64,
    amount: str = "sigmoid", weights: str = "learned", random_seed: int = 0,
) -> Controller:  # fmt: skip
    """A controller of the right size for what it reads and what it steers, untrained, on the model's device.

    Args:
        observe: whole sites that it reads at a prompt's last token.

    Raises:
        BadName, UnknownSite, SiteUnavailable: from the sites that it reads.
        BadOption: no site or direction, a site of unknown width, or a word that is none of the choices.
    """
    sites = [str(one_site(model, site).name) for site in ([observe] if isinstance(observe, str) else observe)]
    n_features = sum(_width(model, site) for site in sites)
    made = Controller(
        sites, n_features, len(directions), n_hidden=n_hidden, amount=amount, weights=weights, random_seed=random_seed
    )
    return made.to(model.device)


def controller_gates(
    controller: Controller, directions: Sequence[Direction], dose: float | int = 0.3, *, scope: Scope = "all",
    two_pass: bool = True,
) -> tuple[Gate, ...]:  # fmt: skip
    """One gate for each direction, open as the controller says; decided once per row, at its prompt's last token.

    Args:
        dose: of one wholly open gate, relative to the typical norm at its site.
        two_pass: read in a pass of its own without gates (as `op.first_pass()`), which costs a second pass over the prompt;
            then any site may be read. Otherwise in the pass itself, where what is read must come before every site that is
            steered: `op.gates` refuses anything else.

    Raises:
        BadGate: the controller is made for another number of gates.
        GateNotFinite: the dose is NaN or infinite.
    """
    if len(directions) != controller.n_gates:
        found = f"it has {controller.n_gates} output(s)"
        step = "make it for these directions: controller_for(model, directions, ...)"
        raise BadGate(f"{len(directions)} gate(s) of a controller", found, next_step=step)
    scorer, source = Network(controller), Aside() if two_pass else None
    return tuple(
        one.gate(
            float(dose), scope=scope, openness=controlled(scorer, controller.sites, ix, read="prompt", source=source)
        )
        for ix, one in enumerate(directions)
    )


def _width(model: Model, site: str) -> int:
    """Number of features of a site at one token."""
    name = one_site(model, site).name
    feature = None if name.is_module or name.select else model.table.size(name.kind, "feature")
    if feature is None:
        found = "how many features it has at one token is not known before a pass"
        raise BadOption(f"controller that reads {site}", found, next_step="read a whole site such as blocks.1.resid_post")
    has_heads = "head" in model.table.places[name.kind].view.axes
    return feature * ((model.table.size(name.kind, "head") or 1) if has_heads else 1)


def _check_choices(given: dict[str, str]) -> None:
    for name, word in given.items():
        known = _CHOICES[name]
        if word not in known:
            raise BadOption(f"{name}={word!r}", "no such choice", nearest=nearest(word, known) or known)


def _check_sizes(given: dict[str, int]) -> None:
    for name, size in given.items():
        if size < 1:
            raise BadOption(f"controller with {name}={size}", "it needs at least one", next_step="give 1 or more")
