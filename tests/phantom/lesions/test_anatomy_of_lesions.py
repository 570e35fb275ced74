"""Where dura, falx and gravity let blood go."""

from dataclasses import replace

import numpy as np
import pytest

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.phantom.anatomy.sutures import beyond, bone_at, coronal
from ich_lstm.phantom.lesions.extraaxial import Crescent, Lens, TentoriumLayer
from ich_lstm.phantom.lesions.intraaxial import VentricleBlood
from ich_lstm.phantom.lesions.lesion import displace, midline_shift_mm
from ich_lstm.phantom.patient import Patient, draw_patient
from ich_lstm.phantom.scanner.slab import Slab

SETTINGS = PhantomSettings(seed=5, size=128, slices=16, prevalence=1.0, noise=0.0, difficulty=0.0)


def patients_with(kind: type, count: int) -> list[tuple[int, Patient]]:
    """The first patients whose only hemorrhage of that name is of one kind."""
    found = []
    for number in range(500):
        patient = draw_patient(SETTINGS, number)
        if [type(lesion) for lesion in patient.lesions if lesion.kind == kind.kind] == [kind]:
            found.append((number, patient))
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} patients with {kind}")


def blood_points(number: int, patient: Patient, kind: type, head_points, slices: int = 16) -> np.ndarray:
    """Where in the head the pixels of a type lie: ``(3, k)``."""
    scan = make_head(replace(SETTINGS, slices=slices), number)
    return head_points(scan, patient)[:, scan.masks[HEMORRHAGE_TYPES.index(kind.kind)]]


def test_subdural_blood_never_crosses_the_midline(head_points):
    for number, patient in patients_with(Crescent, 4):
        points = blood_points(number, patient, Crescent, head_points)
        assert points.shape[1] > 300
        # The falx itself is where the displaced brain's x is 0; it bends by up to 1.3 mm times a few.
        moved, _ = displace(Slab(*(part.reshape(1, 1, -1) for part in points), 1.0), patient.pushes)
        side = next(lesion.side for lesion in patient.lesions if isinstance(lesion, Crescent))
        assert (side * moved.x).min() > -6
        assert np.percentile(side * moved.x, 2) > -2


def test_subdural_blood_crosses_sutures(head_points):
    crossed = [
        coronal(*blood_points(number, patient, Crescent, head_points)[1:]) for number, patient in patients_with(Crescent, 4)
    ]
    assert any((side > 5).sum() > 30 and (side < -5).sum() > 30 for side in crossed)


def test_epidural_blood_stops_at_sutures(head_points):
    cut = 0
    for number, patient in patients_with(Lens, 6):
        lens = next(lesion for lesion in patient.lesions if isinstance(lesion, Lens))
        points = blood_points(number, patient, Lens, head_points)
        assert points.shape[1] > 100
        assert np.percentile(beyond(lens.bone, *points), 99) < 2.5
        # The ball from which it is cut often reaches further.
        rng = np.random.default_rng(0)
        ball = np.array(lens.ball)[:, None] + lens.radius * rng.uniform(-0.55, 0.55, (3, 2000))
        cut += bool((beyond(lens.bone, *ball.astype(np.float32)) > 5).any())
    assert cut >= 2


def test_every_point_of_the_vault_lies_under_one_bone():
    assert bone_at(60, 0, 20) == ("parietal", 1.0)
    assert bone_at(-40, -60, 20) == ("frontal", -1.0)
    assert bone_at(30, 75, 2) == ("occipital", 1.0)


def test_blood_in_the_ventricles_settles_at_the_back(head_points):
    levels = 0
    for number, patient in patients_with(VentricleBlood, 8):
        level = next(lesion.level for lesion in patient.lesions if isinstance(lesion, VentricleBlood))
        if level < 25:
            continue
        levels += 1
        scan = make_head(SETTINGS, number)
        points = head_points(scan, patient)
        blood = points[1][scan.masks[HEMORRHAGE_TYPES.index("intraventricular")]]
        assert blood.min() > level - 3
        # Of each slice it takes the lowest part, and all of it.
        behind = scan.ventricles & (points[1] > level + 2)
        assert scan.masks[HEMORRHAGE_TYPES.index("intraventricular")][behind].mean() > 0.8
    assert levels >= 2


def test_blood_on_the_tentorium_ends_at_its_edge(head_points):
    number, patient = patients_with(TentoriumLayer, 1)[0]
    layer = next(lesion for lesion in patient.lesions if isinstance(lesion, TentoriumLayer))
    x, y, _ = blood_points(number, patient, TentoriumLayer, head_points, slices=40)
    assert (layer.side * x).min() > -4
    assert y.min() > -8


def test_a_thick_collection_shifts_the_midline_and_a_thin_one_does_not():
    thick, thin = ((Crescent, 16.0), (Crescent, 4.0))
    shifts = []
    for _, thickness in (thick, thin):
        _, patient = patients_with(Crescent, 1)[0]
        push = next(lesion.push for lesion in patient.lesions if isinstance(lesion, Crescent))
        shift = np.array(push.shift) / np.linalg.norm(push.shift) * 0.65 * thickness
        shifts.append(midline_shift_mm((push._replace(shift=tuple(shift)),)))
    assert shifts[0] == pytest.approx(4 * shifts[1])
    assert shifts[0] > 4
