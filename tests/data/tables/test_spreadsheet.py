"""Tables as spreadsheets save them."""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import make_series

from ich_lstm.data.labels.choices import read_choices
from ich_lstm.data.labels.corrections import read_corrections
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepare.prepare import prepare
from ich_lstm.data.split.split_file import SplitFile
from ich_lstm.data.tables import spreadsheet
from ich_lstm.data.tables.spreadsheet import Sheet, read_header, read_sheet
from ich_lstm.errors import SplitError, TableError
from ich_lstm.evaluation.comparisons.reader_labels import read_marks
from ich_lstm.evaluation.comparisons.strata import read_strata
from ich_lstm.files.csv_table import safe_cell
from ich_lstm.labels import LABELS
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey

Write = Callable[..., Path]

ENGLISH = "accession_number,any,comment\nA1,1,Müller\nA2,0,\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a table."""

    def _write(text: str | bytes, name: str = "labels.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def sheet_of(cells: dict[str, list[str]]) -> Sheet:
    frame = pd.DataFrame(cells, dtype=str)
    return Sheet(Path("labels.csv"), frame, pd.RangeIndex(2, len(frame) + 2).to_numpy(), tuple(frame.columns))


class TestHowItIsSaved:
    @pytest.mark.parametrize(
        ("content", "assumed"),
        [
            (ENGLISH.encode(), None),
            (ENGLISH.encode("utf-8-sig"), None),
            (ENGLISH.replace("\n", "\r\n").encode(), None),
            (ENGLISH.replace("\n", "\r").encode(), None),
            (ENGLISH.encode("cp1252"), "Windows-1252"),
            (ENGLISH.encode("utf-16"), "UTF-16"),
            (b"\xfe\xff" + ENGLISH.encode("utf-16-be"), "UTF-16"),
            (ENGLISH.encode("utf-16-le"), "UTF-16"),
            (ENGLISH.encode("utf-16-be"), "UTF-16"),
            (ENGLISH.replace(",", ";").encode(), "semicolons"),
            (ENGLISH.replace(",", "\t").encode("utf-16"), "tabs"),
            (ENGLISH.replace(",", "|").encode(), "bars"),
            (("sep=;\r\n" + ENGLISH.replace(",", ";").replace("\n", "\r\n")).encode("cp1252"), "as the first line says"),
            (("sep=;\r" + ENGLISH.replace(",", ";").replace("\n", "\r")).encode("utf-8-sig"), "as the first line says"),
            (("sep=\t\n" + ENGLISH.replace(",", "\t")).encode(), "as the first line says"),
            (ENGLISH.replace("\n", ",,\n").encode(), None),
            ((ENGLISH.replace(",", ";") + ";;\r\n;;\r\n").encode(), "semicolons"),
            (ENGLISH.replace("A1", " A1\xa0").replace("any", " any ").encode(), None),
        ],
    )
    def test_is_read_and_what_was_assumed_is_one_flag(self, write: Write, content: bytes, assumed: str | None) -> None:
        path = write(content)
        assert read_sheet(path).cells.to_numpy().tolist() == [["A1", "1", "Müller"], ["A2", "0", ""]]
        assert read_header(path)[:3] == ["accession_number", "any", "comment"]
        table = read_label_table(path)
        assert table.rows[["name", "any"]].to_numpy().tolist() == [["A1", 1], ["A2", 0]]
        assert len(table.flags) == (assumed is not None)
        assert assumed is None or assumed in table.flags[0]

    def test_lines_are_those_of_the_file(self, write: Write) -> None:
        text = 'sep=;\naccession_number;any;comment\nA1;1;"two\nlines"\n;;\nA2;0;x\n'
        assert read_sheet(write(text)).lines.tolist() == [3, 6]
        assert read_sheet(write(text.replace("\n", "\r"))).lines.tolist() == [3, 6]

    def test_semicolons_win_where_commas_are_in_the_cells(self, write: Write) -> None:
        sheet = read_sheet(write("id;finding, in short;mm\n1;large, left;2,5\n2;none;1,25\n"))
        assert sheet.cells.iloc[0].tolist() == ["1", "large, left", "2,5"]

    def test_a_cell_too_many_stops_with_its_line_and_blank_ones_do_not(self, write: Write) -> None:
        assert len(read_label_table(write("sop_uid,any\n1.2,1,,\n1.3,0, \n"))) == 2
        with pytest.raises(TableError) as caught:
            read_label_table(write("sop_uid,any\n1.2,1\n1.3,0,left\n"))
        assert caught.value.code == "unreadable_table"
        assert caught.value.where.endswith("line 3")

    def test_a_sheet_that_is_full_may_be_cut(self, write: Write) -> None:
        rows = "".join(f"{i},0\n" for i in range(65_535))
        assert "rows may be missing" in read_label_table(write("accession_number,any\n" + rows)).flags[0]
        assert read_label_table(write("accession_number,any\n" + rows[: -len("65534,0\n")])).flags == ()

    @pytest.mark.parametrize(
        ("start", "what"),
        [
            (b"PK\x03\x04\x14\x00", ".xlsx"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls"),
            (b"<html><table>", "page"),
            (b"\xef\xbb\xbf<?xml version", "XML"),
            (b"PAR1\x15", "Parquet"),
        ],
    )
    def test_a_workbook_given_by_mistake_is_named(self, write: Write, start: bytes, what: str) -> None:
        for read in (read_label_table, read_choices, read_marks, SplitFile.read):
            with pytest.raises(TableError) as caught:
                read(write(start + bytes(range(256)) * 4))
            assert caught.value.code == "no_text_table"
            assert what in caught.value.got
            assert "save it as CSV" in caught.value.todo


class TestColumns:
    @pytest.mark.parametrize(
        "header", ["Accession Number,ANY", "ACCESSION_NUMBER,Any", "accession-number , any", "AccessionNumber,any"]
    )
    def test_case_and_blanks_do_not_matter_and_are_told(self, write: Write, header: str) -> None:
        table = read_label_table(write(f"{header}\nA1,1\nA2,0\n"))
        assert table.rows["kind"].tolist() == ["accession_number"] * 2
        assert "as accession_number" in table.flags[0]

    def test_two_that_become_one_stop(self, write: Write) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(write("accession_number,Any,any\nA1,1,0\n"))
        assert caught.value.code == "repeated_columns"

    def test_columns_without_a_name_are_not_read(self, write: Write) -> None:
        assert list(read_sheet(write("a,,b,\n1,,2,\n3,x,4,\n")).cells) == ["a", "column 2", "b"]


class TestTotals:
    TYPES = "accession_number,subdural,any\nA1,1,1\nA2,0,1\nA3,0,0\n"

    @pytest.mark.parametrize("row", ["Total,1,2", "Summe:,1,2", "TOTAL,,2", ",1,2", ",3,3", "Gesamt,1,"])
    def test_a_row_that_adds_up_the_others_is_left_out_and_told(self, write: Write, row: str) -> None:
        table = read_label_table(write(f"{self.TYPES}{row}\n,,\n"))
        assert table.rows["name"].tolist() == ["A1", "A2", "A3"]
        assert "line 5 excluded" in table.flags[0]

    @pytest.mark.parametrize(("row", "code"), [("Total,1,7", "bad_label"), (",1,1", "no_name"), ("Summe,12,9", "bad_label")])
    def test_one_that_does_not_add_up_stops(self, write: Write, row: str, code: str) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(write(f"{self.TYPES}{row}\n"))
        assert caught.value.code == code
        assert caught.value.where.endswith("line 5")

    def test_a_last_row_like_the_others_stays(self, write: Write) -> None:
        assert len(read_label_table(write(f"{self.TYPES}A4,1,1\n"))) == 4
        assert len(read_label_table(write("accession_number,any\n1,0\n2,1\n3,1\n"))) == 3


class TestLabels:
    @pytest.mark.parametrize(
        ("yes", "no"),
        [
            ("TRUE", "FALSE"),
            ("WAHR", "FALSCH"),
            ("VRAI", "FAUX"),
            ("yes", "no"),
            ("Ja", "Nein"),
            ("x", "0"),
            ("1,0", "0,0"),
            ("Y", "n"),
        ],
    )
    def test_words_for_1_and_0_are_read_and_told(self, write: Write, yes: str, no: str) -> None:
        table = read_label_table(write(f"accession_number;any\nA1;{yes}\nA2;{no}\nA3;\n"))
        assert table.rows["any"].fillna(-1).tolist() == [1, 0, -1]
        assert ("decimal" if "," in yes else f"the label {yes} as 1") in table.flags[0]

    def test_ticks_alone_leave_the_rest_unknown(self, write: Write) -> None:
        table = read_label_table(write("accession_number,any\nA1,x\nA2,\nA3,x\n"))
        assert table.rows["any"].isna().tolist() == [False, True, False]
        assert "empty cells as unknown" in table.flags[0]

    @pytest.mark.parametrize("word", ["maybe", "2", "1,5", '"1,000"', "-", "unclear"])
    def test_other_words_stop(self, write: Write, word: str) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(write(f"accession_number;any\nA1;1\nA2;{word}\n"))
        assert caught.value.code == "bad_label"


class TestDates:
    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("13.04.2020", "03.05.2020", ["2020-04-13", "2020-05-03"]),
            ("13/04/2020", "3/5/2020", ["2020-04-13", "2020-05-03"]),
            ("04/13/2020", "05/03/2020", ["2020-04-13", "2020-05-03"]),
            ("13-04-2020", "03-05-2020", ["2020-04-13", "2020-05-03"]),
            ("2020/04/13", "2020/05/03", ["2020-04-13", "2020-05-03"]),
            ("2020-4-13", "2020.05.03", ["2020-04-13", "2020-05-03"]),
            ("13.04.2020 17:05", "03.05.2020 0:00:00", ["2020-04-13", "2020-05-03"]),
            ("2020-04-13T17:05:00Z", "2020-05-03 17:05", ["2020-04-13", "2020-05-03"]),
            ("05.05.2020", "06.06.2020", ["2020-05-05", "2020-06-06"]),
        ],
    )
    def test_are_read_where_the_column_settles_them_and_told(self, write: Write, first: str, second: str, expected: list) -> None:
        table = read_label_table(write(f"accession_number,study_date,any\nA1,{first},1\nA2,{second},0\nA3,,0\n"))
        assert table.rows["study_date"].tolist() == [*expected, ""]
        assert len(table.flags) == 1

    @pytest.mark.parametrize("date", ["03.04.2020", "03/04/2020", "3-4-2020"])
    def test_ambiguous_ones_stop(self, write: Write, date: str) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(write(f"accession_number,study_date,any\nA1,05.05.2020,1\nA2,{date},0\n"))
        assert caught.value.code == "ambiguous_dates"
        assert caught.value.where.endswith("line 3")

    @pytest.mark.parametrize(
        ("one", "other"), [("13.04.2020", "04.13.2020"), ("04/13/2020", "13.04.2020"), ("13/04/2020", "4/13/2020")]
    )
    def test_contradicting_ones_stop(self, write: Write, one: str, other: str) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(write(f"accession_number,study_date,any\nA1,{one},1\nA2,{one},1\nA3,{other},0\n"))
        assert caught.value.code == "contradicting_date_orders"
        assert caught.value.where.endswith("line 4")

    def test_the_number_of_a_day_is_named(self, write: Write) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(write("accession_number,study_date,any\nA1,43934,1\n"))
        assert caught.value.code == "bad_date"
        assert "format the column as dates" in caught.value.todo


class TestIdentifiers:
    @pytest.mark.parametrize(
        ("column", "cell"),
        [
            ("accession_number", "1.23E+04"),
            ("accession_number", '"1,23E+04"'),
            ("accession_number", "12340.0"),
            ("accession_number", '"12340,0"'),
            ("sop_uid", "1.2.840.1E+15"),
            ("study_uid", "1.2E+15"),
            ("accession_number", "#NAME?"),
            ("series_uid", "########"),
        ],
    )
    def test_what_a_spreadsheet_has_changed_stops(self, write: Write, column: str, cell: str) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(write(f"{column},any\n7,1\n{cell},0\n"))
        error = caught.value
        assert error.code == "spreadsheet_damage"
        assert error.where.endswith("line 3")
        assert column in error.got
        assert "spreadsheet" in error.got
        assert "(1 rows)" in error.got
        assert "Export the table again" in error.todo
        assert "12340" not in str(error)  # it may be somebody's

    def test_patients_too(self, write: Write) -> None:
        for cell in ("1.23E+04", "77.0"):
            with pytest.raises(TableError) as caught:
                read_label_table(write(f"sop_uid,patient_id,any\n1.0,{cell},1\n"))
            assert caught.value.code == "spreadsheet_damage"

    def test_digits_behind_the_fifteenth(self, write: Write) -> None:
        rounded = "".join(f"12345678901234{i}000,1\n" for i in range(4))
        with pytest.raises(TableError) as caught:
            read_label_table(write(f"accession_number,any\n{rounded}"))
        assert caught.value.code == "spreadsheet_damage"
        whole = rounded.replace("3000", "3017")
        assert len(read_label_table(write(f"accession_number,any\n{whole}"))) == 4

    @pytest.mark.parametrize("cell", ['="00123"', '"=""00123"""', "'00123"])
    def test_what_was_kept_as_text_is_read_and_told(self, write: Write, cell: str) -> None:
        table = read_label_table(write(f"accession_number,any\n{cell},1\n"))
        assert table.rows["name"].tolist() == ["00123"]
        assert "1 cells of accession_number" in table.flags[0]
        assert "00123" not in table.flags[0]

    @pytest.mark.parametrize("name", ["=A1|x", "@SUM(1+1)", "-1+1", "+HEAD (2)"])
    def test_what_the_library_quoted_is_read(self, write: Write, name: str) -> None:
        table = read_label_table(write(f"accession_number,any\n{safe_cell(name)},1\n"))
        assert table.rows["name"].tolist() == [name]

    @pytest.mark.parametrize("name", ["1.0", "12E05", "1E5", "A'1", "0012.30"])
    def test_whole_ones_stay(self, write: Write, name: str) -> None:
        table = read_label_table(write(f"{'sop_uid' if '.' in name else 'accession_number'},any\n{name},1\n"))
        assert table.rows["name"].tolist() == [name]
        assert table.flags == ()


class TestEveryReader:
    """Each table of a user's goes through the one reader."""

    @staticmethod
    def german(header: str, *rows: str) -> bytes:
        return "\r\n".join(["sep=;", header, *rows, ""]).encode("cp1252")

    def test_corrections(self, write: Write) -> None:
        table = read_corrections([write(self.german("SOP_UID;Any;Unsure;comment", "1.2;WAHR;;größer", "1.3;;any;"))])
        assert table.rows["unsure"].tolist() == ["", "any"]
        assert sum("semicolons" in flag for flag in table.flags) == 1

    def test_choices(self, write: Write, caplog: pytest.LogCaptureFixture) -> None:
        assert read_choices(write(self.german("Study;Series", "A1;Schädel nativ"))) == {"A1": "Schädel nativ"}
        assert caplog.text.count("read as saved by a spreadsheet") == 1

    def test_split_files(self, write: Write, caplog: pytest.LogCaptureFixture) -> None:
        split = SplitFile.read(write(self.german("Patient ID;Part", '="007";train', "Müller;Test", "P3;validation")))
        assert split.patients == {"007": "train", "Müller": "test", "P3": "validation"}
        assert caplog.text.count("read as saved by a spreadsheet") == 1

    def test_marks(self, write: Write, caplog: pytest.LogCaptureFixture) -> None:
        marks = read_marks(write(self.german("Accession Number;Reader;Any", "A1;Dr. Groß;WAHR", "A2;Dr. Groß;FALSCH")))
        assert marks[["name", "reader", "any"]].to_numpy().tolist() == [["A1", "Dr. Groß", 1], ["A2", "Dr. Groß", 0]]
        assert caplog.text.count("read as saved by a spreadsheet") == 1

    def test_strata(self, write: Write, caplog: pytest.LogCaptureFixture) -> None:
        frame = read_strata(write(self.german("scan_id;Gerät;kV;mm;Ort", "0a1;Müller;120;1.234,5;", "0b2;Große;110;2,25;Nord")))
        assert frame["scan_id"].tolist() == ["0a1", "0b2"]
        assert frame["mm"].tolist() == [1234.5, 2.25]
        assert frame["kV"].tolist() == [120, 110]
        assert frame["Gerät"].tolist() == ["Müller", "Große"]
        assert frame["Ort"].isna().tolist() == [True, False]
        assert caplog.text.count("read as saved by a spreadsheet") == 1

    def test_tables_of_data_sets(self, write: Write) -> None:
        rows = [f"ID_a_{label};{int(label == 'any')}" for label in LABELS]
        table = read_label_table(write(self.german("ID;Label", *rows)))
        assert table.rows["name"].tolist() == ["ID_a"]
        types = "Intraventricular;Intraparenchymal;Subarachnoid;Epidural;Subdural"
        text = self.german(f"PatientNumber;SliceNumber;{types};No_Hemorrhage;Fracture", "49;1;0;0;0;1;0;0;0")
        assert read_label_table(write(text)).rows["name"].tolist() == ["ct_scans/049.nii#1"]


class TestSplitsThatLostTheirZeros:
    def patients(self, *ids: str) -> pd.DataFrame:
        return pd.DataFrame(0.0, index=list(ids), columns=list(LABELS))

    def test_stop_before_a_patient_is_placed_anew(self, write: Write) -> None:
        split = SplitFile.read(write("patient_id,part\n123,test\n88,train\nP3,validation\n"))
        with pytest.raises(SplitError) as caught:
            split.extended(self.patients("00123", "88", "P3"))
        assert caught.value.code == "spreadsheet_damage"
        assert caught.value.got.endswith("as a spreadsheet leaves them: 1")

    def test_new_patients_and_short_ids_do_not(self, write: Write, caplog: pytest.LogCaptureFixture) -> None:
        split = SplitFile.read(write("patient_id,part\n123,test\n88,train\nP3,validation\n"))
        with caplog.at_level(logging.WARNING):
            assert set(split.extended(self.patients("00123", "123", "88", "P3")).patients) == {"00123", "123", "88", "P3"}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies, ``00123`` and ``00456`` by accession number, in the folders ``0077`` and ``0088``."""
    root = tmp_path_factory.mktemp("tree")
    for folder, number in (("0077", "00123"), ("0088", "00456")):
        (root / folder).mkdir()
        uids = {"StudyInstanceUID": f"1.2.{number[2:]}", "SeriesInstanceUID": f"1.2.{number[2:]}.1"}
        make_series(
            root / folder,
            PatientID=f"P{number}",
            AccessionNumber=number,
            change=lambda i, series=uids["SeriesInstanceUID"]: {"SOPInstanceUID": f"{series}.{i}"},
            **uids,
        )
    return root


class TestStudiesThatLostTheirZeros:
    """What no label names is not prepared: what a spreadsheet did must show before that."""

    @pytest.mark.parametrize(
        ("rows", "lines"),
        [
            ("accession_number,any\n123,1\n456,0\n", "line 2, 3"),
            ("accession_number,any\n00123,1\n456,0\n", "line 3"),
            ("folder,any\n77,1\n88,0\n", "line 2, 3"),
            ("folder,any\n0077,1\n88,0\n", "line 3"),
        ],
    )
    def test_stop_before_anything_is_prepared(self, numbered: Path, write: Write, tmp_path: Path, rows: str, lines: str) -> None:
        labels = read_label_table(write(rows))
        key = ProjectKey.open(tmp_path / "key")
        with pytest.raises(TableError) as caught:
            prepare(numbered, tmp_path / "out", preprocessing=Preprocessing(size=32), key=key, labels=labels, workers=1)
        assert caught.value.code == "spreadsheet_damage"
        assert caught.value.where.endswith(lines)
        assert "where the images have 00" in caught.value.got
        assert not (tmp_path / "out/private/key.parquet").exists()

    def test_whole_ones_are_prepared(self, numbered: Path, write: Write, tmp_path: Path) -> None:
        labels = read_label_table(write("accession_number,any\n00123,1\n00456,0\n"))
        key = ProjectKey.open(tmp_path / "key")
        folder = prepare(numbered, tmp_path / "out", preprocessing=Preprocessing(size=32), key=key, labels=labels, workers=1)
        assert len(folder.scans) == 2


class TestLargeTables:
    @pytest.mark.parametrize(
        "text",
        [
            "sop_uid,any,comment\n1.2,1,\n1.3, 0 ,x\n",
            'sop_uid,any,comment\n1.2,1,"two\nlines"\n\n1.3,0,\n',
            "\ufeffsop_uid,any,\n007,1,\nNA,0,\n",
            "sop_uid,any\r\n1.2,1\r\n1.3,0\r\n1.4,1\r\n,2\r\n",
        ],
    )
    def test_are_read_as_small_ones(self, write: Write, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(text)
        small = read_sheet(path)
        monkeypatch.setattr(spreadsheet, "LARGE_BYTES", 0)
        monkeypatch.setattr(spreadsheet, "_split", None)  # it cannot be used
        large = read_sheet(path)
        pd.testing.assert_frame_equal(small.cells, large.cells)
        assert small.lines.tolist() == large.lines.tolist()
        assert (small.header, small.assumed) == (large.header, large.assumed)

    @pytest.mark.parametrize("content", [ENGLISH.replace(",", ";").encode(), ENGLISH.encode("cp1252"), b"sop_uid,any\n1,1,7\n"])
    def test_what_is_not_plain_is_read_or_refused_all_the_same(
        self, write: Write, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write(content)
        outcomes = []
        for limit in (1 << 20, 0):
            monkeypatch.setattr(spreadsheet, "LARGE_BYTES", limit)
            try:
                outcomes.append(read_sheet(path).cells.to_numpy().tolist())
            except TableError as error:
                outcomes.append(error.code)
        assert outcomes[0] == outcomes[1]


def test_what_is_read_twice_is_told_once() -> None:
    sheet = sheet_of({"any": ["1,0", "0"], "subdural": ["1,0", "0,0"]}).truths(["any"]).truths(["subdural"])
    (flag,) = sheet.flags
    assert flag.count("decimal") == 1
