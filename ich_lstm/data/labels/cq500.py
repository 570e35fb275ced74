"""CQ500: the readings of three radiologists for each of its 491 scans, and the ground truth derived from them."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from ich_lstm.data.tables.labelled import (
    LabelTable,
    checked_table,
    parse_labels,
    repeated_flag,
    stop_at,
    stop_at_differing,
)
from ich_lstm.data.tables.spreadsheet import read_sheet
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.formatting import first_of
from ich_lstm.labels import ANY

Truth = Literal["majority", "unanimous", "any", "R1", "R2", "R3"]
"""Whose reading counts: two of the three readers, all three, at least one of them, or one named reader."""

READERS = ("R1", "R2", "R3")
VOTES = {"any": 1, "majority": 2, "unanimous": 3}

FINDING_OF_LABEL = {
    "epidural": "EDH",
    "intraparenchymal": "IPH",
    "intraventricular": "IVH",
    "subarachnoid": "SAH",
    "subdural": "SDH",
    ANY: "ICH",
}
"""The labels that the readers gave, under the names of ``reads.csv``."""

FINDINGS = (
    *("ICH", "IPH", "IVH", "SDH", "EDH", "SAH", "BleedLocation-Left", "BleedLocation-Right", "ChronicBleed"),
    *("Fracture", "CalvarialFracture", "OtherFracture", "MassEffect", "MidlineShift"),
)
FINDING_OF_STRATUM = {
    "chronic": "ChronicBleed",
    "fracture": "Fracture",
    "mass_effect": "MassEffect",
    "midline_shift": "MidlineShift",
}
CATEGORIES = ("B1", "B2")

COLUMNS = ("name", "Category", *(f"{reader}:{finding}" for reader in READERS for finding in FINDINGS))
"""The columns of ``reads.csv``."""

SCANS = 491
EXPECTED_POSITIVES = {"ICH": 205, "IPH": 134, "IVH": 28, "SDH": 53, "EDH": 13, "SAH": 60}
"""Expected numbers of positive scans in the complete set by the majority of readers (Chilamkurthy et al., arXiv 1803.05854)."""

_NAME = re.compile(r"CQ500-?CT-?(\d+)")


@dataclass(frozen=True, eq=False)
class Reads:
    """The findings of each reader in each scan.

    Args:
        scans: One row per scan: ``name`` (``CQ500-CT-12``), ``category`` (the batch it was collected in, ``B1`` or ``B2``),
            and ``line``, the number of its line in the file.
        marks: One row per scan, reader and finding: ``name``, ``reader`` (one of `READERS`), ``finding`` (one of `FINDINGS`),
            and ``mark`` as float32: 1 seen, 0 not seen, NaN where the cell is empty.
        source: The file that was read.
        flags: Remarks that a user of the table should know.
    """

    scans: pd.DataFrame = field(repr=False)
    marks: pd.DataFrame = field(repr=False)
    source: Path
    flags: tuple[str, ...] = ()

    def truth(self, truth: Truth) -> pd.DataFrame:
        """Derive one truth for each scan from the readings.

        An empty cell leaves a finding unknown unless the other readers decide it.

        Args:
            truth: Whose reading counts, one of `Truth`.

        Returns:
            float32, one row per scan by its ``name``, one column per finding: 1 present, 0 absent, NaN unknown.

        Raises:
            ConfigError: If the truth has an unknown name.
        """
        if truth not in get_args(Truth):
            raise ConfigError("unknown_truth", where="truth", got=repr(truth), expected=f"one of {', '.join(get_args(Truth))}")
        readers = [truth] if truth in READERS else READERS
        needed = VOTES.get(truth, 1)
        marks = self.marks[self.marks["reader"].isin(readers)]
        votes = marks.assign(yes=marks["mark"] == 1, no=marks["mark"] == 0).groupby(["name", "finding"])[["yes", "no"]].sum()
        decided = np.select([votes["yes"] >= needed, votes["no"] > len(readers) - needed], [1.0, 0.0], np.nan)
        table = pd.Series(decided.astype(np.float32), votes.index).unstack("finding")
        return table.loc[self.scans["name"].to_numpy(), list(FINDINGS)]


def is_reads(header: Collection[str]) -> bool:
    """Whether a CSV with these columns is CQ500's ``reads.csv``."""
    return {"name", "R1:ICH"} <= set(header)


def folder_name(name: str) -> str | None:
    """Derive the folder that holds a scan from the scan's name; None if it is not a name of CQ500.

    Example:
        >>> folder_name("CQ500-CT-12")
        'CQ500CT12 CQ500CT12'
    """
    match = _NAME.fullmatch(name)
    return f"CQ500CT{int(match[1])} CQ500CT{int(match[1])}" if match else None


def read_reads(path: Path | str) -> Reads:
    """Read ``reads.csv``: ``name``, ``Category``, and 14 findings of each of three readers as ``R1:ICH`` and so on.

    Args:
        path: CQ500's ``reads.csv``.

    Raises:
        TableError: If a column is missing, a row is malformed, or rows contradict one another.
    """
    path = Path(path)
    sheet = read_sheet(path).named(COLUMNS)
    columns = list(COLUMNS[2:])
    missing = [column for column in COLUMNS if column not in sheet.cells]
    if missing:
        raise TableError(
            "missing_columns",
            where=f"{path}, line 1",
            got=f"no column {first_of(missing)}",
            expected="name, Category, and 14 findings of each of three readers",
            todo="Use reads.csv as it was published.",
        )
    sheet = sheet.truths(columns)
    cells, lines = sheet.cells, sheet.lines
    nameless = np.array([folder_name(name) is None for name in cells["name"]])
    if nameless.any():
        got = f"the name {cells['name'][nameless].iloc[0]!r}"
        stop_at(path, lines[nameless], "bad_cq500_name", got, "CQ500-CT-<number>")
    unsorted = ~cells["Category"].isin(CATEGORIES).to_numpy()
    if unsorted.any():
        got = f"the category {cells['Category'][unsorted].iloc[0]!r}"
        stop_at(path, lines[unsorted], "bad_category", got, " or ".join(CATEGORIES))
    names = cells["name"].str.replace(_NAME, lambda match: f"CQ500-CT-{int(match[1])}", regex=True)
    scans = pd.DataFrame({"name": names, "category": cells["Category"], "line": lines})
    wide = scans.join(parse_labels(path, cells[columns], lines))

    once = wide.drop_duplicates(["name", "category", *columns])
    stop_at_differing(path, once["line"][once["name"].duplicated(keep=False)])
    marks = once.melt("name", columns, "column", "mark")
    marks[["reader", "finding"]] = marks.pop("column").str.split(":", expand=True)
    dropped = wide["line"].drop(once.index)
    flags = (*sheet.flags, *((repeated_flag(dropped),) if len(dropped) else ()))
    return Reads(
        once[["name", "category", "line"]].reset_index(drop=True),
        marks[["name", "reader", "finding", "mark"]],
        path,
        flags,
    )


def read_cq500(path: Path | str, truth: Truth = "majority", *, repair_any: bool = False) -> LabelTable:
    """Read ``reads.csv`` as labels of scans.

    By the majority, a scan may correctly have any = 1 without a type where the readers disagree on the type; such scans are
    flagged. A type without "any" occurs only if readers marked a type and no hemorrhage; reading then stops.

    Args:
        path: CQ500's ``reads.csv``.
        truth: Whose reading counts, one of `Truth`.
        repair_any: Where a type is 1 and any is 0, make any 1, and count it; otherwise stop.

    Returns:
        One row per scan, named by its folder, with the strata ``category`` (``B1``, ``B2``), and ``chronic``, ``fracture``,
        ``mass_effect`` and ``midline_shift`` (1, 0 or NaN, by the same truth). The images name the patients.

    Raises:
        TableError: If the table is malformed or contradicts itself.
        ConfigError: If the truth has an unknown name.
    """
    reads = read_reads(path)
    findings = reads.truth(truth).reset_index(drop=True)
    folders = reads.scans["name"].map(folder_name)
    labels = findings[list(FINDING_OF_LABEL.values())].set_axis(list(FINDING_OF_LABEL), axis=1)
    rows = pd.DataFrame({"kind": "folder_name", "name": folders, "line": reads.scans["line"]})
    # Votes are not findings: where "any" is unknown, a type without a majority is not absent, but unknown.
    labels = labels.mask(labels[ANY].isna().to_numpy()[:, None] & (labels == 0))
    table = checked_table(rows.join(labels), reads.source, repair_any=repair_any)
    strata = findings[list(FINDING_OF_STRATUM.values())].set_axis(list(FINDING_OF_STRATUM), axis=1)
    strata = pd.DataFrame({"name": folders, "category": reads.scans["category"]}).join(strata)
    flags = (*reads.flags, *table.flags, *check_reads(reads))
    return LabelTable(table.rows, reads.source, flags, strata)


def check_reads(reads: Reads) -> tuple[str, ...]:
    """Describe how the table differs from the published data set.

    Args:
        reads: The readings of the table.

    Returns:
        Texts about missing scans; about numbers of positives in the complete set that differ from the published ones; and about
        readers who marked a type of hemorrhage and no hemorrhage.
    """
    wide = reads.marks.pivot(index=["name", "reader"], columns="finding", values="mark")
    types = [finding for label, finding in FINDING_OF_LABEL.items() if label != ANY]
    slips = wide.index[((wide[types] == 1).any(axis=1) & (wide[FINDING_OF_LABEL[ANY]] == 0)).to_numpy()]
    flags = []
    if len(slips):
        named = first_of([f"{name} ({reader})" for name, reader in slips])
        flags.append(f"{len(slips)} times a reader marked a type of hemorrhage and no hemorrhage: {named}")
    present = set(reads.scans["name"])
    missing = [name for name in (f"CQ500-CT-{number}" for number in range(SCANS)) if name not in present]
    if missing:
        return (*flags, f"{len(missing)} of the {SCANS} scans of CQ500 are not in the table: {first_of(missing)}")
    positives = (reads.truth("majority") == 1).sum()
    flags += [
        f"{finding} in {positives[finding]} scans by the majority of readers, expected {expected} in the complete set"
        for finding, expected in EXPECTED_POSITIVES.items()
        if positives[finding] != expected
    ]
    return tuple(flags)
