"""The report of ich-evaluate: the page, the model card, the checklist and their tables."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ich_lstm.evaluation.evidence import Evidence
    from ich_lstm.evaluation.figures import Figures
    from ich_lstm.evaluation.report.contents import Beside

    Tell = Callable[[str, int, int | None], None]


def write_report_pages(
    given: argparse.Namespace, evidence: "Evidence", figures: "Figures", beside: "Beside", tell: "Tell"
) -> "Path":
    """Write the report into the folder of the figures.

    Args:
        given: Options of the command line.
        evidence: Predictions beside labels, which were judged.
        figures: Figures computed from the evidence.
        beside: Comparisons, strata and readers.
        tell: Is told what is being done.

    Returns:
        The page.
    """
    from ich_lstm.evaluation.report.write import build_report, write_report
    from ich_lstm.evaluation.run_facts import read_study

    run = given.source if evidence.source["kind"] == "run" else given.checkpoint or given.model
    data = {"run": given.review, "predictions": given.source, "checkpoint": given.root}[evidence.source["kind"]]
    tell("drawing curves", 0, None)
    report = build_report(
        evidence, figures, read_study(run, data), beside, progress=lambda done, total: tell("drawing curves", done, total)
    )
    return write_report(given.out, report)
