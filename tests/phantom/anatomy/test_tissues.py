"""What is measured in the images is what the literature says."""

import numpy as np
import pytest
from scipy import ndimage

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.phantom.anatomy.tissues import (
    BLOOD,
    BONE,
    CALCIFICATION,
    CSF,
    DURA,
    ENHANCED_VESSEL,
    GREY_MATTER,
    VENOUS_SINUS,
    WHITE_MATTER,
    Range,
)
from ich_lstm.phantom.anatomy.vessels import enhancement
from ich_lstm.phantom.patient import draw_patient

ROUNDING = 1.5
"""Pixels are whole HU, and blurred over their neighbours."""


@pytest.fixture(scope="module")
def heads(head_points):
    """Three heads without hemorrhage, with where each pixel lies in them."""
    settings = PhantomSettings(seed=5, size=192, slices=30, prevalence=0.0, noise=0.0, difficulty=0.0)
    made = [(draw_patient(settings, number), make_head(settings, number)) for number in range(3)]
    return [(patient, scan.hu, head_points(scan, patient), scan) for patient, scan in made]


def around(points: np.ndarray, center: tuple[float, float, float], reach: float) -> np.ndarray:
    """The pixels within some mm of a point and of its mirror image on the other side."""
    x, y, z = points
    return (np.abs(x) - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2 < reach**2


@pytest.mark.parametrize(
    ("tissue", "center", "reach"),
    [(WHITE_MATTER, (24.0, 5.0, 38.0), 6.0), (GREY_MATTER, (10.5, 10.0, 4.0), 5.0)],
    ids=["centrum semiovale", "thalamus"],
)
def test_grey_and_white_matter(heads, tissue, center, reach):
    for _, hu, points, _ in heads:
        assert tissue.low - ROUNDING < np.median(hu[around(points, center, reach)]) < tissue.high + ROUNDING


def test_csf_bone_air(heads):
    for _, hu, points, scan in heads:
        ventricles = ndimage.binary_erosion(scan.ventricles, np.ones((1, 5, 5))) & (np.abs(points[1] - 30) > 9)
        assert CSF.low - ROUNDING < np.median(hu[ventricles]) < CSF.high
        vault = (hu > BONE.low) & (points[2] > 10)
        assert BONE.low < np.median(hu[vault]) < BONE.high
        assert hu[points[2] > 10].max() < BONE.high + 50
        assert set(np.unique(hu[:, 3, 3])) <= {-1000, -1024}


def test_sinuses_and_calcium_are_as_bright_as_blood_and_are_none(heads):
    for patient, hu, points, scan in heads:
        x, y, z = points
        torcular = hu[around(points, (0.0, 70.0, -4.0), 6.0) & scan.brain]
        assert VENOUS_SINUS.low - 6 < np.percentile(torcular, 90) < VENOUS_SINUS.high + ROUNDING
        assert DURA.low < patient.head.dura_hu < DURA.high
        pineal = hu[(x**2 + (y - 19) ** 2 + (z - 3) ** 2) < 36]
        if patient.head.calcified[0]:
            assert BLOOD["acute"].low < pineal.max() < CALCIFICATION.high
        assert not scan.slice_labels.any()


def test_blood_of_each_age_has_its_hu(hard_heads):
    seen = set()
    for patient, scan in hard_heads:
        if scan.findings & {"motion", "metal"}:
            continue
        for kind in HEMORRHAGE_TYPES:
            of_kind = [lesion.blood for lesion in patient.lesions if lesion.kind == kind]
            mask = ndimage.binary_erosion(scan.masks[HEMORRHAGE_TYPES.index(kind)], np.ones((1, 3, 3)))
            if len(of_kind) == 1 and of_kind[0].pattern == "even" and mask.sum() > 60:
                expected = BLOOD[of_kind[0].age]
                assert expected.low - ROUNDING < np.median(scan.hu[mask]) < expected.high + ROUNDING
                seen.add(of_kind[0].age)
    assert {"acute", "chronic", "diluted"} <= seen


def test_a_range_has_a_low_and_a_high_end():
    assert all(isinstance(part, Range) and part.low < part.high for part in BLOOD.values())


def test_bone_of_the_orbital_roof_brightens_brain_above_it_and_is_no_hemorrhage(heads):
    for _, hu, points, scan in heads:
        x, y, z = points
        over_the_roof = (np.abs(np.abs(x) - 28) < 14) & (np.abs(y + 60) < 18) & (z > -16) & (z < 0)
        part = hu[over_the_roof & scan.brain]
        assert ((part > 50) & (part < 120)).sum() > 15
        elsewhere = hu[(np.abs(np.abs(x) - 28) < 14) & (np.abs(y + 30) < 18) & (z > 25) & (z < 40) & scan.brain]
        assert (elsewhere > 50).mean() < 0.01


def test_a_contrast_agent_fills_vessels_as_published() -> None:
    low, high = ENHANCED_VESSEL
    artery, sinus, plexus, *_ = enhancement(sinus_hu=60, dura_hu=50, contrast=True)
    assert low <= min(artery, sinus, plexus)
    assert max(artery, sinus, plexus) <= high
