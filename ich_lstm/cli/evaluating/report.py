"""The report of ich-evaluate: the page, the model card, the checklist and their tables."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ich_lstm.evaluation.evidence import Evidence
    from ich_lstm.evaluation.figures import Figures
    from ich_lstm.evaluation.report.contents import Supplements

    Progress = Callable[[str, int, int | None], None]


def write_report_pages(
    given: argparse.Namespace, evidence: "Evidence", figures: "Figures", supplements: "Supplements", progress: "Progress"
) -> "Path":
    """Write the report into the folder of the figures.

    Args:
        given: Options of the command line.
        evidence: Predictions with the labels to evaluate them.
        figures: Figures computed from the evidence.
        supplements: Results of comparisons, strata and readers.
        progress: Called with the activity, the number of items done since the last call, and the total; None if unknown.

    Returns:
        Path of the page.
    """
    from ich_lstm.evaluation.report.write import build_report, write_report
    from ich_lstm.evaluation.run_facts import read_study

    run = given.source if evidence.source["kind"] == "run" else given.checkpoint or given.model
    data = {"run": given.review, "predictions": given.source, "checkpoint": given.root}[evidence.source["kind"]]
    progress("drawing curves", 0, None)
    report = build_report(
        evidence,
        figures,
        read_study(run, data),
        supplements,
        progress=lambda done, total: progress("drawing curves", done, total),
    )
    return write_report(given.out, report)
