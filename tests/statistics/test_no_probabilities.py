"""NaN and numbers outside [0, 1] are no probabilities: every figure of them is refused or undefined, and never a number."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ich_lstm import statistics
from ich_lstm.errors import TableError
from ich_lstm.evaluation.comparisons.detection import evaluate_detection
from ich_lstm.labels import LABELS
from ich_lstm.statistics.cases import Cases
from ich_lstm.statistics.comparison.significance import auroc_covariance
from ich_lstm.statistics.measures.discrimination import RankedCases, area_under_roc
from ich_lstm.statistics.measures.scores import log_losses, logit
from ich_lstm.training.metrics import LabelAUROC, WeightedLogLoss
from ich_lstm.training.metrics import log_losses as log_losses_of_tensors

Y = np.array([0.0, 1, 0, 1, 0, 1, 1, 0])
P = np.array([0.1, 0.8, 0.3, 0.6, 0.7, 0.4, 0.9, 0.2])
PATIENTS = [f"p{i}" for i in range(8)]

WRONG = [math.nan, math.inf, -math.inf, 1.5, -0.1]

REFUSING: dict[str, Callable[[np.ndarray], Any]] = {
    "auroc": lambda p: statistics.auroc(Y, p),
    "stratified_auroc": lambda p: statistics.stratified_auroc(Y, p, np.zeros(8)),
    "compare_stratified_auroc": lambda p: statistics.compare_stratified_auroc(Y, P, p, np.zeros(8), PATIENTS, replicates=100),
    "average_precision": lambda p: statistics.average_precision(Y, p),
    "roc_curve": lambda p: statistics.roc_curve(Y, p),
    "precision_recall_curve": lambda p: statistics.precision_recall_curve(Y, p),
    "log_loss": lambda p: statistics.log_loss(Y, p),
    "weighted_log_loss": lambda p: statistics.weighted_log_loss(Y[:, None], p[:, None], weights=(1,)),
    "brier_score": lambda p: statistics.brier_score(Y, p),
    "reliability": lambda p: statistics.reliability(Y, p),
    "expected_calibration_error": lambda p: statistics.expected_calibration_error(Y, p),
    "calibration_line": lambda p: statistics.calibration_line(Y, p),
    "smoothed_calibration": lambda p: statistics.smoothed_calibration(Y, p),
    "curve_bands": lambda p: statistics.curve_bands(Y, p, PATIENTS, replicates=100),
    "confusion": lambda p: statistics.confusion(Y, p, 0.5),
    "fit_platt": lambda p: statistics.fit_platt(Y, p),
    "fit_temperature": lambda p: statistics.fit_temperature(Y, p),
    "shift_prevalence": lambda p: statistics.shift_prevalence(p, 0.5, 0.1),
    "estimate_prevalence": lambda p: statistics.estimate_prevalence(p, 0.5, PATIENTS, replicates=100),
    "compare_auroc": lambda p: statistics.compare_auroc(Y, p, P),
    "auroc_covariance": lambda p: auroc_covariance(Y, np.stack([P, p], axis=1), None),
    "compare_labels": lambda p: statistics.compare_labels(
        Y[:, None], P[:, None], p[:, None], PATIENTS, names=("any",), weights=(1,), replicates=100
    ),
    "evaluate_labels": lambda p: statistics.evaluate_labels(
        Y[:, None], p[:, None], PATIENTS, names=("any",), weights=(1,), replicates=100
    ),
    "evaluate_detection": lambda p: evaluate_detection(Y[:, None], p[:, None], PATIENTS, names=("any",), replicates=100),
}


def spoilt(wrong: float, place: int) -> np.ndarray:
    p = P.copy()
    p[place] = wrong
    return p


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", REFUSING)
def test_a_figure_refuses_them(name: str, wrong: float) -> None:
    REFUSING[name](P)
    for place in (0, 3, 7):
        with pytest.raises(TableError) as error:
            REFUSING[name](spoilt(wrong, place))
        assert error.value.code == "bad_probability"


def test_all_public_figures_of_probabilities_are_here() -> None:
    others = {
        "Estimate",
        "FigureSettings",
        "clopper_pearson",
        "cohen_kappa",
        "fleiss_kappa",
        "mcnemar",
        "predictive_values",
        "wilson",
    }
    assert set(statistics.__all__) - others <= set(REFUSING)


@pytest.mark.parametrize("place", [0, 3, 7])
def test_nan_has_no_rank(place: int) -> None:
    p = spoilt(math.nan, place)
    assert math.isnan(area_under_roc(Y == 1, p))
    assert math.isnan(area_under_roc(Y == 1, np.full(8, math.nan)))
    with pytest.raises(ValueError, match="no rank"):
        RankedCases(Cases(Y == 1, p, 0), np.arange(8), 8)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", [0, 3, 7])
def test_what_computes_without_a_check_gives_nan(wrong: float, place: int) -> None:
    p = spoilt(wrong, place)
    assert np.flatnonzero(np.isnan(logit(p))).tolist() == [place]
    assert np.flatnonzero(np.isnan(log_losses(Y, p))).tolist() == [place]
    losses = log_losses_of_tensors(torch.tensor(p), torch.tensor(Y))
    assert losses.isnan().nonzero().flatten().tolist() == [place]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("is_known", [True, False])
def test_so_do_the_metrics_of_a_validation(wrong: float, is_known: bool) -> None:
    k = len(LABELS)
    labels = torch.tensor(Y).float()[:, None].repeat(1, k)
    probabilities = torch.tensor(P)[:, None].repeat(1, k)
    if not is_known:
        labels[3, 2] = math.nan
    loss, areas = WeightedLogLoss(), LabelAUROC()
    for metric in (loss, areas):
        metric.update(probabilities[:4], labels[:4])
        metric.update(probabilities[4:], labels[4:])
    good_loss, good_areas = loss.compute(), areas.compute()
    assert good_loss.isfinite()
    assert good_areas.isfinite().all()
    probabilities[3, 2] = wrong
    loss, areas = WeightedLogLoss(), LabelAUROC()
    for metric in (loss, areas):
        metric.update(probabilities, labels)
    if is_known:
        assert loss.compute().isnan()
        assert areas.compute().isnan().tolist() == [label == 2 for label in range(k)]
    else:  # the probability of an unknown label counts for nothing
        assert torch.equal(loss.compute(), good_loss)
        assert torch.equal(areas.compute(), good_areas)
