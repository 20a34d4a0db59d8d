"""The report: one self-contained page from the records of an investigation."""

from optrode.report.notebook import load_ipython_extension
from optrode.report.page import Page, figure_html, report, show

__all__ = ["Page", "figure_html", "load_ipython_extension", "report", "show"]
