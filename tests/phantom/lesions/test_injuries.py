import numpy as np

from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.phantom.lesions.extraaxial import Lens
from ich_lstm.phantom.lesions.injuries import Craniotomy, Fracture, ScalpSwelling
from ich_lstm.phantom.lesions.mimics import Calcification, Infarct
from ich_lstm.phantom.patient import Patient, draw_patient
from ich_lstm.phantom.scanner.slab import Slab

HARD = PhantomSettings(seed=5, size=128, slices=24, prevalence=0.0, noise=0.0, difficulty=1.0)


def plane(center: tuple[float, float, float]) -> Slab:
    """A horizontal plane of 81 by 81 mm around a point."""
    offset = np.arange(-40, 41, dtype=np.float32)
    y, x = np.meshgrid(offset + np.float32(center[1]), offset + np.float32(center[0]), indexing="ij")
    return Slab(x[None], y[None], np.full_like(x, center[2])[None], 1.0)


def first(settings: PhantomSettings, name: str) -> tuple[int, Patient]:
    """The first patient with one injury or mimic of a name, and nothing else."""
    for number in range(1000):
        patient = draw_patient(settings, number)
        if [part.name for part in (*patient.injuries, *patient.mimics)] == [name]:
            return number, patient
    raise AssertionError(f"no patient with {name}")


def test_a_fracture_is_a_thin_line_of_limited_length():
    opening = Fracture(point=(60.0, 0.0, 20.0), across=(0.0, 1.0, 0.0), half_length=25.0).opening(plane((60.0, 0.0, 20.0)))[0]
    assert 0.5 < opening.sum(axis=0).max() < 4
    assert opening[:, :10].sum() == 0
    assert Fracture((60.0, 0.0, 20.0), (0.0, 1.0, 0.0), 25.0).opening(plane((60.0, 0.0, 80.0))) is None


def test_most_epidural_bleedings_have_a_fracture_and_a_swelling_beside_them():
    settings = PhantomSettings(seed=5, prevalence=1.0, difficulty=0.0)
    patients = [draw_patient(settings, number) for number in range(900)]
    epidural = [patient for patient in patients if any(isinstance(lesion, Lens) for lesion in patient.lesions)]
    assert len(epidural) > 10
    assert np.mean([any(isinstance(injury, Fracture) for injury in patient.injuries) for patient in epidural]) > 0.7
    for patient in epidural:
        lens = next(lesion for lesion in patient.lesions if isinstance(lesion, Lens))
        swelling = next(injury for injury in patient.injuries if isinstance(injury, ScalpSwelling))
        assert np.dot(swelling.point, lens.ball) > 0
        assert np.sign(swelling.point[0]) == lens.side
    assert not any(patient.injuries for patient in patients if patient not in epidural)


def test_a_bone_flap_has_a_gap_around_it_and_holes(head_points):
    number, patient = first(HARD, "craniotomy")
    flap = patient.injuries[0]
    assert isinstance(flap, Craniotomy)
    scan = make_head(HARD, number)
    points = head_points(scan, patient)
    places = np.stack([points - np.array(hole).reshape(3, 1, 1, 1) for hole in flap.holes])
    # Beyond the inner table, within the hole, there is no bone.
    outside = np.linalg.norm(points, axis=0) > np.linalg.norm(flap.holes[0]) + 2
    hole = (np.linalg.norm(places, axis=1) < 3.5).any(axis=0) & outside
    if hole.any():
        assert np.median(scan.hu[hole]) < 500


def test_an_old_infarct_is_dark_and_calcium_is_bright_and_neither_is_labelled(head_points):
    for name, kind in (("infarct", Infarct), ("calcification", Calcification)):
        number, patient = first(HARD, name)
        scan = make_head(HARD, number)
        assert not scan.slice_labels.any()
        assert name in scan.findings
        mimic = patient.mimics[0]
        assert isinstance(mimic, kind)
        center = mimic.center if isinstance(mimic, Infarct) else mimic.spots[0][0]
        place = np.array(center).reshape(3, 1, 1, 1)
        near = (np.linalg.norm(head_points(scan, patient) - place, axis=0) < 4.5) & scan.brain
        if name == "infarct":
            assert np.percentile(scan.hu[near], 20) < 20
        else:
            assert scan.hu[near].max() > 60
