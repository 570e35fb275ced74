"""Aggregation of probabilities from slices to scans and from scans to patients; the method is recorded with the numbers."""

import re
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.evidence import ENCODER_PREFIX, LABEL_PREFIX, Evidence, columns_of

Level = Literal["slice", "scan", "patient"]
LEVELS: tuple[Level, ...] = get_args(Level)

Output = Literal["sequence", "encoder"]
OUTPUTS: tuple[Output, ...] = get_args(Output)

OWN = "own"
WORDS = MappingProxyType(
    {
        OWN: "the model's own scan output",
        "max": "maximum over slices",
        "mean": "mean over slices",
        "noisy-or": "noisy-or over slices",
    }
)
AGGREGATIONS = (*WORDS, "top-K")
"""Methods by which slices are aggregated to scans; ``top-K`` is the mean of the K highest, for example ``top-3``."""

_TOP = re.compile(r"top-([1-9]\d*)")


class LevelCases(NamedTuple):
    """The cases of one level.

    Args:
        level: ``slice``, ``scan`` or ``patient``.
        output: ``sequence``, or ``encoder`` for the encoder's own probabilities.
        aggregation: A description of the method that aggregated slices to these cases.
        ids: Shareable id of each case, ``(n,)``; for slices, the id of their scan.
        patients: Shareable id of each case's patient, ``(n,)``.
        labels: Labels of the cases, ``(n, k)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], float64 ``(n, k)``.
    """

    level: Level
    output: Output
    aggregation: str
    ids: np.ndarray
    patients: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def cases_at(evidence: Evidence, level: Level, *, aggregation: str = OWN, output: Output = "sequence") -> LevelCases:
    """Collect the cases of one level with their labels and probabilities.

    A patient's probability is the highest of the patient's scans. A patient's label is 1 if any scan has the label, and 0 if all
    scans are known not to have it.

    Args:
        evidence: The predictions and labels to evaluate.
        level: ``slice``, ``scan`` or ``patient``.
        aggregation: One of `AGGREGATIONS`; `OWN` is not available for the encoder, which has no scan output.
        output: The output of the model to evaluate: ``sequence`` or ``encoder``.

    Raises:
        ConfigError: If the aggregation is unknown, or it cannot be applied to this output.
        TableError: If the encoder's own probabilities are missing.
    """
    check_aggregation(aggregation)
    prefix = "" if output == "sequence" else ENCODER_PREFIX
    if prefix and not evidence.has_encoder:
        raise TableError(
            "no_encoder",
            where="predictions",
            got="no probabilities of the encoder alone",
            expected=f"columns {ENCODER_PREFIX}epidural and so on",
            todo="Use a run of a model with a recurrent head, or --checkpoint and --data.root; ich-predict writes none.",
        )
    frame = evidence.slices if level == "slice" else evidence.scans
    ids, patients = frame["scan_id"].to_numpy(object), frame["patient_id"].to_numpy(object)
    labels = columns_of(frame, LABEL_PREFIX)
    if level == "slice":
        return LevelCases(level, output, "none", ids, patients, labels, columns_of(frame, prefix))
    words = in_words(aggregation)
    if aggregation == OWN:
        if prefix:
            raise ConfigError(
                "no_scan_output",
                where="--aggregation",
                got=f"{OWN}, for the encoder alone",
                expected=f"one of {', '.join(AGGREGATIONS[1:])}, because the encoder has no scan output",
            )
        probabilities = columns_of(frame, "")
    else:
        probabilities = aggregate(columns_of(evidence.slices, prefix), evidence.scan_index, aggregation)
    if level == "scan":
        return LevelCases(level, output, words, ids, patients, labels, probabilities)
    index, names = pd.factorize(frame["patient_id"], sort=True)
    order = np.argsort(index, kind="stable")
    first = np.flatnonzero(np.diff(index[order], prepend=-1))
    present = np.logical_or.reduceat(labels[order] == 1, first)  # (patients, k)
    absent = np.logical_and.reduceat(labels[order] == 0, first)
    labels = np.where(present, 1.0, np.where(absent, 0.0, np.nan))
    probabilities = np.maximum.reduceat(probabilities[order], first)
    people = names.to_numpy(object)
    return LevelCases(level, output, f"{words}, maximum over scans", people, people, labels, probabilities)


def aggregate(probabilities: np.ndarray, scan: np.ndarray, aggregation: str) -> np.ndarray:
    """Aggregate the probabilities of slices to scans.

    Args:
        probabilities: Probabilities of slices, ``(n, k)``.
        scan: Index of each slice's scan, ``(n,)``, from 0 and in ascending order; every scan has slices.
        aggregation: ``max``, ``mean``, ``top-K``, or ``noisy-or``: 1 - prod(1 - p), as if slices were independent.

    Returns:
        Probabilities of scans, ``(b, k)``.

    Example:
        >>> aggregate(np.array([[0.5], [0.2], [0.5]]), np.array([0, 0, 1]), "noisy-or")
        array([[0.6],
               [0.5]])
    """
    check_aggregation(aggregation)
    first = np.flatnonzero(np.diff(scan, prepend=-1))
    lengths = np.diff(first, append=len(scan))[:, None]  # (b, 1)
    if aggregation == "max":
        return np.maximum.reduceat(probabilities, first)
    if aggregation == "mean":
        return np.add.reduceat(probabilities, first) / lengths
    if aggregation == "noisy-or":
        with np.errstate(divide="ignore"):  # a slice with probability 1 gives its scan probability 1
            return -np.expm1(np.add.reduceat(np.log1p(-probabilities), first))
    top = int(aggregation.removeprefix("top-"))
    place = np.arange(len(scan)) - first[scan]
    columns = []
    for p in probabilities.T:
        highest_first = p[np.lexsort((-p, scan))]  # within each scan
        columns.append(np.add.reduceat(np.where(place < top, highest_first, 0), first))
    return np.stack(columns, axis=1) / np.minimum(lengths, top)


def check_aggregation(aggregation: str) -> None:
    """Check the name of an aggregation.

    Raises:
        ConfigError: If the name is unknown.
    """
    if aggregation not in WORDS and not _TOP.fullmatch(aggregation):
        raise ConfigError(
            "unknown_aggregation",
            where="--aggregation",
            got=repr(aggregation),
            expected=f"one of {', '.join(AGGREGATIONS)} (top-3: mean of the three highest)",
        )


def in_words(aggregation: str) -> str:
    """Describe an aggregation for the tables and pages.

    Example:
        >>> in_words("top-3")
        'mean of the 3 highest slices'
    """
    top = _TOP.fullmatch(aggregation)
    return f"mean of the {top[1]} highest slices" if top else WORDS[aggregation]
