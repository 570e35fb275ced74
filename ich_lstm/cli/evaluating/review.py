"""``ich-evaluate --review``: pages on which a person reviews the cases where model and labels disagree."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ich_lstm.cli.console import OptionParser

if TYPE_CHECKING:
    from collections.abc import Callable

    from ich_lstm.evaluation.evidence import Evidence
    from ich_lstm.evaluation.figures import Figures

    Progress = Callable[[str, int, int | None], None]


def add_review_options(parser: OptionParser) -> None:
    """Add the options of the review."""
    parser.add_argument("--review", type=Path)
    parser.add_argument("--most", type=int, default=argparse.SUPPRESS)


def check_review_options(parser: OptionParser, given: argparse.Namespace) -> None:
    """Check the options of the review, before anything is computed.

    Raises:
        ConfigError: If ``--most`` is given without ``--review``, or is below 1.
        SourceError: If the folder was not made by ich-prepare.
    """
    if "most" in given and given.review is None:
        parser.error("--most needs --review, which is missing")
    if "most" in given and given.most < 1:
        parser.error("--most must be at least 1")
    if given.review is not None:
        from ich_lstm.data.prepared.folder import PreparedFolder

        if not PreparedFolder.is_one(given.review):
            PreparedFolder.open(given.review)


def write_review_pages(given: argparse.Namespace, evidence: "Evidence", figures: "Figures", progress: "Progress") -> str:
    """Write the review pages for slices and scans; there is no review at the level of patients.

    Args:
        given: Options of the command line.
        evidence: Predictions with the labels to evaluate them.
        figures: Figures of the evidence; the review uses the same levels and aggregation.
        progress: Called with the activity, the number of items done since the last call, and the total; None if unknown.

    Returns:
        A line with the paths of the pages; empty without ``--review``.
    """
    if given.review is None:
        return ""
    import pandas as pd

    from ich_lstm.data.prepared.folder import PreparedFolder
    from ich_lstm.evaluation.label_review import find_disagreements, write_review

    most = {"most": given.most} if "most" in given else {}
    how = {view.level: view.aggregation for view in figures.protocol.views if view.level != "patient"}
    progress("making pages of the label audit", 0, None)
    found = [find_disagreements(evidence, level, aggregation=name, **most) for level, name in how.items()]
    if not found:
        return "Label audit: none, because only patients were evaluated; give --level slice scan"
    aggregation = {"aggregation": how["scan"]} if "scan" in how else {}
    table = pd.concat(found, ignore_index=True)
    files = write_review(given.out, evidence, table, PreparedFolder.open(given.review), **aggregation)
    counts = ", ".join(f"{rows['rank'].nunique():,} {level}s" for level, rows in table.groupby("level", sort=False))
    return f"Label audit: {counts or 'nothing to review'}. For review: {files.private}; shareable: {files.shareable}"
