"""Figures as files and as readable tables: CSV, JSON, Markdown."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.evaluation.evidence import Evidence
from ich_lstm.evaluation.figures import VIEW, Figures, figure_notes, main_rows
from ich_lstm.evaluation.protocols import HELD_OUT_IS_NOT_PRIVATE, WEIGHTED_LOG_LOSS
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.csv_table import write_csv
from ich_lstm.labels import LABELS
from ich_lstm.statistics.measures.evaluation import ALL_LABELS
from ich_lstm.statistics.proportions import PROPORTIONS

FIGURES_CSV, FIGURES_MD, FIGURES_JSON = "figures.csv", "figures.md", "figures.json"


class ReadableTable(NamedTuple):
    """A table for reading.

    Args:
        title: The level, output and aggregation of the figures, and the number of cases.
        cells: One row per label, one column per figure, with intervals in brackets. There may be no columns.
        over_all: A text with the figures over all labels together.
    """

    title: str
    cells: pd.DataFrame
    over_all: str


def readable_tables(figures: Figures) -> list[ReadableTable]:
    """Make a readable table for each view."""
    tables = []
    order = {name: place for place, name in enumerate(figures.protocol.figures)}
    for (level, output, aggregation), rows in main_rows(figures.table).groupby(VIEW, sort=False):
        whose = "the encoder alone" if output == "encoder" else "the whole model"
        how = "" if level == "slice" else f", {aggregation}"
        title = f"Level {level}: {whose}{how}; {rows['cases'].max():,} cases of {rows['patients'].max():,} patients"
        rows = rows.assign(
            column=[_name(metric, share) for metric, share in zip(rows["metric"], rows["prevalence"], strict=True)],
            cell=[figure_in_words(*row) for row in rows[["metric", "value", "low", "high"]].itertuples(index=False)],
        )
        together = rows["label"] == ALL_LABELS
        over_all = ", ".join(rows["column"][together] + " " + rows["cell"][together])
        rows = rows[~together]
        columns = rows.sort_values("metric", key=lambda names: names.map(order), kind="stable")["column"].unique()
        cells = rows.pivot(index="label", columns="column", values="cell").reindex(LABELS).reindex(columns=columns)
        tables.append(ReadableTable(title, cells.rename_axis(index="label", columns=None), over_all))
    return tables


def remarks(evidence: Evidence, figures: Figures) -> list[str]:
    """Sentences that a reader must know to interpret the numbers; `figure_notes` has the notes on single figures."""
    settings = figures.settings
    lines = [f"intervals (95 %) are over patients, from {settings['replicates']:,} resamples"]
    if set(figures.protocol.figures) & set(PROPORTIONS):
        points = settings["thresholds"]
        if isinstance(points, Mapping):
            lines.append(
                "a case is called positive at or above the operating point of its label, which was not chosen on these cases"
            )
        else:
            given = "not chosen on these cases" if points == 0.5 else "it is not known on which cases this was chosen"
            lines.append(f"a case is called positive at or above {points:g}; {given}")
    if "ece" in figures.protocol.figures:
        lines.append(f"ECE in {settings['bins']} bins of equal width")
    if evidence.source["kind"] == "run" and WEIGHTED_LOG_LOSS in figures.protocol.figures:
        lines.append(HELD_OUT_IS_NOT_PRIVATE)
    return list(dict.fromkeys([*lines, *figures.protocol.notes, *evidence.source["notes"], *figures.excluded]))


def flat_counts(evidence: Evidence) -> dict[str, int]:
    """Flatten the counts of included and excluded cases to one level of names, such as ``scans refused, truncated pixels``."""
    counts: dict[str, int] = {}
    for name, count in evidence.source["counts"].items():
        within = count if isinstance(count, Mapping) else {"": count}
        counts |= {f"{name}, {inner}".strip(", ").replace("_", " "): number for inner, number in within.items()}
    return counts


def write_figures(folder: Path, evidence: Evidence, figures: Figures) -> None:
    """Write ``figures.csv``, ``figures.md`` and ``figures.json``, which are shareable and contain no ids.

    Args:
        folder: The folder to write into; created if missing.
        evidence: The evaluated predictions and labels, whose source is stated.
        figures: The figures computed from the evidence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / FIGURES_CSV, figures.table)
    protocol = {name: getattr(figures.protocol, name) for name in ("name", "truth", "source", "notes")}
    about = {
        "ich_lstm": version("ich_lstm"),
        "source": dict(evidence.source),
        "is_test": evidence.is_test,
        "protocol": protocol,
        "settings": dict(figures.settings),
        "excluded": figures.excluded,
        "figures": _records(figures.table),
        "confusion": _records(figures.confusion),
    }
    write_text(folder / FIGURES_JSON, json.dumps(about, indent=2, allow_nan=False) + "\n")
    write_text(folder / FIGURES_MD, _markdown(evidence, figures))


def markdown_table(frame: pd.DataFrame) -> str:
    """Write a table in Markdown, without its index.

    Example:
        >>> print(markdown_table(pd.DataFrame({"label": ["any"], "cases": [3]})))
        | label | cases |
        | --- | --- |
        | any | 3 |
    """
    rows = [[*frame.columns], ["---"] * frame.shape[1], *frame.to_numpy(dtype=object).tolist()]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def _markdown(evidence: Evidence, figures: Figures) -> str:
    protocol = figures.protocol
    parts = ["# Figures"]
    if protocol.name:
        parts.append(f"Protocol `{protocol.name}`: {protocol.source}.")
    for title, cells, over_all in readable_tables(figures):
        parts += [f"## {title}", over_all, *([markdown_table(cells.reset_index())] if cells.size else [])]
    parts += ["## Confusion matrices", markdown_table(figures.confusion)]
    lines = [*remarks(evidence, figures), *figure_notes(figures.table)]
    parts += ["## Remarks", "\n".join(f"- {line}" for line in lines)]
    parts += ["## Data", "\n".join(f"- {name}: {count:,}" for name, count in flat_counts(evidence).items())]
    return "\n\n".join(filter(None, parts)) + "\n"


def _name(metric: str, prevalence: float) -> str:
    words = metric.replace("_", " ")
    return words if np.isnan(prevalence) else f"{words} at {prevalence:.3g}"


def figure_in_words(metric: str, value: float, low: float, high: float) -> str:
    """Write a number with its interval; a log loss has four digits, as on leaderboards."""
    digits = 4 if metric.endswith("log_loss") else 3
    if np.isnan(value):
        return "undefined"
    return f"{value:.{digits}f}" + ("" if np.isnan(low) else f" ({low:.{digits}f} to {high:.{digits}f})")


def _records(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    """Convert rows for JSON, which has no NaN."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")
