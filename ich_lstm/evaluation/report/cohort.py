"""The evaluated cohort: flow from files to analysis, and characteristics of scans and patients."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.evaluation.run_facts import COUNTED_UNITS, StudyFacts
from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABELS

JUDGED = "judged"
"""The value of the column ``part`` for the evaluated cases."""

USED = "used"


class FlowStep(NamedTuple):
    """One box of the flow diagram.

    Args:
        title: The name of this step.
        counts: The numbers of files, patients, scans and slices, by unit.
        excluded: The cases that do not reach the next box, as reason and counts by unit.
    """

    title: str
    counts: dict[str, int]
    excluded: list[tuple[str, dict[str, int]]]


def data_flow(evidence: Evidence, facts: StudyFacts) -> list[FlowStep]:
    """Trace the flow from the files to the evaluated cases, as CONSORT and STARD require, as far back as it is known.

    Args:
        evidence: The evaluated predictions and labels.
        facts: Facts about the study, gathered by `read_study`.
    """
    counts = evidence.source["counts"]
    evaluated = {name: counts[name] for name in COUNTED_UNITS}
    steps = _of_files(facts)
    if evidence.source["kind"] == "run":
        steps = [*_with_unlabelled(steps, facts), *_by_subset(evidence, facts)]
    else:
        refused = counts.get("scans_refused") or {}
        unlabelled = counts.get("scans_without_labels_not_judged", 0)
        predicted = evaluated["scans"] + unlabelled
        if refused:
            lost = [(f"refused: {str(code).replace('_', ' ')}", {"scans": count}) for code, count in refused.items()]
            steps.append(FlowStep("Studies", {"scans": predicted + sum(refused.values())}, lost))
        lost = [("without a label", {"scans": unlabelled})] if unlabelled else []
        steps.append(FlowStep("Predicted", {"scans": predicted}, lost))
    return [*steps, FlowStep("Evaluated", evaluated, [])]


def positive_counts(evidence: Evidence, facts: StudyFacts) -> pd.DataFrame:
    """Count patients, scans and slices with each label, in the evaluated subset and in the others of the run.

    Returns:
        The columns ``part``, ``label`` (one of `LABELS`; empty for the whole subset), ``patients``, ``scans``, ``slices``, and
        ``unknown_slices``, the number of slices whose label is unknown.
    """
    y = {"scans": columns_of(evidence.scans, LABEL_PREFIX), "slices": columns_of(evidence.slices, LABEL_PREFIX)}
    patients = evidence.scans["patient_id"].to_numpy()
    whole = {name: evidence.source["counts"][name] for name in COUNTED_UNITS}
    rows: list[dict[str, Any]] = [{"part": JUDGED, "label": "", **whole, "unknown_slices": 0}]
    for k, label in enumerate(LABELS):
        positive = y["scans"][:, k] == 1
        found = {
            "patients": len(set(patients[positive])),
            "scans": int(positive.sum()),
            "slices": int((y["slices"][:, k] == 1).sum()),
        }
        rows.append({"part": JUDGED, "label": label, **found, "unknown_slices": int(np.isnan(y["slices"][:, k]).sum())})
    if evidence.source["kind"] != "run":
        return pd.DataFrame(rows)
    for subset, totals in facts.subsets.items():
        if subset == evidence.source["part"]:
            continue
        rows.append({"part": subset, "label": "", **{name: totals[name] for name in COUNTED_UNITS}, "unknown_slices": 0})
        rows += [{"part": subset, "label": label, **found[subset]} for label, found in facts.positives.items() if subset in found]
    return pd.DataFrame(rows)


def characteristics(evidence: Evidence) -> pd.DataFrame:
    """Tabulate the characteristics of the evaluated scans.

    Returns:
        The columns ``characteristic``, ``value`` (empty for numbers), ``scans`` (number of scans for which it is known), and
        either ``median``, ``low`` and ``high`` (quartiles) or ``count``.
    """
    scans, slices = evidence.scans, evidence.slices
    steps = slices["position_mm"].diff().abs().where(slices["scan_id"].eq(slices["scan_id"].shift()))
    types = columns_of(scans, LABEL_PREFIX)[:, : len(HEMORRHAGE_TYPES)]
    bleeds = scans[LABEL_PREFIX + ANY].to_numpy() == 1
    numbers = {
        "slices per scan": np.bincount(evidence.scan_index, minlength=len(scans)).astype(float),
        "distance of slices (mm)": steps.groupby(slices["scan_id"]).median().to_numpy(),
        "scans per patient": scans["patient_id"].value_counts().to_numpy(dtype=float),
        "types of hemorrhage per positive scan": (types[bleeds] == 1).sum(axis=1).astype(float),
    }
    rows = [_quartiles(name, values) for name, values in numbers.items()]
    known = {"scan_id", "patient_id", "flags", *LABELS, *(LABEL_PREFIX + label for label in LABELS)}
    for name in scans.columns:
        if name in known or str(name).startswith(("calibrated_", "called_")):
            continue
        column = scans[name]
        if pd.api.types.is_numeric_dtype(column) and column.nunique() > 6:
            rows.append(_quartiles(str(name).replace("_", " "), column.to_numpy(dtype=float)))
            continue
        values = column.astype(object).where(column.notna(), "unknown").replace("", "unknown").value_counts().sort_index()
        rows += [
            {"characteristic": str(name).replace("_", " "), "value": str(value), "scans": len(scans), "count": int(count)}
            for value, count in values.items()
        ]
    return pd.DataFrame(rows, columns=["characteristic", "value", "scans", "median", "low", "high", "count"])


def _of_files(facts: StudyFacts) -> list[FlowStep]:
    if not facts.files:
        return []
    lost = [(reason, {"files": count}) for reason, count in facts.files.items() if reason != USED]
    steps = [FlowStep("Files found", {"files": sum(facts.files.values())}, lost)]
    used = dict(facts.prepared) or {"files": facts.files.get(USED, 0)}
    return [*steps, FlowStep("One scan of each study" if facts.prepared else "Files used", used, [])]


def _with_unlabelled(steps: list[FlowStep], facts: StudyFacts) -> list[FlowStep]:
    """Add to the last step the scans that were prepared and then excluded because they have no label."""
    if not facts.prepared or not facts.subsets or not steps:
        return steps
    lost = {unit: facts.prepared[unit] - sum(totals[unit] for totals in facts.subsets.values()) for unit in facts.prepared}
    excluded = {unit: count for unit, count in lost.items() if count > 0}
    return [*steps[:-1], steps[-1]._replace(excluded=[("without a label", excluded)])] if excluded else steps


def _by_subset(evidence: Evidence, facts: StudyFacts) -> list[FlowStep]:
    """Count labelled scans, and the subsets that are not evaluated."""
    counts, evaluated = evidence.source["counts"], evidence.source["part"]
    words = {"train": "training", "validation": "validation", "test": "held out"}
    if not facts.subsets:
        left = {name: counts.get(f"scans_of_{name}_not_judged", 0) for name in words}
        lost = [(words[name], {"scans": count}) for name, count in left.items() if count]
        return [FlowStep("Predicted", {"scans": counts["scans"] + sum(left.values())}, lost)]
    whole = {unit: sum(totals[unit] for totals in facts.subsets.values()) for unit in COUNTED_UNITS}
    lost = [(words.get(name, name), _units(totals)) for name, totals in facts.subsets.items() if name != evaluated]
    return [FlowStep("Labelled", whole, lost)]


def _units(counts: Mapping[str, int]) -> dict[str, int]:
    return {unit: counts[unit] for unit in COUNTED_UNITS}


def _quartiles(name: str, values: np.ndarray) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    if not len(known):
        return {"characteristic": name, "value": "", "scans": 0}
    low, median, high = np.quantile(known, [0.25, 0.5, 0.75]).tolist()
    return {"characteristic": name, "value": "", "scans": len(known), "median": median, "low": low, "high": high}
