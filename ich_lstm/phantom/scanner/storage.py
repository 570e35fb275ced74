"""Conversion of HU to stored values, in the three variants that RSNA's files have."""

from dataclasses import dataclass

import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array

PADDING_STORED = -2000
"""What some scanners write outside the reconstruction circle; a reader clips it."""


@dataclass(frozen=True)
class Storage:
    """One way of storing HU.

    Args:
        kind: ``signed`` (16 bits), ``unsigned`` (12 bits), or ``wrapped`` (12 bits, negative values stored 4096 too
            high, and an intercept that does not tell; readers repair it).
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
        """The lowest HU that can be stored, or that survives the repair."""
        return -1000 if self.kind == "wrapped" else -1024

    def encode(self, hu: Array, padding: Array | None = None) -> Array:
        """Turn HU into stored values.

        Of the wrapped kind HU below 0 are stored 4096 higher. The repair takes 4096 from stored values of 3072 and more; the
        repair of the challenge's solutions from 3096 on, which is the same where air is cut at -1000, as here.

        Args:
            hu: Integers within ``[floor_hu, 3071]``.
            padding: Where nothing was reconstructed; only the signed kind has a value of its own for it.

        Returns:
            int16 or uint16, of the same shape.

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
    """Draw how a patient's files are stored: mostly 12 bits, as in RSNA's set."""
    kind = str(rng.choice(["unsigned", "signed", "wrapped"], p=[0.55, 0.3, 0.15]))
    signed_intercept = int(rng.choice([-1024, 0]))
    intercept = {"unsigned": -1024, "signed": signed_intercept, "wrapped": 0}[kind]
    return Storage(kind, intercept, two_windows=bool(rng.random() < 0.3))
