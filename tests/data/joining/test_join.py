"""Labels joined to prepared scans."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from labelled_scans import label_scans

from ich_lstm import LABELS
from ich_lstm.data.joining.join import LabelledScan, join_labels
from ich_lstm.data.joining.locate import locate_labels
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.prepared.images import NOWHERE, ImageTable
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.data.tables.labelled import Unmatched, checked_table
from ich_lstm.errors import TableError

NAN = np.nan
Labelled = list[LabelledScan]
Join = Callable[..., Labelled]


@pytest.fixture
def join(tmp_path: Path) -> Join:
    """Join the text of a table to scans; by default two scans of three slices, of two patients."""

    def _join(
        text: str,
        scans: Sequence[pd.DataFrame] | None = None,
        excluded: Sequence[str] = (),
        not_chosen: Sequence[tuple[str, str]] = (),
        unmatched: Unmatched = "stop",
        **changes: Any,
    ) -> Labelled:
        (tmp_path / "labels.csv").write_text(text)
        key = pd.concat([make("1"), make("2")] if scans is None else scans, ignore_index=True)
        names = [*((name, "") for name in excluded), *not_chosen]
        images = ImageTable(key, pd.DataFrame(names, columns=["name", "study_uid"], dtype=object))
        located = locate_labels(read_label_table(tmp_path / "labels.csv"), images)
        located.check_unmatched(unmatched)
        return join_labels(located, **changes).scans(tmp_path)

    return _join


def make(name: str, slices: int = 3, **changes: Any) -> pd.DataFrame:
    """Key rows of a scan whose series is ``<name>.9``, with the slices ``<name>.0`` and so on in the folder ``case <name>``."""
    columns = {
        "scan_id": f"scan-{name}",
        "slice_id": [f"id-{name}-{i}" for i in range(slices)],
        "patient_id": f"P{name}",
        "study_uid": f"{name}.8",
        "series_uid": f"{name}.9",
        "sop_uid": [f"{name}.{i}" for i in range(slices)],
        "file": [f"case {name}/series/{i}.dcm" for i in range(slices)],
        "hu_hash": [f"hash-{name}-{i}" for i in range(slices)],
        "accession_number": f"A{name}",
        "study_date": f"2020-01-0{name}",
        "cache": f"{name}.b2nd",
    }
    return pd.DataFrame(columns | changes)


def any_of(labels: np.ndarray) -> list[float]:
    return labels[..., LABELS.index("any")].tolist()


class TestJoinLabels:
    def test_slices_are_found_by_uid_or_by_file(self, join: Join) -> None:
        text = "sop_uid,file,any\n1.2,,1\n,case 1/series/0.dcm,0\n1.1,,1\n,case 2/series/1.dcm,1\n2.0,,0\n2.2,,0\n"
        first, second = join(text)
        assert any_of(first.slice_labels) == [0, 1, 1]
        assert any_of(second.slice_labels) == [0, 1, 0]
        assert first.slice_ids == ("id-1-0", "id-1-1", "id-1-2")
        assert (first.scan_id, first.patient_id, first.series_uid) == ("scan-1", "P1", "1.9")

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

    def test_a_scan_brings_along_what_the_images_say(self, join: Join) -> None:
        scan, _ = join("series_uid,any\n1.9,1\n2.9,0\n")
        assert (scan.study_uid, scan.study_date) == ("1.8", "2020-01-01")
        assert scan.slice_hashes == ("hash-1-0", "hash-1-1", "hash-1-2")
        assert scan.cache_path.name == "1.b2nd"

    @pytest.mark.parametrize(
        "name",
        [
            "series_uid,any\n1.9",
            "study_uid,any\n1.8",
            "folder,any\ncase 1",
            "folder,any\ncase 1/series",
            "accession_number,any\nA1",
        ],
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


class TestFilesOfManySlices:
    @pytest.fixture
    def scans(self) -> list[pd.DataFrame]:
        """Two NIfTI files, each its own scan, in one folder; the first is turned upside down."""
        return [
            make("1", file=[f"ct_scans/049.nii#{n}" for n in (3, 2, 1)], patient_id=""),
            make("2", file=[f"ct_scans/050.nii#{n}" for n in (1, 2, 3)], patient_id=""),
        ]

    def test_slices_are_found_by_their_number(self, join: Join, scans: list[pd.DataFrame]) -> None:
        text = "file,slice,patient_id,any\nct_scans/049.nii,1,49,1\nct_scans/049.nii,2,49,0\nct_scans/049.nii,3,49,0\n"
        (scan,) = join(text, scans)
        assert any_of(scan.slice_labels) == [0, 0, 1]
        assert scan.patient_id == "49"

    def test_without_a_number_the_whole_scan_is_meant(self, join: Join, scans: list[pd.DataFrame]) -> None:
        (scan,) = join("file,slice,patient_id,any\nct_scans/050.nii,,50,1\n", scans)
        assert scan.scan_id == "scan-2"
        assert any_of(scan.scan_labels) == 1
        assert np.isnan(scan.slice_labels).all()

    def test_one_that_does_not_exist_stops(self, join: Join, scans: list[pd.DataFrame]) -> None:
        with pytest.raises(TableError) as caught:
            join("file,slice,patient_id,any\nct_scans/049.nii,1,49,1\nct_scans/049.nii,4,49,1\n", scans)
        assert caught.value.code == "labels_without_image"
        assert "line 3" in caught.value.where

    def test_the_root_may_be_the_folder_of_the_scans(self, join: Join, scans: list[pd.DataFrame]) -> None:
        for scan in scans:
            scan["file"] = scan["file"].str.removeprefix("ct_scans/")
        text = "file,slice,patient_id,any\nct_scans/049.nii,1,49,1\nct_scans/050.nii,2,50,0\n"
        assert [scan.patient_id for scan in join(text, scans)] == ["49", "50"]

    def test_a_file_of_two_scans_stops(self, join: Join) -> None:
        scans = [make(name, slices=2, file=[f"both.dcm#{name}{n}" for n in range(2)]) for name in ("1", "2")]
        with pytest.raises(TableError) as caught:
            join("file,any\nboth.dcm,1\n", scans)
        assert caught.value.code == "several_scans"


def test_scans_are_found_by_the_name_of_a_folder_at_any_depth(tmp_path: Path) -> None:
    scans = [
        make("1", file=[f"qct1/CQ500-CT-12.zip/CQ500CT12 CQ500CT12/Unknown Study/CT 5mm/{i}.dcm" for i in range(3)]),
        make("2", file=[f"CQ500CT1 CQ500CT1/Unknown Study/CT 5mm/{i}.dcm" for i in range(3)]),
    ]
    names = ["CQ500CT12 CQ500CT12", "CQ500CT1 CQ500CT1", "CQ500CT1", "Unknown Study"]
    rows = pd.DataFrame({"kind": "folder_name", "name": names, "line": range(4)} | dict.fromkeys(LABELS, np.float32(0)))
    images = ImageTable(pd.concat(scans, ignore_index=True))
    located = locate_labels(checked_table(rows[:3], tmp_path), images)
    assert located.scan.tolist() == [0, 1, NOWHERE]
    assert (located.slice == NOWHERE).all()
    with pytest.raises(TableError) as caught:
        locate_labels(checked_table(rows, tmp_path), images)
    assert caught.value.code == "several_scans"
    assert caught.value.where.endswith("line 3")


class TestStudyDates:
    def test_the_table_s_count_more_than_those_of_the_images(self, join: Join, caplog: pytest.LogCaptureFixture) -> None:
        known = join("series_uid,study_date,any\n1.9,20190503,1\n2.9,,1\n")
        assert [scan.study_date for scan in known] == ["2019-05-03", "2020-01-02"]
        assert "1 scans" in caplog.text

    def test_two_on_one_scan_stop(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("sop_uid,study_date,any\n1.0,20190503,1\n1.1,20190503,1\n1.2,20190504,1\n")
        assert caught.value.code == "contradicting_dates"
        assert "line 4" in caught.value.where


class TestPatients:
    def test_the_table_names_those_whom_the_images_do_not(self, join: Join) -> None:
        scans = [make("1", patient_id=""), make("2", patient_id="")]
        known = join("series_uid,patient_id,any\n1.9,A,1\n2.9,B,0\n", scans)
        assert [scan.patient_id for scan in known] == ["A", "B"]

    def test_unknown_patients_stop(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("series_uid,any\n1.9,1\n2.9,0\n", [make("1"), make("2", patient_id="")])
        assert caught.value.code == "unknown_patients"
        assert caught.value.where.endswith("line 3")
        assert "1 of 2 scans" in caught.value.got
        assert "patient_id" in caught.value.todo

    def test_a_patient_who_contradicts_the_images_stops(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("series_uid,patient_id,any\n1.9,P1,0\n2.9,P1,1\n")
        assert "line 3" in caught.value.where

    def test_two_patients_in_one_scan_stop(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("sop_uid,patient_id,any\n1.0,A,0\n1.1,B,1\n", [make("1", patient_id="")])
        assert "line 3" in caught.value.where

    def test_every_study_may_count_as_a_patient(self, join: Join) -> None:
        scans = [make("1", patient_id="ANON"), make("2", patient_id="ANON")]
        known = join("series_uid,any\n1.9,1\n2.9,0\n", scans, patient_ids="study")
        assert [scan.patient_id for scan in known] == ["1.8", "2.8"]

    def test_the_table_s_count_where_the_images_do_not(self, join: Join) -> None:
        scans = [make("1", patient_id="ANON"), make("2", patient_id="ANON")]
        known = join("series_uid,patient_id,any\n1.9,A,1\n2.9,,0\n", scans, patient_ids="study")
        assert [scan.patient_id for scan in known] == ["A", "2.8"]

    def test_the_first_ten_rows_are_named_and_all_are_counted(self, join: Join) -> None:
        rows = "".join(f"1.{i},{'A' if i else 'B'},0\n" for i in range(40))
        with pytest.raises(TableError) as caught:
            join(f"sop_uid,patient_id,any\n{rows}", [make("1", patient_id="", slices=40)])
        assert "line 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 29 more" in caught.value.where
        assert "39 rows" in caught.value.got


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

    def test_the_rows_on_the_scan_are_named(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("series_uid,sop_uid,any\n,1.0,1\n2.9,,1\n1.9,,0\n,2.0,0\n")
        assert caught.value.code == "contradicting_rows"
        assert caught.value.where.endswith("line 4")

    @pytest.mark.parametrize("slice_row", ["1,,", ",,1"])
    def test_what_is_doubtful_may_be_unknown(self, join: Join, caplog: pytest.LogCaptureFixture, slice_row: str) -> None:
        text = f"series_uid,sop_uid,epidural,subdural,any\n1.9,,0,0,0\n,1.0,{slice_row}\n2.9,,0,0,0\n"
        scan, other = join(text, disagreement="unknown")
        doubtful = ["epidural", "any"] if slice_row == "1,," else ["any"]
        for k, label in enumerate(LABELS):
            expected = NAN if label in doubtful else 0
            np.testing.assert_array_equal([scan.scan_labels[k], *scan.slice_labels[:, k]], [expected] * 4)
        assert (other.slice_labels == 0).all()
        assert f"{len(doubtful)} labels of 1 scans" in caplog.text
        assert "line 2" in caplog.text
        with pytest.raises(TableError) as caught:
            join(text)
        assert "disagreement" in caught.value.todo

    def test_slices_without_any_in_a_scan_with_it_may_be_unknown_too(self, join: Join) -> None:
        text = "series_uid,sop_uid,any\n1.9,,1\n,1.0,0\n,1.1,0\n,1.2,0\n2.9,,1\n"
        (scan, _) = join(text, disagreement="unknown")
        assert np.isnan([scan.scan_labels[-1], *scan.slice_labels[:, -1]]).all()
        assert (scan.slice_labels[:, :5] == 0).all()

    def test_names_that_add_to_one_another(self, join: Join) -> None:
        (scan,) = join("series_uid,study_uid,epidural,subdural\n1.9,,0,\n,1.8,,1\n")
        np.testing.assert_array_equal(scan.scan_labels, [0, NAN, NAN, NAN, 1, 1])


class TestWhatASpreadsheetDidToIdentifiers:
    """Leading zeros are lost where nobody sees it in the table alone: it shows beside the images."""

    def scans(self, **changes: Sequence[str]) -> list[pd.DataFrame]:
        return [make(str(i + 1), **{column: values[i] for column, values in changes.items()}) for i in range(2)]

    @pytest.mark.parametrize("unmatched", ["stop", "labels", "both"])
    @pytest.mark.parametrize(
        ("there", "written"), [("00123", "123"), ("0123", "123"), ("12345678901234567", "12345678901234500")]
    )
    def test_accession_numbers_that_lost_digits_are_never_matched_and_stop(
        self, join: Join, there: str, written: str, unmatched: str
    ) -> None:
        with pytest.raises(TableError) as caught:
            join(f"accession_number,any\nA9,1\n{written},0\n", self.scans(accession_number=["A9", there]), unmatched=unmatched)
        error = caught.value
        assert error.code == "spreadsheet_damage"
        assert error.where.endswith("line 3")
        assert "accession_number" in error.got
        assert "(1 rows)" in error.got
        assert there not in str(error)  # it may be somebody's

    def test_folders_too(self, join: Join) -> None:
        scans = [make("1"), make("2", file=[f"00077/{i}.dcm" for i in range(3)])]
        with pytest.raises(TableError) as caught:
            join("folder,any\ncase 1,1\n77,0\n", scans)
        assert caught.value.code == "spreadsheet_damage"

    def test_patients_too(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("series_uid,patient_id,any\n1.9,P1,1\n2.9,815,0\n", [make("1"), make("2", patient_id="0815")])
        assert caught.value.code == "spreadsheet_damage"
        assert caught.value.where.endswith("line 3")
        assert "patient_id" in caught.value.got

    def test_numbers_that_nothing_fits_are_labels_without_image(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("accession_number,any\nA9,1\n124,0\n", self.scans(accession_number=["A9", "00123"]))
        assert caught.value.code == "labels_without_image"

    def test_both_spellings_in_one_table_are_two_studies(self, join: Join) -> None:
        text = "accession_number,any\n00123,1\n123,0\n"
        (scan,) = join(text, self.scans(accession_number=["00123", "A9"]), unmatched="labels")
        assert any_of(scan.scan_labels) == 1


class TestPathsAsTablesWriteThem:
    @pytest.mark.parametrize(
        "path", ["case 1\\series\\{}.dcm", "./case 1/series/{}.dcm", "CASE 1/Series/{}.DCM", "D:\\x\\case 1\\series\\{}.dcm"]
    )
    def test_slices(self, join: Join, path: str) -> None:
        (scan,) = join("file,any\n" + "".join(f"{path.format(i)},{int(i == 1)}\n" for i in range(3)))
        assert any_of(scan.slice_labels) == [0, 1, 0]

    @pytest.mark.parametrize("path", ["case 1\\", "/mnt/case 1", "E:\\2024\\CASE 1\\series", ".\\case 1\\series\\"])
    def test_scans(self, join: Join, path: str) -> None:
        (scan,) = join(f"folder,any\n{path},1\n")
        assert scan.scan_id == "scan-1"

    def test_slices_by_number_in_files(self, join: Join) -> None:
        scans = [make("1", file=[f"ct_scans/049.nii#{n}" for n in (1, 2, 3)])]
        (scan,) = join("file,slice,any\nC:\\ich\\ct_scans\\049.NII,2,1\n", scans)
        np.testing.assert_array_equal(any_of(scan.slice_labels), [NAN, 1, NAN])

    def test_doubtful_ones_stop_and_are_listed(self, join: Join) -> None:
        scans = [make("1", file=[f"{i}.dcm" for i in range(3)])]
        with pytest.raises(TableError) as caught:
            join("file,any\nC:\\a\\0.dcm,1\nC:\\b\\0.dcm,0\nC:\\a\\1.dcm,0\n", scans, unmatched="both")
        assert caught.value.code == "several_scans"
        assert caught.value.where.endswith("line 2, 3")

    def test_what_was_left_out_is_found_by_them_too(self, join: Join) -> None:
        text = "file,any\ncase 1\\series\\0.dcm,1\ncut\\7.DCM,1\n"
        assert len(join(text, excluded=["cut/7.dcm"])) == 1


class TestLabelsWithoutImage:
    @pytest.mark.parametrize("row", ["7.0,,,", ",none.dcm,,", ",,7.9,", ",,,case 7"])
    def test_stop(self, join: Join, row: str) -> None:
        with pytest.raises(TableError) as caught:
            join(f"sop_uid,file,series_uid,folder,any\n1.0,,,,1\n{row},1\n")
        assert caught.value.code == "labels_without_image"
        assert "line 3" in caught.value.where

    def test_may_be_allowed(self, join: Join) -> None:
        assert len(join("sop_uid,any\n1.0,1\n7.0,1\n", unmatched="labels")) == 1

    def test_those_that_the_ledger_accounts_for_are_passed_over(self, join: Join, caplog: pytest.LogCaptureFixture) -> None:
        (scan,) = join("sop_uid,any\n1.0,1\n7.0,1\n7.1,0\n", excluded=["7.0", "7.1"])
        assert scan.scan_id == "scan-1"
        assert "2 labels" in caplog.text
        with pytest.raises(TableError):
            join("sop_uid,any\n1.0,1\n7.0,1\n7.2,0\n", excluded=["7.0", "7.1"])

    @pytest.mark.parametrize("row", ["1.8,,", ",A1,", ",,case 1"])
    def test_slices_of_another_series_of_a_study_named_as_a_whole(
        self, join: Join, caplog: pytest.LogCaptureFixture, row: str
    ) -> None:
        not_chosen = [("1.5.0", "1.8"), ("case 1/thin.dcm", "1.8"), ("2.5.0", "2.8")]
        text = f"sop_uid,file,study_uid,accession_number,folder,any\n,,{row},1\n1.5.0,,,,,1\n,case 1/thin.dcm#3,,,,1\n"
        assert len(join(text, not_chosen=not_chosen)) == 1
        assert "2 labels" in caplog.text
        with pytest.raises(TableError) as caught:  # of this study only slices are named
            join(f"{text}2.5.0,,,,,1\n", not_chosen=not_chosen)
        assert caught.value.where.endswith("line 5")

    def test_slices_of_a_file_that_was_left_out_as_a_whole(self, join: Join) -> None:
        text = "sop_uid,file,slice,any\n1.0,,,1\n,ct/7.nii,3,1\n"
        assert len(join(text, excluded=["ct/7.nii"])) == 1
        with pytest.raises(TableError):
            join(text, excluded=["ct/7.nii#4"])

    def test_what_was_left_out_by_a_table_written_one_folder_above(self, join: Join) -> None:
        text = "file,any\nroot/case 1/series/0.dcm,1\nroot/cut.dcm,1\n"
        assert len(join(text, excluded=["cut.dcm"])) == 1

    def test_those_that_are_allowed_are_counted(self, join: Join, caplog: pytest.LogCaptureFixture) -> None:
        join("sop_uid,any\n1.0,1\n7.0,1\n7.1,1\n", unmatched="labels")
        assert "2 labels" in caplog.text

    def test_none_at_all_is_never_allowed(self, join: Join) -> None:
        with pytest.raises(TableError):
            join("sop_uid,any\n7.0,1\n", unmatched="labels")

    def test_a_name_of_two_scans_stops(self, join: Join) -> None:
        with pytest.raises(TableError) as caught:
            join("study_uid,any\n5,1\n", [make("1", study_uid="5"), make("2", study_uid="5")])
        assert caught.value.code == "several_scans"

    def test_a_slice_of_two_scans_stops_whatever_is_allowed(self, join: Join) -> None:
        twins = [make("1"), make("2", sop_uid=["1.0", "2.1", "2.2"])]
        with pytest.raises(TableError) as caught:
            join("sop_uid,any\n1.0,1\n1.1,0\n", twins, unmatched="labels")
        assert caught.value.code == "several_scans"


def test_labels_meet_their_slices_in_anatomical_order(prepared: PreparedFolder, phantom: Path, heads, project_key) -> None:
    known = {scan.scan_id: scan for scan in label_scans(prepared, read_label_table(phantom / "stage_2_train.csv"))}
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


@pytest.mark.parametrize("seed", range(20))
def test_what_rows_say_is_known_and_what_is_known_is_true(join: Join, seed: int) -> None:
    """Rows on slices and scans by several names, in any order, each revealing a part of one truth."""
    random = np.random.default_rng(seed)
    count, slices = 4, 5
    types = random.random((count, slices, 5)) < random.choice([0, 0.2], (count, 1, 1))
    of_slices = np.concatenate([types, types.any(axis=2, keepdims=True)], axis=2)  # (scans, slices, k)
    of_scans = of_slices.max(axis=1)
    places = [(scan, i, name) for scan in range(count) for i in range(slices) for name in (f"{scan}.{i}", i)]
    rows = [("sop_uid" if isinstance(name, str) else "file", name, scan, i) for scan, i, name in places if random.random() < 0.4]
    rows += [(key, f"{scan}.{end}", scan, None) for key, end in (("series_uid", 9), ("study_uid", 8)) for scan in (0, 1, 3)]
    told = random.random((len(rows), len(LABELS))) < 0.4
    table = []
    for place in random.permutation(len(rows)):
        key, name, scan, i = rows[place]
        truth = of_scans[scan] if i is None else of_slices[scan, i]
        cells = {label: int(truth[k]) for k, label in enumerate(LABELS) if told[place, k]}
        table.append({key: name if key != "file" else f"case {scan}/series/{i}.dcm"} | cells)
    text = pd.DataFrame(table, columns=["sop_uid", "file", "series_uid", "study_uid", *LABELS]).astype(object)
    known = {scan.scan_id: scan for scan in join(text.to_csv(index=False), [make(str(scan), slices) for scan in range(count)])}
    for (_, _, scan, i), says in zip(rows, told, strict=True):
        if says.any():
            labels = known[f"scan-{scan}"].scan_labels if i is None else known[f"scan-{scan}"].slice_labels[i]
            truth = of_scans[scan] if i is None else of_slices[scan, i]
            assert (labels[says] == truth[says]).all()
    for scan in range(count):
        if f"scan-{scan}" in known:
            got = known[f"scan-{scan}"]
            assert (np.isnan(got.slice_labels) | (got.slice_labels == of_slices[scan])).all()
            assert (np.isnan(got.scan_labels) | (got.scan_labels == of_scans[scan])).all()
