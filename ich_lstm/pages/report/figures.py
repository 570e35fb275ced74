"""Figures of a report as table cells: value, interval, number of cases, and the reason if a figure is undefined."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ich_lstm.labels import LABEL_NAMES, LABELS

METRIC_NAMES = {
    "weighted_log_loss": "Weighted log loss",
    "log_loss": "Log loss",
    "auroc": "AUC",
    "average_precision": "Average precision",
    "calibration_slope": "Slope",
    "calibration_intercept": "Intercept",
    "calibration_in_the_large": "In the large",
    "brier": "Brier score",
    "ece": "ECE",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
}
GROUPS = {
    "Discrimination and operating point": (
        "auroc",
        "average_precision",
        "sensitivity",
        "specificity",
        "ppv",
        "npv",
        "accuracy",
        "f1",
    ),
    "Calibration and losses": (
        "calibration_slope",
        "calibration_intercept",
        "calibration_in_the_large",
        "brier",
        "log_loss",
        "ece",
    ),
}
"""The expected calibration error is last, because it depends on its bins."""


class Cell(NamedTuple):
    """One figure as text.

    Args:
        value: The number, or "undefined".
        interval: The 95 % interval, or "no interval".
        fraction: Numerator and denominator of a proportion, in cases; empty for other figures.
        note: The reason why the figure is undefined or has no interval, or a caution.
        metric: The key of the figure in `METRIC_NAMES`.
    """

    value: str
    interval: str
    fraction: str
    note: str
    metric: str


class FigureTable(NamedTuple):
    """A table of figures of one kind at one level, with one row per label."""

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, list[Cell]]]


def number(value: float, digits: int) -> str:
    """Format a number with a true minus sign; a number that rounds to 0 has no sign.

    Example:
        >>> number(-0.0642, 3), number(-0.0001, 3)
        ('\u22120.064', '0.000')
    """
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\u2212")


def figures_of(view: Mapping[str, Any], label: str) -> dict[str, Mapping[str, Any]]:
    """Collect the rows of a label by metric, without those at a stated prevalence."""
    return {row["metric"]: row for row in view["figures"] if row["label"] == label and row["prevalence"] is None}


def figure_table(title: str, metrics: Sequence[str], view: Mapping[str, Any]) -> FigureTable | None:
    """Make a table of some metrics; None if none of them was computed."""
    by_label = {label: figures_of(view, label) for label in LABELS}
    shown = [metric for metric in metrics if any(metric in rows for rows in by_label.values())]
    if not shown:
        return None
    counts = {row["label"]: row for row in view["confusion"]}
    rows = []
    for label, found in by_label.items():
        cells = [
            figure_cell(found[metric], _fraction(metric, counts[label])) if metric in found else Cell("", "", "", "", metric)
            for metric in shown
        ]
        rows.append((label, _n(found[shown[0]]), cells))
    return FigureTable(title, [(metric, METRIC_NAMES[metric]) for metric in shown], rows)


def stated_tables(view: Mapping[str, Any]) -> list[FigureTable]:
    """Make the table of predictive values at stated prevalences; the list is empty without any."""
    rows = [row for row in view["figures"] if row["prevalence"] is not None]
    keys = list(dict.fromkeys((row["metric"], row["prevalence"]) for row in rows))
    if not keys:
        return []
    by_key = {(row["label"], row["metric"], row["prevalence"]): row for row in rows}
    columns = [(metric, f"{METRIC_NAMES[metric]} at {100 * share:.3g} %") for metric, share in keys]
    body = [(label, _n(by_key[label, *keys[0]]), [figure_cell(by_key[label, *key]) for key in keys]) for label in LABELS]
    return [FigureTable("Predictive values at stated prevalences", columns, body)]


def figure_cell(row: Mapping[str, Any], fraction: str = "") -> Cell:
    """Format one row of the figures as a cell."""
    digits = 4 if row["metric"].endswith("log_loss") else 3
    value, low, high = (row[name] for name in ("value", "low", "high"))
    if value is None:
        return Cell("undefined", "", "", row["note"], row["metric"])
    interval = "no interval" if low is None else f"{number(low, digits)} to {number(high, digits)}"
    return Cell(number(value, digits), interval, fraction, row["note"], row["metric"])


def _fraction(metric: str, counts: Mapping[str, int]) -> str:
    """Write numerator and denominator of a proportion, in cases; empty for other figures."""
    tp, fp, fn, tn = (counts[name] for name in ("true_positive", "false_positive", "false_negative", "true_negative"))
    fractions = {
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
        "accuracy": (tp + tn, tp + fp + fn + tn),
    }
    if metric not in fractions or not fractions[metric][1]:
        return ""
    part, whole = fractions[metric]
    return f"{part:,}/{whole:,}"


def _n(row: Mapping[str, Any]) -> str:
    return f"{row['positives']:,} of {row['cases']:,}"


def confusion_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Format the counts of a confusion matrix, each with its share of the cases with the same label."""
    present, absent = row["true_positive"] + row["false_negative"], row["false_positive"] + row["true_negative"]
    cells = [
        ("called", "true_positive", present, True),
        ("not called", "false_negative", present, False),
        ("called", "false_positive", absent, False),
        ("not called", "true_negative", absent, True),
    ]
    return {
        "label": row["label"],
        "threshold": f"{row['threshold']:.3g}",
        "cells": [(name, f"{row[name]:,}", row[name] / whole if whole else None, right) for _, name, whole, right in cells],
        "present": f"{present:,}",
        "absent": f"{absent:,}",
    }


def reasons_of(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Collect the reasons why figures of a view are undefined or have no interval, each with its label and figures."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in view["figures"]:
        if row["value"] is None or row["low"] is None:
            reasons.setdefault((row["label"], row["note"]), []).append(METRIC_NAMES[row["metric"]])
    return [
        (f"{LABEL_NAMES.get(label, 'All labels')}: {', '.join(dict.fromkeys(names))}", note)
        for (label, note), names in reasons.items()
    ]
