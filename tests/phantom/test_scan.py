import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from ich_lstm.labels import HEMORRHAGE_TYPES, LABELS
from ich_lstm.phantom import VISIBLE_HU_MM2, PhantomSettings, make_head
from ich_lstm.phantom.patient import draw_patient


class TestShapes:
    def test_arrays_have_one_row_per_slice(self, clean_head):
        assert clean_head.hu.shape == (24, 192, 192)
        assert clean_head.hu.dtype == np.int16
        assert clean_head.slice_labels.shape == (24, len(LABELS))
        assert clean_head.masks.shape == (5, 24, 192, 192)
        assert len(set(clean_head.sop_uids)) == 24

    def test_hu_stay_in_the_range_of_a_scan(self, bleeding_heads):
        for hu in (head.hu for head in bleeding_heads):
            assert hu.min() >= -1024
            assert hu.max() <= 3071

    def test_the_vertex_is_the_last_slice_and_the_nose_is_up(self, clean_head):
        areas = clean_head.brain.sum(axis=(1, 2))
        assert areas[-1] < areas[len(areas) // 2]
        # Air cells of nose and sinuses lie in the upper half of the lowest slices.
        head = ndimage.binary_fill_holes(clean_head.hu[2] > -300)
        rows = np.nonzero((clean_head.hu[2] < -700) & ndimage.binary_erosion(head, iterations=8))[0]
        assert np.median(rows) < np.nonzero(head)[0].mean()


class TestTissues:
    def test_brain_csf_bone_and_air_have_their_hu(self, clean_head):
        hu = clean_head.hu
        deep_brain = ndimage.binary_erosion(clean_head.brain, np.ones((1, 5, 5))) & ~clean_head.ventricles
        assert 26 < np.median(hu[deep_brain]) < 38
        low, high = np.percentile(hu[deep_brain], [30, 90])
        assert 22 < low < 33 < high < 43
        deep_csf = ndimage.binary_erosion(clean_head.ventricles, np.ones((1, 3, 3)))
        assert 0 < np.median(hu[deep_csf]) < 18
        assert 1000 < np.percentile(hu[hu > 300], 90) < 2000
        assert np.median(hu[:, :6, :6]) in (-1000, -1024)

    def test_the_scalp_holds_fat(self, clean_head):
        share = ((clean_head.hu > -130) & (clean_head.hu < -60)).sum() / (clean_head.hu > -200).sum()
        assert 0.01 < share < 0.3

    def test_skull_surrounds_the_brain(self, clean_head):
        middle = clean_head.brain[14]
        shell = ndimage.binary_dilation(middle, iterations=6) & ~ndimage.binary_dilation(middle, iterations=2)
        assert np.median(clean_head.hu[14][shell]) > 400

    def test_heads_differ(self):
        areas = {int(make_head(PhantomSettings(seed=5, size=48, slices=8), patient).brain.sum()) for patient in range(8)}
        assert len(areas) == 8


class TestLabels:
    def test_labels_are_the_visible_amount_above_the_bound(self, bleeding_heads):
        for head in bleeding_heads:
            assert np.array_equal(head.slice_labels[:, :5] == 1, head.visible >= VISIBLE_HU_MM2)
            assert np.array_equal(head.slice_labels[:, 5], head.slice_labels[:, :5].max(axis=1))

    def test_a_labelled_slice_has_a_mask_and_a_head_without_blood_has_neither(self, clean_head, bleeding_heads):
        assert not clean_head.slice_labels.any()
        assert not clean_head.masks.any()
        assert not clean_head.visible.any()
        for head in bleeding_heads:
            strong = head.visible > 8 * VISIBLE_HU_MM2
            # Blood in a sulcus may fill no pixel by half, and still be seen.
            strong[:, HEMORRHAGE_TYPES.index("subarachnoid")] = False
            assert head.masks.any(axis=(2, 3)).T[strong].all()

    def test_the_visible_amount_is_what_the_image_shows(self):
        # The same head without its blood: the difference of the images, added up, is the visible amount.
        settings = PhantomSettings(seed=5, size=128, slices=16, prevalence=1.0, noise=0.0, difficulty=0.0)
        alone = (p for p in range(99) if [lesion.kind for lesion in draw_patient(settings, p).lesions] == ["subarachnoid"])
        patient = next(alone)
        with_blood = make_head(settings, patient)
        without = make_head(PhantomSettings(seed=5, size=128, slices=16, prevalence=0.0, noise=0.0, difficulty=0.0), patient)
        brighter = (with_blood.hu.astype(float) - without.hu).sum(axis=(1, 2)) * with_blood.spacing_mm[1] ** 2
        visible = with_blood.visible.sum(axis=1)
        assert visible.max() > 5 * VISIBLE_HU_MM2
        # Pixels that are hardly brighter do not count as visible, so the difference may be larger, never much smaller.
        assert (visible <= 1.1 * brighter + 0.2 * VISIBLE_HU_MM2).all()
        assert brighter.sum() < 2 * visible.sum()

    @pytest.mark.parametrize("patients", [24, pytest.param(60, marks=pytest.mark.slow)])
    def test_about_the_wanted_share_of_the_scans_bleeds(self, patients: int):
        settings = PhantomSettings(seed=5, size=48, slices=8)
        positive = sum(make_head(settings, patient).masks.any() for patient in range(patients))
        assert 0.2 < positive / patients < 0.6

    def test_every_type_occurs(self, bleeding_heads):
        seen = np.array([head.slice_labels.any(axis=0) for head in bleeding_heads])
        assert seen.any(axis=0).all()

    def test_old_blood_counts_by_how_much_darker_it_is(self, hard_heads):
        calm = [(patient, scan) for patient, scan in hard_heads if not scan.findings & {"motion", "metal"}]
        old = [scan for patient, scan in calm if [lesion.blood.age for lesion in patient.lesions] == ["chronic"]]
        assert old
        for scan in old:
            mask = ndimage.binary_erosion(scan.masks[HEMORRHAGE_TYPES.index("subdural")], np.ones((1, 3, 3)))
            assert np.median(scan.hu[mask]) < 27
            assert scan.slice_labels[:, LABELS.index("subdural")].any()

    def test_a_collection_as_dense_as_brain_is_labelled(self):
        settings = PhantomSettings(seed=5, size=96, slices=12, prevalence=1.0, noise=0.0, difficulty=1.0)
        isodense = (
            p
            for p in range(2000)
            if [(part.kind, part.blood.age, part.blood.pattern) for part in draw_patient(settings, p).lesions]
            == [("subdural", "subacute", "even")]
        )
        assert make_head(settings, next(isodense)).slice_labels[:, LABELS.index("subdural")].any()


class TestDeterminism:
    def test_the_noise_changes_nothing_else(self):
        quiet, loud = (make_head(PhantomSettings(size=48, slices=8, prevalence=1.0, noise=noise), 1) for noise in (0.0, 2.0))
        assert np.array_equal(quiet.masks, loud.masks)
        assert quiet.findings == loud.findings
        assert not np.array_equal(quiet.hu, loud.hu)

    def test_the_difficulty_leaves_the_head_as_it_is(self):
        easy, hard = (draw_patient(PhantomSettings(difficulty=difficulty), 3).head for difficulty in (0.0, 1.0))
        assert (easy.scale, easy.atrophy, easy.white_hu) == (hard.scale, hard.atrophy, hard.white_hu)

    def test_a_patient_does_not_depend_on_the_number_of_patients(self):
        one = make_head(PhantomSettings(patients=1, size=48, slices=8), 3)
        many = make_head(PhantomSettings(patients=500, size=48, slices=8), 3)
        assert np.array_equal(one.hu, many.hu)
        assert one.sop_uids == many.sop_uids

    def test_seeds_differ(self):
        first, second = (make_head(PhantomSettings(seed=seed, size=48, slices=8), 0) for seed in (1, 2))
        assert not np.array_equal(first.hu, second.hu)
        assert first.patient_id != second.patient_id


def test_importing_the_room_loads_nothing_heavy():
    code = "import sys, ich_lstm.phantom; print([m for m in ('torch', 'matplotlib', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
