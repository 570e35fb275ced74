"""The common interface of all lesions, and their mass effect."""

from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from ich_lstm.phantom.anatomy.brain import Brain
from ich_lstm.phantom.anatomy.shapes import Array, Point
from ich_lstm.phantom.lesions.blood import Blood
from ich_lstm.phantom.scanner.slab import Slab


class Place(NamedTuple):
    """The surroundings of a lesion in one slab; all arrays are float32 ``(s, h, w)``.

    Args:
        slab: Sample points in head coordinates.
        brain_slab: Sample points in coordinates of the brain, which a mass effect may have displaced.
        brain: The intracranial layer, into which lesions are painted.
        inside: Weight of the inside of the skull.
        depth: Distance from the inner table of the vault in mm, positive inwards.
        fossa: Weight of the posterior fossa.
        texture: Smooth variation of unit variance.
    """

    slab: Slab
    brain_slab: Slab
    brain: Brain
    inside: Array
    depth: Array
    fossa: Array
    texture: Array


class Push(NamedTuple):
    """A mass effect: the brain at ``center`` moves by ``shift`` in mm, less with distance (Gaussian of width ``reach`` in mm)."""

    center: Point
    shift: Point
    reach: float


class Lesion(Protocol):
    """A hemorrhage of one type."""

    kind: ClassVar[str]

    betrayed_hu: ClassVar[float]
    """Contrast in HU counted where the blood is isodense: an extra-axial collection is visible even then."""

    @property
    def blood(self) -> Blood:
        """Density and pattern of the blood."""

    @property
    def side(self) -> float:
        """Side of the lesion: 1 left, -1 right, 0 both sides or the midline."""

    @property
    def push(self) -> Push | None:
        """Mass effect; None if there is none."""

    def weight(self, place: Place) -> Array | None:
        """Share of blood in each sample; None if the slab has no blood of this lesion."""


def displace(slab: Slab, pushes: tuple[Push, ...]) -> tuple[Slab, Array | None]:
    """The brain's coordinates under the mass effects, and the degree of sulcal effacement; None without any mass effect."""
    if not pushes:
        return slab, None
    x, y, z = slab.points
    moved = [x, y, z]
    effaced = np.zeros_like(x)
    free = 1 - _held(x, y, z)
    for push in pushes:
        squared = np.square(x - np.float32(push.center[0])) + np.square(y - np.float32(push.center[1]))
        squared += np.square(z - np.float32(push.center[2]))
        force = np.exp(squared * np.float32(-0.5 / push.reach**2))
        strength = float(np.linalg.norm(push.shift))
        np.maximum(effaced, force * np.float32(min(1.0, strength / 5)), out=effaced)
        force *= free
        for axis, shift in enumerate(push.shift):
            moved[axis] = moved[axis] - force * np.float32(shift)
    return Slab(moved[0], moved[1], moved[2], slab.pixel_mm), effaced


def midline_shift_mm(pushes: tuple[Push, ...]) -> float:
    """Displacement in mm of the septum between the lateral ventricles."""
    septum = np.array([0.0, -15.0, 12.0])
    shifts = [push.shift[0] * np.exp(-0.5 * np.sum((septum - push.center) ** 2) / push.reach**2) for push in pushes]
    return float(abs(sum(shifts)))


def _held(x: Array, y: Array, z: Array) -> Array:
    """Weight of the falx's attachment in front, above and behind, where the midline does not move."""
    radius = np.sqrt(y * y + np.square(np.maximum(z, 0)))
    return np.exp(-np.square(x * np.float32(1 / 16))) * np.clip((radius - 38) * np.float32(1 / 34), 0, 1)
