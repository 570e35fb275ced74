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
from ich_lstm.statistics import Estimate, cohen_kappa, fleiss_kappa, mcnemar

MODEL = "model"
GIVEN = "labels"
"""The truth that comes with the evidence, in the column ``truth``."""

READ_BY = 0.5
"""Marks are 0 and 1: any threshold between tells them apart."""


@dataclass(frozen=True, eq=False)
class ReaderMarks:
    """What readers saw in the scans that are judged.

    Args:
        readers: Their names, sorted.
        marks: ``(readers, b, k)``, in the order of the evidence's scans: 1 seen, 0 not seen, NaN not marked.
        notes: What was left out, in words.
    """

    readers: tuple[str, ...]
    marks: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()


class ReaderFigures(NamedTuple):
    """What came out.

    Args:
        table: A row per truth, rater, label and metric: ``truth, rater``, then the columns of `evaluate_detection`; a reader's
            AUROC is left out.
        differences: Model against each reader by McNemar, on the cases that the reader has marked: ``truth, reader, label,
            metric, model, reader_value, difference, p_value, method, cases, note``.
        kappas: ``raters, label, kappa`` (Fleiss or Cohen), ``value, low, high, method, cases, note``.
        aggregation: How slices became scans, in words.
        notes: What was left out.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    kappas: pd.DataFrame
    aggregation: str
    notes: tuple[str, ...]


def align_marks(marks: pd.DataFrame, evidence: Evidence, *, allow_missing: bool = False) -> ReaderMarks:
    """Put marks beside the scans that are judged.

    Args:
        marks: Table made by `place_marks`: ``scan_id, name, reader``, six labels, ``line``.
        evidence: What is judged.
        allow_missing: Whether there may be marks of scans that are not judged; they are left out and counted.

    Raises:
        TableError: If there are such marks, or no others, or a reader has the model's name.
    """
    ids = evidence.scans["scan_id"]
    there = marks["scan_id"].isin(ids)
    if not there.any() or (not there.all() and not allow_missing):
        raise TableError(
            "marks_without_prediction",
            where=f"--readers, {name_lines(marks['line'][~there])}",
            got=f"marks of {marks['name'][~there].nunique()} scans that are not judged",
            expected="predictions of every scan that was read",
            todo="Predict them too; or leave their marks out on purpose: --unmatched labels.",
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
        notes.append(f"{int((~there).sum())} rows of marks left out, of scans that are not judged")
    for reader, read in zip(readers, ~np.isnan(values).all(axis=2), strict=True):
        if not read.all():
            notes.append(f"{reader} has not marked {int((~read).sum())} of {len(ids)} scans")
    return ReaderMarks(readers, values, tuple(notes))


def evaluate_readers(
    marks: ReaderMarks,
    evidence: Evidence,
    *,
    aggregation: str = OWN,
    thresholds: float | Sequence[float] = 0.5,
    replicates: int = 2000,
    seed: int = 0,
    workers: int = 2,
) -> ReaderFigures:
    """Judge each reader and the model by the given truth, and by the other readers where these agree.

    Cases on which others agree are the easier ones: figures by such a truth are higher than those by an independent one, and
    are to be compared only with one another. The model is judged on the same cases, beside the reader who is left out, and once
    more where all readers agree.

    Args:
        marks: Of the readers.
        evidence: What the model says, and the given truth.
        aggregation: Method by which `cases_at` aggregates slices to scans.
        thresholds: Operating point of the model, chosen elsewhere: never on these cases.
        replicates: Of the bootstrap over patients.
        seed: Of the bootstrap.
        workers: Threads.
    """
    cases = cases_at(evidence, "scan", aggregation=aggregation)
    settings: dict[str, Any] = {"replicates": replicates, "seed": seed, "workers": workers}
    points = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), len(LABELS)).tolist()
    called = (cases.probabilities >= points).astype(np.float64)
    tables, differences = [], []
    for truth, y, judged in _truths(marks, cases):
        tables.append(
            _rated(truth, MODEL, evaluate_detection(y, cases.probabilities, cases.patients, thresholds=points, **settings))
        )
        for r in judged:
            labels, marked = _marked(marks.marks[r], y)
            table = evaluate_detection(labels, marked, cases.patients, thresholds=READ_BY, **settings)
            tables.append(_rated(truth, marks.readers[r], table[table["metric"] != "auroc"]))
        differences += [
            {"truth": truth, "reader": marks.readers[r], **row}
            for r in judged
            for row in _differences(y, called, marks.marks[r], cases.patients)
        ]
    return ReaderFigures(
        pd.concat(tables, ignore_index=True),
        pd.DataFrame(differences),
        pd.DataFrame(_kappas(marks, called, cases.patients, {"replicates": replicates, "seed": seed})),
        cases.aggregation,
        marks.notes,
    )


def agreed_truth(marks: np.ndarray) -> np.ndarray:
    """What all of several readers say; NaN where they differ, or one has not marked it.

    Args:
        marks: ``(readers, b, k)``.

    Returns:
        ``(b, k)``.
    """
    return np.where((marks == marks[0]).all(axis=0), marks[0], np.nan)


def _truths(marks: ReaderMarks, cases: LevelCases) -> list[tuple[str, np.ndarray, list[int]]]:
    """Name, labels ``(b, k)``, and the readers who are judged by them."""
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
    """Labels of what a reader has marked, and the marks, as labels and probabilities."""
    return np.where(np.isnan(marks), np.nan, labels), np.nan_to_num(marks)


def _differences(labels: np.ndarray, called: np.ndarray, marks: np.ndarray, patients: np.ndarray) -> list[dict[str, Any]]:
    """Model against one reader, of whom the same cases are known."""
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


def _kappas(marks: ReaderMarks, called: np.ndarray, patients: np.ndarray, settings: dict[str, int]) -> list[dict[str, Any]]:
    """Of all readers, of each two, and of each with the model at its operating point."""
    rows = []
    raters = [*zip(marks.readers, marks.marks, strict=True), (MODEL, called)]
    for k, label in enumerate(LABELS):
        if len(marks.readers) > 1:
            of_label = marks.marks[:, :, k]
            whole = ~np.isnan(of_label).any(axis=0)
            seen = (of_label[:, whole] == 1).sum(axis=0)
            kappa = fleiss_kappa(np.stack([len(of_label) - seen, seen], axis=1), patients[whole], **settings)
            left_out = f"{int((~whole).sum())} cases left out, not marked by all" if not whole.all() else ""
            kappa = kappa._replace(note="; ".join(filter(None, [left_out, kappa.note])))
            rows.append(_kappa_row(", ".join(marks.readers), label, "Fleiss", kappa, int(whole.sum())))
        for (first, one), (second, other) in itertools.combinations(raters, 2):
            kappa = cohen_kappa(one[:, k], other[:, k], patients, **settings)
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
