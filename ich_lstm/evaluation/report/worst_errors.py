"""The worst errors of a model: its most confident false negatives and false positives."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ich_lstm.evaluation.aggregate import LevelCases
from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.labels import LABELS
from ich_lstm.statistics.measures.scores import log_losses

MISSED, FALSE_ALARM = "missed", "false alarm"


def worst_errors(
    cases: LevelCases, evidence: Evidence, *, thresholds: float | Sequence[float] = 0.5, most: int = 10
) -> pd.DataFrame:
    """List the errors of each label with the largest log loss, those furthest on the wrong side of the operating point.

    Args:
        cases: The cases of one level.
        evidence: The predictions and labels from which the cases come.
        thresholds: One operating point for all labels, or one for each; chosen on other patients.
        most: Maximum number of listed errors of each kind.

    Returns:
        The columns ``level``, ``label``, ``error`` (`MISSED` or `FALSE_ALARM`), ``rank`` (from 1), ``case`` (hashed id of the
        scan or patient), ``slice`` (its number; 0 unless cases are slices), ``probability``, ``threshold``, ``log_loss``,
        ``labels`` (all labels that are present), ``errors`` (number of all errors of this kind) and ``cases`` (number of cases
        in which it could occur).
    """
    points = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), len(LABELS))
    ids = cases.patients if cases.level == "patient" else cases.ids
    numbers = evidence.slices["slice"].to_numpy() if cases.level == "slice" else np.zeros(len(ids), dtype=int)
    losses = log_losses(cases.labels, cases.probabilities)
    rows = []
    for k, label in enumerate(LABELS):
        p, point = cases.probabilities[:, k], float(points[k])
        for error, truth, wrong in ((MISSED, 1, p < point), (FALSE_ALARM, 0, p >= point)):
            among = cases.labels[:, k] == truth
            found = np.flatnonzero(among & wrong)
            # Equal losses are sorted by id, so that files do not depend on the order of rows.
            order = found[np.argsort(-losses[found, k], kind="stable")][:most]
            for rank, i in enumerate(order.tolist(), start=1):
                there = [name for name, value in zip(LABELS, cases.labels[i], strict=True) if value == 1]
                rows.append(
                    {
                        "level": cases.level,
                        "label": label,
                        "error": error,
                        "rank": rank,
                        "case": ids[i],
                        "slice": int(numbers[i]),
                        "probability": float(p[i]),
                        "threshold": point,
                        "log_loss": float(losses[i, k]),
                        "labels": " ".join(there),
                        "errors": len(found),
                        "cases": int(among.sum()),
                    }
                )
    names = [
        "level",
        "label",
        "error",
        "rank",
        "case",
        "slice",
        "probability",
        "threshold",
        "log_loss",
        "labels",
        "errors",
        "cases",
    ]
    return pd.DataFrame(rows, columns=names)
