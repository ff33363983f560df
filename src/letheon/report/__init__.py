"""Reports: what a person reads. A pure function of findings, as one HTML page or as a table for the terminal.

    report(findings).save("report.html")

Importing this package imports neither torch nor jinja2.
"""

from __future__ import annotations

from .page import Report, render, report
from .verdict import Clause, Verdict, verdict

__all__ = ["Clause", "Report", "Verdict", "render", "report", "verdict"]
