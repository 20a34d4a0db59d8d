"""Control of behaviour: directions, maps and controllers, their doses, how they are judged, kept and served.

    fitted = op.control.fit(model, op.control.demos.sentiment())
    with op.gates(model, fitted.direction.gate(fitted.dose)):
        model.generate("How was your day?")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from optrode.control import demos
    from optrode.control.adapter_export import export_adapter
    from optrode.control.adapter_import import load_adapter
    from optrode.control.artefact import Artefact, artefact_of, load_artefact, save_artefact
    from optrode.control.behaviours import Behaviour, Exchange, Trigger, chat
    from optrode.control.card import Card, card_of
    from optrode.control.choosing import Choice, choose
    from optrode.control.conditional import fit_condition
    from optrode.control.contrast import Answered, Contrast
    from optrode.control.control_vector import export_control_vector, load_control_vector
    from optrode.control.controller import Controller, controller_for, controller_gates
    from optrode.control.controller_training import score_controller, train_controller
    from optrode.control.direction import Direction, directions, judged, shuffled
    from optrode.control.dose import IsoKL, iso_kl
    from optrode.control.end_to_end import lineas
    from optrode.control.evaluating import evaluate
    from optrode.control.families import family, shortest_minus_longest
    from optrode.control.gate_quality import benefits_of, quality
    from optrode.control.gated import judge_condition, under
    from optrode.control.judges import Judge, kappa, validate
    from optrode.control.latched import fit_cast, fit_probe
    from optrode.control.lowrank import LowRankMaps, continuation_loss, learn_low_rank
    from optrode.control.merging import merge, weight_changes
    from optrode.control.records import Evaluation, GateQuality
    from optrode.control.sae import SAE, rank_latents
    from optrode.control.sae_files import load_sae, save_sae
    from optrode.control.sae_training import train_sae
    from optrode.control.serving.server import Server, serve
    from optrode.control.serving.shelf import Shelf, shelf_of
    from optrode.control.states import typical_norm
    from optrode.control.steering import Fitted, fit, fit_texts
    from optrode.control.transport import Map, Maps, aura, distance, linear_act

_HOMES: Final = {
    "adapter_export": ("export_adapter",),
    "adapter_import": ("load_adapter",),
    "artefact": ("Artefact", "artefact_of", "load_artefact", "save_artefact"),
    "behaviours": ("Behaviour", "Exchange", "Trigger", "chat"),
    "card": ("Card", "card_of"),
    "choosing": ("Choice", "choose"),
    "conditional": ("fit_condition",),
    "contrast": ("Answered", "Contrast"),
    "control_vector": ("export_control_vector", "load_control_vector"),
    "controller": ("Controller", "controller_for", "controller_gates"),
    "controller_training": ("score_controller", "train_controller"),
    "direction": ("Direction", "directions", "judged", "shuffled"),
    "dose": ("IsoKL", "iso_kl"),
    "end_to_end": ("lineas",),
    "evaluating": ("evaluate",),
    "families": ("family", "shortest_minus_longest"),
    "gate_quality": ("benefits_of", "quality"),
    "gated": ("judge_condition", "under"),
    "judges": ("Judge", "kappa", "validate"),
    "latched": ("fit_cast", "fit_probe"),
    "lowrank": ("LowRankMaps", "continuation_loss", "learn_low_rank"),
    "merging": ("merge", "weight_changes"),
    "records": ("Evaluation", "GateQuality"),
    "sae": ("SAE", "rank_latents"),
    "sae_files": ("load_sae", "save_sae"),
    "sae_training": ("train_sae",),
    "serving.server": ("Server", "serve"),
    "serving.shelf": ("Shelf", "shelf_of"),
    "states": ("typical_norm",),
    "steering": ("Fitted", "fit", "fit_texts"),
    "transport": ("Map", "Maps", "aura", "distance", "linear_act"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Answered", "Artefact", "Behaviour", "Card", "Choice", "Contrast", "Controller", "Direction", "Evaluation",
    "Exchange", "Fitted", "GateQuality", "IsoKL", "Judge", "LowRankMaps", "Map", "Maps", "SAE", "Server", "Shelf",
    "Trigger", "artefact_of", "aura", "benefits_of", "card_of", "chat", "choose", "continuation_loss", "controller_for",
    "controller_gates", "demos", "directions", "distance", "evaluate", "export_adapter", "export_control_vector",
    "family", "fit", "fit_cast", "fit_condition", "fit_probe", "fit_texts", "iso_kl", "judge_condition", "judged",
    "kappa", "learn_low_rank", "linear_act", "lineas", "load_adapter", "load_artefact", "load_control_vector", "load_sae",
    "merge", "quality", "rank_latents", "save_artefact", "save_sae", "score_controller", "serve", "shelf_of",
    "shortest_minus_longest", "shuffled", "train_controller", "train_sae", "typical_norm", "under", "validate",
    "weight_changes",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "demos":
        return import_module("optrode.control.demos")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'optrode.control' has no attribute {name!r}")
    return getattr(import_module(f"optrode.control.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
