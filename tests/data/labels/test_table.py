"""Label tables of one's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ich_lstm import LABELS
from ich_lstm.data.labels.cq500 import FINDINGS
from ich_lstm.data.labels.table import read_label_table, read_label_tables
from ich_lstm.data.tables.labelled import LabelTable
from ich_lstm.errors import TableError

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a label table."""

    def _write(text: str | bytes) -> Path:
        path = tmp_path / "labels.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


@pytest.fixture
def refused(write: Write) -> Callable[[str | bytes], TableError]:
    """Read a table that must be refused, and return the error."""

    def _refused(text: str | bytes) -> TableError:
        with pytest.raises(TableError) as caught:
            read_label_table(write(text))
        return caught.value

    return _refused


def labels_of(table: LabelTable) -> list[list[float | None]]:
    """The labels of each row, None where unknown."""
    values = table.rows[list(LABELS)]
    assert (values.dtypes == np.float32).all()
    return [[None if np.isnan(value) else float(value) for value in row] for row in values.to_numpy()]


class TestReadLabelTable:
    def test_slices_with_all_labels_in_any_order(self, write: Write) -> None:
        table = read_label_table(
            write(
                "any,subdural,sop_uid,epidural,subarachnoid,intraventricular,intraparenchymal\n"
                "1,1,1.2.3,0,0,0,0\n"
                "0,0,1.2.4,0,0,0,0\n"
            )
        )
        assert len(table) == 2
        assert table.rows["kind"].tolist() == ["sop_uid", "sop_uid"]
        assert table.rows["name"].tolist() == ["1.2.3", "1.2.4"]
        assert labels_of(table) == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]
        assert table.flags == ()

    def test_slice_and_scan_rows_mixed(self, write: Write) -> None:
        table = read_label_table(
            write(
                "sop_uid,file,series_uid,study_uid,folder,patient_id,any\n"
                "1.2.3,,,,,p1,1\n"
                ",a/b.dcm,,,,p1,0\n"
                ",,1.9,,,p2,1\n"
                ",,,1.8,,p3,0\n"
                ",,,,case 7,p4,\n"
            )
        )
        assert table.rows["kind"].tolist() == ["sop_uid", "file", "series_uid", "study_uid", "folder"]
        assert table.rows["name"].tolist() == ["1.2.3", "a/b.dcm", "1.9", "1.8", "case 7"]
        assert table.rows["patient_id"].tolist() == ["p1", "p1", "p2", "p3", "p4"]

    def test_the_finest_name_counts(self, write: Write) -> None:
        table = read_label_table(write("series_uid,sop_uid,any\n1.9,1.2.3,1\n1.9,1.2.4,0\n"))
        assert table.rows["name"].tolist() == ["1.2.3", "1.2.4"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_byte_order_mark_and_line_ends(self, write: Write, encoding: str, end: str) -> None:
        table = read_label_table(write(f"folder,any{end}Müller,1{end}".encode(encoding)))
        assert table.rows["name"].tolist() == ["Müller"]

    def test_identifiers_stay_text(self, write: Write) -> None:
        table = read_label_table(write("sop_uid,patient_id,any\n007,0012,1\nNA,null,0\n"))
        assert table.rows["name"].tolist() == ["007", "NA"]
        assert table.rows["patient_id"].tolist() == ["0012", "null"]

    def test_blanks_and_quotes_around_cells(self, write: Write) -> None:
        table = read_label_table(write('"sop_uid", any\n"1.2.3", 1 \n 1.2.4 ,"0"\n'))
        assert table.rows["name"].tolist() == ["1.2.3", "1.2.4"]
        assert table.rows["any"].tolist() == [1, 0]

    def test_other_columns_do_no_harm(self, write: Write) -> None:
        table = read_label_table(write("age,sop_uid,any,reader\n64,1.2.3,1,\n"))
        assert table.rows["name"].tolist() == ["1.2.3"]


class TestNames:
    def test_studies_by_accession_number(self, write: Write) -> None:
        table = read_label_table(write("accession_number,any\n0012345,1\n"))
        assert table.rows[["kind", "name"]].to_numpy().tolist() == [["accession_number", "0012345"]]

    def test_slices_of_a_file_by_their_number(self, write: Write) -> None:
        table = read_label_table(write("file,slice,any\na/049.nii,12,1\na/049.nii,013,0\na/050.nii,3.0,0\na/051.nii,,1\n"))
        assert table.rows["name"].tolist() == ["a/049.nii#12", "a/049.nii#13", "a/050.nii#3", "a/051.nii"]
        assert set(table.rows["kind"]) == {"file"}

    @pytest.mark.parametrize("number", ["0", "-1", "1.5", "one", "1#2"])
    def test_numbers_of_slices_are_from_1(self, refused: Callable, number: str) -> None:
        error = refused(f"file,slice,any\na.nii,1,1\na.nii,{number},1\n")
        assert error.code == "bad_slice_number"
        assert "line 3" in error.where

    def test_a_number_without_a_file_stops(self, refused: Callable) -> None:
        error = refused("file,folder,slice,any\na.nii,,1,1\n,case,2,1\n")
        assert error.code == "slice_without_file"
        assert "line 3" in error.where

    def test_folder_names_are_no_column(self, refused: Callable) -> None:
        assert refused("folder_name,any\ncase,1\n").code == "missing_columns"


class TestStudyDates:
    def test_iso_or_dicom(self, write: Write) -> None:
        table = read_label_table(write("sop_uid,study_date,any\n1,2020-02-29,1\n2,20191231,1\n3,,1\n"))
        assert table.rows["study_date"].tolist() == ["2020-02-29", "2019-12-31", ""]

    @pytest.mark.parametrize("date", ["31.2.2019", "2019-13-01", "20190230", "2019", "2019-0101", "31.12.19", "43830", "x"])
    def test_others_stop(self, refused: Callable, date: str) -> None:
        error = refused(f"sop_uid,study_date,any\n1,20200101,1\n2,{date},1\n")
        assert error.code == "bad_date"
        assert date in error.got
        assert "line 3" in error.where

    def test_without_the_column_they_are_unknown(self, write: Write) -> None:
        assert read_label_table(write("sop_uid,any\n1,1\n")).rows["study_date"].tolist() == [""]


class TestWhatFollows:
    def test_empty_cells_are_unknown(self, write: Write) -> None:
        table = read_label_table(write("sop_uid,epidural,subdural,any\n1,,,\n2,1,,1\n3,0,,\n"))
        none = None
        assert labels_of(table) == [[none] * 6, [1, none, none, none, none, 1], [0, none, none, none, none, none]]

    def test_any_follows_from_the_types(self, write: Write) -> None:
        types = "epidural,intraparenchymal,intraventricular,subarachnoid,subdural"
        table = read_label_table(write(f"sop_uid,{types}\n1,0,1,,,\n2,0,0,0,0,0\n3,0,0,0,0,\n"))
        assert [row[-1] for row in labels_of(table)] == [1, 0, None]

    def test_no_type_follows_from_none(self, write: Write) -> None:
        assert labels_of(read_label_table(write("sop_uid,any\n1,0\n2,1\n"))) == [[0] * 6, [None] * 5 + [1]]

    def test_any_without_a_type_is_kept_and_flagged(self, write: Write) -> None:
        types = "epidural,intraparenchymal,intraventricular,subarachnoid,subdural"
        table = read_label_table(write(f"sop_uid,{types},any\n1,0,0,0,0,0,1\n"))
        assert labels_of(table) == [[0, 0, 0, 0, 0, 1]]
        assert len(table.flags) == 1

    def test_a_type_without_any_stops(self, refused: Callable) -> None:
        error = refused("sop_uid,epidural,any\n1,0,0\n2,1,0\n")
        assert error.code == "any_contradicts_types"
        assert "line 3" in error.where

    def test_a_type_without_any_is_repaired_if_told(self, write: Write) -> None:
        table = read_label_table(write("sop_uid,epidural,any\n1,0,0\n2,1,0\n3,1,1\n"), repair_any=True)
        assert table.rows["any"].tolist() == [0, 1, 1]
        assert "1 rows" in table.flags[0]
        assert "line 3" in table.flags[0]

    def test_flags_name_the_first_ten_rows(self, write: Write) -> None:
        types = "epidural,intraparenchymal,intraventricular,subarachnoid,subdural"
        rows = "".join(f"{i},0,0,0,0,0,1\n" for i in range(30))
        (flag,) = read_label_table(write(f"sop_uid,{types},any\n{rows}")).flags
        assert flag.startswith("30 rows")
        assert flag.endswith("line 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 20 more")

    def test_equal_repetitions_are_dropped_and_counted(self, write: Write) -> None:
        table = read_label_table(write("sop_uid,any\n1,1\n2,0\n1,1\n1,1\n"))
        assert table.rows["name"].tolist() == ["1", "2"]
        assert table.rows.index.tolist() == [0, 1]
        assert len(table.flags) == 1
        assert "2" in table.flags[0]

    @pytest.mark.parametrize("second", ["1,p,0", "1,q,1", "1,p,"])
    def test_contradicting_repetitions_stop(self, refused: Callable, second: str) -> None:
        error = refused(f"sop_uid,patient_id,any\n1,p,1\n2,p,0\n{second}\n")
        assert error.code == "contradicting_rows"
        assert "line 2, 4" in error.where

    def test_a_slice_and_a_scan_of_one_name_are_two_things(self, write: Write) -> None:
        assert len(read_label_table(write("sop_uid,series_uid,any\n1,,1\n,1,0\n"))) == 2


class TestRefused:
    @pytest.mark.parametrize("label", ["2", "-1", "maybe", '"1,000"', "0.5", "1e0", "nan", "NA", "?"])
    def test_bad_labels(self, refused: Callable, label: str) -> None:
        error = refused(f"sop_uid,epidural,any\n1,0,1\n2,{label},0\n3,{label},0\n")
        assert error.code == "bad_label"
        assert label.strip('"') in error.got
        assert "line 3, 4" in error.where

    def test_only_the_first_lines_are_named_and_all_are_counted(self, refused: Callable) -> None:
        error = refused("sop_uid,any\n" + "".join(f"{i},7\n" for i in range(2000)))
        assert "2000" in error.got
        assert len(str(error)) < 600

    def test_lines_are_those_of_the_file(self, refused: Callable) -> None:
        assert "line 6" in refused("sop_uid,any\n\n1,0\n\n\n2,7\n").where

    @pytest.mark.parametrize("text", ["", "\n", "   \n", "\ufeff"])
    def test_empty(self, refused: Callable, text: str) -> None:
        assert refused(text).code == "empty_table"

    @pytest.mark.parametrize("text", ["sop_uid,any\n", "sop_uid,any", "sop_uid,any\n\n\n"])
    def test_no_rows(self, refused: Callable, text: str) -> None:
        assert refused(text).code == "no_rows"

    def test_no_header(self, refused: Callable) -> None:
        assert refused("1.2.3,0\n1.2.4,1\n").code == "missing_columns"

    def test_the_nearest_column_is_named(self, refused: Callable) -> None:
        error = refused("sop_uidd,subdurall\n1,1\n")
        assert error.code == "missing_columns"
        assert "sop_uid" in error.todo
        assert "subdural " in error.todo

    def test_a_misspelt_column_among_good_ones_is_not_dropped_in_silence(self, write: Write) -> None:
        try:
            flags = " ".join(read_label_table(write("sop_uid,any,subdurall\n1,1,1\n")).flags)
        except TableError as error:
            flags = str(error)
        assert "subdurall" in flags

    @pytest.mark.parametrize(
        ("column", "meant"),
        [
            ("SOPInstanceUID", "sop_uid"),
            ("MRN", "patient_id"),
            ("SDH", "subdural"),
            ("Accession", "accession_number"),
        ],
    )
    def test_other_words_for_a_column_are_asked_about(self, write: Write, column: str, meant: str) -> None:
        text = "file,epidural" if meant != "epidural" else "file,any"
        (flag,) = read_label_table(write(f"{text},{column}\na,1,1\n")).flags
        assert f"{column} is not read" in flag
        assert meant in flag

    @pytest.mark.parametrize("header", ["sop_uid,reader", "any,epidural", "sop_uid any"])
    def test_keys_and_labels_are_needed(self, refused: Callable, header: str) -> None:
        assert refused(f"{header}\n1,1\n").code == "missing_columns"

    def test_a_row_without_a_name(self, refused: Callable) -> None:
        error = refused("sop_uid,file,any\n1,,1\n,,0\n")
        assert error.code == "no_name"
        assert "line 3" in error.where

    def test_rows_of_another_length(self, refused: Callable) -> None:
        # pandas takes the first column for an index where every row has one cell too many: all labels would be shifted.
        for text in ("sop_uid,any\n1.2.3,1,1\n1.2.4,0,0\n", "sop_uid,any\n1.2.3,1\n1.2.4,0,0\n", 'sop_uid,any\n1.2.3,"1\n'):
            assert refused(text).code == "unreadable_table"

    def test_a_comma_at_the_end_of_each_row_shifts_nothing(self, write: Write) -> None:
        try:
            table = read_label_table(write("sop_uid,any\n1.2.3,1,\n1.2.4,0,\n"))
        except TableError:
            return
        assert table.rows["name"].tolist() == ["1.2.3", "1.2.4"]
        assert table.rows["any"].tolist() == [1, 0]

    def test_one_label_twice_in_the_header(self, refused: Callable) -> None:
        refused("sop_uid,any,any\n1,1,0\n")

    @pytest.mark.parametrize(
        "content",
        [
            b"sop_uid,any\nM\x81ller,1\n",
            "sop_uid,any\n1,1\n".encode("utf-16")[:-1],
            b"sop_uid,any\n" + b"1,1\n" * 20000 + b"\x8d,1\n",
            bytes(range(256)),
        ],
        ids=["no such letter", "half a letter", "late", "binary"],
    )
    def test_no_text(self, refused: Callable, content: bytes) -> None:
        refused(content)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(tmp_path / "none.csv")
        assert caught.value.code == "missing_table"
        with pytest.raises(TableError):
            read_label_table(tmp_path)


class TestReadLabelTables:
    @pytest.fixture
    def two(self, tmp_path: Path) -> list[Path]:
        paths = [tmp_path / "slices.csv", tmp_path / "scans/scans.csv"]
        paths[1].parent.mkdir()
        paths[0].write_text("sop_uid,any\n1,1\n1,1\n")
        paths[1].write_text("series_uid,epidural\n2,0\n3,1\n")
        return paths

    def test_rows_of_all(self, two: list[Path]) -> None:
        table = read_label_tables(two)
        assert table.rows["kind"].tolist() == ["sop_uid", "series_uid", "series_uid"]
        assert table.rows["line"].tolist() == ["slices.csv:2", "scans.csv:2", "scans.csv:3"]
        assert labels_of(table)[2] == [1, None, None, None, None, 1]
        assert table.source == two[0].parent
        (flag,) = table.flags
        assert flag.startswith("slices.csv: 1 repeated rows")

    def test_no_folder_is_named_for_the_audit_is_shared(self, two: list[Path], tmp_path: Path) -> None:
        (tmp_path / "DOE^JOHN").mkdir()
        third = tmp_path / "DOE^JOHN/slices.csv"
        third.write_text("sop_uid,any,EDH\n7,1,0\n")
        table = read_label_tables([*two, third])
        assert table.rows["line"].tolist()[-1] == "slices.csv (2):2"
        assert table.flags[-1].startswith("slices.csv (2): the column EDH")
        assert "DOE" not in " ".join(table.flags)

    def test_one_is_read_as_it_is(self, two: list[Path]) -> None:
        table = read_label_tables([two[1], str(two[1])])
        assert table.source == two[1]
        assert table.rows["line"].tolist() == [2, 3]

    def test_each_kind_by_its_own_header(self, two: list[Path], tmp_path: Path) -> None:
        reads = ",".join(f"R{i}:{finding}" for i in (1, 2, 3) for finding in FINDINGS)
        (tmp_path / "reads.csv").write_text(f"name,Category,{reads}\nCQ500-CT-7,B2,{','.join(['0'] * 3 * len(FINDINGS))}\n")
        (tmp_path / "boxes.csv").write_text("SOPInstanceUID,data,labelName\n1.2,,Subdural\n")
        table = read_label_tables([*two, tmp_path / "reads.csv", tmp_path / "boxes.csv"])
        assert table.rows["kind"].tolist()[3:] == ["folder_name", "sop_uid"]
        assert table.strata is not None
        assert table.strata["category"].tolist() == ["B2"]
