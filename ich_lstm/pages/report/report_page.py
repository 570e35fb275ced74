"""The HTML page of an evaluation: data flow, figures with intervals, curves with bands, and the worst errors."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ich_lstm.labels import ANY, LABEL_NAMES, LABELS
from ich_lstm.pages.report.figures import (
    GROUPS,
    METRIC_NAMES,
    Cell,
    confusion_cells,
    figure_cell,
    figure_table,
    figures_of,
    reasons_of,
    stated_tables,
)
from ich_lstm.pages.report.panels import LEFT, SIDE, TOP, calibration_panels, precision_recall_panels, roc_panels
from ich_lstm.pages.report.sections import comparison_sections, forest_rows, reader_points, reader_section
from ich_lstm.pages.style import render

LEVEL_ORDER = ("scan", "patient", "slice")
"""Scans are first, because decisions are made on scans."""

LEVEL_NAMES = {"slice": "Slices", "scan": "Scans", "patient": "Patients"}
SUBSET_NAMES = {"judged": "Evaluated", "train": "Training", "validation": "Validation", "test": "Held out"}
UNITS = {"patients": "Patients", "scans": "Scans", "slices": "Slices"}

HEADLINES = ("auroc", "sensitivity", "specificity", "calibration_slope")
ERRORS_SHOWN = 3


class FlowBox(NamedTuple):
    """One box of the flow diagram, and the cases that do not reach the next box."""

    title: str
    counts: list[str]
    excluded: list[tuple[str, str]]


def report_page(summary: Mapping[str, Any], pictures: Mapping[str, str] | None = None, history: str = "") -> str:
    """Make the page of an evaluation as HTML text: self-contained, readable without JavaScript, printable.

    Args:
        summary: The contents of ``report.json``.
        pictures: Base64 of PNG files, by the hashed id of their scan.
        history: Base64 of the PNG file of the losses by epoch; empty if there is no such file.
    """
    views = sorted(summary["views"], key=lambda view: LEVEL_ORDER.index(view["level"]))
    subsets = list(dict.fromkeys(row["part"] for row in summary["cohort"]))
    return render(
        "report_page.html.j2",
        title=f"Evaluation: {summary['model'].get('name') or 'model'}",
        summary=summary,
        whose=_whose(summary),
        settings=_settings(summary),
        headlines=_headlines(views),
        training=_training(summary["training"]),
        history=history,
        flow=[_box(step) for step in summary["flow"]],
        subsets=[SUBSET_NAMES.get(subset, subset) for subset in subsets],
        units=UNITS,
        cohort=[(LABEL_NAMES.get(label, "All"), _cohort_cells(summary["cohort"], subsets, label)) for label in ("", *LABELS)],
        features=[_feature(row) for row in summary["characteristics"]],
        views=[_view(view, summary) for view in views],
        box=(LEFT, TOP, SIDE),
        errors=_errors(summary, pictures or {}),
        strata=forest_rows(summary["strata"] or []),
        comparisons=comparison_sections(summary["comparisons"] or []),
        readers=reader_section(summary["readers"]) if summary["readers"] else None,
        claim=summary["claim"],
        claim_counts={
            status: sum(item["status"] == status for item in summary["claim"]) for status in ("known", "in part", "open")
        },
    )


def _whose(summary: Mapping[str, Any]) -> str:
    if summary["kind"] == "run":
        return "Held-out patients" if summary["part"] == "test" else "Validation patients (used for model selection)"
    if summary["is_unseen"]:
        return "Patients on whom the model was neither trained nor selected"
    return "Patients (not checked whether the model was trained on them)"


def _settings(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    settings = summary["settings"]
    points = settings["thresholds"]
    facts = {
        "Model": summary["model"].get("name", ""),
        "Weights": summary["model"].get("hash", ""),
        "Truth": {"majority": "at least two of three readers"}.get(summary["truth"], summary["truth"]),
        "Protocol": summary["protocol"]["name"],
        "Called positive": "at each label's operating point" if isinstance(points, Mapping) else f"at or above {points:g}",
        "Intervals": f"95 % over patients, {settings['replicates']:,} resamples",
    }
    return [(name, value) for name, value in facts.items() if value]


def _training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the record of the training: facts, and a table with one column per fit."""
    fits = training["fits"]
    facts = {"Recipe": training["recipe"], "Duration": "" if training["seconds"] is None else duration(training["seconds"])}
    names = dict.fromkeys(name for fit in fits for name in fit["settings"])
    return {
        "facts": [(name, text) for name, text in facts.items() if text],
        "fits": [fit["name"] for fit in fits],
        "rows": [(name, [fit["settings"].get(name, "") for fit in fits]) for name in names],
    }


def duration(seconds: float) -> str:
    """Format a duration.

    Example:
        >>> duration(312.4), duration(8000)
        ('5 min 12 s', '2 h 13 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _headlines(views: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Collect the figures of "any" at the first level, and the weighted log loss of the slices."""
    own = [view for view in views if view["output"] == "sequence"]
    if not own:
        return []
    found = figures_of(own[0], ANY)
    shown = [(f"{METRIC_NAMES[metric]}, any", own[0]["level"], found[metric]) for metric in HEADLINES if metric in found]
    slices = [view for view in own if view["level"] == "slice"] or own[:1]
    together = figures_of(slices[0], "all")
    shown += [(METRIC_NAMES[name], slices[0]["level"], row) for name, row in together.items()]
    return [
        {
            "name": name.replace("Slope", "Calibration slope"),
            "cell": figure_cell(row),
            "n": _many(row["cases"], level) + ("" if level == "patient" else f", {_many(row['patients'], 'patient')}"),
            "is_held_out": "log loss" in name.lower() and level == "slice",
        }
        for name, level, row in shown
    ]


def _box(step: Mapping[str, Any]) -> FlowBox:
    return FlowBox(
        step["title"], _amounts(step["counts"]), [(reason, ", ".join(_amounts(counts))) for reason, counts in step["excluded"]]
    )


def _amounts(counts: Mapping[str, int]) -> list[str]:
    return [_many(counts[unit], unit[:-1]) for unit in ("files", *UNITS) if unit in counts]


def _many(count: int, unit: str) -> str:
    return f"{count:,}\u00a0{unit}{'' if count == 1 else 's'}"


def _cohort_cells(rows: Sequence[Mapping[str, Any]], subsets: Sequence[str], label: str) -> list[tuple[str, str]]:
    """Format count and share of the patients, scans and slices of each subset."""
    by_key = {(row["part"], row["label"]): row for row in rows}
    cells = []
    for subset in subsets:
        row, whole = by_key.get((subset, label)), by_key[subset, ""]
        for unit in UNITS:
            if row is None:
                cells.append(("–", ""))
            else:
                share = f"{100 * row[unit] / whole[unit]:.1f}\u00a0%" if label and whole[unit] else ""
                cells.append((f"{row[unit]:,}", share))
    return cells


def _feature(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Format name, value and number of scans of a characteristic."""
    name = f"{row['characteristic']}: {row['value']}" if row["value"] else row["characteristic"]
    name = name[0].upper() + name[1:]
    if row["count"] is not None:
        return name, f"{int(row['count']):,} ({100 * row['count'] / row['scans']:.1f}\u00a0%)", f"{row['scans']:,}"
    if row["median"] is None:
        return name, "unknown", "0"
    return name, f"{row['median']:.3g} ({row['low']:.3g} to {row['high']:.3g})", f"{row['scans']:,}"


def _view(view: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    level = view["level"]
    whose = " (encoder alone)" if view["output"] == "encoder" else ""
    readers = reader_points(summary["readers"]) if level == "scan" and not whose else {}
    tables = [table for title, metrics in GROUPS.items() if (table := figure_table(title, metrics, view))]
    tables += stated_tables(view)
    found = {label: figures_of(view, label) for label in LABELS}
    return {
        "id": f"{level}-{view['output']}",
        "level": level,
        "title": f"{LEVEL_NAMES[level]}{whose}",
        "how": ""
        if level == "slice"
        else f"Slices are aggregated to scans by: {view['aggregation']}."
        if level == "scan"
        else f"A patient's probability is the highest of the scans. Slices are aggregated to scans by: {view['aggregation']}.",
        "n": f"{_many(view['cases'], level)}",
        "over_all": [(METRIC_NAMES[name], figure_cell(row), row) for name, row in figures_of(view, "all").items()],
        "tables": tables,
        "panels": {
            "ROC": ("1 − specificity", "sensitivity", "roc", _captioned(roc_panels(view, readers), found, ("auroc",))),
            "Precision and recall": (
                "sensitivity (recall)",
                "precision (PPV)",
                "pr",
                _captioned(precision_recall_panels(view), found, ("average_precision",)),
            ),
            "Calibration": (
                "probability",
                "observed share",
                "calibration",
                _captioned(calibration_panels(view), found, ("calibration_slope", "calibration_intercept")),
            ),
        },
        "has_readers": bool(readers),
        "confusion": [confusion_cells(row) for row in view["confusion"]],
        "reasons": reasons_of(view),
    }


def _captioned(
    panels: Sequence[Any], found: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]
) -> list[tuple[Any, list[tuple[str, Cell]]]]:
    """Pair panels with the figures in their captions."""
    return [
        (
            panel,
            [
                (METRIC_NAMES[metric], figure_cell(found[panel.label][metric]))
                for metric in metrics
                if metric in found[panel.label]
            ],
        )
        for panel in panels
    ]


def _errors(summary: Mapping[str, Any], pictures: Mapping[str, str]) -> dict[str, Any] | None:
    """Collect the worst errors of the first level: for each label, a few missed cases and a few false alarms."""
    levels = {row["level"] for row in summary["worst_errors"]}
    level = next((name for name in LEVEL_ORDER if name in levels), None)
    if level is None:
        return None
    rows = [row for row in summary["worst_errors"] if row["level"] == level and row["rank"] <= ERRORS_SHOWN]
    groups = []
    for label in reversed(LABELS):  # any first
        of_label = [row for row in rows if row["label"] == label]
        kinds = [(kind, [row for row in of_label if row["error"] == kind]) for kind in ("missed", "false alarm")]
        if of_label:
            groups.append(
                (label, [(kind, [_error(row, pictures) for row in found], found[0] if found else None) for kind, found in kinds])
            )
    return {"level": level, "groups": groups}


def _error(row: Mapping[str, Any], pictures: Mapping[str, str]) -> dict[str, Any]:
    there = [LABEL_NAMES[label].lower() for label in row["labels"].split() if label not in (ANY, row["label"])]
    return {
        "case": row["case"],
        "slice": row["slice"],
        "probability": f"{row['probability']:.3f}",
        "loss": f"{row['log_loss']:.2f}",
        "there": ", ".join(there),
        "picture": pictures.get(row["case"], ""),
    }
