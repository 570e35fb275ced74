"""Patients into training, validation and held-out test; never a patient in two."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from ich_lstm.errors import SplitError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)


def split_patients(patients: Mapping[str, bool], fractions: Sequence[float], *, seed: int = 0) -> dict[str, Part]:
    """Divide patients at random, with nearly the same share of positive ones in each part.

    The order is that of a hash of the raw patient id, so neither the order of the files nor a project's key matters.

    Args:
        patients: Whether each patient has any hemorrhage, by raw patient id.
        fractions: Shares of train, validation and test; they are scaled to a sum of 1. Test may be 0.
        seed: Another seed, another split.

    Returns:
        The part of each patient. Training and validation each get at least one.

    Raises:
        SplitError: If there are fewer than two patients, or the fractions make no sense.
    """
    if len(fractions) != len(PARTS) or min(fractions) < 0 or fractions[0] <= 0 or fractions[1] <= 0:
        raise SplitError(
            "fractions_out_of_range",
            where="split",
            got=str(list(fractions)),
            expected="three shares (train, validation, test), the first two above 0",
        )
    if len(patients) < 2:
        raise SplitError(
            "too_few_patients",
            where="split",
            got=f"{len(patients)} labelled patient(s)",
            expected="at least 2: one to train on, one to validate on",
            todo="Add labelled scans of other patients.",
        )
    ordered = sorted(patients, key=lambda patient: (not patients[patient], _hash(patient, seed)))
    total = sum(fractions)
    wanted = [fraction / total * len(ordered) for fraction in fractions]
    given = [0] * len(PARTS)
    parts: dict[str, Part] = {}
    for place, patient in enumerate(ordered, start=1):
        # To the part that lags most behind its share of the patients so far; positive ones come first, so they spread too.
        lag = [wanted[i] * place / len(ordered) - given[i] for i in range(len(PARTS))]
        chosen = lag.index(max(lag))
        parts[patient] = PARTS[chosen]
        given[chosen] += 1
    for needed in (0, 1):
        if not given[needed]:  # only with a handful of patients
            donor = given.index(max(given))
            parts[next(patient for patient in ordered if parts[patient] == PARTS[donor])] = PARTS[needed]
            given[donor] -= 1
            given[needed] += 1
    return parts


def _hash(patient: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()
