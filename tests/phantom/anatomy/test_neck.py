import numpy as np
import pytest

from ich_lstm.phantom import PhantomScan, PhantomSettings, make_head
from ich_lstm.phantom.anatomy.neck import with_neck
from ich_lstm.phantom.layouts.cq500_series import NECK_SLICES
from ich_lstm.reading.body.head import count_neck_slices, judge, measure_section

SETTINGS = PhantomSettings(seed=5, size=128, slices=24, prevalence=1.0)


@pytest.fixture(scope="module", params=[0, 1, 2])
def pair(request) -> tuple[PhantomScan, PhantomScan]:
    head = make_head(SETTINGS, request.param)
    return head, with_neck(head, SETTINGS, request.param, NECK_SLICES)


def test_the_head_stays_where_it_is(pair):
    head, longer = pair
    assert np.array_equal(longer.hu[NECK_SLICES:], head.hu)
    assert longer.positions_mm[NECK_SLICES:] == pytest.approx(head.positions_mm, abs=1e-3)
    assert np.diff(longer.positions_mm) == pytest.approx(head.spacing_mm[0], abs=1e-3)
    assert len(set(longer.sop_uids)) == len(longer.hu)
    assert longer.sop_uids[NECK_SLICES:] == head.sop_uids


def test_there_is_no_blood_in_the_neck(pair):
    head, longer = pair
    assert not longer.slice_labels[:NECK_SLICES].any()
    assert not longer.masks[:, :NECK_SLICES].any()
    assert np.array_equal(longer.slice_labels[NECK_SLICES:], head.slice_labels)
    assert np.array_equal(longer.masks[:, NECK_SLICES:], head.masks)


def test_the_reader_knows_it_for_a_neck(pair):
    _, longer = pair
    sections = [measure_section(image, longer.acquisition.pixel_mm) for image in longer.hu]
    assert judge(sections[:NECK_SLICES], longer.spacing_mm[0]) == "other"
    assert judge(sections, longer.spacing_mm[0]) == "head"
    assert 0 < count_neck_slices(sections, longer.positions_mm) <= NECK_SLICES
