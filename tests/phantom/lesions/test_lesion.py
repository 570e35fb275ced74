"""Each type lies where its anatomy puts it."""

import numpy as np
from scipy import ndimage

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import PhantomScan
from ich_lstm.phantom.lesions.lesion import Push, displace
from ich_lstm.phantom.scanner.slab import Slab


def mask_of(head: PhantomScan, kind: str) -> np.ndarray:
    return head.masks[HEMORRHAGE_TYPES.index(kind)]


def depth_mm(head: PhantomScan) -> np.ndarray:
    """In-plane distance to the outside of the brain."""
    return np.stack([ndimage.distance_transform_edt(plane) for plane in head.brain]) * head.spacing_mm[1]


def test_all_blood_lies_inside_the_skull_and_is_brighter_than_brain(heads_with):
    for kind in HEMORRHAGE_TYPES:
        for head in heads_with(kind):
            mask = mask_of(head, kind)
            assert (mask & ~head.brain).sum() <= 0.05 * mask.sum()
            assert np.median(head.hu[mask]) > np.median(head.hu[head.brain & ~head.masks.any(axis=0)]) + 5


def test_epidural_blood_touches_the_inner_table_and_bulges_inwards(heads_with):
    for head in heads_with("epidural"):
        depth = depth_mm(head)
        largest = int(mask_of(head, "epidural").sum(axis=(1, 2)).argmax())
        plane = mask_of(head, "epidural")[largest]
        assert depth[largest][plane].min() <= 2 * head.spacing_mm[1]
        # A lens, unlike a crescent, nearly fills its own convex outline.
        rows, columns = np.nonzero(plane)
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(np.stack([rows, columns]))))
        assert plane.sum() > 0.75 * np.pi * 4 * spread[0] * spread[1]


def test_subdural_blood_lies_along_the_inner_table_or_the_falx(heads_with):
    for head in heads_with("subdural"):
        mask = mask_of(head, "subdural")
        columns = np.broadcast_to(np.arange(mask.shape[2]), mask.shape)
        middle = np.nonzero(head.brain.any(axis=(0, 1)))[0].mean()
        near_falx = np.abs(columns - middle) * head.spacing_mm[1] < 22
        assert (mask & (depth_mm(head) > 24) & ~near_falx).sum() <= 0.03 * mask.sum()


def test_intraventricular_blood_lies_in_the_ventricles(heads_with):
    for head in heads_with("intraventricular"):
        mask = mask_of(head, "intraventricular")
        assert (mask & ~head.ventricles).sum() <= 0.1 * mask.sum()


def test_intraparenchymal_blood_lies_in_the_brain_and_not_in_the_ventricles(heads_with):
    for head in heads_with("intraparenchymal"):
        mask = mask_of(head, "intraparenchymal")
        assert (mask & head.ventricles).sum() <= 0.05 * mask.sum()
        # A dark rim around it: oedema.
        grown = ndimage.binary_dilation(mask, np.ones((1, 3, 3)))
        rim = ndimage.binary_dilation(grown, np.ones((1, 3, 3))) & ~grown
        other = head.masks.any(axis=0) | head.ventricles | ~ndimage.binary_erosion(head.brain, np.ones((1, 5, 5)))
        if (rim & ~other).sum() > 100:
            assert np.median(head.hu[rim & ~other]) < np.median(head.hu[head.brain & ~other]) - 2


def test_subarachnoid_blood_is_thin_and_lies_where_there_was_csf(heads_with):
    for head in heads_with("subarachnoid"):
        mask = mask_of(head, "subarachnoid")
        thickness = np.stack([ndimage.distance_transform_edt(plane) for plane in mask]) * head.spacing_mm[1]
        assert np.percentile(thickness[mask], 90) < 6


def test_a_mass_pushes_the_brain_away():
    # Coordinates move against the push: what is now at the lesion was nearer to it, or in it.
    x, y, z = (np.full((1, 1, 3), value, np.float32) for value in (0.0, 0.0, 0.0))
    x[0, 0] = [50, 0, -60]
    slab = Slab(x, y, z, 1.0)
    moved, effaced = displace(slab, (Push(center=(50.0, 0.0, 0.0), shift=(-8.0, 0.0, 0.0), reach=40.0),))
    assert (moved.x - x)[0, 0, 0] == 8
    assert 0 < (moved.x - x)[0, 0, 2] < (moved.x - x)[0, 0, 1] < 8
    assert effaced is not None
    assert effaced.max() <= 1
    assert displace(slab, ()) == (slab, None)
