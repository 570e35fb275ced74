"""Sutures of the cranial vault, where the dura is attached to the bone and epidural blood stops."""

import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array

Bone = tuple[str, float]
"""A bone of the vault: ``frontal``, ``parietal`` or ``occipital``, and its side, 1 for left and -1 for right. The temporal
squama counts as parietal."""

SUTURE_MM = 0.55
"""Half the width of a suture."""


def coronal(y: Array, z: Array) -> Array:
    """Signed distance to the coronal suture in mm, positive in front; it runs from the bregma down to the pterion."""
    return (np.float32(-39) + np.float32(0.27) * z - y) * np.float32(0.965)


def lambdoid(x: Array, y: Array, z: Array) -> Array:
    """Signed distance to the lambdoid suture in mm, positive behind and below it; it runs from the lambda to the asterion."""
    return np.minimum(np.float32(40) - np.float32(0.9) * np.abs(x) - z, y - np.float32(15)) * np.float32(0.743)


def bone_at(x: float, y: float, z: float) -> Bone:
    """The bone of the vault over a point."""
    place = [np.full(1, v, np.float32) for v in (x, y, z)]
    side = 1.0 if x >= 0 else -1.0
    if coronal(*place[1:]) > 0:
        return "frontal", side
    return ("occipital" if lambdoid(*place) > 0 else "parietal"), side


def beyond(bone: Bone, x: Array, y: Array, z: Array) -> Array:
    """Signed distance to the edge of a bone in mm, negative under the bone. The sagittal suture runs along the midline."""
    name, side = bone
    across = np.float32(-side) * x
    if name == "frontal":
        return np.maximum(across, -coronal(y, z))
    if name == "occipital":
        return np.maximum(across, -lambdoid(x, y, z))
    return np.maximum(across, np.maximum(coronal(y, z), lambdoid(x, y, z)))


def gap(x: Array, y: Array, z: Array, texture: Array) -> Array:
    """Distance to the nearest suture in mm, negative in its gap; ``texture`` makes the edges serrated."""
    side = np.maximum(np.abs(x), coronal(y, z))  # the sagittal suture begins behind the coronal one
    side = np.maximum(side, lambdoid(x, y, z))
    nearest = np.minimum(np.abs(coronal(y, z)), np.minimum(np.abs(lambdoid(x, y, z)), side))
    return np.maximum(nearest + texture * np.float32(0.8) - np.float32(SUTURE_MM), np.float32(-4) - z)
