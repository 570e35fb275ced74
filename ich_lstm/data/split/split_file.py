"""The split on disk: the subset of each patient, kept between runs so that no patient ever moves."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.split.assign import (
    SUBSETS,
    SplitBy,
    Subset,
    checked_fractions,
    first_dates,
    fold_patients,
    place_patients,
    split_patients,
    subsets_by_date,
)
from ich_lstm.data.tables.labelled import PATIENT, name_lines, stop_at
from ich_lstm.data.tables.spreadsheet import EXPORT_AGAIN, find_lost_digits, read_sheet
from ich_lstm.errors import SplitError
from ich_lstm.files.atomic_write import atomic_write
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import PRIVATE_FILE, make_folder

logger = printable_logger(__name__)

SPLIT_FILE = "split.json"
"""The name of the split file in the private folder of every run."""

FORMAT = 1

SUBSET_COLUMNS = ("subset", "part", "split")
"""Possible names of the column that holds the subset of a patient."""

SUBSET_WORDS: dict[str, Subset] = {
    **{subset: subset for subset in SUBSETS},
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "held_out": "test",
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """How patients are divided into training, validation and held-out test.

    Args:
        fractions: Shares of patients in training, validation and test, scaled to a sum of 1; ignored if ``folds`` is given.
        by: How patients are divided. ``random``: at random, with the positive patients of each label in nearly these shares;
            ``date``: the earliest patients train, and the latest are held out.
        seed: Seed of the split. It is not the seed of the run, so that all runs hold out the same patients.
        file: File that keeps the split. If it does not exist, it is created. If it exists, only new patients are placed, and its
            fractions, seed and dates override those given here. It may also be your own CSV with the columns ``patient_id`` and
            ``subset`` (train, validation or test). Null to keep no file.
        folds: Number of folds, at least 3, instead of the shares; an existing file must have this number. Null for shares.
        fold: The fold that is held out, from 0; the next fold is for validation, and the others are for training.
    """

    fractions: Sequence[float] = (0.7, 0.15, 0.15)
    by: SplitBy = "random"
    seed: int = 0
    file: Path | str | None = None
    folds: int | None = None
    fold: int = 0


@dataclass(frozen=True)
class SplitFile:
    """The assignment of patients to subsets or folds, and the settings that it was made with. Private: it holds raw patient ids.

    Args:
        patients: The subset of each patient, or the fold if the split has folds.
        seed: Seed of the random assignment.
        by: How patients were split: ``random`` or ``date``.
        fractions: Shares of train, validation and test; empty if the split has folds.
        folds: The number of folds, or None.
        days: The first day of validation and of test in a split by date; otherwise None.
    """

    patients: Mapping[str, Subset | int] = field(repr=False)
    seed: int = 0
    by: SplitBy = "random"
    fractions: tuple[float, ...] = ()
    folds: int | None = None
    days: tuple[str, str] | None = None

    @classmethod
    def make(cls, patients: pd.DataFrame, settings: Split) -> "SplitFile":
        """Divide patients for the first time.

        Args:
            patients: Table made by `tabulate_patients`.
            settings: How to divide them.

        Raises:
            SplitError: If the patients cannot be divided in this way.
        """
        fractions, seed, by, folds = settings.fractions, settings.seed, settings.by, settings.folds
        if folds is None:
            days = first_dates(patients, checked_fractions(fractions)) if by == "date" and len(patients) > 1 else None
            return cls(split_patients(patients, fractions, seed=seed, by=by), seed, by, tuple(map(float, fractions)), None, days)
        if by == "date":
            raise SplitError(
                "folds_by_date",
                where="split.folds, split.by",
                got=f"{folds} folds by date",
                expected="folds at random, or three subsets by date",
                todo="Give only one of the two.",
            )
        return cls(fold_patients(patients, folds, seed=seed), seed, by, (), folds)

    @classmethod
    def open(cls, patients: pd.DataFrame, settings: Split) -> "SplitFile":
        """Read a split from a file and place new patients in it, or make a new split if there is no file.

        Args:
            patients: Table made by `tabulate_patients`.
            settings: How to divide patients, and the file: JSON, which may not exist yet, or CSV.

        Raises:
            SplitError: If the file cannot be read, or has another number of folds.
        """
        path, folds = Path(settings.file) if settings.file else None, settings.folds
        if path is None or (not path.exists() and path.suffix.lower() != ".csv"):
            return cls.make(patients, settings)
        split = cls.read(path)
        if folds is not None and split.folds != folds:
            raise SplitError(
                "split_file_differs",
                where=str(path),
                got=f"{split.folds} folds" if split.folds else "three subsets",
                expected=f"{folds} folds",
                todo="Give the path of another file, which will keep the new split.",
            )
        return split.extended(patients)

    def extended(self, patients: pd.DataFrame) -> "SplitFile":
        """Add new patients to the split, each where patients are most needed; patients already in the split keep their place.

        Args:
            patients: Table made by `tabulate_patients`, with new and old patients.

        Raises:
            SplitError: If none of the patients is in the split, unless it is a split by date: the file would have no effect.
        """
        new = patients[~patients.index.isin(list(self.patients))]
        if new.empty:
            return self
        if len(new) == len(patients) and self.days is None:
            raise SplitError(
                "split_of_others",
                where="split file",
                got=f"{len(self.patients):,} patients, but none of the {len(patients):,} whose scans are labelled",
                expected="patient ids as in the images or the tables, with leading zeros",
                todo="Correct the ids, or give the path of another file, which will keep a new split.",
            )
        gone = pd.Series([patient for patient in self.patients if patient not in patients.index], dtype=object)
        damaged = find_lost_digits(gone.astype(str), map(str, new.index))
        if damaged.any():
            raise SplitError(
                "spreadsheet_damage",
                where=f"split file, {PATIENT}",
                got=f"patient ids that lack the leading zeros of these scans' ids, as a spreadsheet leaves them: {damaged.sum()}",
                expected="patient ids exactly as in the images or the tables",
                todo=EXPORT_AGAIN,
            )
        logger.warning("%d of %d patients were not in the split file and have been added", len(new), len(patients))
        if self.days is not None:
            placed: Mapping[str, Subset | int] = subsets_by_date(new, self.days)
        else:
            names: Sequence[Subset | int] = SUBSETS if self.folds is None else range(self.folds)
            shares = checked_fractions(self.fractions) if self.folds is None else np.full(self.folds, 1 / self.folds)
            ids = patients.index.tolist()
            before = np.array([names.index(self.patients[patient]) if patient in self.patients else -1 for patient in ids])
            places = place_patients(patients, shares, seed=self.seed, placed=before).tolist()
            placed = {ids[row]: names[places[row]] for row in np.flatnonzero(before < 0).tolist()}
        return SplitFile({**self.patients, **placed}, self.seed, self.by, self.fractions, self.folds, self.days)

    def subsets(self, fold: int = 0) -> dict[str, Subset]:
        """List the subset of each patient.

        Args:
            fold: The held-out fold, if the split has folds; the next fold is for validation, the others for training.

        Raises:
            SplitError: If the fold does not exist.
        """
        if self.folds is None:
            return {patient: SUBSET_WORDS[str(subset)] for patient, subset in self.patients.items()}
        if not 0 <= fold < self.folds:
            raise SplitError(
                "fold_out_of_range", where="fold", got=str(fold), expected=f"0 to {self.folds - 1}, as there are {self.folds}"
            )
        roles: dict[object, Subset] = {fold: "test", (fold + 1) % self.folds: "validation"}
        return {patient: roles.get(place, "train") for patient, place in self.patients.items()}

    def divide(self, scans: Sequence[LabelledScan], fold: int = 0) -> dict[Subset, list[LabelledScan]]:
        """Divide scans into subsets.

        Args:
            scans: Scans of patients who are in the split.
            fold: The held-out fold, if the split has folds; the next fold is for validation, the others for training.

        Raises:
            SplitError: If there would be no scan for training, or none for validation.
        """
        subsets = self.subsets(fold)
        divided: dict[Subset, list[LabelledScan]] = {subset: [] for subset in SUBSETS}
        for scan in scans:
            divided[subsets[scan.patient_id]].append(scan)
        empty = [subset for subset in SUBSETS[:2] if not divided[subset]]
        if empty:
            raise SplitError(
                "empty_part",
                where="split",
                got=f"no labelled scan in {' and '.join(empty)}",
                expected="scans for training and scans for validation",
                todo="Choose another split file, or label scans of its patients.",
            )
        return divided

    @property
    def digest(self) -> str:
        """SHA-256 of the whole assignment and its settings, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the split as JSON, atomically, readable by its owner only."""
        make_folder(path.parent)
        with atomic_write(path, mode=PRIVATE_FILE) as unfinished:
            unfinished.write_text(json.dumps({**self._content(), "sha256": self.digest}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "SplitFile":
        """Read a split file, or a user's CSV with the columns ``patient_id`` and ``subset`` (train, validation or test).

        Raises:
            SplitError: If the file cannot be read, was changed by hand, or has a patient in two subsets.
            TableError: If the file is a malformed CSV.
        """
        if path.suffix.lower() == ".csv":
            return _read_table(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
            digest = content.pop("sha256")
            if content.pop("format") != FORMAT:
                raise ValueError(f"expected format {FORMAT}")
            days = content.pop("days")
            split = cls(**content | {"fractions": tuple(content["fractions"]), "days": days and tuple(days)})
            split.subsets()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SplitError(
                "split_file_unreadable",
                where=str(path),
                got=f"{type(error).__name__}: {error}",
                expected="private/split.json of a run, or a CSV with patient_id and subset",
            ) from error
        if split.digest != digest:
            raise SplitError(
                "split_file_changed",
                where=str(path),
                got="patients or settings that do not match the hash in the file",
                expected="an unchanged file",
                todo=f"Use an unchanged copy, or give a CSV with the columns {PATIENT} and subset.",
            )
        return split

    def _content(self) -> dict[str, Any]:
        content = asdict(self)
        return {"format": FORMAT, **content, "patients": dict(sorted(self.patients.items()))}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, but refuse a key that occurs twice, of which Python would keep the last."""
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} repeated names")
    return dict(pairs)


def _read_table(path: Path) -> SplitFile:
    """Read a user's CSV. New patients are placed in the shares that the CSV has."""
    try:
        sheet = read_sheet(path).named((PATIENT, *SUBSET_COLUMNS)).identifiers([PATIENT])
    except OSError as error:
        raise SplitError(
            "split_file_unreadable",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            expected=f"a CSV with {PATIENT} and subset (train, validation or test)",
        ) from error
    sheet.log()
    cells, lines = sheet.cells, sheet.lines
    column = next((name for name in SUBSET_COLUMNS if name in cells), None)
    if PATIENT not in cells or column is None:
        raise SplitError(
            "split_file_unreadable",
            where=str(path),
            got=f"columns {', '.join(cells.columns[:12])}",
            expected=f"{PATIENT} and subset (train, validation or test)",
        )
    subsets = cells[column].str.lower().map(SUBSET_WORDS)
    wrong = (subsets.isna() | (cells[PATIENT] == "")).to_numpy()
    if wrong.any():
        stop_at(path, lines[wrong], "bad_part", "rows without a patient or a subset", f"a {PATIENT}, and {', '.join(SUBSETS)}")
    rows = pd.DataFrame({"patient": cells[PATIENT], "subset": subsets, "line": lines}).drop_duplicates(["patient", "subset"])
    twice = rows["line"][rows["patient"].duplicated(keep=False)].tolist()
    if twice:
        raise SplitError(
            "patient_in_two_parts",
            where=f"{path}, {name_lines(twice)}",
            got=f"{rows['patient'].duplicated().sum()} patients who are in more than one subset ({len(twice)} rows)",
            expected="each patient in one subset; otherwise results on held-out patients are invalid",
            todo="Correct the table, and run again.",
        )
    counts = rows["subset"].value_counts()
    shares = tuple(float(counts.get(subset, 0)) for subset in SUBSETS)
    checked_fractions(shares)
    return SplitFile(dict(zip(rows["patient"], rows["subset"], strict=True)), fractions=shares)
