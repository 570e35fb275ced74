"""Anonymous summary statistics of a model's training scans."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.labels import LABELS


def describe_scans(scans: Sequence[LabelledScan], *, is_synthetic: bool) -> dict[str, Any]:
    """Count patients, scans, slices and their labels.

    Args:
        scans: Labelled training scans; at least one.
        is_synthetic: Whether the scans are synthetic heads.

    Returns:
        Plain values for JSON: ``patients``, ``scans`` and ``slices`` as counts; ``positive_slices`` and ``positive_scans``, the
        number of known positives of each label; ``known_slice_labels`` and ``known_scan_labels``, the share of labels that are
        known, in [0, 1], over all six labels; and ``synthetic``.
    """
    of_slices = np.concatenate([scan.slice_labels for scan in scans])  # (n, k)
    of_scans = np.stack([scan.scan_labels for scan in scans])  # (scans, k)
    return {
        "patients": len({scan.patient_id for scan in scans}),
        "scans": len(of_scans),
        "slices": len(of_slices),
        "positive_slices": _positives(of_slices),
        "positive_scans": _positives(of_scans),
        "known_slice_labels": _known_share(of_slices),
        "known_scan_labels": _known_share(of_scans),
        "synthetic": is_synthetic,
    }


def _positives(labels: np.ndarray) -> dict[str, int]:
    return dict(zip(LABELS, (labels == 1).sum(axis=0).tolist(), strict=True))


def _known_share(labels: np.ndarray) -> float:
    return round(1 - float(np.isnan(labels).mean()), 4)
