"""The report: one self-contained page from the records of an investigation."""

from optrode.reports.notebook import load_ipython_extension
from optrode.reports.page import Page, figure_html, report, show

__all__ = ["Page", "figure_html", "load_ipython_extension", "report", "show"]
