"""The modules that parity is tested on, with inputs and a record of what transformers itself returns."""

from functools import cache

import torch
from torch import Tensor

from optrode.model.model import Model
from optrode.model.names import parse
from optrode.model.source import from_source
from optrode.model.tiny import CONFIGS, tiny
from optrode.site.recording import Recording, record, run

SEQUENTIAL_NEOX = "gpt_neox sequential"
NO_SDPA = ("gemma2", "bloom")  # transformers has no sdpa for them
CASES = [
    (model_type, attention)
    for model_type in (*CONFIGS, SEQUENTIAL_NEOX)
    for attention in ("sdpa", "eager")
    if not (attention == "sdpa" and model_type in NO_SDPA)
]


@cache
def model_of(case: str, attention: str = "eager", dtype: torch.dtype = torch.float32, has_head: bool = True) -> Model:
    """One tiny model per case, shared by the tests (none of them changes it)."""
    options = {"use_parallel_residual": False} if case == SEQUENTIAL_NEOX else {}
    if case == "mixtral":
        options["experts_implementation"] = "eager"  # grouped matrix products know no float64
    module = tiny(case.split()[0], attn_implementation=attention, has_head=has_head, **options)
    return from_source(module.to(dtype))


def inputs_of(case: str, dtype: torch.dtype = torch.float32, random_seed: int = 0) -> dict[str, Tensor]:
    """Two prompts of seven tokens (more than the sliding windows), or two images."""
    generator = torch.Generator().manual_seed(random_seed)
    if case == "vit":
        return {"pixel_values": torch.randn(2, 3, 12, 12, generator=generator, dtype=dtype)}
    return {"input_ids": torch.randint(1, 61, (2, 7), generator=generator)}


def answer_of(model: Model, inputs: dict[str, Tensor]) -> Tensor:
    """Logits, or the last hidden state of a base model."""
    with torch.no_grad():
        output = run(model, inputs)
    return output.logits if hasattr(output, "logits") else output.last_hidden_state


def names_of(model: Model) -> list[str]:
    return [str(name) for name in model.site_names()]


def is_inside(model: Model, name: str) -> bool:
    """Whether the site is inside attention: touching it swaps the attention function, which rounds differently."""
    return model.table.places[parse(name).kind].how in ("scores", "pattern")


@cache
def held_of(case: str, attention: str = "eager", dtype: torch.dtype = torch.float32) -> Recording:
    """Every site of the case's model on its inputs."""
    model = model_of(case, attention, dtype)
    held = Recording()
    for inner in (False, True):
        names = [name for name in names_of(model) if is_inside(model, name) == inner]
        if names:
            held.tensors.update(record(model, inputs_of(case, dtype), names).tensors)
    return held
