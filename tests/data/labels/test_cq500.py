"""CQ500's reads, and the truths that follow from them."""

import csv
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_series
from labelled_scans import label_scans

from ich_lstm import LABELS
from ich_lstm.data.labels.choices import read_choices
from ich_lstm.data.labels.cq500 import EXPECTED_POSITIVES, FINDINGS, folder_name, is_reads, read_cq500, read_reads
from ich_lstm.data.labels.table import read_label_table, read_label_tables
from ich_lstm.data.prepare.prepare import prepare
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.preprocessing.crop_and_resize import Preprocessing

HEADER = ["name", "Category", *(f"R{reader}:{finding}" for reader in (1, 2, 3) for finding in FINDINGS)]

Write = Callable[..., Path]


def row(number: int, category: str = "B1", **marks: str) -> list[str]:
    """A scan, with a mark per reader for each finding that is named: ``ICH="110"``, an underscore for an empty cell."""
    given = {finding.replace("-", "_"): mark for finding, mark in marks.items()}
    cells = [given.get(finding.replace("-", "_"), "000")[reader] for reader in range(3) for finding in FINDINGS]
    return [f"CQ500-CT-{number}", category, *(cell.replace("_", "") for cell in cells)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a table of reads."""

    def _write(rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER, encoding: str = "utf-8") -> Path:
        path = tmp_path / "reads.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return _write


def complete_set(**more: int) -> list[list[str]]:
    """491 scans with the published numbers of positives, or more of some."""
    positives = {finding: count + more.get(finding, 0) for finding, count in EXPECTED_POSITIVES.items()}
    return [row(number, **{finding: "101" for finding, count in positives.items() if number < count}) for number in range(491)]


def labels_of(path: Path, truth: str = "majority") -> list[list[float | None]]:
    values = read_cq500(path, truth).rows[list(LABELS)].to_numpy()
    return [[None if np.isnan(value) else float(value) for value in line] for line in values]


class TestReads:
    def test_every_mark_of_every_reader(self, write: Write) -> None:
        reads = read_reads(write([row(7, "B2", ICH="110", SDH="1_0"), row(3, MidlineShift="001")]))
        assert reads.scans.to_numpy().tolist() == [["CQ500-CT-7", "B2", 2], ["CQ500-CT-3", "B1", 3]]
        assert len(reads.marks) == 2 * 3 * 14
        marks = reads.marks.set_index(["name", "reader", "finding"])["mark"]
        assert marks.dtype == np.float32
        assert marks["CQ500-CT-7"].loc[:, "ICH"].to_dict() == {"R1": 1, "R2": 1, "R3": 0}
        assert np.isnan(marks["CQ500-CT-7", "R2", "SDH"])
        assert marks[marks == 1].index.tolist() == [
            ("CQ500-CT-7", "R1", "ICH"),
            ("CQ500-CT-7", "R1", "SDH"),
            ("CQ500-CT-7", "R2", "ICH"),
            ("CQ500-CT-3", "R3", "MidlineShift"),
        ]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_columns_in_any_order_after_a_byte_order_mark(self, write: Write, encoding: str) -> None:
        line = row(12, ICH="110", IPH="011", EDH="100")
        path = write([line[::-1]], HEADER[::-1], encoding)
        assert labels_of(path) == [[0, 1, 0, 0, 0, 1]]

    def test_is_told_by_its_columns(self) -> None:
        assert is_reads(HEADER)
        assert not is_reads(["ID", "Label"])
        assert not is_reads(["name", "any"])

    def test_equal_rows_are_dropped_and_counted(self, write: Write) -> None:
        table = read_cq500(write([row(1, ICH="11_"), row(2), row(1, ICH="11_")]))
        assert table.rows["line"].tolist() == [2, 3]
        assert len(table.strata) == 2
        assert "1 repeated" in table.flags[0]

    @pytest.mark.parametrize(
        ("rows", "code", "where"),
        [
            ([row(1), row(2), row(1, ICH="100")], "contradicting_rows", "line 2, 4"),
            ([row(1), row(1, "B2")], "contradicting_rows", "line 2, 3"),
            ([row(1), row(2, IVH="020")], "bad_label", "line 3"),
            ([row(1), row(2, "B3")], "bad_category", "line 3"),
            ([row(1), ["CQ500-MR-1", *row(1)[1:]]], "bad_cq500_name", "line 3"),
            ([row(1), ["", *row(1)[1:]]], "bad_cq500_name", "line 3"),
        ],
    )
    def test_rows_that_are_wrong_are_named(self, write: Write, rows: list, code: str, where: str) -> None:
        with pytest.raises(TableError) as caught:
            read_reads(write(rows))
        assert caught.value.code == code
        assert where in caught.value.where

    def test_missing_columns_are_named(self, write: Write) -> None:
        with pytest.raises(TableError) as caught:
            read_reads(write([row(1)[:-1]], HEADER[:-1]))
        assert caught.value.code == "missing_columns"
        assert "R3:MidlineShift" in caught.value.got


class TestTruth:
    ROWS = (row(0, ICH="000"), row(1, ICH="010"), row(2, ICH="101"), row(3, ICH="111"))

    @pytest.mark.parametrize(
        ("truth", "positive"),
        [
            ("any", [0, 1, 1, 1]),
            ("majority", [0, 0, 1, 1]),
            ("unanimous", [0, 0, 0, 1]),
            ("R1", [0, 0, 1, 1]),
            ("R2", [0, 1, 0, 1]),
            ("R3", [0, 0, 1, 1]),
        ],
    )
    def test_who_must_have_seen_it(self, write: Write, truth: str, positive: list[int]) -> None:
        assert [line[-1] for line in labels_of(write(self.ROWS), truth)] == positive

    @pytest.mark.parametrize(
        ("truth", "known"),
        [
            ("any", [1, None, 1, None, 1]),
            ("majority", [None, 0, 1, None, None]),
            ("unanimous", [0, 0, None, None, None]),
            ("R3", [None, None, None, None, 1]),
        ],
    )
    def test_an_empty_cell_is_unknown_unless_the_others_decide(self, write: Write, truth: str, known: list) -> None:
        rows = [row(i, SDH=marks, ICH=marks) for i, marks in enumerate(("10_", "00_", "11_", "___", "__1"))]
        assert [line[-1] for line in labels_of(write(rows), truth)] == known
        assert [line[-2] for line in labels_of(write(rows), truth)] == known

    def test_that_no_type_has_a_majority_does_not_settle_any(self, write: Write) -> None:
        assert labels_of(write([row(1, ICH="10_", SDH="100"), row(2, ICH="1_1", SDH="100")])) == [[None] * 6, [0] * 5 + [1]]

    def test_labels_are_in_the_order_of_all_tables(self, write: Write) -> None:
        findings = ("EDH", "IPH", "IVH", "SAH", "SDH")
        rows = [row(i, ICH="111", **{finding: "111"}) for i, finding in enumerate(findings)]
        assert labels_of(write(rows)) == [[*(float(i == k) for k in range(5)), 1.0] for i in range(5)]

    def test_readers_who_disagree_on_the_type_leave_any_alone(self, write: Write) -> None:
        path = write([row(1, ICH="110", SDH="100", SAH="010"), row(2, ICH="110", SDH="110")])
        assert labels_of(path) == [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1]]
        assert any(flag.startswith("1 rows have any = 1 and no type") for flag in read_cq500(path).flags)

    def test_no_truth_of_consistent_readers_contradicts_itself(self, write: Write) -> None:
        """A reader who marks a type marks a hemorrhage: then each truth does, whoever disagrees."""
        rng = np.random.default_rng(5)
        rows = []
        for number in range(300):
            types = rng.integers(0, 2, (5, 3))
            ich = types.any(axis=0) | rng.integers(0, 2, 3).astype(bool)
            marks = {
                finding: "".join(map(str, mark)) for finding, mark in zip(("EDH", "IPH", "IVH", "SAH", "SDH"), types, strict=True)
            }
            rows.append(row(number, ICH="".join(str(int(mark)) for mark in ich), **marks))
        path = write(rows)
        for truth in ("majority", "unanimous", "any", "R1", "R2", "R3"):
            assert len(read_cq500(path, truth)) == 300

    def test_a_type_without_any_stops(self, write: Write) -> None:
        path = write([row(1), row(2, ICH="100", SDH="110")])
        with pytest.raises(TableError) as caught:
            read_cq500(path)
        assert caught.value.code == "any_contradicts_types"
        assert "line 3" in caught.value.where
        table = read_label_table(path, repair_any=True)
        assert table.rows[["subdural", "any"]].to_numpy().tolist() == [[0, 0], [1, 1]]

    def test_a_reader_who_forgot_any_is_named_where_the_truth_stands(self, write: Write) -> None:
        flags = " ".join(read_cq500(write([row(1), row(2, ICH="110", SDH="111")])).flags)
        assert "CQ500-CT-2 (R3)" in flags

    def test_an_unknown_truth(self, write: Write) -> None:
        with pytest.raises(ConfigError) as caught:
            read_cq500(write([row(1)]), "R4")
        assert caught.value.code == "unknown_truth"


class TestTable:
    def test_scans_are_found_by_the_name_of_their_folder(self, write: Write) -> None:
        table = read_cq500(write([row(0), row(490)]))
        assert table.rows["kind"].tolist() == ["folder_name"] * 2
        assert table.rows["name"].tolist() == ["CQ500CT0 CQ500CT0", "CQ500CT490 CQ500CT490"]

    def test_strata_by_the_same_truth(self, write: Write) -> None:
        path = write([row(1, "B2", ICH="111", ChronicBleed="110"), row(2, "B1", Fracture="100", MassEffect="111")])
        expected = {
            "majority": [["B2", 1, 0, 0, 0], ["B1", 0, 0, 1, 0]],
            "any": [["B2", 1, 0, 0, 0], ["B1", 0, 1, 1, 0]],
        }
        for truth, values in expected.items():
            table = read_cq500(path, truth)
            columns = ["category", "chronic", "fracture", "mass_effect", "midline_shift"]
            assert table.strata["name"].tolist() == table.rows["name"].tolist()
            assert table.strata[columns].to_numpy().tolist() == values

    @pytest.mark.parametrize("name", ["CQ500-CT-12", "CQ500CT12", "CQ500-CT-012"])
    def test_names_of_folders(self, name: str) -> None:
        assert folder_name(name) == "CQ500CT12 CQ500CT12"

    @pytest.mark.parametrize("name", ["CQ500-CT-", "XCQ500-CT-1", "CQ500-CT-1.zip", "1.2.3", "CQ500CT12 CQ500CT12"])
    def test_other_names(self, name: str) -> None:
        assert folder_name(name) is None


class TestSelfCheck:
    def test_the_complete_set_is_as_published(self, write: Write) -> None:
        path = write(complete_set())
        for truth in ("majority", "unanimous"):
            assert [flag for flag in read_cq500(path, truth).flags if "expected" in flag or "not in" in flag] == []

    def test_other_counts_are_told_whatever_the_truth(self, write: Write) -> None:
        path = write(complete_set(SAH=1, EDH=-2))
        for truth in ("majority", "R2"):
            told = [flag for flag in read_cq500(path, truth).flags if "expected" in flag]
            assert len(told) == 2
            assert any("SAH in 61" in flag and "60" in flag for flag in told)
            assert any("EDH in 11" in flag and "13" in flag for flag in told)

    def test_missing_scans_are_named(self, write: Write) -> None:
        (flag,) = read_cq500(write(complete_set()[:4] + complete_set()[5:])).flags[-1:]
        assert flag.startswith("1 of the 491")
        assert flag.endswith("CQ500-CT-4")

    def test_many_missing_scans_are_counted(self, write: Write) -> None:
        (flag,) = read_cq500(write([row(1)])).flags
        assert flag.startswith("490 of the 491")
        assert "CQ500-CT-10" in flag
        assert "CQ500-CT-11" not in flag
        assert flag.endswith("480 more")


@pytest.fixture(scope="module")
def prepared_tree(project_key, tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    """The downloads as they lie: a zip and a folder, in folders of their own; not to be written into."""
    root = tmp_path_factory.mktemp("cq500")
    for number, series in enumerate(("CT Plain", "CT BONE"), 1):
        own = {"SeriesInstanceUID": f"1.2.3.100.{number}", "SeriesNumber": number, "SeriesDescription": series}
        patient = root / "zip" / "CQ500CT0 CQ500CT0"
        make_series(patient / "Unknown Study" / series, PatientID="CQ500CT0", **own)
    (root / "qct01").mkdir()
    shutil.make_archive(str(root / "qct01" / "CQ500-CT-0"), "zip", root / "zip")
    shutil.rmtree(root / "zip")
    own = {"StudyInstanceUID": "1.2.3.200", "SeriesInstanceUID": "1.2.3.200.1", "PatientID": "CQ500CT12"}
    make_series(root / "qct02" / "CQ500CT12 CQ500CT12" / "Unknown Study" / "CT 5mm", **own)
    return prepare(root, tmp_path_factory.mktemp("out"), preprocessing=Preprocessing(size=16), key=project_key, workers=1)


class TestTree:
    def test_scans_meet_their_reads(self, prepared_tree: PreparedFolder, write: Write) -> None:
        table = read_cq500(write([row(12, ICH="111", SDH="011"), row(0)]))
        scans = {scan.patient_id: scan for scan in label_scans(prepared_tree, table)}
        assert {name: scan.series_uid for name, scan in scans.items()} == {"CQ500CT0": "1.2.3.100.1", "CQ500CT12": "1.2.3.200.1"}
        assert scans["CQ500CT12"].scan_labels.tolist() == [0, 0, 0, 0, 1, 1]
        assert scans["CQ500CT0"].scan_labels.tolist() == [0] * 6
        assert (scans["CQ500CT0"].slice_labels == 0).all()

    def test_a_scan_without_images_stops_with_its_line(self, prepared_tree: PreparedFolder, write: Write) -> None:
        with pytest.raises(TableError) as caught:
            label_scans(prepared_tree, read_cq500(write([row(12), row(13), row(0)])))
        assert caught.value.code == "labels_without_image"
        assert "line 3" in caught.value.where

    def test_boxes_tell_slices_and_reads_tell_zeros(self, prepared_tree: PreparedFolder, write: Write, tmp_path: Path) -> None:
        boxes = tmp_path / "1_Initial_Manual_Labeling.csv"
        boxes.write_text("SOPInstanceUID,labelName\n1.2.3.200.1.3,Subdural\n1.2.3.200.1.4,Chronic\n")
        reads = write([row(12, ICH="111", SDH="011"), row(0)])
        with_bleeding, without = sorted(
            label_scans(prepared_tree, read_label_tables([reads, boxes])), key=lambda scan: -scan.scan_labels[-1]
        )
        assert (without.slice_labels == 0).all()
        labels = with_bleeding.slice_labels  # epidural, intraparenchymal, intraventricular, subarachnoid, subdural, any
        np.testing.assert_array_equal(labels[2], [0, 0, 0, 0, 1, 1])
        np.testing.assert_array_equal(labels[3], [0, 0, 0, 0, np.nan, 1])
        np.testing.assert_array_equal(labels[0], [0, 0, 0, 0, np.nan, np.nan])

    def test_boxes_in_two_series_of_a_scan_with_a_choice(self, project_key, write: Write, tmp_path: Path) -> None:
        folder = tmp_path / "qct" / "CQ500CT7 CQ500CT7" / "Unknown Study"
        for number, series in enumerate(("Plain", "PLAIN THIN"), 1):
            own = {"SeriesInstanceUID": f"1.2.3.100.{number}", "SeriesDescription": series}
            make_series(folder / f"CT {series}", **own)
        boxes = tmp_path / "2_Extrapolation_to_All_Series.csv"
        boxes.write_text("SOPInstanceUID,labelName\n1.2.3.100.1.3,Subdural\n1.2.3.100.2.3,Subdural\n")
        (tmp_path / "choices.csv").write_text("study,series\nCQ500-CT-7,PLAIN THIN\n")
        labels = read_label_tables([write([row(7, ICH="111", SDH="011")]), boxes])
        prepared = prepare(
            tmp_path / "qct",
            tmp_path / "out",
            preprocessing=Preprocessing(size=16),
            key=project_key,
            labels=labels,
            choices=read_choices(tmp_path / "choices.csv"),
            workers=1,
        )
        (scan,) = label_scans(prepared, labels, unmatched="labels")
        assert scan.series_uid == "1.2.3.100.2"
        assert scan.slice_labels[2].tolist() == [0, 0, 0, 0, 1, 1]
