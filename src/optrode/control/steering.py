"""From a behaviour to an artefact: directions, layer and dose chosen on validation prompts, and a card that says so.

fitted = op.control.fit(model, op.control.demos.sentiment())
op.control.save_artefact("sentiment", fitted.gates, fitted.card)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from optrode.control.behaviours import Behaviour, chat
from optrode.control.card import Card, card_of
from optrode.control.choosing import Choice, choose
from optrode.control.contrast import Contrast
from optrode.control.direction import Direction, directions
from optrode.control.dose import IsoKL, iso_kl
from optrode.errors import BadFile, BadOption, NoneAllowed
from optrode.gate.gate import Gate
from optrode.model.model import Model
from optrode.provenance import provenance
from optrode.trial.run import Progress, no_progress

DEPTHS: Final = (0.3, 0.5, 0.7)
"""Share of the layers above which directions are tried by default."""
DOSES: Final = (0.1, 0.2, 0.35)
TARGET_KL: Final = 1.0


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """What came of fitting a steering vector.

    Attributes:
        direction: the chosen one.
        dose: the chosen one, relative to the typical norm.
        gates: of dose 1, as artefacts hold them.
        card: with the chosen dose and what was measured.
        choice: all that was tried, where a judge chose.
        iso: how the dose was solved for, where there was no judge.
    """

    direction: Direction
    dose: float
    gates: tuple[Gate, ...]
    card: Card
    choice: Choice | None = None
    iso: IsoKL | None = None


def fit(
    model: Model, behaviour: Behaviour, *, sites: str | Sequence[str] = (), method: str = "difference",
    doses: Sequence[float] = DOSES, max_d_nll: float = 0.15, n_tokens: int = 32, random_seed: int = 0,
    progress: Progress = no_progress,
) -> Fitted:  # fmt: skip
    """Find directions of a behaviour, and choose layer and dose by its first judge on its validation requests.

    Args:
        sites: by default the residual stream after 30, 50 and 70 % of the layers.
        max_d_nll: what it may cost on validation requests, in nats per token; other requests tend to cost more.

    Raises:
        NoneAllowed: every layer and dose costs more, or none that does not is better than plain answers.
        BadOption, BadPairs: the behaviour has no validation requests, or too few texts.
    """
    if not behaviour.validation:
        found = "it has no validation requests to choose layer and dose on"
        raise BadOption(
            f"fit {behaviour.name}", found, next_step="give some, or use fit_texts, which solves for a divergence"
        )
    found_at = directions(model, behaviour.contrast(model), sites or default_sites(model), method, random_seed=random_seed)
    prompts, judge = behaviour.prompts(model, behaviour.validation), behaviour.judges[0]
    choice = choose(
        model, found_at, prompts, lambda texts: judge.score(list(map(str, texts)), behaviour.validation),
        doses=doses, max_d_nll=max_d_nll, n_tokens=n_tokens, progress=progress,
    )  # fmt: skip
    best = choice.best
    if best.score <= choice.plain.score:
        found = f"the best within {max_d_nll:g} nats scores {best.score:.3g} by {judge.name}, "
        found += f"and plain answers {choice.plain.score:.3g}"
        step = f"allow a higher cost (max_d_nll), other sites or doses, or answers longer than {n_tokens} tokens"
        raise NoneAllowed(f"fit {behaviour.name}", found, next_step=step)
    chosen = next(one for one in found_at if one.site == best.name)
    measured = {
        "separation": chosen.separation, f"{judge.name}, validation": best.score,
        f"{judge.name}, validation, plain": choice.plain.score, "d_nll, validation": best.d_nll,
    }  # fmt: skip
    data = f"{len(behaviour.positive)} exchanges each way; chosen on {len(prompts)} validation requests"
    about = {"name": behaviour.name, "behaviour": behaviour.about, "data": data}
    return _fitted(model, chosen, best.dose, measured, about, random_seed, choice=choice)


def fit_texts(
    model: Model, contrast: Contrast, prompts: Sequence[str], *, name: str, behaviour: str, sites: str | Sequence[str] = (),
    method: str = "difference", target_kl: float = TARGET_KL, random_seed: int = 0,
) -> Fitted:  # fmt: skip
    """Find directions between texts of your own, where nothing judges: the layer that tells held-out texts apart best, and
    the dose at which the 95th percentile of the divergence from the plain model is `target_kl` nats on prompts.

    Raises:
        DoseNotFound: no dose diverges so much.
        BadGate: no layer tells held-out texts apart better than chance.
    """
    found = directions(model, contrast, sites or default_sites(model), method, random_seed=random_seed)
    chosen = max(found, key=lambda one: one.separation)
    chosen.check_above_chance("a steering vector")
    iso = iso_kl(model, lambda dose: (chosen.gate(dose),), tuple(prompts), target=target_kl)
    measured = {"separation": chosen.separation, "p95 KL (nats)": iso.kl}
    data = f"{len(contrast.positive)} positive and {len(contrast.negative)} negative texts"
    return _fitted(
        model, chosen, iso.dose, measured, {"name": name, "behaviour": behaviour, "data": data}, random_seed, iso=iso
    )


def _fitted(
    model: Model, chosen: Direction, dose: float, measured: dict[str, float], about: dict[str, str], random_seed: int, *,
    choice: Choice | None = None, iso: IsoKL | None = None,
) -> Fitted:  # fmt: skip
    gates = (chosen.gate(1.0),)
    span = 2.0 * max(abs(dose), 0.05)
    card = card_of(
        model, gates, **about, method=f"{chosen.method}, read at {chosen.read}; dose relative to the typical norm",
        dose=dose, dose_range=(-span, span), evaluation=measured,
        provenance=provenance(model.name, model.weights_hash, random_seed),
    )  # fmt: skip
    return Fitted(chosen, dose, gates, card, choice, iso)


def default_sites(model: Model) -> tuple[str, ...]:
    """The residual stream at a few depths."""
    n = model.table.n_layers
    if not n:
        found = "no family describes the model, so that its layers are not known"
        raise BadOption(f"directions of {model.name}", found, next_step='name sites, like sites="module:encoder.out"')
    layers = dict.fromkeys(max(0, round(depth * n) - 1) for depth in DEPTHS)
    return tuple(f"blocks.{layer}.resid_post" for layer in layers)


def read_texts(path: Path) -> tuple[str, ...]:
    """One text a line, empty lines left out.

    Raises:
        BadFile: there is no such file, or it holds no text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found = f"it cannot be read ({type(error).__name__})"
        raise BadFile(f"texts {path}", found, next_step="give a UTF-8 text file, one text a line") from None
    texts = tuple(line.strip() for line in lines if line.strip())
    if not texts:
        raise BadFile(f"texts {path}", "it holds no text", next_step="write one text a line")
    return texts


def asked(model: Model, texts: Sequence[str], is_chat: bool) -> tuple[str, ...]:
    """Prompts as the model is given them."""
    return tuple(chat(model, text) for text in texts) if is_chat else tuple(texts)
