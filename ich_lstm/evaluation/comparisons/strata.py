"""Evaluation by stratum: the same figures on groups of scans or patients that are defined before prediction."""

import itertools
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.tables.spreadsheet import read_sheet
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.aggregate import OWN, Level, cases_at
from ich_lstm.evaluation.comparisons.detection import evaluate_detection
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABELS
from ich_lstm.statistics import FigureSettings
from ich_lstm.statistics.bootstrap import FEW_PATIENTS

UNKNOWN = "unknown"

EDGES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "slices": (30, 60),
        "slice_mm": (2.5, 4),
        "thickness_mm": (2.5, 4),
        "pixel_mm": (0.4, 0.5),
        "tilt_degrees": (1, 15),
    }
)
"""Upper ends of bands, fixed before any result was seen. The first distance is the limit below which slices are averaged."""

MOST_VALUES = 6
"""A column with more distinct numbers than this is divided into thirds."""

FACTS = ("scan_id", "slices", "slice_mm", "thickness_mm", "pixel_mm", "tilt_degrees", "flags")
"""The columns that are taken from a prepared folder."""

FLAGS = "flags"


class Stratum(NamedTuple):
    """A group of scans that have a property in common.

    Args:
        grouping: The property by which scans are divided.
        value: The value of that property in this stratum.
        scans: Whether each scan belongs to the stratum, bool ``(b,)``, in the order of the evidence's scans.
    """

    grouping: str
    value: str
    scans: np.ndarray


def read_strata(path: Path | str) -> pd.DataFrame:
    """Read facts about scans: ``scan_id``, and one column per grouping.

    Args:
        path: A CSV file with the column ``scan_id``, or a folder made by `prepare`.

    Raises:
        TableError: If the CSV is unreadable, has no ``scan_id`` or nothing else, or names a scan twice.
    """
    path = Path(path)
    if path.is_dir():
        facts = PreparedFolder.open(path).facts[list(FACTS)]
        return facts.drop_duplicates("scan_id", ignore_index=True)
    try:
        sheet = read_sheet(path).named(["scan_id"]).identifiers(["scan_id"])
    except OSError as error:
        raise TableError(
            "unreadable_table", where=str(path), got=" ".join(str(error).split()), expected="a CSV in UTF-8, or a prepared folder"
        ) from error
    sheet = sheet.numbers(str(column) for column in sheet.cells if column != "scan_id")
    sheet.log()
    # pandas parses the text again, because it detects columns of numbers.
    frame = pd.read_csv(StringIO(sheet.cells.to_csv(index=False)), dtype={"scan_id": str})
    if "scan_id" not in frame or frame.shape[1] < 2:
        raise TableError(
            "missing_columns",
            where=f"{path}, line 1",
            got=f"the columns {', '.join(map(str, frame.columns))}",
            expected="scan_id, and a column for each grouping",
        )
    repeated = frame["scan_id"].duplicated()
    if repeated.any():
        raise TableError(
            "repeated_rows",
            where=str(path),
            got=f"{int(repeated.sum())} rows about scans that have one already, first {frame['scan_id'][repeated].iloc[0]}",
            expected="one row per scan",
        )
    return frame


def find_strata(evidence: Evidence, further: Sequence[pd.DataFrame] = ()) -> list[Stratum]:
    """Divide scans by every property that is known.

    The properties are the number of slices, their distance, one or several types of hemorrhage (each together with all scans
    without hemorrhage), the flags of the predictions, and every further column of the evidence, such as CQ500's batches. Numbers
    are divided into bands.

    Args:
        evidence: The predictions and labels to evaluate.
        further: Tables made by `read_strata`; if several have the same grouping, the last one is used.

    Returns:
        The strata, grouped by property; a scan whose property is unknown is in the stratum `UNKNOWN`.

    Raises:
        TableError: If a table names none of the scans.
    """
    scans, slices = evidence.scans, evidence.slices
    known = {"scan_id", "patient_id", *LABELS, *(LABEL_PREFIX + label for label in LABELS)}
    steps = slices["position_mm"].diff().abs().where(slices["scan_id"].eq(slices["scan_id"].shift()))
    by_scan = steps.groupby(slices["scan_id"]).median().reindex(scans["scan_id"])
    columns = {
        "slices": pd.Series(np.bincount(evidence.scan_index, minlength=len(scans))),
        "slice_mm": by_scan.reset_index(drop=True),
        **{str(name): scans[name] for name in scans.columns if name not in known},
    }
    for table in further:
        if not table["scan_id"].isin(scans["scan_id"]).any():
            raise TableError(
                "unknown_scans",
                where="--strata",
                got="a table without any evaluated scan",
                expected="ids of the same project key",
                todo="Prepare, predict and evaluate with one project key.",
            )
        rows = table.set_index("scan_id").reindex(scans["scan_id"]).reset_index(drop=True)
        columns |= {str(name): rows[name] for name in rows.columns}
    strata = _types(evidence)
    for name, column in columns.items():
        groups = _flags(column) if name == FLAGS else {name: _bands(name, column)}
        for grouping, values in groups.items():
            names = [value for value in values.cat.categories if (values == value).any()]
            strata += [Stratum(grouping, value, (values == value).to_numpy()) for value in names]
    return strata


def evaluate_strata(
    evidence: Evidence,
    strata: Sequence[Stratum],
    *,
    level: Level = "scan",
    aggregation: str = OWN,
    thresholds: float | Sequence[float] = 0.5,
    settings: FigureSettings = FigureSettings(),  # noqa: B008  (frozen)
) -> pd.DataFrame:
    """Compute the figures of every stratum.

    Args:
        evidence: The predictions and labels to evaluate.
        strata: The strata found by `find_strata`.
        level: ``scan``, or ``slice`` for the slices of these scans. A patient may have scans in several strata.
        aggregation: Method by which `cases_at` aggregates slices to scans.
        thresholds: Operating point, chosen on other patients, never on these cases.
        settings: How the intervals are computed; ``prevalences`` and ``bins`` do not apply.

    Returns:
        The columns ``grouping``, ``stratum``, ``level``, ``aggregation`` and ``scans`` (their number), then those of
        `evaluate_detection`, and ``small``: whether fewer than `FEW_PATIENTS` patients have a positive case, or a negative case.

    Raises:
        ConfigError: If the level is ``patient``.
    """
    if level == "patient":
        raise ConfigError("no_strata_of_patients", where="--level", got="patient", expected="slice or scan, for strata of scans")
    cases = cases_at(evidence, level, aggregation=aggregation)
    tables = []
    for stratum in strata:
        rows = stratum.scans[evidence.scan_index] if level == "slice" else stratum.scans
        given = (cases.labels[rows], cases.probabilities[rows], cases.patients[rows])
        table = evaluate_detection(
            *given, thresholds=thresholds, replicates=settings.replicates, seed=settings.seed, workers=settings.workers
        )
        about: dict[str, Any] = {
            "grouping": stratum.grouping,
            "stratum": stratum.value,
            "level": level,
            "aggregation": cases.aggregation,
            "scans": int(stratum.scans.sum()),
        }
        for place, (name, value) in enumerate(about.items()):
            table.insert(place, name, value)
        tables.append(table.assign(small=table[["positive_patients", "negative_patients"]].min(axis=1) < FEW_PATIENTS))
    return pd.concat(tables, ignore_index=True)


def strata_notes(table: pd.DataFrame) -> list[str]:
    """Warn of each small stratum, with the number of its patients by label."""
    small = table[table["small"]].drop_duplicates(["grouping", "stratum", "label"])
    lines = []
    for (grouping, stratum), rows in small.groupby(["grouping", "stratum"], sort=False):
        each = [
            f"{row.label} ({row.positive_patients} positive, {row.negative_patients} negative)"
            for row in rows[["label", "positive_patients", "negative_patients"]].itertuples(index=False)
        ]
        lines.append(f"{grouping} {stratum}: small, fewer than {FEW_PATIENTS} patients of a class: {', '.join(each)}")
    return lines


def _types(evidence: Evidence) -> list[Stratum]:
    """Divide positive scans into one and several types of hemorrhage, each with all negative scans."""
    labels = columns_of(evidence.scans, LABEL_PREFIX)
    number = (labels[:, : len(HEMORRHAGE_TYPES)] == 1).sum(axis=1)
    positive, negative = (labels[:, LABELS.index(ANY)] == value for value in (1, 0))
    certain = ~np.isnan(labels).any(axis=1)
    kinds = {
        "one": positive & certain & (number == 1),
        "several": positive & (number > 1),
        "not agreed": positive & certain & (number == 0),
    }
    kinds[UNKNOWN] = ~negative & ~np.logical_or.reduce(list(kinds.values()))
    return [Stratum("types of hemorrhage", name, scans | negative) for name, scans in kinds.items() if scans.any()]


def _flags(column: pd.Series) -> dict[str, pd.Series]:
    """Divide scans by each flag; codes are separated by semicolons in predictions and by blanks in prepared folders."""
    codes = column.fillna("").astype(str).str.replace(";", " ").str.split()
    found = sorted({code for row in codes for code in row})
    return {
        f"flag {code}": pd.Series(pd.Categorical(["with" if code in row else "without" for row in codes], ["without", "with"]))
        for code in found
    }


def _bands(name: str, column: pd.Series) -> pd.Series:
    """Name the band of each scan, as a categorical in ascending order."""
    unknown = column.isna() | (column.astype(str) == "")
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if not numeric or (name not in EDGES and column.nunique() <= MOST_VALUES):
        values = column.where(~unknown).map(
            lambda value: f"{value:g}" if isinstance(value, float) else str(value), na_action="ignore"
        )
        order = list(dict.fromkeys(values[column[~unknown].sort_values().index]))
    else:
        numbers = column.astype(np.float64).abs() if name == "tilt_degrees" else column.astype(np.float64)
        edges = EDGES.get(name) or tuple(np.unique(numbers.quantile([1 / 3, 2 / 3])))
        order = [f"up to {edges[0]:g}", *(f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges))]
        order.append(f"over {edges[-1]:g}")
        place = np.searchsorted(edges, numbers.to_numpy(), side="left")
        values = pd.Series(np.array(order, dtype=object)[np.minimum(place, len(edges))], column.index)
    values = values.where(~unknown, UNKNOWN)
    return pd.Series(pd.Categorical(values, [*order, UNKNOWN]))
