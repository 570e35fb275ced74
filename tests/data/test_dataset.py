"""Labels joined to scans, and batches of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ich_lstm import LABELS
from ich_lstm.data.batch import SampleRequest
from ich_lstm.data.cache import read_cached
from ich_lstm.data.dataset import LabelledScan, ScanDataset, join_labels
from ich_lstm.data.prepared import PreparedFolder, PreparedScan
from ich_lstm.data.table import read_label_table
from ich_lstm.errors import TableError
from ich_lstm.pixels.augment import Geometry

NAN = np.nan
Join = Callable[..., list[LabelledScan]]


@pytest.fixture
def join(tmp_path: Path) -> Join:
    """Join the text of a table to scans; by default two scans of three slices, of two patients."""

    def _join(text: str, scans: list[PreparedScan] | None = None, **changes: bool) -> list[LabelledScan]:
        (tmp_path / "labels.csv").write_text(text)
        return join_labels(
            [make("1"), make("2")] if scans is None else scans, read_label_table(tmp_path / "labels.csv"), **changes
        )

    return _join


def make(name: str, patient: str | None = None, slices: int = 3, study: str | None = None) -> PreparedScan:
    """A prepared scan whose series is ``<name>.9``, with the slices ``<name>.0`` and so on in the folder ``case <name>``."""
    rows = pd.DataFrame(
        {
            "slice_id": [f"id-{name}-{i}" for i in range(slices)],
            "sop_uid": [f"{name}.{i}" for i in range(slices)],
            "file": [f"case {name}/series/{i}.dcm" for i in range(slices)],
        }
    )
    patient = f"P{name}" if patient is None else patient
    return PreparedScan(f"scan-{name}", patient, f"{name}.9", study or f"{name}.8", Path(f"{name}.b2nd"), rows)


def any_of(labels: np.ndarray) -> list[float]:
    return labels[..., LABELS.index("any")].tolist()


class TestJoinLabels:
    def test_slices_are_found_by_uid_or_by_file(self, join: Join) -> None:
        text = "sop_uid,file,any\n1.2,,1\n,case 1/series/0.dcm,0\n1.1,,1\n,case 2/series/1.dcm,1\n2.0,,0\n2.2,,0\n"
        first, second = join(text)
        assert any_of(first.slice_labels) == [0, 1, 1]
        assert any_of(second.slice_labels) == [0, 1, 0]
        assert first.slice_ids == ("id-1-0", "id-1-1", "id-1-2")
        assert (first.scan_id, first.patient_id, first.draw_id) == ("scan-1", "P1", "1.9")

    def test_a_scan_is_positive_if_any_of_its_slices_is(self, join: Join) -> None:
        columns = "sop_uid,epidural,subdural,subarachnoid,any"
        (scan,) = join(f"{columns}\n1.0,1,0,,1\n1.1,0,0,0,0\n1.2,,0,,\n")
        expected = dict.fromkeys(LABELS, NAN) | {"epidural": 1, "subdural": 0, "any": 1}
        np.testing.assert_array_equal(scan.scan_labels, [expected[label] for label in LABELS])

    def test_slices_without_a_row_are_unknown(self, join: Join) -> None:
        (scan,) = join("sop_uid,any\n1.0,0\n1.1,0\n")
        np.testing.assert_array_equal(any_of(scan.slice_labels), [0, 0, NAN])
        assert np.isnan(scan.scan_labels).all()
        (scan,) = join("sop_uid,any\n1.0,0\n1.1,1\n")
        assert any_of(scan.scan_labels) == 1

    @pytest.mark.parametrize(
        "name", ["series_uid,any\n1.9", "study_uid,any\n1.8", "folder,any\ncase 1", "folder,any\ncase 1/series"]
    )
    def test_scans_are_found_by_series_study_or_folder(self, join: Join, name: str) -> None:
        (scan,) = join(f"{name},1\n")
        assert scan.scan_id == "scan-1"
        np.testing.assert_array_equal(scan.scan_labels, [NAN] * 5 + [1])
        assert np.isnan(scan.slice_labels).all()

    def test_a_scan_without_any_is_a_scan_of_slices_without_any(self, join: Join) -> None:
        (scan,) = join("series_uid,any,epidural\n1.9,0,0\n")
        assert (scan.slice_labels == 0).all()
        (scan,) = join("series_uid,any,epidural\n1.9,1,0\n")
        assert (scan.slice_labels[:, LABELS.index("epidural")] == 0).all()
        assert np.isnan(any_of(scan.slice_labels)).all()

    def test_scans_without_labels_are_left_out(self, join: Join) -> None:
        assert [scan.scan_id for scan in join("series_uid,any\n2.9,1\n1.9,\n")] == ["scan-2"]

    def test_scans_keep_their_order_whatever_the_table_s(self, join: Join) -> None:
        assert [scan.scan_id for scan in join("series_uid,any\n2.9,1\n1.9,0\n")] == ["scan-1", "scan-2"]

    def test_labels_are_float32(self, join: Join) -> None:
        for scan in join("sop_uid,series_uid,any\n1.0,,1\n,2.9,0\n"):
            assert scan.slice_labels.dtype == scan.scan_labels.dtype == np.float32
            assert scan.slice_labels.shape == (3, 6)


class TestPatients:
    def test_the_table_names_those_whom_the_images_do_not(self, join: Join) -> None:
        scans = [make("1", patient=""), make("2", patient="")]
        known = join("series_uid,patient_id,any\n1.9,A,1\n2.9,B,0\n", scans)
        assert [scan.patient_id for scan in known] == ["A", "B"]

    def test_unknown_patients_stop(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("series_uid,any\n1.9,1\n2.9,0\n", [make("1"), make("2", patient="")])
        assert caught.value.code == "unknown_patients"
        assert "patient_id" in caught.value.todo

    def test_a_patient_who_contradicts_the_images_stops(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("series_uid,patient_id,any\n1.9,P1,0\n2.9,P1,1\n")
        assert "line 3" in caught.value.where

    def test_two_patients_in_one_scan_stop(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("sop_uid,patient_id,any\n1.0,A,0\n1.1,B,1\n", [make("1", patient="")])
        assert "line 3" in caught.value.where


class TestContradictions:
    def test_one_slice_by_two_names(self, join: Join) -> None:
        text = "sop_uid,file,any\n1.0,,0\n,case 1/series/0.dcm,{}\n"
        with pytest.raises(TableError) as caught:
            join(text.format(1))
        assert "3" in caught.value.where
        (scan,) = join(text.format(0))
        assert any_of(scan.slice_labels)[0] == 0

    def test_one_scan_by_two_names(self, join: Join) -> None:
        text = "series_uid,study_uid,any\n1.9,,0\n,1.8,{}\n"
        with pytest.raises(TableError):
            join(text.format(1))
        assert len(join(text.format(0))) == 1

    def test_a_positive_slice_in_a_negative_scan(self, join: Join) -> None:
        with pytest.raises(TableError):
            join("series_uid,sop_uid,any\n1.9,,0\n,1.0,1\n")

    def test_names_that_add_to_one_another(self, join: Join) -> None:
        (scan,) = join("series_uid,study_uid,epidural,subdural\n1.9,,0,\n,1.8,,1\n")
        np.testing.assert_array_equal(scan.scan_labels, [0, NAN, NAN, NAN, 1, 1])


class TestLabelsWithoutImage:
    @pytest.mark.parametrize("row", ["7.0,,,", ",none.dcm,,", ",,7.9,", ",,,case 7"])
    def test_stop(self, join: Join, row: str) -> None:
        with pytest.raises(TableError) as caught:
            join(f"sop_uid,file,series_uid,folder,any\n1.0,,,,1\n{row},1\n")
        assert caught.value.code == "labels_without_image"
        assert "line 3" in caught.value.where

    def test_may_be_allowed(self, join: Join) -> None:
        assert len(join("sop_uid,any\n1.0,1\n7.0,1\n", allow_missing=True)) == 1

    def test_none_at_all_is_never_allowed(self, join: Join) -> None:
        with pytest.raises(TableError):
            join("sop_uid,any\n7.0,1\n", allow_missing=True)

    def test_a_name_of_two_scans_stops(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("study_uid,any\n5,1\n", [make("1", study="5"), make("2", study="5")])
        assert caught.value.code == "several_scans"


def test_labels_meet_their_slices_in_anatomical_order(prepared: PreparedFolder, phantom: Path, heads, project_key) -> None:
    known = {scan.scan_id: scan for scan in join_labels(prepared.scans, read_label_table(phantom / "stage_2_train.csv"))}
    assert len(known) == len(heads)
    for head in heads:
        scan = known[project_key.hash_id(head.series_uid)]
        assert scan.patient_id == head.patient_id
        assert scan.slice_ids == tuple(project_key.hash_id(uid) for uid in head.sop_uids)
        np.testing.assert_array_equal(scan.slice_labels, head.slice_labels)
        np.testing.assert_array_equal(scan.scan_labels, head.slice_labels.max(axis=0))
        cached = read_cached(scan.cache_path)
        assert cached.slice_ids == scan.slice_ids
        np.testing.assert_allclose(cached.positions_mm, head.positions_mm, atol=1e-4)


class TestScanDataset:
    @pytest.fixture
    def scans(self, prepared: PreparedFolder, phantom: Path) -> list[LabelledScan]:
        return join_labels(prepared.scans, read_label_table(phantom / "stage_2_train.csv"))

    def test_a_batch_holds_what_was_asked_for(self, scans: list[LabelledScan]) -> None:
        dataset = ScanDataset(scans)
        batch = dataset[[SampleRequest(4, 0), SampleRequest(1, 0)]]
        assert dataset.lengths == [12] * 6
        assert batch.scan_ids == [scans[4].scan_id, scans[1].scan_id]
        for i, scan in enumerate((scans[4], scans[1])):
            np.testing.assert_array_equal(batch.hu[12 * i : 12 * i + 12], read_cached(scan.cache_path).hu)
            np.testing.assert_array_equal(batch.slice_labels[12 * i : 12 * i + 12], scan.slice_labels)
            np.testing.assert_array_equal(batch.scan_labels[i], scan.scan_labels)

    def test_no_request_no_scan(self, scans: list[LabelledScan]) -> None:
        assert len(ScanDataset(scans)[[]].lengths) == 0

    def test_augmentation_depends_on_seed_epoch_and_scan_alone(self, scans: list[LabelledScan]) -> None:
        dataset = ScanDataset(scans, Geometry(), seed=1)
        alone = dataset[[SampleRequest(2, 5)]].hu
        beside = dataset[[SampleRequest(0, 5), SampleRequest(2, 5)]].hu[12:]
        np.testing.assert_array_equal(alone, beside)
        reordered = ScanDataset([scans[2], scans[0]], Geometry(), seed=1)
        np.testing.assert_array_equal(reordered[[SampleRequest(0, 5)]].hu, alone)
        renamed = ScanDataset([scans[2]._replace(scan_id="another key")], Geometry(), seed=1)
        np.testing.assert_array_equal(renamed[[SampleRequest(0, 5)]].hu, alone)
        for other in (dataset[[SampleRequest(2, 6)]], ScanDataset(scans, Geometry(), seed=2)[[SampleRequest(2, 5)]]):
            assert (other.hu != alone).any()
