"""Optional sections of a report's page: strata, comparisons and readers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ich_lstm.labels import ANY, LABEL_NAMES, LABELS
from ich_lstm.pages.report.figures import METRIC_NAMES, Cell, figure_cell, number

FOREST_METRICS = ("auroc", "sensitivity", "specificity")
COMPARED = ("weighted_log_loss", "auroc", "log_loss", "average_precision", "sensitivity", "specificity")
COMPARED_FOR_ALL = ("weighted_log_loss", "auroc")
"""Figures that are compared for every label; all others are compared only for "any"."""

INTERVAL_ELSEWHERE = "a test of the difference; the interval is in the row of the bootstrap"
"""The note of a row of ``comparisons.csv`` whose method is a test that gives no interval."""

READER_METRICS = ("sensitivity", "specificity", "ppv", "npv")

GROUPING_NAMES = {
    "slices": "Slices per scan",
    "slice_mm": "Distance of slices (mm)",
    "thickness_mm": "Slice thickness (mm)",
    "pixel_mm": "Pixel size (mm)",
    "tilt_degrees": "Gantry tilt (degrees)",
}

GIVEN_TRUTH = "labels"
"""The name of the labels by which the model is evaluated in all other sections of the page."""

MODEL = "model"


class Whisker(NamedTuple):
    """One figure of a forest plot: positions in percent of the axis, None if undefined, and the figure as text."""

    at: float | None
    low: float | None
    high: float | None
    cell: Cell


def forest_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Make the rows of the forest plot, with the figures of "any" in every stratum; None without strata.

    Args:
        rows: The list ``strata`` in ``report.json``.
    """
    of_any = [row for row in rows if row["label"] == ANY and row["metric"] in FOREST_METRICS]
    if not of_any:
        return None
    level = "scan" if any(row["level"] == "scan" for row in of_any) else of_any[0]["level"]
    of_any = [row for row in of_any if row["level"] == level]
    start = _start([row["low"] for row in of_any] + [row["value"] for row in of_any])
    by_key = {(row["grouping"], row["stratum"], row["metric"]): row for row in of_any}
    groups: dict[str, list[dict[str, Any]]] = {}
    for grouping, stratum in dict.fromkeys((row["grouping"], row["stratum"]) for row in of_any):
        row = by_key[grouping, stratum, FOREST_METRICS[0]]
        whiskers = [_whisker(by_key[grouping, stratum, metric], start) for metric in FOREST_METRICS]
        groups.setdefault(_grouping(str(grouping)), []).append(
            {
                "stratum": stratum,
                "scans": f"{row['scans']:,}",
                "patients": f"{row['positive_patients']:,} / {row['negative_patients']:,}",
                "small": row["small"],
                "whiskers": whiskers,
            }
        )
    metrics = [METRIC_NAMES[metric] for metric in FOREST_METRICS]
    return {"groups": groups, "metrics": metrics, "start": start, "level": of_any[0]["level"], "how": of_any[0]["aggregation"]}


def comparison_sections(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Make a table for each comparison, with the figures over all labels and the leading figures of each label.

    Args:
        rows: The list ``comparisons`` in ``report.json``.
    """
    names = ("model", "other", "level", "aggregation")
    tables: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        tables.setdefault(tuple(row[name] for name in names), []).append(row)
    sections = []
    for about, of_pair in tables.items():
        shown = [
            row
            for row in of_pair
            if row["metric"] in COMPARED
            and row["prevalence"] is None
            and (row["label"] == ANY or row["metric"] in COMPARED_FOR_ALL)
        ]
        # If a figure has a specific test, its row follows that of the bootstrap, and is shown in its place.
        chosen = {(row["label"], row["metric"]): row for row in shown if row["p_value"] is not None}
        first = {(row["label"], row["metric"]): row for row in reversed(shown)}
        keys = sorted(first, key=lambda key: (COMPARED.index(key[1]), [*LABELS[::-1], "all"].index(key[0])))
        of_labels = [_difference(chosen.get(key, first[key]), first[key]) for key in keys]
        sections.append({**dict(zip(names, about, strict=True)), "rows": of_labels})
    return sections


def reader_section(readers: Mapping[str, Any]) -> dict[str, Any]:
    """Make the tables of readers and model against the given labels, and of the agreement of the readers.

    Args:
        readers: The mapping ``readers`` in ``report.json``.
    """
    rows = [row for row in readers["table"] if row["truth"] == GIVEN_TRUTH and row["metric"] in READER_METRICS]
    by_key = {(row["label"], row["rater"], row["metric"]): row for row in rows}
    p_values = {
        (row["label"], row["reader"], row["metric"]): row["p_value"]
        for row in readers["differences"]
        if row["truth"] == GIVEN_TRUTH
    }
    raters = list(dict.fromkeys(row["rater"] for row in rows))
    groups = []
    for label in reversed(LABELS):
        body = []
        for rater in raters:
            cells = [figure_cell(by_key[label, rater, metric]) for metric in READER_METRICS]
            against = [_p(p_values.get((label, rater, metric))) for metric in ("sensitivity", "specificity")]
            row = by_key[label, rater, READER_METRICS[0]]
            body.append((rater, f"{row['positives']:,} of {row['cases']:,}", cells, against if rater != MODEL else ["", ""]))
        groups.append((label, body))
    kappas = [
        (LABEL_NAMES[row["label"]], _kappa(row), f"{row['cases']:,}", row["note"])
        for row in readers["kappas"]
        if row["kappa"] == "Fleiss"
    ]
    truths = sum(1 for truth in dict.fromkeys(row["truth"] for row in readers["table"]) if truth != GIVEN_TRUTH)
    names = [METRIC_NAMES[metric] for metric in READER_METRICS]
    return {"groups": groups, "metrics": names, "kappas": kappas, "truths": truths, "notes": readers["notes"]}


def reader_points(readers: Mapping[str, Any] | None) -> dict[str, list[tuple[str, float, float]]]:
    """Collect each reader's sensitivity and specificity by label, against the labels by which the model is evaluated."""
    if readers is None:
        return {}
    values: dict[tuple[str, str], dict[str, float | None]] = {}
    for row in readers["table"]:
        if row["truth"] == GIVEN_TRUTH and row["rater"] != MODEL:
            values.setdefault((row["label"], row["rater"]), {})[row["metric"]] = row["value"]
    points: dict[str, list[tuple[str, float, float]]] = {}
    for (label, rater), found in values.items():
        sensitivity, specificity = found.get("sensitivity"), found.get("specificity")
        if sensitivity is not None and specificity is not None:
            points.setdefault(label, []).append((rater, sensitivity, specificity))
    return points


def _grouping(name: str) -> str:
    words = GROUPING_NAMES.get(name, name.replace("_", " "))
    return words[0].upper() + words[1:]


def _start(values: Sequence[float | None]) -> float:
    """Choose the start of the axis: a round number below all values, at most 0.5."""
    lowest = min((value for value in values if value is not None), default=0.5)
    return min(0.5, int(10 * lowest) / 10)


def _whisker(row: Mapping[str, Any], start: float) -> Whisker:
    places = [
        None if row[name] is None else round(100 * (row[name] - start) / (1 - start), 2) for name in ("value", "low", "high")
    ]
    return Whisker(places[0], places[1], places[2], figure_cell(row))


def _difference(row: Mapping[str, Any], bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Format the row of a test; if the test gives no interval, that of the bootstrap is shown."""
    digits = 4 if row["metric"].endswith("log_loss") else 3
    values = {name: "undefined" if row[name] is None else number(row[name], digits) for name in ("first", "second", "difference")}
    by = row if row["low"] is not None else bootstrap
    interval = "no interval" if by["low"] is None else f"{number(by['low'], digits)} to {number(by['high'], digits)}"
    method = row["method"] if by["method"] == row["method"] or by["low"] is None else f"{row['method']}; interval: {by['method']}"
    return {
        "label": LABEL_NAMES.get(row["label"], "All labels"),
        "metric": METRIC_NAMES[row["metric"]],
        **values,
        "interval": interval if row["difference"] is not None else "",
        "p": _p(row["p_value"]),
        "method": method,
        "n": f"{row['positives']:,} of {row['cases']:,}",
        # This row shows the interval, so the note would be wrong.
        "note": "" if row["note"] == INTERVAL_ELSEWHERE else row["note"],
    }


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<\u20090.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _kappa(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "undefined"
    return number(row["value"], 3) + ("" if row["low"] is None else f" ({number(row['low'], 3)} to {number(row['high'], 3)})")
