"""The split on disk: the subset of each patient, kept between runs so that no patient ever moves."""

import hashlib
import json
import logging
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
from ich_lstm.files.atomic_write import written_aside

logger = logging.getLogger(__name__)

SPLIT_FILE = "split.json"
"""In the private folder of every run."""

FORMAT = 1

SUBSET_COLUMNS = ("subset", "part", "split")
"""What the column of a table may be called that says where a patient belongs."""

SUBSET_WORDS: dict[str, Subset] = {
    **{subset: subset for subset in SUBSETS},
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "held_out": "test",
}


@dataclass(frozen=True)
class SplitFile:
    """Who is in which subset or fold, and how that was decided. Private: it holds raw patient ids.

    Args:
        patients: The subset of each patient, or with folds the fold.
        seed: Of the split.
        by: How patients were split: ``random`` or ``date``.
        fractions: Shares of train, validation and test; empty with folds.
        folds: How many, or None.
        days: With a split by date, the first day of validation and of test.
    """

    patients: Mapping[str, Subset | int] = field(repr=False)
    seed: int = 0
    by: SplitBy = "random"
    fractions: tuple[float, ...] = ()
    folds: int | None = None
    days: tuple[str, str] | None = None

    @classmethod
    def make(
        cls, patients: pd.DataFrame, *, fractions: Sequence[float], seed: int, by: SplitBy = "random", folds: int | None = None
    ) -> "SplitFile":
        """Divide patients for the first time.

        Args:
            patients: Table made by `tabulate_patients`.
            fractions: Shares of train, validation and test; with folds they do not count.
            seed: Of the split.
            by: How to split patients: ``random`` or ``date``.
            folds: How many, in place of three subsets.

        Raises:
            SplitError: If that cannot be done.
        """
        if folds is None:
            days = first_dates(patients, checked_fractions(fractions)) if by == "date" and len(patients) > 1 else None
            return cls(split_patients(patients, fractions, seed=seed, by=by), seed, by, tuple(map(float, fractions)), None, days)
        if by == "date":
            raise SplitError(
                "folds_by_date",
                where="folds, split_by",
                got=f"{folds} folds by date",
                expected="folds at random, or three subsets by date",
                todo="Leave one of the two out.",
            )
        return cls(fold_patients(patients, folds, seed=seed), seed, by, (), folds)

    @classmethod
    def open(
        cls,
        path: Path | None,
        patients: pd.DataFrame,
        *,
        fractions: Sequence[float],
        seed: int,
        by: SplitBy = "random",
        folds: int | None = None,
    ) -> "SplitFile":
        """The split that a file holds, with new patients placed; or a new one where there is no file yet.

        Args:
            path: ``.json``, which may not be there yet, or a table of one's own (``.csv``); None: always a new split. What the
                file says of fractions, seed and date counts for the patients in it and for new ones.
            patients: Table made by `tabulate_patients`.
            fractions: Of a new split: shares of patients to train on, to validate on, and to hold out.
            seed: Of a new split.
            by: Of a new split.
            folds: Of a new split; if given, the file must have as many.

        Raises:
            SplitError: If the file cannot be read, or was not made with these folds.
        """
        if path is None or (not path.exists() and path.suffix.lower() != ".csv"):
            return cls.make(patients, fractions=fractions, seed=seed, by=by, folds=folds)
        split = cls.read(path)
        if folds is not None and split.folds != folds:
            raise SplitError(
                "split_file_differs",
                where=str(path),
                got=f"{split.folds} folds" if split.folds else "three subsets",
                expected=f"{folds} folds",
                todo="Name another file, in which the new split is then kept.",
            )
        return split.extended(patients)

    def extended(self, patients: pd.DataFrame) -> "SplitFile":
        """Add new patients to the split, each where patients are most needed; nobody already in the split moves.

        Args:
            patients: Table made by `tabulate_patients`, of new and old patients.

        Raises:
            SplitError: If none of them is in a split that is not by date: it would decide nothing.
        """
        new = patients[~patients.index.isin(list(self.patients))]
        if new.empty:
            return self
        if len(new) == len(patients) and self.days is None:
            raise SplitError(
                "split_of_others",
                where="split file",
                got=f"{len(self.patients):,} patients, and none of the {len(patients):,} whose scans are labelled",
                expected="patient ids as the images or the tables have them, with leading zeros",
                todo="Correct the ids; or name another file, in which a new split is then kept.",
            )
        gone = pd.Series([patient for patient in self.patients if patient not in patients.index], dtype=object)
        damaged = find_lost_digits(gone.astype(str), map(str, new.index))
        if damaged.any():
            raise SplitError(
                "spreadsheet_damage",
                where=f"split file, {PATIENT}",
                got=f"patient ids that lack the leading zeros of these scans' ids, as a spreadsheet leaves them: {damaged.sum()}",
                expected="patient ids as the images or the tables have them, digit by digit",
                todo=EXPORT_AGAIN,
            )
        logger.warning("%d of %d patients are not in the split file, and are placed anew", len(new), len(patients))
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
        """The subset of each patient.

        Args:
            fold: With folds, the one that is held out; the next validates, the others train.

        Raises:
            SplitError: If there is no such fold.
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
        """The scans of each subset.

        Args:
            scans: Of patients who are in the split.
            fold: With folds, the one that is held out; the next is for validation, the others for training.

        Raises:
            SplitError: If none would be trained on, or validated on.
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
                expected="scans to train on and scans to validate on",
                todo="Name another split file, or give labels to scans of its patients.",
            )
        return divided

    @property
    def digest(self) -> str:
        """SHA-256 of the whole assignment and of how it was made, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write it as JSON, complete or not at all, readable by its owner only."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path, mode=0o600) as aside:
            aside.write_text(json.dumps({**self._content(), "sha256": self.digest}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "SplitFile":
        """Read a split back; or a table of one's own, a CSV with ``patient_id`` and ``subset`` (train, validation or test).

        Raises:
            SplitError: If it cannot be read, was changed by hand, or has a patient in two subsets.
            TableError: If it is a CSV, and malformed.
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
                got="patients or settings that do not fit the file's own hash",
                expected="the file as it was written",
                todo=f"Take an unchanged copy, or give a CSV with the columns {PATIENT} and subset.",
            )
        return split

    def _content(self) -> dict[str, Any]:
        content = asdict(self)
        return {"format": FORMAT, **content, "patients": dict(sorted(self.patients.items()))}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a patient who stands twice is an error, where Python would take the last."""
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} names that stand twice")
    return dict(pairs)


def _read_table(path: Path) -> SplitFile:
    """A CSV of one's own. New patients are placed in the shares that it has."""
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
            expected="each patient in one subset, or what is measured on held-out patients is worth nothing",
            todo="Correct the table, and run again.",
        )
    counts = rows["subset"].value_counts()
    shares = tuple(float(counts.get(subset, 0)) for subset in SUBSETS)
    checked_fractions(shares)
    return SplitFile(dict(zip(rows["patient"], rows["subset"], strict=True)), fractions=shares)
