"""Comparison of readers and model: against a ground truth, against the consensus of the other readers, and with each other."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.tables.labelled import name_lines
from ich_lstm.errors import TableError
from ich_lstm.evaluation.aggregate import OWN, LevelCases, cases_at
from ich_lstm.evaluation.comparisons.compare import comparison_row
from ich_lstm.evaluation.comparisons.detection import evaluate_detection
from ich_lstm.evaluation.comparisons.reader_labels import READER
from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.labels import LABELS
from ich_lstm.statistics import Estimate, FigureSettings, cohen_kappa, fleiss_kappa, mcnemar

MODEL = "model"
GIVEN = "labels"
"""The name of the evidence's own labels in the column ``truth``."""

READ_BY = 0.5
"""Threshold for marks, which are 0 or 1; any value between them would do."""


@dataclass(frozen=True, eq=False)
class ReaderMarks:
    """The findings that readers marked in the evaluated scans.

    Args:
        readers: The names of the readers, sorted.
        marks: Marks ``(readers, b, k)`` in the order of the evidence's scans: 1 seen, 0 not seen, NaN not marked.
        notes: Texts about marks that were excluded.
    """

    readers: tuple[str, ...]
    marks: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()


class ReaderFigures(NamedTuple):
    """Figures of a reader study.

    Args:
        table: One row per truth, rater, label and metric: ``truth, rater``, then the columns of `evaluate_detection`; a reader's
            AUROC is omitted.
        differences: The model against each reader by McNemar's test, on the cases that the reader marked: ``truth, reader, label,
            metric, model, reader_value, difference, p_value, method, cases, note``.
        kappas: The columns ``raters, label, kappa`` (Fleiss or Cohen), ``value, low, high, method, cases, note``.
        aggregation: The name of the method that aggregated slices to scans.
        notes: Texts about marks that were excluded.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    kappas: pd.DataFrame
    aggregation: str
    notes: tuple[str, ...]


def align_marks(marks: pd.DataFrame, evidence: Evidence, *, allow_missing: bool = False) -> ReaderMarks:
    """Align marks with the evaluated scans.

    Args:
        marks: Table made by `place_marks`: ``scan_id, name, reader``, six labels, ``line``.
        evidence: The predictions and labels to evaluate.
        allow_missing: Whether marks of scans that are not evaluated are allowed; they are excluded and counted.

    Raises:
        TableError: If there are such marks and they are not allowed, if there are no others, or if a reader has the model's name.
    """
    ids = evidence.scans["scan_id"]
    there = marks["scan_id"].isin(ids)
    if not there.any() or (not there.all() and not allow_missing):
        raise TableError(
            "marks_without_prediction",
            where=f"--readers, {name_lines(marks['line'][~there])}",
            got=f"marks of {marks['name'][~there].nunique()} scans that are not evaluated",
            expected="predictions of every scan that was read",
            todo="Predict these scans too, or exclude their marks on purpose: --unmatched labels.",
        )
    readers = tuple(sorted(marks.loc[there, READER].unique()))
    if MODEL in readers:
        raise TableError("bad_reader", where="--readers", got=f"a reader called {MODEL}", expected="another name")
    values = np.full((len(readers), len(ids), len(LABELS)), np.nan)
    own = marks[there]
    at = pd.Index(readers).get_indexer(pd.Index(own[READER])), pd.Index(ids).get_indexer(pd.Index(own["scan_id"]))
    values[at] = own[list(LABELS)].to_numpy(np.float64)
    notes = []
    if not there.all():
        notes.append(f"{int((~there).sum())} rows of marks excluded, because their scans are not evaluated")
    for reader, read in zip(readers, ~np.isnan(values).all(axis=2), strict=True):
        if not read.all():
            notes.append(f"{reader} did not mark {int((~read).sum())} of {len(ids)} scans")
    return ReaderMarks(readers, values, tuple(notes))


def evaluate_readers(
    marks: ReaderMarks,
    evidence: Evidence,
    *,
    aggregation: str = OWN,
    thresholds: float | Sequence[float] = 0.5,
    settings: FigureSettings = FigureSettings(),  # noqa: B008  (frozen)
) -> ReaderFigures:
    """Evaluate each reader and the model against the given labels, and against the other readers where these agree.

    Each reader is compared with the consensus of the other readers. Cases on which readers agree are easier than others, so
    figures against a consensus are higher than figures against independent labels, and must only be compared with one another.
    The model is evaluated on the same cases as each reader, and also on the cases on which all readers agree.

    Args:
        marks: The marks of the readers.
        evidence: The predictions of the model, and the given labels.
        aggregation: Method by which `cases_at` aggregates slices to scans.
        thresholds: Operating point of the model, chosen on other patients, never on these cases.
        settings: How the intervals are computed; ``prevalences`` and ``bins`` do not apply.
    """
    cases = cases_at(evidence, "scan", aggregation=aggregation)
    draws: dict[str, Any] = {"replicates": settings.replicates, "seed": settings.seed}
    points = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), len(LABELS)).tolist()
    called = (cases.probabilities >= points).astype(np.float64)
    tables, differences = [], []
    for truth, y, evaluated in _truths(marks, cases):
        tables.append(
            _rated(
                truth,
                MODEL,
                evaluate_detection(y, cases.probabilities, cases.patients, thresholds=points, workers=settings.workers, **draws),
            )
        )
        for r in evaluated:
            labels, marked = _marked(marks.marks[r], y)
            table = evaluate_detection(labels, marked, cases.patients, thresholds=READ_BY, workers=settings.workers, **draws)
            tables.append(_rated(truth, marks.readers[r], table[table["metric"] != "auroc"]))
        differences += [
            {"truth": truth, "reader": marks.readers[r], **row}
            for r in evaluated
            for row in _differences(y, called, marks.marks[r], cases.patients)
        ]
    return ReaderFigures(
        pd.concat(tables, ignore_index=True),
        pd.DataFrame(differences),
        pd.DataFrame(_kappas(marks, called, cases.patients, draws)),
        cases.aggregation,
        marks.notes,
    )


def agreed_truth(marks: np.ndarray) -> np.ndarray:
    """The consensus of several readers; NaN where they differ or one of them did not mark the case.

    Args:
        marks: Marks of several readers, ``(readers, b, k)``: 1 seen, 0 not seen, NaN not marked.

    Returns:
        Labels ``(b, k)``: 1 present, 0 absent, NaN without a consensus.
    """
    return np.where((marks == marks[0]).all(axis=0), marks[0], np.nan)


def _truths(marks: ReaderMarks, cases: LevelCases) -> list[tuple[str, np.ndarray, list[int]]]:
    """List each truth: its name, its labels ``(b, k)``, and the readers who are evaluated by it."""
    readers = range(len(marks.readers))
    truths = [(GIVEN, cases.labels, list(readers))]
    if len(readers) < 2:
        return truths
    for r in readers:
        others = [other for other in readers if other != r]
        truths.append((_agreeing(marks, others), agreed_truth(marks.marks[others]), [r]))
    return [*truths, (_agreeing(marks, list(readers)), agreed_truth(marks.marks), [])]


def _agreeing(marks: ReaderMarks, readers: Sequence[int]) -> str:
    names = [marks.readers[r] for r in readers]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} agree"


def _rated(truth: str, rater: str, table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([pd.DataFrame({"truth": truth, "rater": rater}, index=table.index), table], axis=1)


def _marked(marks: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Select the labels of the cases that a reader marked, and convert the marks to probabilities."""
    return np.where(np.isnan(marks), np.nan, labels), np.nan_to_num(marks)


def _differences(labels: np.ndarray, called: np.ndarray, marks: np.ndarray, patients: np.ndarray) -> list[dict[str, Any]]:
    """Compare the model with one reader on the cases that the reader marked."""
    rows = []
    for k, label in enumerate(LABELS):
        known = ~np.isnan(labels[:, k]) & ~np.isnan(marks[:, k])
        own = patients[known]
        units = patients if len(set(own)) < len(own) else None
        right = [each[:, k] == labels[:, k] for each in (called, marks)]
        for metric, value in (("sensitivity", 1), ("specificity", 0)):
            among = known & (labels[:, k] == value)
            test = mcnemar(right[0][among], right[1][among], None if units is None else units[among])
            row = comparison_row(metric, test)
            numbers = {"model": row["first"], "reader_value": row["second"], "difference": row["difference"]}
            about = {"p_value": row["p_value"], "method": row["method"], "cases": int(among.sum()), "note": row["note"]}
            rows.append({"label": label, "metric": metric, **numbers, **about})
    return rows


def _kappas(marks: ReaderMarks, called: np.ndarray, patients: np.ndarray, draws: dict[str, int]) -> list[dict[str, Any]]:
    """Compute kappa of all readers, of each pair of readers, and of each reader with the model at its operating point."""
    rows = []
    raters = [*zip(marks.readers, marks.marks, strict=True), (MODEL, called)]
    for k, label in enumerate(LABELS):
        if len(marks.readers) > 1:
            of_label = marks.marks[:, :, k]
            whole = ~np.isnan(of_label).any(axis=0)
            seen = (of_label[:, whole] == 1).sum(axis=0)
            kappa = fleiss_kappa(np.stack([len(of_label) - seen, seen], axis=1), patients[whole], **draws)
            excluded = f"{int((~whole).sum())} cases excluded, not marked by all readers" if not whole.all() else ""
            kappa = kappa._replace(note="; ".join(filter(None, [excluded, kappa.note])))
            rows.append(_kappa_row(", ".join(marks.readers), label, "Fleiss", kappa, int(whole.sum())))
        for (first, one), (second, other) in itertools.combinations(raters, 2):
            kappa = cohen_kappa(one[:, k], other[:, k], patients, **draws)
            both = int((~np.isnan(one[:, k]) & ~np.isnan(other[:, k])).sum())
            rows.append(_kappa_row(f"{first}, {second}", label, "Cohen", kappa, both))
    return rows


def _kappa_row(raters: str, label: str, kind: str, kappa: Estimate, cases: int) -> dict[str, Any]:
    numbers = {
        name: np.nan if number is None else number for name, number in kappa._asdict().items() if name not in ("method", "note")
    }
    return {
        "raters": raters,
        "label": label,
        "kappa": kind,
        **numbers,
        "method": kappa.method,
        "cases": cases,
        "note": kappa.note,
    }
