"""Control vectors in llama.cpp's file format (GGUF), which repeng writes and reads too.

Such a file holds one vector for each of some layers, `direction.<k>`, F32 of the model's width. llama.cpp adds direction.k
to the residual stream after block k, counted from 0: our `blocks.k.resid_post`. It has no place for block 0 (its data start
at 1, and a file with direction.0 is refused there), and passes over layers that the model does not have, in silence. Here
both are refused by name. repeng's `ControlVector.export_gguf` writes the same names, and leaves layer 0 out.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from optrode.control.artefact import Artefact, artefact_of
from optrode.control.card import card_of
from optrode.errors import BadFile, BadGate, BadOption, GateShape, OptrodeError
from optrode.gate.actuators import Add
from optrode.gate.gate import Gate
from optrode.gate.kinds import add
from optrode.model.model import Model
from optrode.model.names import parse
from optrode.records import write_bytes
from optrode.site.select import select_sites

ARCHITECTURE: Final = "controlvector"
HINT: Final = "controlvector.model_hint"
LAYERS: Final = "controlvector.layer_count"
DIRECTION: Final = "direction."
AFTER_SINK: Final = parse("resid_post[pos=1:]").select
"""All positions but the first."""


def export_control_vector(
    path: str | Path, gates: Artefact | Sequence[Gate], model: Model, *, with_sink: bool = False
) -> Path:
    """Write gates that add vectors to the residual stream as a control vector for llama.cpp (repeng's `export_gguf`).

    Strengths are multiplied into the vectors, several gates of one layer are summed, and all is rounded to float32.

    Args:
        path: of the file; `.gguf` is appended where it is missing.
        gates: `add` gates at `blocks.k.resid_post`, k from 1, in all positions and always open; or an artefact of them.
        model: that they are for: it says how wide and how deep they go, and its type stands in the file as a hint.
        with_sink: take gates that leave out position 0 (`[pos=1:]`, as those of a `Direction` do) too. llama.cpp cannot
            leave it out: what is exported then acts there as well, which these gates did not.

    Raises:
        BadGate: a gate does something else than llama.cpp does with a control vector; the message says what.
        GateShape: a vector has another width than the model.
        BadOption: there is no gate, or the package gguf is not installed.
        BadFile: the file cannot be written.
    """
    _check_installed()
    held = gates.gates(model) if isinstance(gates, Artefact) else tuple(gates)
    if not held:
        raise BadOption(f"control vector {path}", "there is no gate", next_step="give at least one op.add gate")
    directions: dict[int, Tensor] = {}
    for gate in held:
        vector = _vector(gate, model, with_sink)
        for layer in _layers(gate, model):
            directions[layer] = directions[layer] + vector if layer in directions else vector
    return _write(_gguf(path), {k: directions[k].float().numpy() for k in sorted(directions)}, _hint(model))


def load_control_vector(path: str | Path, model: Model) -> Artefact:
    """A control vector for llama.cpp as an artefact of `add` gates (repeng's `import_gguf`), one for each layer of the file.

    The file does not say on which weights it was made, only a hint of the architecture, which the card repeats.

    Raises:
        BadFile: there is no such file, it is torn, no control vector, or holds direction.0 or tensors of another form.
        GateShape: its vectors have another width than the model, or are for layers that it does not have.
        BadOption: the package gguf is not installed.
    """
    _check_installed()
    target = _gguf(path)
    hint, directions = _read(target)
    _check_fits(target, directions, model)
    gates = [
        add(f"blocks.{layer}.resid_post", torch.from_numpy(vector).to(model.device, model.dtype))
        for layer, vector in sorted(directions.items())
    ]
    card = card_of(
        model, gates, name=target.stem, behaviour=f"Adds the control vector of {target.name} to the residual stream.",
        method=f"control vector in GGUF, made for a model of type {hint or 'unknown'}",
    )  # fmt: skip
    return artefact_of(gates, card)


def _vector(gate: Gate, model: Model, with_sink: bool) -> Float[Tensor, " feature"]:
    """Strength times vector, in float64 on the CPU.

    Raises:
        BadGate, GateShape: this is no gate that llama.cpp could do.
    """
    asked = f"control vector of {gate}"
    if not isinstance(gate.actuator, Add):
        found = "a control vector is added to the residual stream, and can do nothing else"
        raise BadGate(asked, found, next_step="use op.add, or save it with save_artefact")
    conditions = {
        f"scope={gate.scope!r}": gate.scope != "all", "openness=": gate.openness is not None, "when=": gate.when is not None,
        "rows=": gate.rows is not None, "each=": bool(gate.each),
        f"a selection, {gate.site}": bool(gate.site.select) and not (with_sink and gate.site.select == AFTER_SINK),
    }  # fmt: skip
    limits = [name for name, is_set in conditions.items() if is_set]
    if limits:
        found = f"it has {limits[0]}, and llama.cpp adds to every token, feature and row"
        step = "say with_sink=True to let it act at position 0 too" if gate.site.select == AFTER_SINK else "leave that out"
        raise BadGate(asked, found, next_step=f"{step}, or save it with save_artefact")
    vector = gate.actuator.vector.detach().cpu().double()
    if vector.shape != (model.table.d_model,):
        found = f"its vector has shape {tuple(vector.shape)}, and the model the width {model.table.d_model}"
        raise GateShape(asked, found, next_step="give one vector [feature]")
    return gate.strength * vector


def _layers(gate: Gate, model: Model) -> tuple[int, ...]:
    asked = f"control vector of {gate}"
    if gate.site.kind != "resid_post":
        found = "llama.cpp adds after a block"
        raise BadGate(asked, found, nearest=("blocks.k.resid_post",), next_step="make the gate there")
    layers = [site.name.layers.single for site in select_sites(model, gate.site) if site.name.layers is not None]
    if 0 in layers:
        found = "llama.cpp has no place for block 0, and would refuse a file with direction.0"
        raise BadGate(asked, found, nearest=("blocks.1.resid_post",), next_step="leave block 0 out: blocks.1:.resid_post")
    return tuple(layer for layer in layers if layer is not None)


def _write(path: Path, directions: dict[int, NDArray[np.float32]], hint: str) -> Path:
    from gguf import GGUFWriter

    for layer, vector in directions.items():
        if not np.isfinite(vector).all():
            found = f"direction.{layer} is not finite in float32"
            raise BadGate(f"control vector {path}", found, next_step="give a smaller strength or vector")
    half = path.with_name(f".{path.name}.half")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = GGUFWriter(half, ARCHITECTURE)
        writer.add_string(HINT, hint)
        writer.add_uint32(LAYERS, len(directions))
        for layer, vector in directions.items():
            writer.add_tensor(f"{DIRECTION}{layer}", vector)
        writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
        write_bytes(path, half.read_bytes())
    except OSError as error:
        found = f"it cannot be written ({error.strerror})"
        raise BadFile(f"control vector {path}", found, next_step="give another path, or make room") from error
    finally:
        half.unlink(missing_ok=True)
    return path


def _read(path: Path) -> tuple[str, dict[int, NDArray[np.float32]]]:
    """The hint of the file, and its vectors by layer.

    Raises:
        BadFile: see `load_control_vector`.
    """
    from gguf import GGUFReader

    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.gguf")) if path.parent.is_dir() else []
        raise BadFile(f"control vector {path}", "no such file", nearest=there[:3], next_step="check the path")
    try:
        reader = GGUFReader(path)
        found = _text(reader, "general.architecture")
        if found != ARCHITECTURE:
            raise _bad(path, f"its architecture is {found!r}, that of a model, say", f"give a file of {ARCHITECTURE!r}")
        return _text(reader, HINT), dict(_direction(path, tensor) for tensor in reader.tensors)
    except OptrodeError:
        raise
    except Exception as error:  # the reader raises whatever a torn file makes it stumble over
        raise _bad(path, f"no GGUF, or torn ({type(error).__name__}: {error})", "write it again") from error


def _direction(path: Path, tensor: Any) -> tuple[int, NDArray[np.float32]]:
    name = str(tensor.name)
    number = name.removeprefix(DIRECTION)
    if not name.startswith(DIRECTION) or not number.isdecimal():
        raise _bad(path, f"it has a tensor {name!r}", "name its tensors direction.1, direction.2, ...")
    if int(number) == 0:
        raise _bad(path, "it has direction.0, which llama.cpp refuses: there is no place for block 0", "leave that one out")
    if tensor.tensor_type.name != "F32" or len(tensor.shape) != 1:
        shape = "x".join(str(int(n)) for n in tensor.shape)
        raise _bad(path, f"{name} is {tensor.tensor_type.name} {shape}", "write F32 vectors, which llama.cpp asks for")
    vector = np.array(tensor.data, dtype=np.float32)
    if not np.isfinite(vector).all():
        raise _bad(path, f"{name} holds NaN or infinity", "find out where they come from")
    return int(number), vector


def _check_fits(path: Path, directions: dict[int, NDArray[np.float32]], model: Model) -> None:
    asked = f"control vector {path} on {model.name}"
    if not directions:
        raise _bad(path, "it has no direction", "write it again")
    n_layers, d_model = model.table.n_layers, model.table.d_model
    beyond = [layer for layer in sorted(directions) if layer >= n_layers]
    if beyond:
        site = f"blocks.{beyond[0]}.resid_post"
        found = f"direction.{beyond[0]} belongs to {site}, and the model has layers 0 to {n_layers - 1}"
        raise GateShape(asked, found, next_step="load the model that it was made for")
    for layer, vector in sorted(directions.items()):
        if len(vector) != d_model:
            found = f"direction.{layer} has width {len(vector)}, and blocks.{layer}.resid_post {d_model}"
            raise GateShape(asked, found, next_step="load the model that it was made for")


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return "" if field is None else str(field.contents())


def _bad(path: Path, found: str, step: str) -> BadFile:
    return BadFile(f"control vector {path}", found, next_step=step)


def _hint(model: Model) -> str:
    return str(getattr(getattr(model.module, "config", None), "model_type", model.table.family))


def _gguf(path: str | Path) -> Path:
    path = Path(path)
    return path if path.name.endswith(".gguf") else path.with_name(f"{path.name}.gguf")


def _check_installed() -> None:
    if find_spec("gguf") is None:
        found = "the package gguf, which writes and reads them, is not installed"
        raise BadOption("control vector", found, next_step="pip install 'optrode[hf]'")
