"""The common interface of all lesions: where they are evaluated, what they return, and their mass effect."""

from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from ich_lstm.phantom.anatomy.brain import Brain
from ich_lstm.phantom.anatomy.shapes import Array, Point
from ich_lstm.phantom.lesions.blood import Blood
from ich_lstm.phantom.scanner.slab import Slab


class Place(NamedTuple):
    """What a lesion finds in one slab; arrays float32 ``(s, h, w)``.

    Args:
        slab: Head coordinates.
        brain_slab: Coordinates of the brain, which a mass may have displaced.
        brain: The intracranial layer.
        inside: Weight of the inside of the skull.
        depth: Distance from the vault, positive inwards.
        fossa: Weight of the posterior fossa.
        texture: Smooth variation, unit variance.
    """

    slab: Slab
    brain_slab: Slab
    brain: Brain
    inside: Array
    depth: Array
    fossa: Array
    texture: Array


class Push(NamedTuple):
    """A mass effect: the brain around ``center`` moves by ``shift``, less and less beyond ``reach`` mm."""

    center: Point
    shift: Point
    reach: float


class Lesion(Protocol):
    """Blood of one type."""

    kind: ClassVar[str]

    betrayed_hu: ClassVar[float]
    """Contrast that counts where the blood is as dense as brain: a collection outside the brain is seen all the same."""

    @property
    def blood(self) -> Blood:
        """What it is made of."""

    @property
    def side(self) -> float:
        """1 left, -1 right, 0 both or the middle."""

    @property
    def push(self) -> Push | None:
        """Its mass effect."""

    def weight(self, place: Place) -> Array | None:
        """Share of blood in each sample; None if this slab has none."""


def displace(slab: Slab, pushes: tuple[Push, ...]) -> tuple[Slab, Array | None]:
    """The brain's coordinates under the mass effects, and how much its sulci are effaced (None: no effect here)."""
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
    """How far the septum between the lateral ventricles is pushed aside."""
    septum = np.array([0.0, -15.0, 12.0])
    shifts = [push.shift[0] * np.exp(-0.5 * np.sum((septum - push.center) ** 2) / push.reach**2) for push in pushes]
    return float(abs(sum(shifts)))


def _held(x: Array, y: Array, z: Array) -> Array:
    """Weight of the falx's attachment, front, top and back: there the midline does not move."""
    radius = np.sqrt(y * y + np.square(np.maximum(z, 0)))
    return np.exp(-np.square(x * np.float32(1 / 16))) * np.clip((radius - 38) * np.float32(1 / 34), 0, 1)
