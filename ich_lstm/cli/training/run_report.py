"""The results of a training run on its held-out patients: predictions, figures, and the report that ich-evaluate makes too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.split.assign import Subset
from ich_lstm.errors import TableError
from ich_lstm.evaluation.comparisons.compare import compare_encoder
from ich_lstm.evaluation.evaluate import predict_subset, summarize, write_labelled
from ich_lstm.evaluation.evidence import read_run
from ich_lstm.evaluation.figures import compute_figures, labels_name_scans
from ich_lstm.evaluation.protocols import all_figures
from ich_lstm.evaluation.report.contents import Supplements
from ich_lstm.evaluation.report.write import build_report, write_report
from ich_lstm.evaluation.run_facts import read_study
from ich_lstm.files.atomic_write import write_text
from ich_lstm.labels import LABELS
from ich_lstm.pages.plots.curves import plot_history, save_figure
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import ProjectKey
from ich_lstm.statistics import FigureSettings
from ich_lstm.training.classifier import ScanClassifier

logger = printable_logger(__name__)

REPLICATES = 200
"""Number of bootstrap resamples for the intervals in a run's own report, which should be quick; ich-evaluate draws 2,000."""


def _counts(data: ScanDataModule) -> dict[str, dict[str, int]]:
    return {
        subset: {
            "patients": len({scan.patient_id for scan in scans}),
            "scans": len(scans),
            "slices": sum(len(scan.slice_labels) for scan in scans),
        }
        for subset, scans in data.scans.items()
    }


def counts_in_words(data: ScanDataModule) -> str:
    """The numbers of patients, scans and slices in each subset."""
    return "; ".join(f"{subset} {_how_many(counts)}" for subset, counts in _counts(data).items())


def _how_many(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name if count != 1 else name[:-1]}" for name, count in counts.items())


def evaluate_run(
    folder: Path, classifier: ScanClassifier, data: ScanDataModule, progress: Callable[[str, int, int | None], None]
) -> dict[str, Any]:
    """Predict the validation and the held-out patients, write the predictions, and compute the main figures.

    Args:
        folder: The run's folder.
        classifier: The trained model.
        data: The data of the run, after `setup`.
        progress: Called with the activity, the number of scans done since the last call, and the total number of scans.

    Returns:
        The contents of ``results.json``, apart from the duration and the recipe.
    """
    key = ProjectKey.open(Path(data.project_key) if data.project_key else None)
    subsets: list[Subset] = [subset for subset in ("validation", "test") if data.scans[subset]]
    total = sum(len(data.scans[subset]) for subset in subsets)
    predictions = [
        predict_subset(
            classifier,
            data,
            subset,
            hash_patient=key.hash_id,
            progress=lambda done: progress("predicting held-out scans", done, total),
        )
        for subset in subsets
    ]
    write_labelled(folder / "predictions", predictions)
    if (folder / "metrics.csv").is_file():
        save_figure(plot_history(pd.read_csv(folder / "metrics.csv")), folder / "history.png")
    about = {"part": subsets[-1], "patients_are_studies": data.patient_ids == "study"}
    return {**about, **summarize(predictions[-1]), "counts": _counts(data)}


def write_run_report(recipe: str, folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json``, and the report of ``ich-evaluate RUN`` into the run's folder.

    Args:
        recipe: Name of the recipe.
        folder: The run's folder, with its predictions and its model.
        results: Result of `evaluate_run`, with the duration in ``seconds``.
    """
    write_text(folder / "results.json", json.dumps({"recipe": recipe, **results}, indent=2) + "\n")
    evidence = read_run(folder, results["part"])
    try:
        figures = compute_figures(evidence, all_figures(), settings=FigureSettings(replicates=REPLICATES))
    except TableError as error:  # without known labels there is nothing to report, but the model is complete
        logger.warning("no report was written: %s", error)
        return
    supplements = Supplements()
    if evidence.has_encoder and not labels_name_scans(evidence):
        supplements = Supplements(
            comparisons=compare_encoder(evidence, level="slice", settings=FigureSettings(replicates=REPLICATES))
        )
    write_report(folder, build_report(evidence, figures, read_study(folder), supplements))


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
    # Levels without a defined AUC are left out, unless no level has one. If only whole scans are labelled, slices have none.
    columns = {name: figures for name, figures in columns.items() if set(figures["auroc"].values()) != {None}} or columns
    table = Table(title=f"{whose}: {_how_many(counts)}")
    for name in ("", *columns):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("weighted log loss", *(_figure(figures["weighted_log_loss"], 4) for figures in columns.values()))
    for label in LABELS:
        table.add_row(f"AUC {label}", *(_figure(figures["auroc"][label], 3) for figures in columns.values()))
    out.print(table)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
