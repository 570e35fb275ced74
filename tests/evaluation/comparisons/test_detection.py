"""Figures of detection are those of `evaluate_labels`, number for number."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from ich_lstm.evaluation.aggregate import cases_at
from ich_lstm.evaluation.comparisons.detection import DETECTION, evaluate_detection
from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.statistics import evaluate_labels

KEY = ["label", "metric"]


@pytest.mark.parametrize("level", ["slice", "scan"])
def test_as_evaluate_labels(make_evidence: Callable[..., Evidence], level: str) -> None:
    cases = cases_at(make_evidence(lonely=False), level)
    labels = cases.labels.copy()
    labels[::7, 2] = np.nan
    labels[:, 3] = 0  # no AUROC, no sensitivity
    given = (labels, cases.probabilities, cases.patients)
    got = evaluate_detection(*given, thresholds=0.4, replicates=200, seed=3).set_index(KEY)
    whole = evaluate_labels(*given, thresholds=0.4, replicates=200, seed=3).drop_duplicates(KEY).set_index(KEY)
    shared = [column for column in got.columns if column in whole]
    assert {"value", "low", "high", "method", "note", "unknown"} <= set(shared)
    pd.testing.assert_frame_equal(got[shared], whole.loc[got.index, shared], check_dtype=False, rtol=1e-9)
    assert set(got.index.get_level_values("metric")) == set(DETECTION)


def test_patients_of_both_classes_are_counted() -> None:
    labels = np.array([[1.0], [0], [0], [np.nan], [1]])
    got = evaluate_detection(labels, np.full((5, 1), 0.2), list("aabcc"), names=("any",), replicates=100).iloc[0]
    assert (got["positive_patients"], got["negative_patients"], got["unknown"]) == (2, 2, 1)
