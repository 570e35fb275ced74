"""The files of an adaptation: a model's folder, one page, the report with its model card, tables, and the record for checks."""

import json
import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ich_lstm.adaptation.adapt import Adaptation
from ich_lstm.adaptation.comparing.candidates import AS_IS
from ich_lstm.adaptation.comparing.label_noise import LabelNoise, tabulate_noise
from ich_lstm.data.tables.labelled import UNSURE
from ich_lstm.errors import CheckpointError
from ich_lstm.evaluation.aggregate import LevelCases, cases_at
from ich_lstm.evaluation.comparisons.compare import compare_models
from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.evaluation.figures import compute_figures, labels_name_scans
from ich_lstm.evaluation.protocols import all_figures
from ich_lstm.evaluation.report.contents import Supplements
from ich_lstm.evaluation.report.write import build_report, write_report
from ich_lstm.evaluation.run_facts import StudyFacts
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.csv_table import write_csv
from ich_lstm.files.untrusted import read_json
from ich_lstm.inference.calibration import CALIBRATED_LEVELS, CalibratedLevel
from ich_lstm.labels import ANY, LABELS
from ich_lstm.pages.adaptation_page import adaptation_page
from ich_lstm.privacy import private_folder
from ich_lstm.statistics import FigureSettings, calibration_line, reliability

RECORD, PAGE, DOUBTFUL = "adaptation.json", "adaptation.html", "doubtful.csv"
MODEL, TABLES = "model", "tables"

FORMAT = 1

MOST_DOUBTFUL = 100
"""The list of doubtful labels has at most so many rows, the most doubtful first."""


def write_adaptation(folder: Path, adaptation: Adaptation) -> Path:
    """Write an adaptation; apart from ``private/`` all files may be shared.

    Args:
        folder: The folder to write into: ``model/``, ``adaptation.html`` and ``adaptation.json``, ``report.html`` and
            ``MODEL_CARD.md`` of the cross-validated predictions, ``tables/``, and ``private/doubtful.csv``.
        adaptation: The adaptation.

    Returns:
        Path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adaptation.classifier.save_pretrained(folder / MODEL)
    comparison = compare_before_and_after(adaptation)
    report_of(folder, adaptation, comparison)
    tables = {
        "candidates": adaptation.candidates,
        "before_and_after": comparison,
        "label_noise": tabulate_noise(adaptation.noise),
        "drift": pd.DataFrame(adaptation.drift, columns=["figure", "before", "now", "distance", "limit", "moved"]),
    }
    for name, table in tables.items():
        write_csv(folder / TABLES / f"{name}.csv", table)
    write_doubtful(folder, adaptation.noise, adaptation.series_uids)
    summary = summarize(adaptation, comparison)
    write_text(
        folder / RECORD, json.dumps(summary, indent=1, allow_nan=False) + "\n"
    )  # last: its presence says that all is there
    page = folder / PAGE
    write_text(page, adaptation_page(summary))
    return page


def compare_before_and_after(adaptation: Adaptation) -> pd.DataFrame:
    """The chosen candidate against the model as it is, paired by patient; see `compare_cases`.

    Args:
        adaptation: The adaptation.
    """
    levels = [level for level in CALIBRATED_LEVELS if level == "scan" or not labels_name_scans(adaptation.before)]
    settings = FigureSettings(replicates=adaptation.settings.replicates, seed=adaptation.settings.seed)
    tables = [
        compare_models(adaptation.after, adaptation.before, level=level, names=("adapted", AS_IS), settings=settings)
        for level in levels
    ]
    return pd.concat(tables, ignore_index=True)


def report_of(folder: Path, adaptation: Adaptation, comparison: pd.DataFrame) -> Path:
    """Write the report and the model card of the cross-validated predictions, as ich-evaluate does.

    Args:
        folder: The folder to write into.
        adaptation: The adaptation.
        comparison: The table of `compare_before_and_after`.
    """
    settings = FigureSettings(replicates=adaptation.settings.replicates, seed=adaptation.settings.seed)
    figures = compute_figures(adaptation.after, all_figures(), settings=settings)
    model = read_json(folder / MODEL / "model.json")
    facts = StudyFacts(model=model, recipe="ich-adapt", is_synthetic=bool(model.get("is_synthetic")))
    return write_report(folder, build_report(adaptation.after, figures, facts, Supplements(comparisons=comparison)))


def write_doubtful(folder: Path, noise: list[LabelNoise], series_uids: Sequence[str]) -> Path:
    """Write the scans with labels that are probably wrong, the most doubtful first, as a table of corrections to be filled in.

    A row names a series; its label cells are empty. A radiologist writes 0 or 1 into those that are known to be wrong, and the
    table is given back with ``--data.corrections``. The comment says what is doubtful.

    Args:
        folder: The folder of the adaptation.
        noise: The estimated noise of each label.
        series_uids: Raw series UID of each scan, in the order of the estimates.
    """
    found: dict[int, list[tuple[float, str]]] = {}
    for each in noise:
        for place in each.doubtful.nonzero()[0].tolist():
            margin = float(each.margin[place])
            given = int(each.labels[place])
            found.setdefault(place, []).append((margin, f"{each.label} {given}, model {each.probabilities[place]:.2f}"))
    order = sorted(found, key=lambda place: (-max(found[place])[0], series_uids[place]))[:MOST_DOUBTFUL]
    rows = [{"series_uid": series_uids[place], "comment": "; ".join(text for _, text in found[place])} for place in order]
    columns = ["series_uid", *LABELS, UNSURE, "comment"]
    path = private_folder(folder) / DOUBTFUL
    write_csv(path, pd.DataFrame(rows).reindex(columns=columns, fill_value="") if rows else pd.DataFrame(columns=columns))
    return path


def summarize(adaptation: Adaptation, comparison: pd.DataFrame) -> dict[str, Any]:
    """The adaptation in plain values for JSON, without any identity.

    Args:
        adaptation: The adaptation.
        comparison: The table of `compare_before_and_after`.
    """
    verdict = adaptation.verdict
    source = adaptation.before.source["model"]
    calibration = adaptation.calibration
    of_any = comparison[(comparison["label"].isin([ANY, "all"])) & comparison["metric"].isin(["weighted_log_loss", "auroc"])]
    first = of_any.drop_duplicates(["level", "metric"])
    return {
        "format": FORMAT,
        "ich_lstm": version("ich_lstm"),
        "from": dict(source),
        "weights": adaptation.classifier.weights_hash(),
        "is_adapted": verdict.is_adapted,
        "is_synthetic": adaptation.classifier.is_synthetic,
        "chosen": verdict.chosen,
        "best": verdict.best,
        "reason": verdict.reason,
        "positives_needed": verdict.positives_needed,
        "counts": adaptation.counts,
        "share": adaptation.counts["positive_patients"] / adaptation.counts["patients"],
        "training_share": adaptation.training_share,
        "settings": {**vars(adaptation.settings), "rules": list(adaptation.settings.rules)},
        "candidates": _plain(adaptation.candidates),
        "unavailable": adaptation.unavailable,
        "before_and_after": _plain(first[["level", "metric", "first", "second", "difference", "low", "high"]]),
        "calibration": {
            level: {when: _calibration(cases_at(evidence, level)) for when, evidence in _both(adaptation)}
            for level in dict.fromkeys(comparison["level"])
        },
        "operating_points": [] if calibration is None else [_points(points) for points in calibration.points],
        "noise": _plain(tabulate_noise(adaptation.noise)),
        "drift": [each._asdict() for each in adaptation.drift],
        "profile": adaptation.profile,
    }


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of an adaptation.

    Args:
        folder: The folder that `write_adaptation` wrote.

    Raises:
        CheckpointError: ``not_adapted``.
    """
    try:
        record = read_json(folder / RECORD)
        if record["format"] != FORMAT or not {"scans", "numbers", "words"} <= set(record["profile"]):
            raise ValueError(f"format {record['format']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "not_adapted",
            where=str(folder),
            got=f"no readable {RECORD} ({type(error).__name__})",
            expected="a folder that ich-adapt wrote",
            todo="Adapt a model first, with ich-adapt.",
        ) from error
    return record


def _both(adaptation: Adaptation) -> list[tuple[str, Evidence]]:
    return [("before", adaptation.before), ("after", adaptation.after)]


def _calibration(cases: LevelCases) -> dict[str, Any]:
    """Slope, intercept and reliability of "any"."""
    k = LABELS.index(ANY)
    line = calibration_line(cases.labels[:, k], cases.probabilities[:, k])
    table = reliability(cases.labels[:, k], cases.probabilities[:, k])
    bins = table[table["cases"] > 0][["mean_probability", "observed", "cases"]]
    return {"slope": line.slope.value, "in_the_large": line.in_the_large.value, "bins": _plain(bins)}


def _points(points: Any) -> dict[str, Any]:
    levels: tuple[CalibratedLevel, ...] = CALIBRATED_LEVELS
    return {
        "rule": points.rule,
        **{
            level: {
                "threshold": points.thresholds[level][ANY].value,
                "sensitivity": list(points.thresholds[level][ANY].sensitivity[:3]),
                "specificity": list(points.thresholds[level][ANY].specificity[:3]),
            }
            for level in levels
        },
    }


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; NaN becomes None."""
    rows = table.to_dict(orient="records")
    return [{str(name): None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()} for row in rows]
