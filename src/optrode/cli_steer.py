"""Commands that steer a model: fit, try, evaluate, export, serve. Like all commands they are thin."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from optrode.errors import BadOption, nearest
from optrode.options import AsJson, ModelName, Out, print_json

if TYPE_CHECKING:
    from optrode.control.steering import Fitted
    from optrode.model.model import Model

steer = App(name="steer", help="Steer a model: find a direction, try it, judge it beside its controls, export it, serve it.")

FORMATS = ("gguf", "peft", "merged")


@Parameter(name="*")
@dataclass(frozen=True)
class Texts:
    """Texts of your own instead of a demonstration."""

    positive: Path | None = None
    "A text file with one positive text a line."

    negative: Path | None = None
    "A text file with one negative text a line."

    prompts: Path | None = None
    "A text file with one prompt a line, on which the dose is solved for."

    about: str = ""
    "What more of it means, in a sentence: for the card."


@steer.command(name="fit")
def fit_vector(
    behaviour: str = "", *, model: ModelName = "smollm2", site: tuple[str, ...] = (), method: str = "difference",
    dose: tuple[float, ...] = (), max_d_nll: float = 0.15, texts: Texts = Texts(), kl: float = 1.0, seed: int = 0,
    out: Out = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Find a steering vector, choose its layer and dose, and save it as an artefact with its card.

    Parameters
    ----------
    behaviour: A demonstration (sentiment, verbosity, sea, music, french, spanish), or a name for texts of your own.
    site: Where to look for it; give the option once per site. By default after 30, 50 and 70 % of the layers.
    method: difference, pca, paired-pca, logistic or mass-mean.
    dose: Doses to try, relative to the typical norm; give the option once per dose.
    max_d_nll: What it may cost on validation requests, in nats per token.
    kl: With texts of your own: the divergence to solve for, in nats.
    """
    from optrode.console import fitted_table, showing
    from optrode.control.artefact import save_artefact

    with showing(quiet=as_json) as progress:
        loaded = _load(model)
        found = _fit(loaded, behaviour, texts, {"sites": site, "method": method, "random_seed": seed}, kl, {
            "max_d_nll": max_d_nll, "progress": progress, **({"doses": dose} if dose else {}),
        })  # fmt: skip
    path = save_artefact(out or Path("runs") / "steer" / found.card.name, found.gates, found.card)
    if as_json:
        print_json({"artefact": str(path), "card": found.card, "table": found.choice.table if found.choice else []})
    else:
        fitted_table(found, path)


def _fit(
    model: "Model", behaviour: str, texts: Texts, options: dict[str, Any], kl: float, choosing: dict[str, Any]
) -> "Fitted":
    from optrode.control import demos
    from optrode.control.contrast import Contrast
    from optrode.control.steering import fit, fit_texts, read_texts

    given = (texts.positive, texts.negative, texts.prompts)
    if not any(given):
        if not behaviour:
            step = "name one, or give --positive, --negative and --prompts"
            raise BadOption("steer fit", "no behaviour is named", nearest=tuple(demos.DEMOS), next_step=step)
        return fit(model, demos.find(behaviour, model), **options, **choosing)
    positive, negative, prompts = given
    if positive is None or negative is None or prompts is None:
        missing = next(name for name in ("positive", "negative", "prompts") if getattr(texts, name) is None)
        found = f"--{missing} is missing"
        raise BadOption("steer fit with texts", found, next_step="give files for --positive, --negative and --prompts")
    contrast = Contrast(read_texts(positive), read_texts(negative))
    name = behaviour or positive.stem
    about = texts.about or f"more like {positive.name} than like {negative.name}"
    return fit_texts(model, contrast, read_texts(prompts), name=name, behaviour=about, target_kl=kl, **options)


@steer.command(name="try")
def try_vector(
    artefact: Path, prompt: str, *, dose: tuple[float, ...] = (), model: ModelName = "smollm2", tokens: int = 48,
    plain_text: bool = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Write with and without the gates of an artefact, side by side in one batch.

    Parameters
    ----------
    artefact: File or folder that `optrode steer fit` wrote.
    dose: By default the card's, and its opposite; give the option once per dose.
    tokens: Most new tokens.
    plain_text: Give the prompt as it is, without the chat template.
    """
    from optrode.console import tried_table
    from optrode.control.artefact import load_artefact
    from optrode.control.behaviours import chat
    from optrode.control.generate import Request, generate

    held, loaded = load_artefact(artefact), _load(model)
    doses = dose or (held.card.dose, -held.card.dose)
    text = prompt if plain_text else chat(loaded, prompt)
    requests = [Request(text, held.gates(loaded, one) if one else (), tokens) for one in (0.0, *doses)]
    written = generate(loaded, requests)
    rows = [(one, found.text) for one, found in zip((0.0, *doses), written, strict=True)]
    if as_json:
        print_json({"prompt": prompt, "written": [{"dose": one, "text": said} for one, said in rows]})
    else:
        tried_table(held.card.name, prompt, rows)


@steer.command(name="eval")
def evaluate_vector(
    artefact: Path, *, behaviour: str = "", dose: tuple[float, ...] = (), model: ModelName = "smollm2", tokens: int = 48,
    prompts: int | None = None, when: str = "", seed: int = 0, out: Out = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Judge an artefact on test requests beside its controls, and write the page: concept against cost in language.

    Parameters
    ----------
    artefact: File or folder that `optrode steer fit` wrote.
    behaviour: The demonstration whose test requests and judges to use; by default the artefact's name.
    dose: Doses to measure, relative to the artefact's; give the option once per dose.
    tokens: Most new tokens of each text.
    prompts: Use only so many test requests.
    when: A trigger (cooking): also fit a probe that opens the gates at such requests alone, and judge it.
    """
    from optrode.console import evaluation_table, showing
    from optrode.control import demos
    from optrode.control.artefact import load_artefact
    from optrode.control.evaluating import DOSES, evaluate
    from optrode.control.gated import judge_condition
    from optrode.reports.folder import write_run
    from optrode.reports.page import report as make_report

    held, trigger = load_artefact(artefact), demos.find_trigger(when) if when else None
    with showing(quiet=as_json) as progress:
        loaded = _load(model)
        asked = demos.find(behaviour or held.card.name, loaded)
        asked = asked if prompts is None else asked.but(test=asked.test[:prompts])
        found = evaluate(
            loaded, lambda one: held.gates(loaded, one), asked, dose or DOSES, n_tokens=tokens, random_seed=seed,
            progress=progress, qualities=demos.sentiment_qualities() if asked.name == "sentiment" else (),
        )  # fmt: skip
        records: dict[str, Any] = {"evaluation": found}
        if trigger is not None:
            judged = judge_condition(
                loaded, lambda one: held.gates(loaded, one), asked, trigger, found.control_dose, n_tokens=tokens,
                random_seed=seed,
            )  # fmt: skip
            records["gate"] = judged[1]
    folder = out or Path("runs") / "steer" / f"{held.card.name}-eval"
    write_run(folder, records)
    page = make_report(*records.values()).save(folder / "report.html")
    if as_json:
        print_json({"report": str(page), **records})
    else:
        evaluation_table(found, page)


@steer.command(name="export")
def export_vector(
    artefact: Path, to: Path, *, form: Annotated[str, Parameter(name="--as")] = "gguf", dose: float | None = None,
    model: ModelName = "smollm2",
) -> None:  # fmt: skip
    """Write an artefact as a llama.cpp control vector, a PEFT adapter, or merged into the model's weights.

    Parameters
    ----------
    artefact: File or folder that `optrode steer fit` wrote.
    to: File (gguf) or folder (peft, merged) to write.
    form: gguf, peft or merged.
    dose: By default the card's.
    """
    from optrode.console import print_lines
    from optrode.control.artefact import load_artefact

    if form not in FORMATS:
        raise BadOption(f"export as {form!r}", "no such format", nearest=nearest(form, FORMATS) or FORMATS)
    held, loaded = load_artefact(artefact), _load(model)
    gates = held.gates(loaded, held.card.dose if dose is None else dose)
    print_lines([f"written: {_export(form, to, gates, loaded)}"])


def _export(form: str, to: Path, gates: Any, model: "Model") -> Path:
    from optrode.control.adapter_export import export_adapter
    from optrode.control.control_vector import export_control_vector
    from optrode.control.merging import merge

    if form == "gguf":
        return export_control_vector(to, gates, model, with_sink=True)
    if form == "peft":
        return export_adapter(to, gates, model)
    merged: Any = merge(model, gates)
    merged.module.save_pretrained(to)
    if merged.tokenizer is not None:
        merged.tokenizer.save_pretrained(to)
    return to


@steer.command(name="serve")
def serve_artefacts(
    folder: Path, *, model: ModelName = "smollm2", host: str = "127.0.0.1", port: int = 8000, token: str | None = None,
    max_batch: int = 8,
) -> None:  # fmt: skip
    """Serve a model with the artefacts of a folder: OpenAI-compatible, with `gates` in each request.

    Parameters
    ----------
    folder: With artefacts; each is served under its card's name.
    host: Other than loopback needs a token.
    token: That requests must bring; also from the environment variable OPTRODE_TOKEN.
    max_batch: Most requests that are answered together.
    """
    from optrode.console import print_lines
    from optrode.control.serving.server import serve

    def say(url: str) -> None:
        print_lines([f"serving {model} with the gates of {folder} at {url}/v1; Ctrl-C ends it"])

    serve(_load(model), folder, host=host, port=port, token=token, max_batch=max_batch, on_start=say)


def _load(name: str) -> "Model":
    from optrode.loading import load

    return load(name)
