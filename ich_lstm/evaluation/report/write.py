"""Writes the report of an evaluation: plain values, tables, and the files of a folder."""

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ich_lstm.evaluation.aggregate import LevelCases
from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.evaluation.figures import VIEW, Figures
from ich_lstm.evaluation.report.claim.answers import answer_claim
from ich_lstm.evaluation.report.claim.checklist import fill_claim
from ich_lstm.evaluation.report.contents import ReportContents, Supplements, gather_contents
from ich_lstm.evaluation.report.model_card import model_card
from ich_lstm.evaluation.report.summary import CURVES, summarize_report
from ich_lstm.evaluation.report.tables import markdown_table
from ich_lstm.evaluation.run_facts import StudyFacts
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.csv_table import write_csv
from ich_lstm.labels import LABELS
from ich_lstm.pages.report.report_page import report_page
from ich_lstm.statistics import curve_bands
from ich_lstm.statistics.measures.bands import CurveBands

REPORT_PAGE, REPORT_JSON, MODEL_CARD, CLAIM, TABLES = "report.html", "report.json", "MODEL_CARD.md", "claim", "tables"

POINTS = "curves"
"""The name of the table with the points of curves, which is not written as Markdown."""


@dataclass(frozen=True, eq=False)
class Report:
    """The report on a model; nothing in it identifies a patient.

    Args:
        summary: The contents of ``report.json``, from which the page is made.
        tables: The tables by the names of their files; figures, comparisons, strata and readers have separate files.
        claim: The answers to the CLAIM checklist, made by `fill_claim`.
        card: The model card in Markdown.
        pictures: Shareable PNG files of slices, by the hashed id of their scan.
        history: A PNG file of the losses by epoch; empty if there is none.
    """

    summary: Mapping[str, Any] = field(repr=False)
    tables: Mapping[str, pd.DataFrame] = field(repr=False)
    claim: pd.DataFrame = field(repr=False)
    card: str = field(repr=False)
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    history: bytes = field(default=b"", repr=False)

    def to_html(self) -> str:
        """Make the page, which is self-contained, printable and readable without JavaScript."""
        pictures = {name: base64.b64encode(png).decode("ascii") for name, png in self.pictures.items()}
        return report_page(self.summary, pictures, base64.b64encode(self.history).decode("ascii"))


def build_report(
    evidence: Evidence,
    figures: Figures,
    facts: StudyFacts | None = None,
    supplements: Supplements | None = None,
    *,
    pictures: Mapping[str, bytes] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Gather the contents of the report, and compute the curves with their bands.

    Args:
        evidence: The evaluated predictions and labels.
        figures: The figures of this evidence.
        facts: Facts about the study, gathered by `read_study`.
        supplements: Results of comparisons, strata and readers, if there are any.
        pictures: Shareable PNG files of slices without faces, by the hashed id of their scan.
        progress: Called with the number of curves done since the last call, and the number of all curves.
    """
    facts = facts or StudyFacts()
    contents = gather_contents(evidence, figures, facts, supplements or Supplements())
    curves: list[dict[str, CurveBands]] = []
    for cases in contents.cases:
        curves.append({})
        for k, label in enumerate(LABELS):
            curves[-1][label] = _curves(cases, k, figures.settings)
            if progress is not None:
                progress(1, len(contents.cases) * len(LABELS))
    claim = fill_claim(answer_claim(contents))
    tables = {
        "flow": _long_flow(contents),
        "cohort": contents.positives,
        "characteristics": contents.features,
        "confusion": figures.confusion,
        "worst_errors": contents.errors,
        POINTS: _long_curves(contents.cases, curves),
    }
    summary = summarize_report(contents, curves, claim)
    return Report(summary, tables, claim, model_card(contents), dict(pictures or {}), facts.history)


def write_report(folder: Path | str, report: Report) -> Path:
    """Write ``report.html``, ``report.json``, ``MODEL_CARD.md``, ``claim.csv``, ``claim.md`` and ``tables/``; all may be shared.

    Args:
        folder: The folder to write into; created if missing.
        report: The report to write.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    write_text(folder / REPORT_JSON, json.dumps(report.summary, indent=1, allow_nan=False) + "\n")
    write_text(folder / MODEL_CARD, report.card)
    write_csv(folder / f"{CLAIM}.csv", report.claim)
    write_text(folder / f"{CLAIM}.md", f"# CLAIM 2024\n\n{_markdown(report.claim)}\n")
    for name, table in report.tables.items():
        write_csv(folder / TABLES / f"{name}.csv", table)
        if name != POINTS:
            write_text(folder / TABLES / f"{name}.md", _markdown(table) + "\n")
    page = folder / REPORT_PAGE
    write_text(page, report.to_html())
    return page


def _curves(cases: LevelCases, k: int, settings: Mapping[str, Any]) -> CurveBands:
    shared = {name: settings[name] for name in ("bins", "replicates", "seed")}
    return curve_bands(cases.labels[:, k], cases.probabilities[:, k], cases.patients, **shared)


def _long_curves(cases: Sequence[LevelCases], curves: Sequence[Mapping[str, CurveBands]]) -> pd.DataFrame:
    """Tabulate the curves, with a row per point."""
    columns = [*VIEW, "label", "curve", "x", "value", "low", "high", "cases"]
    frames = []
    for each, of_view in zip(cases, curves, strict=True):
        for label, bands in of_view.items():
            of_label = {name: getattr(bands, name) for name in CURVES}
            about = {**{column: getattr(each, column) for column in VIEW}, "label": label}
            frames += [frame.assign(**about, curve=name) for name, frame in of_label.items() if len(frame)]
    return pd.concat(frames, ignore_index=True).reindex(columns=columns) if frames else pd.DataFrame(columns=columns)


def _long_flow(contents: ReportContents) -> pd.DataFrame:
    """Tabulate the flow, with a row per box or reason, and unit."""
    rows = []
    for step in contents.flow:
        for reason, counts in [("", step.counts), *step.excluded]:
            rows += [{"step": step.title, "excluded": reason, "unit": unit, "count": count} for unit, count in counts.items()]
    return pd.DataFrame(rows)


def _markdown(table: pd.DataFrame) -> str:
    """Write a table with numbers to four digits, and empty cells for undefined ones."""
    return markdown_table(table.map(lambda cell: _cell(cell).replace("|", "\\|").replace("\n", " ")))


def _cell(cell: Any) -> str:
    if isinstance(cell, float):
        return "" if math.isnan(cell) else f"{cell:.4g}"
    return str(cell)
