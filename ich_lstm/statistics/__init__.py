"""Statistics of probabilities and labels, with intervals over patients: figures, comparisons, agreement; numpy and scipy only."""

from typing import TYPE_CHECKING

from ich_lstm.lazy import lazy_names

if TYPE_CHECKING:
    from ich_lstm.statistics.adjustment.corrections import shift_prevalence as shift_prevalence
    from ich_lstm.statistics.adjustment.prevalence import estimate_prevalence as estimate_prevalence
    from ich_lstm.statistics.adjustment.recalibration import fit_platt as fit_platt
    from ich_lstm.statistics.adjustment.recalibration import fit_temperature as fit_temperature
    from ich_lstm.statistics.comparison.agreement import cohen_kappa as cohen_kappa
    from ich_lstm.statistics.comparison.agreement import fleiss_kappa as fleiss_kappa
    from ich_lstm.statistics.comparison.paired import compare_labels as compare_labels
    from ich_lstm.statistics.comparison.paired import compare_stratified_auroc as compare_stratified_auroc
    from ich_lstm.statistics.comparison.significance import compare_auroc as compare_auroc
    from ich_lstm.statistics.comparison.significance import mcnemar as mcnemar
    from ich_lstm.statistics.estimate import Estimate as Estimate
    from ich_lstm.statistics.measures.bands import curve_bands as curve_bands
    from ich_lstm.statistics.measures.calibration import brier_score as brier_score
    from ich_lstm.statistics.measures.calibration import calibration_line as calibration_line
    from ich_lstm.statistics.measures.calibration import expected_calibration_error as expected_calibration_error
    from ich_lstm.statistics.measures.calibration import reliability as reliability
    from ich_lstm.statistics.measures.discrimination import auroc as auroc
    from ich_lstm.statistics.measures.discrimination import average_precision as average_precision
    from ich_lstm.statistics.measures.discrimination import precision_recall_curve as precision_recall_curve
    from ich_lstm.statistics.measures.discrimination import roc_curve as roc_curve
    from ich_lstm.statistics.measures.discrimination import stratified_auroc as stratified_auroc
    from ich_lstm.statistics.measures.evaluation import FigureSettings as FigureSettings
    from ich_lstm.statistics.measures.evaluation import evaluate_labels as evaluate_labels
    from ich_lstm.statistics.measures.scores import log_loss as log_loss
    from ich_lstm.statistics.measures.scores import weighted_log_loss as weighted_log_loss
    from ich_lstm.statistics.measures.smoothing import smoothed_calibration as smoothed_calibration
    from ich_lstm.statistics.proportions import clopper_pearson as clopper_pearson
    from ich_lstm.statistics.proportions import confusion as confusion
    from ich_lstm.statistics.proportions import predictive_values as predictive_values
    from ich_lstm.statistics.proportions import wilson as wilson

# Module of each name. Modules are imported on first use: a prediction needs one formula, and scipy and pandas take a second.
_HOMES = {
    "Estimate": "estimate",
    "FigureSettings": "measures.evaluation",
    "auroc": "measures.discrimination",
    "average_precision": "measures.discrimination",
    "brier_score": "measures.calibration",
    "calibration_line": "measures.calibration",
    "clopper_pearson": "proportions",
    "cohen_kappa": "comparison.agreement",
    "compare_auroc": "comparison.significance",
    "compare_labels": "comparison.paired",
    "compare_stratified_auroc": "comparison.paired",
    "confusion": "proportions",
    "curve_bands": "measures.bands",
    "estimate_prevalence": "adjustment.prevalence",
    "evaluate_labels": "measures.evaluation",
    "expected_calibration_error": "measures.calibration",
    "fit_platt": "adjustment.recalibration",
    "fit_temperature": "adjustment.recalibration",
    "fleiss_kappa": "comparison.agreement",
    "log_loss": "measures.scores",
    "mcnemar": "comparison.significance",
    "precision_recall_curve": "measures.discrimination",
    "predictive_values": "proportions",
    "reliability": "measures.calibration",
    "roc_curve": "measures.discrimination",
    "shift_prevalence": "adjustment.corrections",
    "smoothed_calibration": "measures.smoothing",
    "stratified_auroc": "measures.discrimination",
    "weighted_log_loss": "measures.scores",
    "wilson": "proportions",
}
__all__ = [*_HOMES]

__getattr__, __dir__ = lazy_names(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
