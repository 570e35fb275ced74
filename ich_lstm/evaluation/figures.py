"""All figures of an evaluation protocol as one table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.errors import TableError
from ich_lstm.evaluation.aggregate import LevelCases, cases_at
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.evaluation.protocols import Protocol
from ich_lstm.labels import LABELS
from ich_lstm.statistics import FigureSettings, confusion, evaluate_labels

VIEW = ["level", "output", "aggregation"]
"""Columns that identify the view to which a figure belongs."""

Thresholds = float | Mapping[str, Sequence[float]]
"""One operating point for all levels and labels, or one for each label, by level."""


class Figures(NamedTuple):
    """Figures of one evaluation.

    Args:
        table: One row per figure: `VIEW`, then the columns of `evaluate_labels`.
        confusion: One row per view and label: `VIEW`, ``label``, ``threshold``, and the four counts.
        protocol: The protocol by which the figures were computed.
        settings: ``thresholds``, and all settings of `evaluate_labels` that affect the numbers, including defaults.
        excluded: One line for each view that could not be evaluated, with the reason.
    """

    table: pd.DataFrame
    confusion: pd.DataFrame
    protocol: Protocol
    settings: Mapping[str, Any]
    excluded: tuple[str, ...]


def compute_figures(
    evidence: Evidence,
    protocol: Protocol,
    *,
    thresholds: Thresholds | None = None,
    settings: FigureSettings = FigureSettings(),  # noqa: B008  (frozen)
    progress: Callable[[int], None] | None = None,
) -> Figures:
    """Compute every figure of a protocol.

    Args:
        evidence: The predictions and labels to evaluate.
        protocol: The levels, aggregation and figures to compute.
        thresholds: Operating points that replace the protocol's; chosen on other patients, never on these cases.
        settings: How figures and their intervals are computed.
        progress: Called with the number of views done since the last call.

    Raises:
        TableError: If no view has a known label, or a view needs predictions that are missing.
        ConfigError: If a setting is out of range.
    """
    tables, counts, excluded = [], [], []
    thresholds = protocol.threshold if thresholds is None else thresholds
    for view in protocol.views:
        cases = cases_at(evidence, view.level, aggregation=view.aggregation, output=view.output)
        if np.isnan(cases.labels).all():
            excluded.append(f"{view.level}, {view.output}: no {view.level} has a known label")
        elif view.level == "slice" and labels_name_scans(evidence):
            excluded.append(f"{view.level}, {view.output}: no slice is known to be positive, because the labels name whole scans")
        else:
            points = thresholds[view.level] if isinstance(thresholds, Mapping) else thresholds
            given = (cases.labels, cases.probabilities, cases.patients)
            tables.append(_of_view(cases, evaluate_labels(*given, thresholds=points, **asdict(settings))))
            counts.append(_of_view(cases, _confusions(cases, points)))
        if progress is not None:
            progress(1)
    if not tables:
        raise TableError(
            "no_known_label",
            where="cases to evaluate",
            got="; ".join(excluded),
            expected="labels at the requested levels",
            todo="Choose another --level, or give labels of that level.",
        )
    table = pd.concat(tables, ignore_index=True)
    asked = table[table["metric"].isin(protocol.figures)].reset_index(drop=True)
    used = {"thresholds": thresholds, **asdict(settings)}
    del used["workers"]  # they do not change the numbers
    return Figures(asked, pd.concat(counts, ignore_index=True), protocol, used, tuple(excluded))


def labels_name_scans(evidence: Evidence) -> bool:
    """Whether scans are known to be positive but no slice is; figures of slices would be based only on negative slices."""
    slices, scans = (columns_of(frame, LABEL_PREFIX) for frame in (evidence.slices, evidence.scans))
    return bool((scans == 1).any() and not (slices == 1).any())


def main_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the row of each figure with the interval over patients, and drop those with intervals for independent cases."""
    return table.drop_duplicates([*VIEW, "label", "metric", "prevalence"])


def figure_notes(table: pd.DataFrame) -> list[str]:
    """Describe, for each view, label and note, which figures or intervals are missing or need care, and why."""
    rows = main_rows(table)
    rows = rows[rows["note"] != ""]
    groups = rows.groupby([*VIEW, "label", "note"], sort=False)["metric"]
    return [
        f"{level}, {output}, {label}: {', '.join(dict.fromkeys(metrics)).replace('_', ' ')}: {note}"
        for (level, output, _, label, note), metrics in groups
    ]


def _of_view(cases: LevelCases, table: pd.DataFrame) -> pd.DataFrame:
    for place, name in enumerate(VIEW):
        table.insert(place, name, getattr(cases, name))
    return table


def _confusions(cases: LevelCases, points: float | Sequence[float]) -> pd.DataFrame:
    rows = []
    for k, threshold in enumerate(np.broadcast_to(np.asarray(points, np.float64), len(LABELS))):
        counts = confusion(cases.labels[:, k], cases.probabilities[:, k], threshold)
        rows.append({"label": LABELS[k], "threshold": threshold, **{name: int(n) for name, n in counts._asdict().items()}})
    return pd.DataFrame(rows)
