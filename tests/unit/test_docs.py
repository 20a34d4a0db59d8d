"""What the documentation claims: generated pages are fresh, the README's example is the one that is run."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["command-line.md", "models.md", "studies.md"])
def test_generated_pages_are_fresh(page):
    assert (ROOT / "docs" / page).read_text() == generator().PAGES[page](), "run `make docs`"


def test_the_readmes_table_of_studies_is_that_of_the_ledger():
    assert (ROOT / "README.md").read_text() == generator().readme(), "run `make docs`"


def test_the_readme_shows_the_example_that_is_run():
    shown, *others = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert all(compile(other, "README.md", "exec") for other in others)
    example = (ROOT / "examples" / "ten_lines.py").read_text()
    assert shown == example.split('"""\n', 2)[-1].lstrip()


def test_the_example_of_an_own_model_runs(capsys):
    exec((ROOT / "examples" / "own_model.py").read_text(), {"__name__": "__main__"})
    assert capsys.readouterr().out.startswith("(64, 32)")


def test_every_link_of_the_readme_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links and all((ROOT / link).exists() for link in links if "://" not in link)
