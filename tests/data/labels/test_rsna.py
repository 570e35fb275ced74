"""RSNA's label file."""

import csv
from pathlib import Path

import numpy as np
import pytest

from ich_lstm import LABELS
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.errors import TableError

KAGGLE_ORDER = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")


def write_rsna(path: Path, images: dict[str, tuple[int, ...]], extra: str = "") -> Path:
    """Six rows per image, as Kaggle wrote them."""
    rows = [
        f"ID_{name}_{label},{value}" for name, values in images.items() for label, value in zip(KAGGLE_ORDER, values, strict=True)
    ]
    path.write_text("\n".join(["ID,Label", *rows]) + "\n" + extra)
    return path


class TestReadRsnaLabels:
    def test_six_rows_become_one(self, tmp_path: Path) -> None:
        images = {"00b": (0, 1, 0, 0, 0, 1), "00a": (0,) * 6, "0c1": (1, 1, 1, 1, 1, 1)}
        table = read_label_table(write_rsna(tmp_path / "t.csv", images))
        got = dict(zip(table.rows["name"], map(tuple, table.rows[list(LABELS)].to_numpy().tolist()), strict=True))
        assert got == {f"ID_{name}": values for name, values in images.items()}
        assert set(table.rows["kind"]) == {"sop_uid"}
        assert table.flags == ()

    def test_equals_the_csv_on_a_phantom(self, phantom: Path) -> None:
        table = read_label_table(phantom / "stage_2_train.csv")
        with (phantom / "stage_2_train.csv").open() as file:
            cells = {row["ID"]: float(row["Label"]) for row in csv.DictReader(file)}
        assert len(table) == 72
        for row in table.rows.itertuples():
            assert [getattr(row, label) for label in LABELS] == [cells[f"{row.name}_{label}"] for label in LABELS]

    def test_order_of_rows_does_not_matter(self, tmp_path: Path) -> None:
        images = {f"{i:03x}": (*map(int, np.binary_repr(i, 5)), int(i > 0)) for i in range(8)}
        path = write_rsna(tmp_path / "t.csv", images)
        lines = path.read_text().splitlines()
        shuffled = tmp_path / "s.csv"
        shuffled.write_text("\n".join([lines[0], *np.random.default_rng(0).permutation(lines[1:])]) + "\n")
        left, right = read_label_table(path).rows, read_label_table(shuffled).rows
        columns = ["name", *LABELS]
        assert left.sort_values("name")[columns].to_numpy().tolist() == right.sort_values("name")[columns].to_numpy().tolist()

    def test_equal_repetitions_are_dropped_and_counted(self, tmp_path: Path) -> None:
        table = read_label_table(write_rsna(tmp_path / "t.csv", {"0": (0,) * 6}, extra="ID_0_any,0\nID_0_epidural,0\n"))
        assert len(table) == 1
        assert "2" in table.flags[0]

    def test_an_image_that_stands_twice_counts_once(self, tmp_path: Path) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (0, 1, 0, 0, 0, 1), "1": (0,) * 6})
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *rows, *rows[:6]]) + "\n")
        table = read_label_table(path)
        assert table.rows[["name", "any", "line"]].to_numpy().tolist() == [["ID_0", 1, 2], ["ID_1", 0, 8]]
        assert table.flags[0].startswith("6 repeated rows")
        assert "line 14, 15, 16, 17, 18, 19" in table.flags[0]

    def test_contradicting_repetitions_stop(self, tmp_path: Path) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (0,) * 6}, extra="ID_0_any,1\n")
        with pytest.raises(TableError) as caught:
            read_label_table(path)
        assert caught.value.code == "contradicting_rows"
        assert "7, 8" in caught.value.where

    @pytest.mark.parametrize(
        "row", ["ID_0_any,2", "ID_0_any,", "ID_0_some,1", "ID_0,1", "_any,1", "any,1", "ID_0_any,True", ",1"]
    )
    def test_malformed_rows_stop(self, tmp_path: Path, row: str) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (0,) * 6}, extra=row + "\n")
        with pytest.raises(TableError) as caught:
            read_label_table(path)
        assert caught.value.code == "bad_rsna_row"
        assert "line 8" in caught.value.where

    def test_lines_are_those_of_the_file(self, tmp_path: Path) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (0,) * 6}, extra="\n\nID_0_any,2\n")
        with pytest.raises(TableError) as caught:
            read_label_table(path)
        assert "line 10" in caught.value.where

    def test_an_image_without_all_labels_stops(self, tmp_path: Path) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (0,) * 6}, extra="ID_1_any,0\n")
        with pytest.raises(TableError) as caught:
            read_label_table(path)
        assert caught.value.code == "incomplete_image"
        assert "line 8" in caught.value.where

    def test_a_type_without_any_stops(self, tmp_path: Path) -> None:
        with pytest.raises(TableError) as caught:
            read_label_table(write_rsna(tmp_path / "t.csv", {"0": (1, 0, 0, 0, 0, 0)}))
        assert caught.value.code == "any_contradicts_types"

    def test_a_type_without_any_is_repaired_if_told(self, tmp_path: Path) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (1, 0, 0, 0, 0, 0), "1": (0,) * 6})
        table = read_label_table(path, repair_any=True)
        assert table.rows["any"].tolist() == [1, 0]
        assert "1 rows" in table.flags[0]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_byte_order_mark_and_line_ends(self, tmp_path: Path, encoding: str, end: str) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (0, 0, 0, 0, 1, 1)})
        path.write_bytes(path.read_text().replace("\n", end).encode(encoding))
        assert read_label_table(path).rows["name"].tolist() == ["ID_0"]

    def test_a_missing_header_stops(self, tmp_path: Path) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (0,) * 6})
        path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
        with pytest.raises(TableError) as caught:
            read_label_table(path)
        assert caught.value.code == "missing_columns"

    def test_the_first_ten_rows_are_named_and_all_are_counted(self, tmp_path: Path) -> None:
        path = write_rsna(tmp_path / "t.csv", {"0": (0,) * 6}, extra="ID_0_any,7\n" * 500)
        with pytest.raises(TableError) as caught:
            read_label_table(path)
        assert "line 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 and 490 more" in caught.value.where
        assert "500 rows" in caught.value.got

    @pytest.mark.parametrize("text", ["ID,Label\n", "ID,Label\nID_0_any,0,1\n", 'ID,Label\nID_0_any,"0\n'])
    def test_no_table(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(TableError):
            read_label_table(tmp_path / "t.csv")
