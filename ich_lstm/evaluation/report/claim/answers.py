"""Answers items of the CLAIM 2024 checklist from the files of a run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.evaluation.figures import Figures, main_rows
from ich_lstm.evaluation.report.claim.checklist import Answer
from ich_lstm.evaluation.report.contents import ReportContents
from ich_lstm.evaluation.report.descriptions import (
    describe_flow,
    describe_initialization,
    describe_software,
    describe_thresholds,
    describe_truth,
    describe_uncertainty,
    network_rows,
    preprocessing_rows,
    rows_in_words,
    split_rows,
    training_rows,
)
from ich_lstm.evaluation.report.tables import figure_in_words, flat_counts
from ich_lstm.evaluation.report.worst_errors import FALSE_ALARM, MISSED
from ich_lstm.evaluation.run_facts import StudyFacts
from ich_lstm.labels import ANY
from ich_lstm.statistics.measures.evaluation import ALL_LABELS

if TYPE_CHECKING:
    from ich_lstm.evaluation.comparisons.readers import ReaderFigures

GEOMETRY = ("slices per scan", "distance of slices (mm)")
"""The characteristics that describe the acquisition (item 13)."""

LEADING = ("auroc", "average_precision", "calibration_slope", "calibration_intercept", "log_loss", "weighted_log_loss")
"""Figures that do not need an operating point (item 37)."""

OPERATING = ("sensitivity", "specificity", "ppv", "npv")
"""Figures at an operating point (item 38)."""


def answer_claim(contents: ReportContents) -> dict[int, Answer]:
    """Answer the items of the checklist.

    Args:
        contents: The contents of the report.

    Returns:
        The answers by the number of the item; the text is empty where the run does not contain the answer.
    """
    facts = contents.facts
    about_model = {
        19: Answer(rows_in_words(split_rows(facts))),
        20: Answer(_disjoint(facts)),
        22: Answer(rows_in_words(network_rows(facts))),
        23: Answer(describe_software(), "the versions at training, if they differ"),
        24: Answer(describe_initialization(facts)),
        25: Answer(" ".join(f"{name}: {rows_in_words(rows)}" for name, rows in training_rows(facts))),
        26: Answer(
            "The epoch with the lowest weighted log loss on the validation set: over slices, or over scans if the labels of the "
            "slices are unknown or all equal."
            if facts.config
            else ""
        ),
        27: Answer(f"No ensemble: a single model{_views_at_test(facts)}." if facts.model else ""),
    }
    return _data_answers(contents) | about_model | _result_answers(contents)


def _data_answers(contents: ReportContents) -> dict[int, Answer]:
    evidence, facts = contents.evidence, contents.facts
    labels = (facts.config.get("data") or {}).get("labels")
    names = ", ".join(labels) if isinstance(labels, list) else labels
    excluded = [reason for step in contents.flow for reason, _ in step.excluded]
    unknown = [f"{name}: {count:,}" for name, count in flat_counts(evidence).items() if "without" in name or "missing" in name]
    missing = "Cases with an unknown label are excluded from the figures of that label, and counted"
    return {
        7: Answer(f"Label table: {names}." if names else "", "sites, dates, and the registry or public data set"),
        8: Answer(
            f"Excluded by the software: {', '.join(excluded)}." if excluded else "",
            "the study's inclusion and exclusion criteria",
        ),
        9: Answer(rows_in_words(preprocessing_rows(facts))),
        10: Answer("From each study, all slices of one axial series of the head."),
        11: Answer("All ids in tables are keyed hashes (HMAC-SHA256).", "how the images were de-identified beforehand"),
        12: Answer(f"{missing} ({'; '.join(unknown)})."),
        13: Answer(_features_in_words(contents.features), "scanners, tube voltage and kernels"),
        14: Answer(describe_truth(evidence), "how the labels were made"),
        18: Answer(_agreement(contents.supplements.readers)),
        21: Answer(_sample(evidence), "the intended sample size"),
    }


def _result_answers(contents: ReportContents) -> dict[int, Answer]:
    evidence, figures = contents.evidence, contents.figures
    metrics = ", ".join(name.replace("_", " ") for name in figures.protocol.figures)
    groups = ", ".join(name.replace("_", " ") for name in contents.groupings)
    is_run = evidence.source["kind"] == "run"
    where = "held-out patients" if evidence.source["part"] == "test" else "validation patients"
    operating = [_performance(figures, OPERATING), describe_thresholds(figures)]
    return {
        28: Answer(f"{metrics[0].upper()}{metrics[1:]}."),
        29: Answer(describe_uncertainty(figures)),
        30: Answer(f"Figures are given by {groups}." if groups else ""),
        32: Answer(f"On {where} of the data set on which the model was trained." if is_run else ""),
        33: _external(evidence),
        35: Answer(describe_flow(contents.flow)),
        36: Answer("Positive patients, scans and slices of each partition: tables/cohort.csv.", "age, sex and indication"),
        37: Answer(_performance(figures, LEADING), "other partitions" if is_run else ""),
        38: Answer(" ".join(operating) if all(operating) else ""),
        39: Answer(_errors_in_words(contents.errors), "a radiologist's review of the listed cases"),
        42: Answer(f"Evaluated as {figures.protocol.source}." if figures.protocol.source else "", "the study's protocol"),
        43: Answer(_model_id(evidence), "where software, model and data are available"),
    }


def _views_at_test(facts: StudyFacts) -> str:
    averaged = {
        "flip": "a scan and its mirror image",
        "flip-reverse": "a scan and its mirror image, each read in both directions",
    }
    asked = [text for name, text in network_rows(facts).items() if name.endswith("test time")]
    views = averaged.get(asked[0]) if asked else None
    return f", whose probabilities are the mean over {views}" if views else ""


def _external(evidence: Evidence) -> Answer:
    """Answer the item on external testing; patients are external only if they were compared with those of the run."""
    if evidence.source["kind"] == "run":
        return Answer("")
    if evidence.source.get("is_unseen"):
        return Answer("On patients on whom the model was neither trained nor selected.", "how they differ from the training data")
    return Answer(
        "Whether the model was trained on these patients was not checked.",
        "whether the model was trained on them, and how they differ from the training data",
    )


def _disjoint(facts: StudyFacts) -> str:
    if not facts.subsets:
        return ""
    if (facts.config.get("data") or {}).get("patient_ids") == "study":
        return "Studies; each was counted as a separate patient, because the ids do not identify patients."
    return "Patients; no patient is in two partitions."


def _model_id(evidence: Evidence) -> str:
    model: Mapping[str, str] = evidence.source["model"]
    return f"Model {model.get('name', '')}, weights {model['hash']}." if model.get("hash") else ""


def _features_in_words(features: pd.DataFrame) -> str:
    """Write the characteristics of the acquisition that can be measured from the images."""
    known = features[features["characteristic"].isin(GEOMETRY) & features["median"].notna()]
    texts = [
        f"{row.characteristic}: median {row.median:.3g} (quartiles {row.low:.3g} to {row.high:.3g})" for row in known.itertuples()
    ]
    return f"{'; '.join(texts).capitalize()}." if texts else ""


def _agreement(readers: "ReaderFigures | None") -> str:
    if readers is None:
        return ""
    rows = readers.kappas[(readers.kappas["kappa"] == "Fleiss") & readers.kappas["value"].notna()]
    numbers = zip(rows["label"], rows["value"], rows["low"], rows["high"], rows["cases"], strict=True)
    texts = [f"{label} {figure_in_words('kappa', *kappa)} ({cases:,} cases)" for label, *kappa, cases in numbers]
    return f"Fleiss' kappa of the readers: {'; '.join(texts)}." if texts else ""


def _sample(evidence: Evidence) -> str:
    counts = evidence.source["counts"]
    positive = evidence.scans.loc[evidence.scans[f"label_{ANY}"] == 1, "patient_id"].nunique()
    return f"{counts['patients']:,} patients were evaluated, {positive:,} of them with hemorrhage."


def _performance(figures: Figures, metrics: Sequence[str]) -> str:
    """Write the figures of "any" and those over all labels at each level."""
    rows = main_rows(figures.table)
    rows = rows[rows["metric"].isin(metrics) & rows["label"].isin([ANY, ALL_LABELS]) & rows["prevalence"].isna()]
    columns = ("level", "output", "label", "metric", "value", "low", "high")
    texts = [
        f"{level} ({output}), {label}, {metric.replace('_', ' ')} {figure_in_words(metric, *numbers)}"
        for level, output, label, metric, *numbers in zip(*(rows[column] for column in columns), strict=True)
    ]
    return f"{'; '.join(texts)}; the tables contain all labels." if texts else ""


def _errors_in_words(errors: pd.DataFrame) -> str:
    rows = errors[errors["label"] == ANY].drop_duplicates(["level", "error"])
    among = {MISSED: "positive", FALSE_ALARM: "negative"}
    columns = ("level", "error", "errors", "cases")
    texts = [
        f"{level}s: {error} {count:,} of {cases:,} {among[error]}"
        for level, error, count, cases in zip(*(rows[column] for column in columns), strict=True)
    ]
    if not texts:
        return "At the operating point, no case was classified wrongly for any hemorrhage."
    return f"Any hemorrhage: {'; '.join(texts)}. The worst errors of each label: tables/worst_errors.csv."
