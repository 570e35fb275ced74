"""Identifiers in RSNA's style (``ID_`` and hexadecimal digits), unique within one seed."""

import hashlib

SLICES_PER_PATIENT = 128
"""Block of slice numbers that each patient owns."""

THIN_SLICES_PER_PATIENT = 1024
"""Block of slice numbers that each further reconstruction of a patient owns."""

RECONSTRUCTION_BITS = 13
"""Every code of a reconstruction is below 2 to this power."""


def patient_identifier(seed: int, patient: int) -> str:
    """``ID_`` and 8 digits."""
    return _identifier("patient", seed, patient, 8)


def study_identifier(seed: int, patient: int) -> str:
    """``ID_`` and 10 digits."""
    return _identifier("study", seed, patient, 10)


def series_identifier(seed: int, patient: int, reconstruction: int = 0) -> str:
    """``ID_`` and 10 digits; ``reconstruction`` is the code of one, 0 for the plain one."""
    return _identifier("series", seed, (patient << RECONSTRUCTION_BITS) + reconstruction, 10)


def slice_identifier(seed: int, patient: int, index: int, reconstruction: int = 0) -> str:
    """``ID_`` and 9 digits; 12 for all but the plain reconstruction, whose slices may be many.

    Example:
        >>> len({slice_identifier(1, p, i) for p in range(100) for i in range(30)})
        3000
    """
    if reconstruction:
        place = (patient << RECONSTRUCTION_BITS) + reconstruction
        return _identifier("slice", seed, place * THIN_SLICES_PER_PATIENT + index, 12)
    return _identifier("slice", seed, patient * SLICES_PER_PATIENT + index, 9)


def file_uid(seed: int, patient: int, index: int) -> str:
    """A valid UID for the file-meta group, which in RSNA's files is not the data set's."""
    digest = hashlib.sha256(f"ich_lstm phantom file {seed} {patient} {index}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _identifier(kind: str, seed: int, number: int, digits: int) -> str:
    """Shuffle ``0 .. 16**digits - 1`` by a permutation keyed with kind and seed, and take the place of ``number``.

    A hash of the number would collide by chance: at nine digits, 100,000 slices would share one with a chance of 7 %.
    """
    bits = 4 * digits
    low_bits = bits // 2
    mask = (1 << low_bits) - 1
    high, low = number >> low_bits, number & mask
    for step in range(4):  # a Feistel network: a permutation whatever the round function is
        digest = hashlib.sha256(f"{kind} {seed} {step} {low}".encode()).digest()
        high, low = low, high ^ (int.from_bytes(digest[:8], "big") & mask)
    return f"ID_{high << low_bits | low:0{digits}x}"
