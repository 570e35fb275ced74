"""Boxes of BHX as labels of slices."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ich_lstm import LABELS
from ich_lstm.data.labels.bhx import is_bhx, read_bhx, read_boxes
from ich_lstm.errors import TableError

HEADER = ",SOPInstanceUID,data,labelName,labelType,SeriesInstanceUID,StudyInstanceUID"
BOX = "\"{'x': 201.5, 'y': 100, 'width': 30, 'height': 12.25}\""

Write = Callable[..., Path]


def row(uid: str, label: str, data: str = BOX) -> str:
    return f"0,{uid},{data},{label},LOCAL,1.2,1.1"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a table of boxes."""

    def _write(*rows: str, header: str = HEADER) -> Path:
        path = tmp_path / "boxes.csv"
        path.write_text("\n".join([header, *rows, ""]))
        return path

    return _write


def known_labels(path: Path) -> dict[str, dict[str, float]]:
    """What is known of each slice."""
    rows = read_bhx(path).rows.set_index("name")[list(LABELS)]
    assert (rows.dtypes == np.float32).all()
    return {str(name): line.dropna().to_dict() for name, line in rows.iterrows()}


class TestLabels:
    def test_what_a_box_shows_is_present_and_the_rest_unknown(self, write: Write) -> None:
        names = ("Epidural", "Intraparenchymal", "Intraventricular", "Subarachnoid", "Subdural")
        path = write(*(row(f"1.2.{i}", name) for i, name in enumerate(names)))
        assert known_labels(path) == {f"1.2.{i}": {name.lower(): 1, "any": 1} for i, name in enumerate(names)}

    def test_boxes_of_a_slice_are_one_row(self, write: Write) -> None:
        path = write(row("9", "Subdural"), row("1", "Epidural"), row("9", "Subdural"), row("9", "Subarachnoid"))
        assert known_labels(path) == {"9": {"subarachnoid": 1, "subdural": 1, "any": 1}, "1": {"epidural": 1, "any": 1}}
        rows = read_bhx(path).rows
        assert rows["line"].tolist() == [2, 3]
        assert set(rows["kind"]) == {"sop_uid"}

    def test_chronic_tells_no_type(self, write: Write) -> None:
        table = read_bhx(path := write(row("1", "Chronic"), row("2", "Chronic"), row("2", "Subdural")))
        assert known_labels(path) == {"1": {"any": 1}, "2": {"subdural": 1, "any": 1}}
        assert table.flags[0].startswith("1 slices")

    def test_columns_are_found_by_name(self, write: Write) -> None:
        path = write("Subdural,7", header="\ufefflabelName,SOPInstanceUID")
        assert known_labels(path) == {"7": {"subdural": 1, "any": 1}}

    def test_is_told_by_its_columns(self) -> None:
        assert is_bhx(HEADER.split(","))
        assert not is_bhx(["SOPInstanceUID", "any"])

    @pytest.mark.parametrize(
        ("wrong", "code"),
        [(row("1", "Hygroma"), "bad_bhx_label"), (row("1", ""), "bad_bhx_label"), (row("", "Chronic"), "no_name")],
    )
    def test_rows_that_are_wrong_are_named(self, write: Write, wrong: str, code: str) -> None:
        with pytest.raises(TableError) as caught:
            read_bhx(write(row("1", "Chronic"), wrong, row("2", "Subdural"), wrong))
        assert caught.value.code == code
        assert "line 3, 5" in caught.value.where

    def test_missing_columns(self, write: Write) -> None:
        with pytest.raises(TableError) as caught:
            read_bhx(write("1", header="SOPInstanceUID"))
        assert caught.value.code == "missing_columns"


class TestBoxes:
    def test_one_row_per_box(self, write: Write) -> None:
        boxes = read_boxes(write(row("1", "Chronic"), row("1", "Subdural", ""), row("2", "Epidural")))
        assert boxes["label"].tolist() == ["chronic", "subdural", "epidural"]
        assert boxes["sop_uid"].tolist() == ["1", "1", "2"]
        assert boxes["series_uid"].tolist() == ["1.2"] * 3
        assert boxes["line"].tolist() == [2, 3, 4]
        sides = boxes[["x", "y", "width", "height"]].to_numpy()
        assert sides[0].tolist() == sides[2].tolist() == [201.5, 100, 30, 12.25]
        assert np.isnan(sides[1]).all()

    @pytest.mark.parametrize(
        "data",
        [
            "\"{'x': 1, 'y': 2, 'width': 3}\"",
            "\"{'x': 1, 'y': 2, 'width': -3, 'height': 4}\"",
            "\"{'x': 1e999, 'y': 2, 'width': 3, 'height': 4}\"",
            '"[1, 2, 3, 4]"',
            "\"__import__('os').getcwd()\"",
            "((((",
            "(" * 5000,
            "{'x': " * 200,
            "0" * 5000,
        ],
    )
    def test_a_box_that_is_none_stops_and_runs_nothing(self, write: Write, data: str) -> None:
        path = write(row("1", "Chronic"), row("2", "Chronic", data))
        with pytest.raises(TableError) as caught:
            read_boxes(path)
        assert caught.value.code == "bad_box"
        assert "line 3" in caught.value.where
        assert len(read_bhx(path)) == 2
