"""Comparisons, strata and readers as files and as readable tables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.evaluation.comparisons.detection import DETECTION
from ich_lstm.evaluation.comparisons.readers import ReaderFigures
from ich_lstm.evaluation.comparisons.strata import strata_notes
from ich_lstm.evaluation.report.tables import ReadableTable, markdown_table
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.csv_table import write_csv
from ich_lstm.labels import ANY, LABELS
from ich_lstm.statistics import Estimate

COMPARED = ("weighted_log_loss", "log_loss", "auroc", "average_precision", "sensitivity", "specificity")
"""The figures of a comparison that are shown; the CSV contains all of them."""

DIGITS = 3
SMALLEST_P = 0.001


def write_comparisons(folder: Path, table: pd.DataFrame) -> list[ReadableTable]:
    """Write ``comparisons.csv`` and ``.md``, and return the readable tables.

    Args:
        folder: The folder to write into; created if missing.
        table: One or several tables made by `compare_cases`, concatenated.
    """
    readable = readable_comparisons(table)
    return _write(folder, "comparisons", {"comparisons": table}, readable, _notes_of(table, ["model", "other", "level"]))


def write_strata(folder: Path, table: pd.DataFrame) -> list[ReadableTable]:
    """Write ``strata.csv`` and ``.md``, and return the readable tables.

    Args:
        folder: The folder to write into; created if missing.
        table: The table made by `evaluate_strata`.
    """
    return _write(folder, "strata", {"strata": table}, readable_strata(table), strata_notes(table))


def write_readers(folder: Path, figures: ReaderFigures) -> list[ReadableTable]:
    """Write ``readers.csv``, ``readers_differences.csv``, ``kappas.csv`` and ``readers.md``, and return the readable tables.

    Args:
        folder: The folder to write into; created if missing.
        figures: The figures made by `evaluate_readers`.
    """
    tables = {"readers": figures.table, "readers_differences": figures.differences, "kappas": figures.kappas}
    notes = [f"The model's scans: {figures.aggregation}.", *figures.notes, *_notes_of(figures.table, ["truth", "rater"])]
    return _write(folder, "readers", tables, readable_readers(figures), notes)


def readable_comparisons(table: pd.DataFrame) -> list[ReadableTable]:
    """Make a table for each pair of models and each level, with a row per label and figure and the p value of every test."""
    shown = table[table["metric"].isin(COMPARED) & table["prevalence"].isna()]
    tables = []
    for (model, other, level, aggregation), rows in shown.groupby(["model", "other", "level", "aggregation"], sort=False):
        lines = []
        for (label, metric), tests in rows.groupby(["label", "metric"], sort=False):
            first = tests.iloc[0]
            others = tests.iloc[1:].dropna(subset="p_value")
            line = {
                "figure of": label,
                "figure": str(metric).replace("_", " "),
                "first": _number(first["first"]),
                "second": _number(first["second"]),
                "difference": _estimate(first["difference"], first["low"], first["high"], signed=True),
                "p": _p_value(first["p_value"]),
                "p of the test": ", ".join(f"{_p_value(test['p_value'])} ({test['method']})" for _, test in others.iterrows()),
            }
            lines.append(line)
        how = "" if level == "slice" else f", {aggregation}"
        size = f"{rows['cases'].max():,} cases of {rows['patients'].max():,} patients"
        title = f"Level {level}{how}: first {model}, second {other}; {size}"
        tables.append(ReadableTable(title, pd.DataFrame(lines).set_index("figure of"), ""))
    return tables


def readable_strata(table: pd.DataFrame) -> list[ReadableTable]:
    """Make a table for each level with all strata, for any hemorrhage; the CSV contains every type."""
    tables = []
    for (level, aggregation), rows in table[table["label"] == ANY].groupby(["level", "aggregation"], sort=False):
        lines = []
        for (grouping, stratum), own in rows.groupby(["grouping", "stratum"], sort=False):
            first = own.iloc[0]
            about = {
                "grouping": grouping,
                "stratum": stratum,
                "scans": first["scans"],
                "patients +": first["positive_patients"],
                "patients -": first["negative_patients"],
            }
            lines.append({**about, **_cells(own), "note": "small" if first["small"] else ""})
        how = "" if level == "slice" else f", {aggregation}"
        title = f"Level {level}{how}: any hemorrhage, by stratum"
        tables.append(ReadableTable(title, pd.DataFrame(lines).set_index("grouping"), ""))
    return tables


def readable_readers(figures: ReaderFigures) -> list[ReadableTable]:
    """Make a table for each truth with a row per label and rater, and one table of the kappas."""
    tables = []
    for truth, rows in figures.table.groupby("truth", sort=False):
        lines = [
            {"label": label, "rater": rater, "cases": own["cases"].iloc[0], "positive": own["positives"].iloc[0], **_cells(own)}
            for (label, rater), own in rows.groupby(["label", "rater"], sort=False)
        ]
        title = "Compared with the labels" if truth == figures.table["truth"].iloc[0] else f"Where {truth}"
        frame = pd.DataFrame(lines).fillna("").sort_values("label", key=lambda labels: labels.map(LABELS.index), kind="stable")
        tables.append(ReadableTable(title, frame.set_index("label"), ""))
    kappas = figures.kappas.assign(
        name=figures.kappas["kappa"] + ": " + figures.kappas["raters"],
        cell=[_estimate(*numbers) for numbers in figures.kappas[["value", "low", "high"]].to_numpy().tolist()],
    )
    cells = kappas.pivot(index="name", columns="label", values="cell").loc[kappas["name"].unique(), list(LABELS)]
    return [*tables, ReadableTable("Agreement beyond chance (kappa)", cells.rename_axis(index="raters", columns=None), "")]


def _write(
    folder: Path, name: str, tables: dict[str, pd.DataFrame], readable: list[ReadableTable], notes: Sequence[str]
) -> list[ReadableTable]:
    folder.mkdir(parents=True, exist_ok=True)
    for file, table in tables.items():
        write_csv(folder / f"{file}.csv", table)
    parts = [f"# {name.capitalize()}", "Intervals (95 %) in brackets are over patients."]
    for title, cells, _ in readable:
        parts += [f"## {title}", markdown_table(cells.reset_index())]
    if notes:
        parts += ["## Remarks", "\n".join(f"- {line}" for line in notes)]
    write_text(folder / f"{name}.md", "\n\n".join(parts) + "\n")
    return readable


def _cells(rows: pd.DataFrame) -> dict[str, str]:
    """Format the figures of one label, in the order of `DETECTION`."""
    by_metric = rows.set_index("metric")
    there = [metric for metric in DETECTION if metric in by_metric.index]
    return {metric: _estimate(*by_metric.loc[metric, ["value", "low", "high"]]) for metric in there}


def _notes_of(table: pd.DataFrame, keys: list[str]) -> list[str]:
    """Write a line for each note, with the figures that it concerns."""
    noted = table[table["note"] != ""]
    return [
        f"{', '.join(map(str, names[:-2]))}, {names[-2]}: {', '.join(dict.fromkeys(metrics)).replace('_', ' ')}: {names[-1]}"
        for names, metrics in noted.groupby([*keys, "label", "note"], sort=False)["metric"]
    ]


def _estimate(value: float, low: float, high: float, *, signed: bool = False) -> str:
    if np.isnan(value):
        return "undefined"
    if signed:
        shown = f"{value:+.{DIGITS}f}"
        return shown if np.isnan(low) else f"{shown} ({low:+.{DIGITS}f} to {high:+.{DIGITS}f})"
    return str(Estimate(value) if np.isnan(low) else Estimate(value, low, high))


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.{DIGITS}f}"


def _p_value(p: float) -> str:
    return "" if np.isnan(p) else f"< {SMALLEST_P}" if p < SMALLEST_P else f"{p:.{DIGITS}f}"
