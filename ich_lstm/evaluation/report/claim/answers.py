"""The answers of a run to the items of the CLAIM 2024 checklist."""

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
"""Characteristics of the acquisition."""

LEADING = ("auroc", "average_precision", "calibration_slope", "calibration_intercept", "log_loss", "weighted_log_loss")
"""Performance of the model itself (item 37); figures that need an operating point belong to item 38."""

OPERATING = ("sensitivity", "specificity", "ppv", "npv")


def answer_claim(contents: ReportContents) -> dict[int, Answer]:
    """Answers by the number of the item; the text is empty where a run does not know the answer.

    Args:
        contents: Contents of the report.
    """
    facts = contents.facts
    about_model = {
        19: Answer(rows_in_words(split_rows(facts))),
        20: Answer(_disjoint(facts)),
        22: Answer(rows_in_words(network_rows(facts))),
        23: Answer(describe_software(), "the versions that trained the model, if others"),
        24: Answer(describe_initialization(facts)),
        25: Answer(" ".join(f"{name}: {rows_in_words(rows)}" for name, rows in training_rows(facts))),
        26: Answer(
            "The epoch with the lowest weighted log loss on the validation patients: of their slices, or of their scans where "
            "the labels of the slices are unknown or all alike."
            if facts.config
            else ""
        ),
        27: Answer(f"None: one model{_views_at_test(facts)}." if facts.model else ""),
    }
    return _data_answers(contents) | about_model | _result_answers(contents)


def _data_answers(contents: ReportContents) -> dict[int, Answer]:
    evidence, facts = contents.evidence, contents.facts
    labels = (facts.config.get("data") or {}).get("labels")
    names = ", ".join(labels) if isinstance(labels, list) else labels
    left_out = [reason for step in contents.flow for reason, _ in step.left_out]
    unknown = [f"{name}: {count:,}" for name, count in flat_counts(evidence).items() if "without" in name or "missing" in name]
    missing = "Unknown labels are left out of the figures they belong to, and counted"
    return {
        7: Answer(f"Label table: {names}." if names else "", "sites, dates, registry or public data set"),
        8: Answer(f"Left out by the software: {', '.join(left_out)}." if left_out else "", "criteria of the study"),
        9: Answer(rows_in_words(preprocessing_rows(facts))),
        10: Answer("One axial series of the brain of each study; all of its slices."),
        11: Answer("Tables hold keyed hashes of all ids (HMAC-SHA256).", "how the images were de-identified before"),
        12: Answer(f"{missing} ({'; '.join(unknown)})."),
        13: Answer(_features_in_words(contents.features), "scanners, tube voltage, kernels"),
        14: Answer(describe_truth(evidence), "how labels were made"),
        18: Answer(_agreement(contents.supplements.readers)),
        21: Answer(_sample(evidence), "the intended size"),
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
        30: Answer(f"Figures by {groups}." if groups else ""),
        32: Answer(f"On {where} of the data set that the model was trained on." if is_run else ""),
        33: _external(evidence),
        35: Answer(describe_flow(contents.flow)),
        36: Answer("Positive patients, scans and slices of each partition: tables/cohort.csv.", "age, sex, indication"),
        37: Answer(_performance(figures, LEADING), "other partitions" if is_run else ""),
        38: Answer(" ".join(operating) if all(operating) else ""),
        39: Answer(_errors_in_words(contents.errors), "a radiologist's reading of the cases listed"),
        42: Answer(f"Evaluated as {figures.protocol.source}." if figures.protocol.source else "", "the study's protocol"),
        43: Answer(_model_id(evidence), "where software, model and data can be had"),
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
    """Patients count as external only if they were checked against those of the run."""
    if evidence.source["kind"] == "run":
        return Answer("")
    if evidence.source.get("is_unseen"):
        return Answer("On patients on whom the model was neither trained nor chosen.", "how they differ from the training data")
    return Answer(
        "Whether the model was trained on these patients was not checked.",
        "whether it was, and how they differ from the training data",
    )


def _disjoint(facts: StudyFacts) -> str:
    if not facts.parts:
        return ""
    if (facts.config.get("data") or {}).get("patient_ids") == "study":
        return "Studies: each counted as a patient's own, for the ids do not tell patients apart."
    return "Patients: no patient is in two partitions."


def _model_id(evidence: Evidence) -> str:
    model: Mapping[str, str] = evidence.source["model"]
    return f"Model {model.get('name', '')}, weights {model['hash']}." if model.get("hash") else ""


def _features_in_words(features: pd.DataFrame) -> str:
    """Facts of the acquisition that the images themselves show."""
    known = features[features["characteristic"].isin(GEOMETRY) & features["median"].notna()]
    parts = [
        f"{row.characteristic}: median {row.median:.3g} (quartiles {row.low:.3g} to {row.high:.3g})" for row in known.itertuples()
    ]
    return f"{'; '.join(parts).capitalize()}." if parts else ""


def _agreement(readers: "ReaderFigures | None") -> str:
    if readers is None:
        return ""
    rows = readers.kappas[(readers.kappas["kappa"] == "Fleiss") & readers.kappas["value"].notna()]
    numbers = zip(rows["label"], rows["value"], rows["low"], rows["high"], rows["cases"], strict=True)
    parts = [f"{label} {figure_in_words('kappa', *kappa)} ({cases:,} cases)" for label, *kappa, cases in numbers]
    return f"Fleiss' kappa of the readers: {'; '.join(parts)}." if parts else ""


def _sample(evidence: Evidence) -> str:
    counts = evidence.source["counts"]
    positive = evidence.scans.loc[evidence.scans[f"label_{ANY}"] == 1, "patient_id"].nunique()
    return f"{counts['patients']:,} patients were judged, {positive:,} of them with hemorrhage."


def _performance(figures: Figures, metrics: Sequence[str]) -> str:
    """Figures of "any" (and over all labels) at each level."""
    rows = main_rows(figures.table)
    rows = rows[rows["metric"].isin(metrics) & rows["label"].isin([ANY, ALL_LABELS]) & rows["prevalence"].isna()]
    columns = ("level", "output", "label", "metric", "value", "low", "high")
    parts = [
        f"{level} ({output}), {label}, {metric.replace('_', ' ')} {figure_in_words(metric, *numbers)}"
        for level, output, label, metric, *numbers in zip(*(rows[column] for column in columns), strict=True)
    ]
    return f"{'; '.join(parts)}; all labels: tables." if parts else ""


def _errors_in_words(errors: pd.DataFrame) -> str:
    rows = errors[errors["label"] == ANY].drop_duplicates(["level", "error"])
    among = {MISSED: "positive", FALSE_ALARM: "negative"}
    columns = ("level", "error", "errors", "cases")
    parts = [
        f"{level}s: {error} {count:,} of {cases:,} {among[error]}"
        for level, error, count, cases in zip(*(rows[column] for column in columns), strict=True)
    ]
    if not parts:
        return "No error on any hemorrhage at the operating point."
    return f"Any hemorrhage: {'; '.join(parts)}; the worst of each label: tables/worst_errors.csv."
