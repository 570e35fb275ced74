"""Optional analyses of ich-evaluate: comparisons of models, strata, and readers."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ich_lstm.errors import ConfigError, TableError

if TYPE_CHECKING:
    import pandas as pd

    from ich_lstm.evaluation.comparisons.readers import ReaderFigures
    from ich_lstm.evaluation.evidence import Evidence
    from ich_lstm.evaluation.figures import Figures
    from ich_lstm.evaluation.report.contents import Supplements
    from ich_lstm.evaluation.report.tables import ReadableTable
    from ich_lstm.statistics import FigureSettings

    Progress = Callable[[str, int, int | None], None]
    Load = Callable[[Path], tuple[Evidence, Mapping[str, Any]]]

ENCODER, POSITION = "encoder", "position"
"""Values of ``--compare`` that do not name another model."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for comparisons, strata and readers."""
    parser.add_argument("--compare", nargs="+", default=[])
    parser.add_argument("--strata", type=Path, nargs="*")
    parser.add_argument("--readers", type=Path)


def check_options(given: argparse.Namespace) -> None:
    """Check that files exist and that options are compatible, before anything is computed.

    Raises:
        ConfigError: If a file is missing or options contradict each other.
    """
    if ENCODER in given.compare and given.calibrated:
        raise ConfigError(
            "wrong_usage", where="--compare", got=f"{ENCODER}, and --calibrated", expected=f"{ENCODER} without --calibrated"
        )
    others = [Path(other) for other in given.compare if other not in (ENCODER, POSITION)]
    for path in (*others, *(given.strata or ()), *([given.readers] if given.readers else ())):
        if not path.exists():
            raise ConfigError("no_such_file", where="--compare, --strata, --readers", got=str(path), expected="a file or folder")


def write_supplements(
    given: argparse.Namespace, evidence: "Evidence", figures: "Figures", load: "Load", progress: "Progress"
) -> tuple[list["ReadableTable"], "Supplements"]:
    """Compute the requested optional analyses, and write them into the folder of the figures.

    Args:
        given: Options of the command line.
        evidence: Predictions with the labels to evaluate them.
        figures: Figures of the evidence; the analyses use the same levels and settings.
        load: Function that takes the path of a run, a folder of predictions or a model, and returns the evidence of that model
            and its settings for `compute_figures`.
        progress: Called with the activity, the number of items done since the last call, and the total; None if unknown.

    Returns:
        Tables to print, which have only the rows for any hemorrhage, and the complete analyses for the report.
    """
    from ich_lstm.evaluation.report.contents import Supplements

    shown: list[ReadableTable] = []
    supplements = Supplements()
    if given.compare:
        readable, comparisons = _compare(given, evidence, figures, load, progress)
        shown, supplements = [*shown, *readable], supplements._replace(comparisons=comparisons)
    if given.strata is not None:
        readable, strata = _strata(given, evidence, figures, progress)
        shown, supplements = [*shown, *readable], supplements._replace(strata=strata)
    if given.readers is not None:
        readable, readers = _readers(given, evidence, figures, progress)
        shown, supplements = [*shown, *readable], supplements._replace(readers=readers)
    return [table._replace(cells=_lead(table.cells)) for table in shown], supplements


def _lead(cells: "pd.DataFrame") -> "pd.DataFrame":
    """The rows for any hemorrhage and for all labels together; all rows if there are none of these."""
    from ich_lstm.labels import ANY
    from ich_lstm.statistics.measures.evaluation import ALL_LABELS

    leading = cells.index.isin((ALL_LABELS, ANY))
    return cells[leading] if leading.any() else cells


def figure_settings(given: argparse.Namespace) -> "FigureSettings":
    """Settings for the computation of figures and their intervals.

    Args:
        given: Options of ich-evaluate.
    """
    from ich_lstm.statistics import FigureSettings

    names = ("prevalences", "replicates", "seed", "bins")
    return FigureSettings(**{name: getattr(given, name) for name in names if name in given})


def _compare(
    given: argparse.Namespace, evidence: "Evidence", figures: "Figures", load: "Load", progress: "Progress"
) -> tuple[list["ReadableTable"], "pd.DataFrame"]:
    import pandas as pd

    from ich_lstm.evaluation.comparisons.compare import compare_encoder, compare_models, compare_position
    from ich_lstm.evaluation.report.comparison_tables import write_comparisons

    settings = figure_settings(given)
    views = _views(figures)
    tables = []
    progress("comparing models", 0, len(given.compare) * len(views))
    for other in given.compare:
        if other == POSITION:
            tables.append(compare_position(evidence, _other_patients(given, evidence), settings=settings))
            progress("comparing models", len(views), None)
            continue
        second, chosen = (None, {}) if other == ENCODER else load(Path(other))
        for level, (aggregation, points) in views.items():
            options: dict[str, Any] = {"level": level, "aggregation": aggregation, "settings": settings}
            if second is None:
                # Thresholds that were chosen for the whole model are not valid for its encoder alone.
                own = None if isinstance(figures.settings["thresholds"], Mapping) else points
                tables.append(compare_encoder(evidence, thresholds=own, **options))
            else:
                names = ("the model", str(second.source["model"].get("name") or Path(other).name))
                both = (points, chosen["thresholds"][level] if "thresholds" in chosen else points)
                tables.append(compare_models(evidence, second, names=names, thresholds=both, **options))
            progress("comparing models", 1, None)
    table = pd.concat(tables, ignore_index=True)
    return write_comparisons(given.out, table), table


def _strata(
    given: argparse.Namespace, evidence: "Evidence", figures: "Figures", progress: "Progress"
) -> tuple[list["ReadableTable"], "pd.DataFrame | None"]:
    import pandas as pd

    from ich_lstm.evaluation.comparisons.strata import evaluate_strata, find_strata, read_strata
    from ich_lstm.evaluation.report.comparison_tables import write_strata

    strata = find_strata(evidence, [read_strata(path) for path in given.strata])
    views = {level: view for level, view in _views(figures).items() if level != "patient"}
    tables = []
    progress("evaluating strata", 0, len(views))
    for level, (aggregation, points) in views.items():
        options: dict[str, Any] = {"level": level, "aggregation": aggregation, "thresholds": points}
        tables.append(evaluate_strata(evidence, strata, **options, settings=figure_settings(given)))
        progress("evaluating strata", 1, None)
    if not tables:
        return [], None
    table = pd.concat(tables, ignore_index=True)
    return write_strata(given.out, table), table


def _readers(
    given: argparse.Namespace, evidence: "Evidence", figures: "Figures", progress: "Progress"
) -> tuple[list["ReadableTable"], "ReaderFigures"]:
    from ich_lstm.evaluation.comparisons.reader_labels import place_marks, read_marks
    from ich_lstm.evaluation.comparisons.readers import align_marks, evaluate_readers
    from ich_lstm.evaluation.report.comparison_tables import write_readers

    placed = place_marks(read_marks(given.readers), given.readers, _key_to_ids(given))
    marks = align_marks(placed, evidence, allow_missing=getattr(given, "unmatched", "stop") in ("labels", "both"))
    progress("evaluating readers", 0, None)
    options = dict(zip(("aggregation", "thresholds"), _views(figures)["scan"], strict=True)) if "scan" in _views(figures) else {}
    judged = evaluate_readers(marks, evidence, **options, settings=figure_settings(given))
    readable = write_readers(given.out, judged)
    return [readable[0], readable[-1]], judged


def _key_to_ids(given: argparse.Namespace) -> "pd.DataFrame | None":
    """The private key to the ids of the evaluated scans: the given one, or that of the predictions or the prepared folder."""
    from ich_lstm.archive.folder.file_names import KEY_TABLE
    from ich_lstm.data.prepared.folder import PreparedFolder
    from ich_lstm.evaluation.joined import read_key
    from ich_lstm.privacy import PRIVATE

    if given.key is not None:
        return PreparedFolder.open(given.key).key if given.key.is_dir() else read_key(given.key)
    if given.source is not None:
        path = given.source / PRIVATE / KEY_TABLE
        return read_key(path) if path.is_file() else None
    folders = [folder for folder in (given.root, given.cache_dir) if folder is not None and PreparedFolder.is_one(folder)]
    return PreparedFolder.open(folders[0]).key if folders else None


def _views(figures: "Figures") -> dict[str, tuple[str, Any]]:
    """Aggregation and operating point of each level that has known labels."""
    thresholds = figures.settings["thresholds"]
    there = set(figures.table["level"])
    return {
        view.level: (view.aggregation, thresholds[view.level] if isinstance(thresholds, Mapping) else thresholds)
        for view in figures.protocol.views
        if view.level in there
    }


def _other_patients(given: argparse.Namespace, evidence: "Evidence") -> "Evidence | None":
    """The validation patients of a run whose held-out patients are evaluated; None if there are none."""
    from ich_lstm.evaluation.evidence import read_run

    if evidence.source["kind"] != "run" or evidence.source["part"] != "test":
        return None
    try:
        return read_run(given.source, "validation")
    except TableError as error:
        if error.code == "no_such_part":
            return None
        raise
