"""Identifiers in RSNA's style (``ID_`` and hexadecimal digits), unique within one seed."""

import hashlib

SLICES_PER_PATIENT = 128
"""How many slice numbers are reserved for each patient."""

THIN_SLICES_PER_PATIENT = 1024
"""How many slice numbers are reserved for each further reconstruction of a patient."""

RECONSTRUCTION_BITS = 13
"""The code of a reconstruction is below 2 to the power of this number."""


def patient_identifier(seed: int, patient: int) -> str:
    """The Patient ID: ``ID_`` and 8 hexadecimal digits."""
    return _identifier("patient", seed, patient, 8)


def study_identifier(seed: int, patient: int) -> str:
    """The Study Instance UID: ``ID_`` and 10 hexadecimal digits."""
    return _identifier("study", seed, patient, 10)


def series_identifier(seed: int, patient: int, reconstruction: int = 0) -> str:
    """The Series Instance UID: ``ID_`` and 10 hexadecimal digits; ``reconstruction`` is the code of a `Reconstruction`."""
    return _identifier("series", seed, (patient << RECONSTRUCTION_BITS) + reconstruction, 10)


def slice_identifier(seed: int, patient: int, index: int, reconstruction: int = 0) -> str:
    """The SOP Instance UID: ``ID_`` and 9 hexadecimal digits, or 12 for a further reconstruction, which may have many slices.

    Example:
        >>> len({slice_identifier(1, p, i) for p in range(100) for i in range(30)})
        3000
    """
    if reconstruction:
        place = (patient << RECONSTRUCTION_BITS) + reconstruction
        return _identifier("slice", seed, place * THIN_SLICES_PER_PATIENT + index, 12)
    return _identifier("slice", seed, patient * SLICES_PER_PATIENT + index, 9)


def file_uid(seed: int, patient: int, index: int) -> str:
    """A valid UID for the file-meta group, which in RSNA's files differs from the SOP Instance UID of the data set."""
    digest = hashlib.sha256(f"ich_lstm phantom file {seed} {patient} {index}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _identifier(kind: str, seed: int, number: int, digits: int) -> str:
    """Permute ``0 .. 16**digits - 1``, keyed with kind and seed, and return the image of ``number``.

    A permutation has no collisions. With a hash of nine digits, two of 100,000 slices would collide with a probability of 7 %.
    """
    bits = 4 * digits
    low_bits = bits // 2
    mask = (1 << low_bits) - 1
    high, low = number >> low_bits, number & mask
    for step in range(4):  # a Feistel network: a permutation whatever the round function is
        digest = hashlib.sha256(f"{kind} {seed} {step} {low}".encode()).digest()
        high, low = low, high ^ (int.from_bytes(digest[:8], "big") & mask)
    return f"ID_{high << low_bits | low:0{digits}x}"
