"""Recurrent networks, written out step by step: RNN, LSTM and GRU with every gate and state a site.

A layer's cell is called once per time step, and each gate, the cell state and the hidden state pass through a module of
their own. They are reached by module path, `module:cells.0.forget.out`, and so come by once per step: a recording of one is
[batch, step, feature], and `[pos=3]` selects step 3, `[pos=-1]` the last step of the inputs. A gate held there acts on what
the network computes from then on.

Sites of layer l, before them `module:cells.l.`, after them `.out`; each is [batch, d_hidden] at every step:
    rnn, relu   pre, hidden
    lstm        input, forget, candidate, output, cell, hidden
    gru         reset, update, candidate, hidden
and besides them every linear map (`read` of the input, `recur` of the hidden state) and `module:readout.out`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, final, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from optrode.errors import BadOption, nearest
from optrode.model.model import Model
from optrode.nn.init import RULES, initialise

Kind = Literal["rnn", "relu", "lstm", "gru"]
State = tuple[Tensor, ...]
"""What a cell carries from step to step, each [batch, d_hidden]: hidden state, and for an LSTM the cell state."""
_GATES: Final = {
    "rnn": ("pre", "hidden"), "relu": ("pre", "hidden"), "gru": ("reset", "update", "candidate", "hidden"),
    "lstm": ("input", "forget", "candidate", "output", "cell", "hidden"),
}  # fmt: skip


@dataclass(frozen=True)
class RecurrentSpec:
    """The architecture; it also stands in as the module's `config`.

    Attributes:
        kind: "rnn" with tanh (Elman 1990), "relu", "lstm" (Hochreiter and Schmidhuber 1997, with a forget gate) or "gru"
            (Cho et al., arXiv 1406.1078; the reset gate after the recurrent map, as torch has it).
        d_in, d_hidden, d_out, n_layers: sizes.
        has_bias: whether the linear maps have biases, the readout's included.

    Raises:
        BadOption: no such kind, or a size below 1.
    """

    kind: str
    d_in: int
    d_hidden: int
    d_out: int
    n_layers: int = 1
    has_bias: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            close = nearest(self.kind, get_args(Kind)) or get_args(Kind)
            raise BadOption(f"kind={self.kind!r}", "no such recurrent network", nearest=close)
        for name in ("d_in", "d_hidden", "d_out", "n_layers"):
            size = getattr(self, name)
            if size < 1:
                raise BadOption(f"{name}={size}", "a recurrent network has at least one", next_step="give 1 or more")

    @property
    def n_parts(self) -> int:
        """Tensors that a layer carries from step to step."""
        return 2 if self.kind == "lstm" else 1

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the gates' and states' sites, in the order of the computation within a step, and the readout's."""
        inner = [f"module:cells.{layer}.{gate}.out" for layer in range(self.n_layers) for gate in _GATES[self.kind]]
        return (*inner, "module:readout.out")

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, for keys and files."""
        return asdict(self)


@dataclass
class RecurrentOutput:
    """What the network returns.

    Attributes:
        logits: [batch, time, d_out] of the last layer's hidden state.
        states: [batch, time, layer, part, d_hidden] after each step; part 0 is the hidden state, an LSTM's part 1 the cell
            state. `states[:, -1]` is where a further call can go on from.
    """

    logits: Tensor
    states: Tensor


@final
class RnnCell(nn.Module):
    """h' = activation(W x + U h), W being `read` and U `recur`."""

    def __init__(self, spec: RecurrentSpec, d_in: int) -> None:
        super().__init__()
        self.read, self.recur = _maps(spec, d_in, 1)
        self.activation: nn.Module = nn.ReLU() if spec.kind == "relu" else nn.Tanh()
        self.pre, self.hidden = nn.Identity(), nn.Identity()

    def forward(self, x: Float[Tensor, "batch d_in"], hidden: Float[Tensor, "batch d_hidden"]) -> State:
        """The hidden state after one step."""
        return (self.hidden(self.activation(self.pre(self.read(x) + self.recur(hidden)))),)


@final
class LstmCell(nn.Module):
    """c' = f c + i g and h' = o tanh(c'), where i, f and o are sigmoids, and g the tanh, of W x + U h.

    Sites: i = input, f = forget, g = candidate, o = output, c' = cell, h' = hidden.
    """

    def __init__(self, spec: RecurrentSpec, d_in: int) -> None:
        super().__init__()
        self.read, self.recur = _maps(spec, d_in, 4)
        self.input, self.forget, self.candidate, self.output = (nn.Identity() for _ in range(4))
        self.cell, self.hidden = nn.Identity(), nn.Identity()

    def forward(
        self, x: Float[Tensor, "batch d_in"], hidden: Float[Tensor, "batch d_hidden"], cell: Float[Tensor, "batch d_hidden"]
    ) -> State:  # fmt: skip
        """The hidden state and the cell state after one step."""
        i, f, g, o = (self.read(x) + self.recur(hidden)).chunk(4, -1)
        i, f, g = self.input(i.sigmoid()), self.forget(f.sigmoid()), self.candidate(g.tanh())
        o = self.output(o.sigmoid())
        after = self.cell(f * cell + i * g)
        return self.hidden(o * after.tanh()), after


@final
class GruCell(nn.Module):
    """h' = (1 - z) n + z h, where r and z are sigmoids of W x + U h, and n = tanh(W x + r (U h)), biases inside.

    Sites: r = reset, z = update (at 1 the old state stays), n = candidate, h' = hidden.
    """

    def __init__(self, spec: RecurrentSpec, d_in: int) -> None:
        super().__init__()
        self.read, self.recur = _maps(spec, d_in, 3)
        self.reset, self.update, self.candidate, self.hidden = (nn.Identity() for _ in range(4))

    def forward(self, x: Float[Tensor, "batch d_in"], hidden: Float[Tensor, "batch d_hidden"]) -> State:
        """The hidden state after one step."""
        (r_x, z_x, n_x), (r_h, z_h, n_h) = self.read(x).chunk(3, -1), self.recur(hidden).chunk(3, -1)
        r, z = self.reset((r_x + r_h).sigmoid()), self.update((z_x + z_h).sigmoid())
        n = self.candidate((n_x + r * n_h).tanh())
        return (self.hidden((1 - z) * n + z * hidden),)


_CELLS: Final = {"rnn": RnnCell, "relu": RnnCell, "lstm": LstmCell, "gru": GruCell}


@final
class Recurrent(nn.Module):
    """Layers of cells, each reading the hidden state of the one below at the same step, and a linear readout.

    Attributes:
        config: the spec, under the name that transformers gives it.
        cells: [layer].
    """

    def __init__(self, spec: RecurrentSpec) -> None:
        super().__init__()
        self.config = spec
        widths = [spec.d_in] + [spec.d_hidden] * (spec.n_layers - 1)
        self.cells = nn.ModuleList(_CELLS[spec.kind](spec, width) for width in widths)
        self.readout = nn.Linear(spec.d_hidden, spec.d_out, bias=spec.has_bias)

    def forward(
        self, inputs: Float[Tensor, "batch time d_in"], state: Float[Tensor, "batch layer part d_hidden"] | None = None
    ) -> RecurrentOutput:  # fmt: skip
        """Logits and states at every step.

        Args:
            state: where to start from, e.g. `states[:, -1]` of an earlier call; zeros when None.

        Raises:
            BadOption: inputs or state do not have the sizes of the spec, or there is no step.
        """
        states = self._start(inputs, state)
        path, heard = [], []
        for x in inputs.unbind(1):
            for layer, cell in enumerate(self.cells):
                states[layer] = cell(x, *states[layer])
                x = states[layer][0]
            heard.append(x)
            path.append(torch.stack([torch.stack(parts, 1) for parts in states], 1))
        return RecurrentOutput(self.readout(torch.stack(heard, 1)), torch.stack(path, 1))

    def _start(self, inputs: Tensor, state: Tensor | None) -> list[State]:
        """Each layer's state before the first step."""
        spec, shape = self.config, list(inputs.shape)
        if shape[2] != spec.d_in or shape[1] < 1:
            found = f"the network reads [batch, time, {spec.d_in}], one step or more"
            raise BadOption(f"inputs of shape {shape}", found, next_step=f"give vectors of width {spec.d_in}")
        expected = (shape[0], spec.n_layers, spec.n_parts, spec.d_hidden)
        if state is None:
            state = inputs.new_zeros(expected)
        if tuple(state.shape) != expected:
            found = f"the network carries {list(expected)}: batch, layer, part, unit"
            raise BadOption(f"state of shape {list(state.shape)}", found, next_step="give states[:, -1] of an earlier call")
        return [tuple(parts.unbind(1)) for parts in state.unbind(1)]


def build(
    spec: RecurrentSpec, random_seed: int = 0, dtype: torch.dtype = torch.float32, *, init: str = "torch"
) -> Recurrent:  # fmt: skip
    """A network with weights drawn from a seed; the caller's random state is left alone.

    Args:
        init: "torch" as torch draws a recurrent network's, uniform within 1 / sqrt(d_hidden); or "lecun", "he" or "small"
            (`nn/init.py`).

    Raises:
        BadOption: no such rule.
    """
    rules = ("torch", *RULES)
    if init not in rules:
        raise BadOption(f"init={init!r}", "no such rule", nearest=nearest(init, rules) or rules)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed)
        module = Recurrent(spec).to(dtype)
    if init in RULES:
        initialise(module, init, random_seed)
    return module.eval()


def as_model(module: Recurrent, name: str = "") -> Model:
    """The module, ready to be recorded and gated; `module.config.sites` names its sites."""
    return Model(module.eval(), name=name or module.config.kind)


@torch.no_grad()
def from_torch(network: nn.RNNBase, readout: nn.Linear) -> Recurrent:
    """The same network as one of torch's own with a linear readout, its weights copied, every gate a site.

    Raises:
        BadOption: it runs in both directions, projects its state, drops out, or has biases where the readout has none.
    """
    kind = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn", "RNN_RELU": "relu"}.get(network.mode, network.mode)
    name = type(network).__name__
    unknown = [what for what in ("bidirectional", "proj_size", "dropout") if getattr(network, what)]
    if unknown:
        step = f"build the network without {unknown[0]}"
        raise BadOption(f"torch's {name} with {unknown[0]}", "no cell written out here has it", next_step=step)
    if network.bias != (readout.bias is not None):
        found = "one of them has biases, the other has none"
        raise BadOption(f"torch's {name} and its readout", found, next_step="give both bias=True, or both bias=False")
    sizes = network.input_size, network.hidden_size, readout.out_features, network.num_layers
    module = Recurrent(RecurrentSpec(kind, *sizes, has_bias=network.bias)).to(readout.weight)
    for layer, cell in enumerate(module.cells):
        for ours, theirs in (("read", "ih"), ("recur", "hh")):
            for part, parameter in cell.get_submodule(ours).named_parameters():
                parameter.copy_(getattr(network, f"{part}_{theirs}_l{layer}"))
    module.readout.load_state_dict(readout.state_dict())
    return module.eval()


def _maps(spec: RecurrentSpec, d_in: int, n_gates: int) -> Sequence[nn.Linear]:
    """The maps of input and hidden state to all gates, stacked as torch stacks them, and drawn as torch draws them."""
    maps = [nn.Linear(width, n_gates * spec.d_hidden, bias=spec.has_bias) for width in (d_in, spec.d_hidden)]
    for linear in maps:
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -(spec.d_hidden**-0.5), spec.d_hidden**-0.5)
    return maps
