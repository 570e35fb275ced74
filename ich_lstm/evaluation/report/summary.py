"""The anonymous summary of an evaluation: the plain values of ``report.json``, which the page shows."""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.evaluation.aggregate import LevelCases
from ich_lstm.evaluation.figures import VIEW, Figures, figure_notes, main_rows
from ich_lstm.evaluation.protocols import HELD_OUT_IS_NOT_PRIVATE
from ich_lstm.evaluation.report.contents import ReportContents
from ich_lstm.evaluation.report.descriptions import training_rows
from ich_lstm.statistics.measures.bands import CurveBands

FORMAT = 1

CURVES = ("roc", "precision_recall", "smoothed", "reliability")
DIGITS = 6
"""Decimals of the points of curves, far finer than a screen can show."""


def summarize_report(contents: ReportContents, curves: Sequence[Mapping[str, CurveBands]], claim: pd.DataFrame) -> dict[str, Any]:
    """Convert the report to numbers, texts, lists and mappings; None where a number is undefined.

    Args:
        contents: The contents of the report.
        curves: The curves of each label, for every view that has known labels.
        claim: The answers to the CLAIM checklist, made by `fill_claim`.
    """
    evidence, figures, facts, supplements = contents[:4]
    source = evidence.source
    return plain(
        {
            "format": FORMAT,
            "ich_lstm": version("ich_lstm"),
            **{name: source[name] for name in ("model", "kind", "part", "truth", "counts")},
            "is_test": evidence.is_test,
            "is_unseen": bool(source.get("is_unseen")),
            "synthetic": facts.is_synthetic,
            "held_out": HELD_OUT_IS_NOT_PRIVATE if source["kind"] == "run" else "",
            "protocol": {"name": figures.protocol.name, "source": figures.protocol.source},
            "settings": figures.settings,
            "training": {
                "recipe": facts.recipe,
                "seconds": facts.seconds,
                "patients_are_studies": facts.patients_are_studies,
                "fits": [{"name": name, "settings": settings} for name, settings in training_rows(facts)],
            },
            "flow": [step._asdict() for step in contents.flow],
            "cohort": contents.positives,
            "characteristics": contents.features,
            "views": [_view(cases, figures, of_view) for cases, of_view in zip(contents.cases, curves, strict=True)],
            "worst_errors": contents.errors,
            "comparisons": supplements.comparisons,
            "strata": supplements.strata,
            "readers": supplements.readers and supplements.readers._asdict(),
            "claim": claim,
            "remarks": contents.remarks,
            "notes": figure_notes(figures.table),
        }
    )


def plain(value: Any) -> Any:
    """Convert a value for JSON, which has no NaN, no tables and no numpy types.

    Example:
        >>> plain({"value": np.float64("nan"), "cases": np.int64(3), "rows": pd.DataFrame({"label": ["any"]})})
        {'value': None, 'cases': 3, 'rows': [{'label': 'any'}]}
    """
    if isinstance(value, pd.DataFrame):
        return plain(value.to_dict("records"))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _view(cases: LevelCases, figures: Figures, curves: Mapping[str, CurveBands]) -> dict[str, Any]:
    return {
        **{name: getattr(cases, name) for name in VIEW},
        "cases": len(cases.ids),
        "figures": _of_view(main_rows(figures.table), cases),
        "confusion": _of_view(figures.confusion, cases),
        "curves": {
            label: {"note": bands.note, **{name: getattr(bands, name).round(DIGITS).to_dict("list") for name in CURVES}}
            for label, bands in curves.items()
        },
    }


def _of_view(frame: pd.DataFrame, cases: LevelCases) -> pd.DataFrame:
    rows = np.logical_and.reduce([frame[name] == getattr(cases, name) for name in VIEW])
    return frame[rows].drop(columns=VIEW)
