"""Records show their figures in a notebook, without knowing of this package: `%load_ext optrode.reports`."""

from typing import Any

from optrode.reports.page import figure_html
from optrode.reports.parts import KINDS


def load_ipython_extension(shell: Any) -> None:
    """Teach an IPython shell to show each kind of record."""
    for kind in KINDS:
        shell.display_formatter.formatters["text/html"].for_type(kind, figure_html)
