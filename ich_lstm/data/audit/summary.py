"""The shareable summary of an audit: counts, ranges and histograms, without any identity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.data.audit.checks import UNUSUAL, AuditInputs
from ich_lstm.data.audit.findings import CHECKS, Finding
from ich_lstm.data.split.split_file import SplitFile
from ich_lstm.labels import LABELS

FORMAT = 1

BINS = 24

FACTS: dict[str, tuple[str, str]] = {
    "slices": ("Slices per scan", ""),
    "slice_mm": ("Distance between slices", "mm"),
    "thickness_mm": ("Slice thickness", "mm"),
    "pixel_mm": ("Pixel size", "mm"),
    "hu_p1": ("1st percentile", "HU"),
    "hu_p50": ("Median", "HU"),
    "hu_p99": ("99th percentile", "HU"),
}
"""The columns of `PreparedFolder.facts` that have a histogram, with their titles and units."""


def summarize_audit(
    inputs: AuditInputs, findings: Sequence[Finding], *, split: SplitFile | None, fold: int, split_id: str
) -> dict[str, Any]:
    """Summarize everything that the page and ``audit.json`` show except the pictures.

    Args:
        inputs: The information about all scans.
        findings: The findings of the checks.
        split: How patients were divided, or None.
        fold: The held-out fold, if the split has folds.
        split_id: A keyed hash of the assignment. Two runs with equal ids have the same patients in the same subsets.

    Returns:
        Plain values for JSON.
    """
    found = {finding.code for finding in findings}
    facts = inputs.scans
    return {
        "format": FORMAT,
        "stops": sum(finding.action == "STOP" for finding in findings),
        "flags": sum(finding.action == "FLAG" for finding in findings),
        "findings": [finding.to_dict() for finding in sorted(findings, key=lambda finding: finding.action != "STOP")],
        "passed": [{"code": code, "title": check.many} for code, check in CHECKS.items() if code not in found],
        "parts": _count_subsets(inputs),
        "labels": _count_labels(inputs),
        "histograms": {column: histogram(facts[column].to_numpy(float), *_limits(column)) for column in FACTS},
        "scans_per_study": _count_of_counts(facts.groupby("study_uid").size()),
        "series_per_study": _count_of_counts(facts.groupby("study_uid")["series_in_study"].max()),
        "studies_per_patient": _count_of_counts(facts.groupby("patient_id")["study_uid"].nunique()),
        "scan_flags": facts["flags"].fillna("").str.split().explode().dropna().value_counts().to_dict(),
        "split": None if split is None else _describe_split(split, fold, split_id),
        "synthetic": bool(inputs.folder.manifest.get("synthetic")),
    }


def histogram(values: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """Count values in equal bins, and describe where they lie.

    Args:
        values: Values of one property, ``(n,)``; NaN where unknown.
        low: Values below this limit are unusual.
        high: Values above this limit are unusual.

    Returns:
        ``edges`` (one more than ``counts``), ``counts``, ``unusual`` (how many of each bin's counts are unusual), ``unknown``,
        ``median``, ``smallest`` and ``largest``. Without known values the lists are empty and the figures None.
    """
    known = values[~np.isnan(values)]
    about: dict[str, Any] = {"edges": [], "counts": [], "unusual": [], "unknown": int(len(values) - len(known))}
    if not len(known):
        return about | {"median": None, "smallest": None, "largest": None}
    smallest, largest = float(known.min()), float(known.max())
    whole = bool((known == np.rint(known)).all())
    if whole and largest - smallest < BINS:  # one bar per whole number, so that no bar between them is empty
        edges = np.arange(smallest - 0.5, largest + 1)
    elif largest > smallest:
        edges = np.histogram_bin_edges(known, BINS)
    else:
        edges = np.array([smallest - 0.5, smallest + 0.5])
    outside = known[(known < low) | (known > high)]
    return about | {
        "edges": [round(float(edge), 4) for edge in edges],
        "counts": np.histogram(known, edges)[0].tolist(),
        "unusual": np.histogram(outside, edges)[0].tolist(),
        "median": round(float(np.median(known)), 4),
        "smallest": round(smallest, 4),
        "largest": round(largest, 4),
    }


def _limits(column: str) -> tuple[float, float]:
    return next(ranges[column] for ranges in UNUSUAL.values() if column in ranges)


def _count_subsets(inputs: AuditInputs) -> dict[str, dict[str, int]]:
    scans = inputs.scans.assign(length=np.bincount(inputs.scan_of, minlength=len(inputs.scans)))
    subsets = scans.groupby("subset", sort=False).agg(
        patients=("patient_id", "nunique"), scans=("scan_id", "size"), slices=("length", "sum")
    )
    names = subsets.columns.tolist()
    return {
        subset: dict(zip(names, row, strict=True))
        for subset, row in zip(subsets.index.tolist(), subsets.to_numpy(int).tolist(), strict=True)
    }


def _count_labels(inputs: AuditInputs) -> dict[str, dict[str, dict[str, int]]]:
    """Count positive patients, scans and slices, and slices with unknown labels, per label and subset."""
    subsets = inputs.scans["subset"].to_numpy()
    positive = inputs.scan_labels == 1  # (scans, k)
    patients = pd.DataFrame(positive, columns=list(LABELS)).groupby([subsets, inputs.scans["patient_id"].to_numpy()]).any()
    tables = {
        "patients": patients.groupby(level=0).sum(),
        "scans": pd.DataFrame(positive, columns=list(LABELS)).groupby(subsets).sum(),
        "slices": pd.DataFrame(inputs.slice_labels == 1, columns=list(LABELS)).groupby(subsets[inputs.scan_of]).sum(),
        "unknown_slices": pd.DataFrame(np.isnan(inputs.slice_labels), columns=list(LABELS))
        .groupby(subsets[inputs.scan_of])
        .sum(),
    }
    counts = {name: table.astype(int).to_dict() for name, table in tables.items()}  # by label, by subset
    return {
        label: {subset: {name: counts[name][label][subset] for name in tables} for subset in dict.fromkeys(subsets)}
        for label in LABELS
    }


def _count_of_counts(counts: pd.Series) -> dict[str, int]:
    values, times = np.unique(counts.to_numpy(int), return_counts=True)
    return {str(value): count for value, count in zip(values.tolist(), times.tolist(), strict=True)}


def _describe_split(split: SplitFile, fold: int, split_id: str) -> dict[str, Any]:
    about: dict[str, Any] = {"by": split.by, "seed": split.seed, "id": split_id}
    if split.folds is not None:
        return about | {"folds": split.folds, "fold": fold}
    fractions = [round(share / sum(split.fractions), 4) for share in split.fractions]
    # Years alone, because the boundary is the exact date of somebody's study, and the audit is shared.
    return about | {"fractions": fractions, "first_years": [day[:4] for day in split.days or ()]}
