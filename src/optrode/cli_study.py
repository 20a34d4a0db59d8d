"""Commands that train models and measure studies. Like all commands they are thin, and load what they need when they run."""

from pathlib import Path

from cyclopts import App

from optrode.errors import BadOption
from optrode.options import AsJson, Out, print_json


def train(spec: Path, *, out: Out = None, steps: int | None = None, as_json: AsJson = False) -> None:
    """Train a model as a Python file says, with gates held, and write its emergence page.

    Parameters
    ----------
    spec: A Python file of yours with PLAN = op.train.Plan(...), or PLANS, a tuple of runs to overlay; and PROMPTS and LOOKS,
        if checkpoints are to be looked at. It is executed.
    steps: Train for so many steps instead of the plan's; a run in the folder goes on from where it is.
    """
    from optrode.console import showing, training_table
    from optrode.reports.folder import write_run
    from optrode.reports.page import report as make_report
    from optrode.train.emergence import watch
    from optrode.train.loop import fit
    from optrode.train.spec import folder_name, read_spec

    asked = read_spec(spec)
    folder = out or Path("runs") / spec.stem
    with showing(quiet=as_json) as progress:
        trained = [
            fit(plan if steps is None else plan.but(n_steps=steps), out=folder / folder_name(plan.name), progress=progress)
            for plan in asked.plans
        ]
        seen = [
            watch(one, prompts=asked.prompts, looks=asked.looks, gates=asked.always(plan), progress=progress)
            for one, plan in zip(trained, asked.plans, strict=True) if asked.is_watched and one.run.checkpoints
        ]  # fmt: skip
    runs = [one.run for one in trained]
    for emergence in seen:
        write_run(folder / folder_name(emergence.run), {"emergence": emergence})
    page = make_report(*runs, *seen).save(folder / "report.html")
    if as_json:
        print_json({"report": str(page), "runs": runs})
    else:
        training_table(runs, page)


study = App(name="study", help="Studies: one paper each, rebuilt, with claims, controls and verdicts.")


@study.command(name="list")
def list_studies(*, as_json: AsJson = False) -> None:
    """List every study with the verdicts on its claims, from the ledger."""
    from optrode.console import study_list
    from optrode.study.ledger import counts, read_ledger
    from optrode.study.study import NAMES

    ledger = read_ledger()
    if as_json:
        return print_json({name: counts(ledger[name]) if name in ledger else None for name in NAMES})
    return study_list(NAMES, ledger)


@study.command(name="run")
def run_study(
    slug: str, *, profile: str = "measured", seeds: tuple[int, ...] = (), data: Path | None = None, out: Out = None,
    enter: bool = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Measure a study's claims and write its page. What is finished is kept: the same command goes on from there.

    Parameters
    ----------
    slug: One of `optrode study list`.
    profile: measured, or quick: a few steps of everything, to see that it runs.
    seeds: Random seeds; give the option once per seed. By default the study's own three.
    data: Folder of optional data sets.
    enter: Enter the verdicts in the ledger, which is part of the package.
    """
    from optrode.console import showing, study_table
    from optrode.reports.folder import write_run
    from optrode.reports.page import report as make_report
    from optrode.study.ledger import enter as enter_run
    from optrode.study.study import load as load_study
    from optrode.study.study import run as run_claims

    chosen = load_study(slug)
    folder = out or Path("runs") / "studies" / slug
    with showing(quiet=as_json) as progress:
        found, figures = run_claims(
            chosen, profile=profile, random_seeds=seeds or None, out=folder / "seeds", data=data, progress=progress
        )
    write_run(folder, {"study": found, "figures": figures})
    page = make_report(found, figures).save(folder / "report.html")
    if enter:
        enter_run(found)
    if as_json:
        print_json({"report": str(page), "study": found})
    else:
        study_table(found, page)


@study.command(name="show")
def show_study(slug: str, *, as_json: AsJson = False) -> None:
    """Show what the ledger says of a study: every claim, its numbers, its control, its verdict.

    Parameters
    ----------
    slug: One of `optrode study list`.
    """
    from optrode.console import study_table
    from optrode.study.ledger import read_ledger
    from optrode.study.study import load as load_study

    chosen, ledger = load_study(slug), read_ledger()
    if slug not in ledger:
        step = f"optrode study run {slug} --enter"
        raise BadOption(f"results of {chosen.slug}", "the ledger has none", nearest=tuple(ledger)[:3], next_step=step)
    if as_json:
        return print_json(ledger[slug])
    return study_table(ledger[slug], None)
