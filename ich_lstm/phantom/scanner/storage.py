"""Conversion of HU to stored values, in the three variants found in RSNA's files."""

from dataclasses import dataclass

import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array

PADDING_STORED = -2000
"""Value that some scanners store outside the reconstruction circle; a reader clips it."""


@dataclass(frozen=True)
class Storage:
    """One way of storing HU.

    Args:
        kind: ``signed`` (16 bits), ``unsigned`` (12 bits), or ``wrapped`` (12 bits, negative values stored 4096 too
            high, which the intercept does not account for; readers repair it).
        intercept: Rescale Intercept (0028,1052).
        two_windows: Whether Window Center and Width have two values.
    """

    kind: str
    intercept: int
    two_windows: bool

    @property
    def bits_stored(self) -> int:
        """Bits Stored (0028,0101)."""
        return 16 if self.kind == "signed" else 12

    @property
    def signed(self) -> bool:
        """Pixel Representation (0028,0103)."""
        return self.kind == "signed"

    @property
    def floor_hu(self) -> int:
        """The lowest HU that can be stored and read back."""
        return -1000 if self.kind == "wrapped" else -1024

    def encode(self, hu: Array, padding: Array | None = None) -> Array:
        """Turn HU into stored values.

        With ``wrapped``, HU below 0 are stored 4096 higher. Our reader subtracts 4096 from stored values of 3072 and above;
        solutions of the challenge do so from 3096 on, which is equivalent here because HU are clipped at -1000.

        Args:
            hu: Integers within ``[floor_hu, 3071]``.
            padding: Pixels outside the reconstruction circle, bool ``(h, w)``; only ``signed`` stores a padding value.

        Returns:
            Stored values, int16 or uint16, in the shape of ``hu``.

        Example:
            >>> Storage("wrapped", 0, False).encode(np.array([-1000, -1, 0, 40, 70, 3071], np.int16)).tolist()
            [3096, 4095, 0, 40, 70, 3071]
        """
        values = hu.astype(np.int32)
        if self.kind == "wrapped":
            return np.where(values < 0, values + 4096, values).astype(np.uint16)
        values -= self.intercept
        if self.kind == "unsigned":
            return values.astype(np.uint16)
        if padding is not None:
            values = np.where(padding, PADDING_STORED, values)
        return values.astype(np.int16)


def draw_storage(rng: np.random.Generator) -> Storage:
    """Draw how the HU of a patient are stored: mostly 12 bits, as in RSNA's data set."""
    kind = str(rng.choice(["unsigned", "signed", "wrapped"], p=[0.55, 0.3, 0.15]))
    signed_intercept = int(rng.choice([-1024, 0]))
    intercept = {"unsigned": -1024, "signed": signed_intercept, "wrapped": 0}[kind]
    return Storage(kind, intercept, two_windows=bool(rng.random() < 0.3))
