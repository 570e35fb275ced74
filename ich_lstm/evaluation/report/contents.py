"""The shared contents of report, model card and checklist, gathered once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.evaluation.aggregate import LevelCases, cases_at
from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.evaluation.figures import Figures
from ich_lstm.evaluation.report.cohort import FlowStep, characteristics, data_flow, positive_counts
from ich_lstm.evaluation.report.tables import remarks
from ich_lstm.evaluation.report.worst_errors import worst_errors
from ich_lstm.evaluation.run_facts import StudyFacts

if TYPE_CHECKING:
    from ich_lstm.evaluation.comparisons.readers import ReaderFigures


class Supplements(NamedTuple):
    """Results that were computed in addition to the figures; None where they were not requested.

    Args:
        comparisons: Tables of `compare_models`, `compare_encoder` and `compare_position`, concatenated.
        strata: Tables of `evaluate_strata`, concatenated.
        readers: Figures of readers, made by `evaluate_readers`.
    """

    comparisons: pd.DataFrame | None = None
    strata: pd.DataFrame | None = None
    readers: "ReaderFigures | None" = None


class ReportContents(NamedTuple):
    """The contents of report, model card and checklist.

    Args:
        evidence: The evaluated predictions and labels.
        figures: The figures of this evidence.
        facts: Facts about the study, gathered by `read_study`.
        supplements: Results of comparisons, strata and readers.
        cases: The cases of every view that has known labels.
        flow: The steps from the files to the analysis.
        positives: The table made by `positive_counts`.
        features: The table made by `characteristics`.
        errors: The tables made by `worst_errors` for all views of the whole model, concatenated.
        remarks: Sentences that a reader must know to interpret the numbers.
    """

    evidence: Evidence
    figures: Figures
    facts: StudyFacts
    supplements: Supplements
    cases: tuple[LevelCases, ...]
    flow: list[FlowStep]
    positives: pd.DataFrame
    features: pd.DataFrame
    errors: pd.DataFrame
    remarks: list[str]

    @property
    def groupings(self) -> list[str]:
        """The properties by which the strata divide the scans."""
        return [] if self.supplements.strata is None else list(dict.fromkeys(self.supplements.strata["grouping"].astype(str)))


def gather_contents(evidence: Evidence, figures: Figures, facts: StudyFacts, supplements: Supplements) -> ReportContents:
    """Gather the contents; only counts are computed.

    Args:
        evidence: The evaluated predictions and labels.
        figures: The figures of this evidence.
        facts: Facts about the study, gathered by `read_study`.
        supplements: Results of comparisons, strata and readers.
    """
    views = figures.protocol.views
    cases = [cases_at(evidence, view.level, aggregation=view.aggregation, output=view.output) for view in views]
    cases = [each for each in cases if not np.isnan(each.labels).all()]  # figures.excluded names the others
    own = [each for each in cases if each.output == "sequence"] or cases
    errors = [worst_errors(each, evidence, thresholds=thresholds_of(figures, each)) for each in own]
    return ReportContents(
        evidence,
        figures,
        facts,
        supplements,
        tuple(cases),
        data_flow(evidence, facts),
        positive_counts(evidence, facts),
        characteristics(evidence),
        pd.concat(errors, ignore_index=True),
        _remarks(evidence, figures, facts),
    )


def thresholds_of(figures: Figures, cases: LevelCases) -> float | Sequence[float]:
    """Find the operating point for the level of some cases."""
    thresholds = figures.settings["thresholds"]
    return thresholds[cases.level] if isinstance(thresholds, Mapping) else thresholds


def _remarks(evidence: Evidence, figures: Figures, facts: StudyFacts) -> list[str]:
    lines = remarks(evidence, figures)
    if facts.is_synthetic:
        lines.insert(0, "Synthetic heads: the figures show that the software works, but say nothing about real hemorrhage.")
    if not evidence.is_test:
        lines.append("These patients are the validation set (used for model selection), so these figures are optimistic.")
    return [f"{line[0].upper()}{line[1:]}" for line in lines]
