"""The report of a training run: figures and curves on held-out patients."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.split.assign import Part
from ich_lstm.evaluation.evaluate import ENCODER_PREFIX, LABEL_PREFIX, columns_of, predict_part, summarize, write_labelled
from ich_lstm.labels import ANY, LABELS
from ich_lstm.pages.plots.curves import plot_history, plot_precision_recall, plot_roc, save_figure
from ich_lstm.pages.report.train_report import tells, train_report_page
from ich_lstm.privacy import ProjectKey
from ich_lstm.training.classifier import ScanClassifier


def _counts(data: ScanDataModule) -> dict[str, dict[str, int]]:
    return {
        part: {
            "patients": len({scan.patient_id for scan in scans}),
            "scans": len(scans),
            "slices": sum(len(scan.slice_labels) for scan in scans),
        }
        for part, scans in data.scans.items()
    }


def counts_in_words(data: ScanDataModule) -> str:
    """How many patients, scans and slices are in each part."""
    return "; ".join(f"{part} {_how_many(counts)}" for part, counts in _counts(data).items())


def _how_many(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name if count != 1 else name[:-1]}" for name, count in counts.items())


def evaluate_run(
    folder: Path, classifier: ScanClassifier, data: ScanDataModule, tell: Callable[[str, int, int | None], None]
) -> dict[str, Any]:
    """Predict validation and held-out patients, write the predictions and curves, and compute the figures."""
    key = ProjectKey.open(Path(data.project_key) if data.project_key else None)
    parts: list[Part] = [part for part in ("validation", "test") if data.scans[part]]
    total = sum(len(data.scans[part]) for part in parts)
    predictions = [
        predict_part(
            classifier, data, part, hash_patient=key.hash_id, progress=lambda done: tell("predicting held-out scans", done, total)
        )
        for part in parts
    ]
    write_labelled(folder / "predictions", predictions)
    held_out = predictions[-1]
    # Curves are of the slices; where no slice is known to be positive, for the labels name scans, of these.
    curves_of = "slices" if (columns_of(held_out.slices, LABEL_PREFIX) == 1).any() else "scans"
    judged = held_out.scans if curves_of == "scans" else held_out.slices
    models = {"sequence": columns_of(judged, "")}
    if ENCODER_PREFIX + ANY in judged:
        models["encoder"] = columns_of(judged, ENCODER_PREFIX)
    labels = columns_of(judged, LABEL_PREFIX)
    save_figure(plot_roc(labels, models), folder / "roc.png")
    save_figure(plot_precision_recall(labels, models), folder / "precision_recall.png")
    if (folder / "metrics.csv").is_file():
        save_figure(plot_history(pd.read_csv(folder / "metrics.csv")), folder / "history.png")
    about = {"part": parts[-1], "curves_of": curves_of, "patients_are_studies": data.patient_ids == "study"}
    return {**about, **summarize(held_out), "counts": _counts(data)}


def write_run_report(recipe: str, folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` and ``report.html``."""
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    names = [name for name in ("history", "roc", "precision_recall") if (folder / f"{name}.png").is_file()]
    pictures = {name: (folder / f"{name}.png").read_bytes() for name in names}
    (folder / "report.html").write_text(train_report_page(results, pictures, recipe=recipe), encoding="utf-8")


def print_results(out: Console, results: dict[str, Any]) -> None:
    """Print the figures as a table."""
    counts = results["counts"][results["part"]]
    whose = "Held-out patients" if results["part"] == "test" else "Validation patients (too few to hold any out)"
    columns = {
        "slices, sequence": results["slices"]["sequence"],
        "slices, encoder alone": results["slices"].get("encoder"),
        "scans": results["scans"]["sequence"],
    }
    columns = {name: figures for name, figures in columns.items() if figures}
    # Of a level without a defined AUC the labels tell nothing, unless that is so of all of them.
    columns = {name: figures for name, figures in columns.items() if tells(figures)} or columns
    table = Table(title=f"{whose}: {_how_many(counts)}")
    for name in ("", *columns):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("weighted log loss", *(_figure(figures["weighted_log_loss"], 4) for figures in columns.values()))
    for label in LABELS:
        table.add_row(f"AUC {label}", *(_figure(figures["auroc"][label], 3) for figures in columns.values()))
    out.print(table)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
