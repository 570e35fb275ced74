"""Assigns each patient to exactly one of training, validation and held-out test, or to one fold."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from ich_lstm.data.tables.labelled import STUDY_DATE
from ich_lstm.errors import SplitError
from ich_lstm.labels import LABELS

if TYPE_CHECKING:
    from ich_lstm.data.joining.join import LabelledScan

Subset = Literal["train", "validation", "test"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)
TrainingPatients = Literal["all", "encoder", "head"]
"""The training patients of a stage: all; those that are not left to the head (``encoder``); or those that are (``head``)."""

SplitBy = Literal["random", "date"]

MIN_FOLDS = 3
"""One fold for testing, one for validation, and at least one for training."""

_NO_DATE = "9999"
"""A date later than any other, so that any known date is older."""


def tabulate_patients(scans: Sequence["LabelledScan"]) -> pd.DataFrame:
    """Tabulate the information about each patient that a split needs.

    Args:
        scans: Labelled scans of any number of patients.

    Returns:
        One row per raw patient id: each label as bool (present in any of the patient's scans), and ``study_date``, the date of
        the oldest study as ``YYYY-MM-DD``, empty if unknown.
    """
    labels = np.array([scan.scan_labels for scan in scans], np.float32).reshape(-1, len(LABELS)) == 1
    frame = pd.DataFrame(labels, columns=list(LABELS), index=pd.Index([scan.patient_id for scan in scans], dtype=object))
    frame[STUDY_DATE] = [scan.study_date or _NO_DATE for scan in scans]
    patients = frame.groupby(level=0)
    return patients[list(LABELS)].any().assign(**{STUDY_DATE: patients[STUDY_DATE].min().replace(_NO_DATE, "")})


def split_patients(
    patients: pd.DataFrame, fractions: Sequence[float], *, seed: int = 0, by: SplitBy = "random"
) -> dict[str, Subset]:
    """Divide patients at random, with the positive patients of each label in nearly the same shares, or by date.

    Args:
        patients: Table made by `tabulate_patients`.
        fractions: Shares of train, validation and test, which are scaled to a sum of 1. The share of test may be 0.
        seed: Seed of a random split.
        by: How to split. ``random``: stratified, see `place_patients`. ``date``: the earliest patients train and the latest are
            held out; patients whose oldest studies have the same date stay together.

    Returns:
        The subset of each patient. Training and validation each get at least one patient.

    Raises:
        SplitError: If there are fewer than two patients, a date is missing, or the fractions are invalid.
    """
    shares = checked_fractions(fractions)
    _check_number(patients, 2, "one for training, one for validation")
    if by == "date":
        return subsets_by_date(patients, first_dates(patients, shares))
    places = place_patients(patients, shares, seed=seed)
    for needed in (0, 1):
        if not (places == needed).any():  # happens only with a handful of patients
            donors = np.flatnonzero(places == np.bincount(places, minlength=len(SUBSETS)).argmax())
            places[_by_hash(patients, donors, seed)[0]] = needed
    return {patient: SUBSETS[place] for patient, place in zip(patients.index, places, strict=True)}


def fold_patients(patients: pd.DataFrame, folds: int, *, seed: int = 0) -> dict[str, int]:
    """Divide patients into folds of equal size, with equally many positive patients of each label.

    Args:
        patients: Table made by `tabulate_patients`.
        folds: The number of folds, at least 3.
        seed: Seed of the random assignment.

    Returns:
        The fold of each patient, from 0.

    Raises:
        SplitError: If there are fewer folds than 3, or fewer patients than folds.
    """
    if folds < MIN_FOLDS:
        raise SplitError(
            "folds_out_of_range",
            where="folds",
            got=str(folds),
            expected=f"at least {MIN_FOLDS}: one for testing, one for validation, the others for training",
        )
    _check_number(patients, folds, "one in each fold")
    places = place_patients(patients, np.full(folds, 1 / folds), seed=seed)
    return {patient: int(place) for patient, place in zip(patients.index, places, strict=True)}


def place_patients(patients: pd.DataFrame, shares: np.ndarray, *, seed: int, placed: np.ndarray | None = None) -> np.ndarray:
    """Assign patients to places so that all patients, and the positive patients of each label, are divided in the given shares.

    The assignment is greedy, the rarest label first: each patient goes to the place that is furthest below its share of that
    label, then of the patient's next rarest label, and finally of all patients. (Iterative stratification: Sechidis, Tsoumakas
    and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011; here for unequal shares and for patients who have a
    place already.) Within a label the order is given by a hash of the seed and the raw patient id, so the order of the files does
    not matter.

    Args:
        patients: Table made by `tabulate_patients`, ``n`` rows.
        shares: float ``(p,)``, one per place, with a sum of 1.
        seed: Seed of the order of patients.
        placed: int ``(n,)``: the place of each patient who has one already and keeps it; -1 for the others.

    Returns:
        The place of each patient from 0, int ``(n,)``.
    """
    marks = np.column_stack([patients[list(LABELS)].to_numpy(bool), np.ones(len(patients), bool)]).astype(np.int64)  # (n, k + 1)
    # Rarest first. The column of all patients comes last, also after a label that everybody has.
    columns = np.argsort(marks.sum(axis=0), kind="stable")
    marks = marks[:, columns]
    places = np.full(len(patients), -1) if placed is None else placed.copy()
    given = np.array([marks[places == place].sum(axis=0) for place in range(len(shares))])  # (p, k + 1)
    lag = shares[:, None] * marks.sum(axis=0) - given
    new = _by_hash(patients, np.flatnonzero(places < 0), seed)
    rarest = marks[new].argmax(axis=1)
    for row in new[np.argsort(rarest, kind="stable")]:
        mine = np.flatnonzero(marks[row])
        place = max(range(len(shares)), key=lambda candidate: lag[candidate, mine].tolist())
        places[row] = place
        lag[place] -= marks[row]
    return places


def first_dates(patients: pd.DataFrame, shares: np.ndarray) -> tuple[str, str]:
    """Find the first day of validation and of test for a split by date; the day of test is empty if nobody is held out.

    Args:
        patients: Table made by `tabulate_patients`.
        shares: Shares of train, validation and test, float ``(3,)``, with a sum of 1.

    Raises:
        SplitError: If a patient has no date, or there are too few different dates.
    """
    dates = np.sort(checked_dates(patients))
    first_validation, first_test = (round(float(share) * len(dates)) for share in np.cumsum(shares)[:2])
    days = (str(dates[min(first_validation, len(dates) - 1)]), str(dates[first_test]) if first_test < len(dates) else "")
    if not {"train", "validation"} <= set(subsets_by_date(patients, days).values()):
        raise SplitError(
            "too_few_dates",
            where="split by date",
            got=f"{len(np.unique(dates))} different dates for {len(dates)} patients",
            expected="earlier patients for training and later ones for validation",
            todo="Split at random instead: --data.split.by of ich-train.",
        )
    return days


def subsets_by_date(patients: pd.DataFrame, days: tuple[str, str]) -> dict[str, Subset]:
    """Assign each patient to a subset by the date of the oldest study.

    Args:
        patients: Table made by `tabulate_patients`.
        days: The two dates returned by `first_dates`.
    """
    dates = checked_dates(patients)
    validation, test = days
    later = (dates >= validation).astype(int) + ((dates >= test) if test else 0)
    return {patient: SUBSETS[place] for patient, place in zip(patients.index, later, strict=True)}


def checked_fractions(fractions: Sequence[float]) -> np.ndarray:
    """Scale the shares of the three subsets to a sum of 1.

    Raises:
        SplitError: If there are not three fractions, if one is negative, or if the one of training or validation is 0.
    """
    if len(fractions) != len(SUBSETS) or min(fractions) < 0 or fractions[0] <= 0 or fractions[1] <= 0:
        raise SplitError(
            "fractions_out_of_range",
            where="split",
            got=str(list(fractions)),
            expected="three shares (train, validation, test), the first two above 0",
        )
    return np.array(fractions, float) / sum(fractions)


def checked_dates(patients: pd.DataFrame) -> np.ndarray:
    """List the date of each patient's oldest study.

    Raises:
        SplitError: If some patients have no dated study.
    """
    dates = patients[STUDY_DATE].to_numpy(str)
    missing = int((dates == "").sum())
    if missing:
        raise SplitError(
            "no_study_date",
            where="split by date",
            got=f"{missing} of {len(dates)} patients without a dated study",
            expected="a date for each patient, in the images or in the table",
            todo=f"Add a column {STUDY_DATE} (YYYY-MM-DD) to the table, or split at random: --data.split.by of ich-train.",
        )
    return dates


def is_left_to_head(patient_id: str, share: float, seed: int) -> bool:
    """Whether a training patient belongs to the share that the encoder's stages leave to those of the head.

    This is a pure function of the arguments, so that no patient changes when others are added.

    Args:
        patient_id: Raw patient id.
        share: Share of the training patients, in [0, 1); that of a few patients can differ from it.
        seed: Seed of the split.
    """
    digest = hashlib.sha256(f"{seed}/left to head/{patient_id}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _by_hash(patients: pd.DataFrame, rows: np.ndarray, seed: int) -> np.ndarray:
    """Order rows by a hash of the seed and the raw ids."""
    ids = patients.index.tolist()
    hashes = [hashlib.sha256(f"{seed}/{ids[row]}".encode(errors="surrogatepass")).hexdigest() for row in rows.tolist()]
    return rows[np.argsort(np.array(hashes, dtype=str), kind="stable")]


def _check_number(patients: pd.DataFrame, needed: int, why: str) -> None:
    if len(patients) < needed:
        raise SplitError(
            "too_few_patients",
            where="split",
            got=f"{len(patients)} labelled patient{'s' * (len(patients) != 1)}",
            expected=f"at least {needed}: {why}",
            todo="Add labelled scans of other patients.",
        )
