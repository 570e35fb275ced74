"""Comparison of two models on the same cases: the differences, their uncertainty, and the test used."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.errors import TableError
from ich_lstm.evaluation.aggregate import OWN, Level, LevelCases, cases_at
from ich_lstm.evaluation.comparisons.position_baseline import predict_from_position
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.formatting import first_of
from ich_lstm.labels import LABELS
from ich_lstm.pages.report.sections import INTERVAL_ELSEWHERE
from ich_lstm.statistics import FigureSettings, compare_auroc, compare_labels, mcnemar
from ich_lstm.statistics.cases import patient_index
from ich_lstm.statistics.comparison.significance import Comparison
from ich_lstm.statistics.proportions import PROPORTIONS

SLICE_KEY, SCAN_KEY = ["scan_id", "slice"], ["scan_id"]

Points = float | Sequence[float]
"""One operating point for all labels, or one for each label."""


def compare_models(
    evidence: Evidence,
    other: Evidence,
    *,
    level: Level,
    aggregation: str = OWN,
    names: tuple[str, str] = ("first", "second"),
    thresholds: tuple[Points, Points] = (0.5, 0.5),
    settings: FigureSettings = FigureSettings(),  # noqa: B008  (frozen)
) -> pd.DataFrame:
    """Compare two models that have predicted the same cases.

    Args:
        evidence: Predictions of the first model.
        other: Predictions of the second model.
        level: ``slice``, ``scan`` or ``patient``.
        aggregation: Method by which `cases_at` aggregates slices to scans, applied to both models.
        names: Names of the two models.
        thresholds: Operating points of the two models, chosen on other patients.
        settings: How differences and their intervals are computed.

    Returns:
        A table as described in `compare_cases`.

    Raises:
        TableError: If the cases, their patients or their labels are not the same.
    """
    check_same_cases(evidence, other, level)
    first, second = (cases_at(each, level, aggregation=aggregation) for each in (evidence, other))
    return compare_cases(first, second, names=names, thresholds=thresholds, settings=settings)


def compare_encoder(
    evidence: Evidence,
    *,
    level: Level,
    aggregation: str = OWN,
    thresholds: Points | None = 0.5,
    settings: FigureSettings = FigureSettings(),  # noqa: B008  (frozen)
) -> pd.DataFrame:
    """Compare the whole model with its encoder alone, which sees one slice at a time.

    The encoder has no scan output. Where the model's own is requested, both are evaluated by the maximum over slices.

    Args:
        evidence: Predictions that include the encoder's own probabilities.
        level: ``slice``, ``scan`` or ``patient``.
        aggregation: Method by which `cases_at` aggregates slices to scans.
        thresholds: Operating point of both; None omits figures that need one.
        settings: How differences and their intervals are computed.

    Raises:
        TableError: If the encoder's probabilities are missing.
    """
    alike = "max" if aggregation == OWN else aggregation
    first = cases_at(evidence, level, aggregation=alike)
    second = cases_at(evidence, level, aggregation=alike, output="encoder")
    points = None if thresholds is None else (thresholds, thresholds)
    return compare_cases(first, second, names=("sequence", "encoder"), thresholds=points, settings=settings)


def compare_position(
    evidence: Evidence,
    fitted_on: Evidence | None = None,
    *,
    settings: FigureSettings = FigureSettings(),  # noqa: B008  (frozen)
) -> pd.DataFrame:
    """Compare a model with a null model that knows only the position of a slice in its scan; figures at a threshold are omitted.

    Args:
        evidence: Predictions of the model.
        fitted_on: Predictions on other patients, on whom the null model is fitted; None cross-fits it by patient.
        settings: How differences and their intervals are computed.

    Returns:
        A table as described in `compare_cases`; the second model's name says on which patients it was fitted.

    Raises:
        TableError: If the null model would be fitted on patients who are evaluated, or there is only one patient.
    """
    cases = cases_at(evidence, "slice")
    null = predict_from_position(evidence, fitted_on)
    second = cases._replace(probabilities=null.probabilities)
    return compare_cases(
        cases, second, names=("sequence", f"position alone, {null.fitted_on}"), thresholds=None, settings=settings
    )


def compare_cases(
    first: LevelCases,
    second: LevelCases,
    *,
    names: tuple[str, str],
    thresholds: tuple[Points, Points] | None = (0.5, 0.5),
    settings: FigureSettings = FigureSettings(),  # noqa: B008  (frozen)
) -> pd.DataFrame:
    """Compute the difference of every figure by a paired bootstrap of patients, and the tests for single figures.

    AUROC is also tested by DeLong's method, or by Obuchowski's where patients have several cases; accuracy, sensitivity and
    specificity by McNemar's exact test, or by Durkalski's test for clustered pairs.

    Args:
        first: Cases of the first model.
        second: Cases of the second model, in the order of the first.
        names: Names of the two models.
        thresholds: Operating points of the first and of the second model; None omits figures that need one.
        settings: How differences and their intervals are computed.

    Returns:
        The columns ``model``, ``other``, ``level`` and ``aggregation``, then those of `compare_labels`. A figure with several
        tests has one row per ``method``; the row of the bootstrap comes first.
    """
    points = (0.5, 0.5) if thresholds is None else thresholds
    given = (first.labels, first.probabilities, second.probabilities, first.patients)
    table = compare_labels(*given, thresholds=points, **asdict(settings))
    tests = pd.DataFrame(_tests(first, second, points))
    table = pd.concat([table, tests], ignore_index=True)
    if thresholds is None:
        table = table[~table["metric"].isin(PROPORTIONS)].reset_index(drop=True)
    about = {"model": names[0], "other": names[1], "level": first.level, "aggregation": first.aggregation}
    for place, (name, value) in enumerate(about.items()):
        table.insert(place, name, value)
    return table


def check_same_cases(first: Evidence, second: Evidence, level: Level) -> None:
    """Check that two models predicted the same cases, with the same patients and the same labels.

    Slices are compared only at the level of slices, because models may average thin slices in different ways.

    Raises:
        TableError: If the cases, their patients or their labels differ.
    """
    key = SLICE_KEY if level == "slice" else SCAN_KEY
    frames = [evidence.slices if level == "slice" else evidence.scans for evidence in (first, second)]
    alone = frames[0][key].merge(frames[1][key], how="outer", on=key, indicator="where")
    only = [alone[alone["where"] == side] for side in ("left_only", "right_only")]
    if len(only[0]) or len(only[1]):
        unit = "slices" if level == "slice" else "scans"
        ids = pd.concat(only)["scan_id"].unique()
        raise TableError(
            "different_cases",
            where="two models",
            got=f"{len(only[0])} {unit} that only the first predicted, {len(only[1])} that only the second predicted "
            f"(scan {first_of(ids)})",
            expected="predictions of the same cases, with ids by one project key",
            todo="Predict the same scans with both; two runs with the same split have the same held-out patients.",
        )
    # Both are sorted by id.
    patients = [frame["patient_id"].to_numpy(object) for frame in frames]
    _stop_where(patients[0] != patients[1], frames[0], "different_patients", "belong to other patients in the second")
    labels = [columns_of(frame, LABEL_PREFIX) for frame in frames]
    same = (labels[0] == labels[1]) | (np.isnan(labels[0]) & np.isnan(labels[1]))
    _stop_where(~same.all(axis=1), frames[0], "different_labels", "have other labels in the second")


def _tests(first: LevelCases, second: LevelCases, thresholds: tuple[Points, Points]) -> list[dict[str, Any]]:
    rows = []
    pair = (first.probabilities, second.probabilities)
    points = [np.broadcast_to(np.asarray(given, dtype=np.float64), len(LABELS)) for given in thresholds]
    index, _ = patient_index(first.patients)
    for k, label in enumerate(LABELS):
        y = first.labels[:, k]
        known = ~np.isnan(y)
        own = index[known]
        several = len(np.unique(own)) < len(own)
        counts = {"cases": len(own), "positives": int((y == 1).sum()), "patients": len(np.unique(own))}
        p = [probabilities[:, k] for probabilities in pair]
        tests = {"auroc": compare_auroc(y, p[0], p[1], index if several else None)}
        right = [(each >= point[k]) == (y == 1) for each, point in zip(p, points, strict=True)]
        for metric, among in (("accuracy", known), ("sensitivity", y == 1), ("specificity", y == 0)):
            tests[metric] = mcnemar(right[0][among], right[1][among], index[among] if several else None)
        rows += [{"label": label, **comparison_row(metric, test), **counts} for metric, test in tests.items()]
    return rows


def comparison_row(metric: str, test: Comparison) -> dict[str, Any]:
    """Tabulate a test: ``metric, prevalence, first, second, difference, low, high, p_value, method, note``; undefined is NaN."""
    numbers = {
        "first": test.first.value,
        "second": test.second.value,
        "difference": test.difference.value,
        "low": test.difference.low,
        "high": test.difference.high,
        "p_value": test.p_value,
    }
    numbers = {name: np.nan if number is None else number for name, number in numbers.items()}
    note = test.note or test.difference.note
    if not note and test.difference.low is None:
        note = INTERVAL_ELSEWHERE
    return {"metric": metric, "prevalence": np.nan, **numbers, "method": test.method, "note": note}


def _stop_where(differing: np.ndarray, frame: pd.DataFrame, code: str, got: str) -> None:
    if differing.any():
        raise TableError(
            code,
            where="two models",
            got=f"{int(differing.sum())} cases that {got} (scan {first_of(frame['scan_id'][differing].unique())})",
            expected="the same labels for both",
            todo="Evaluate both with the same label table.",
        )
