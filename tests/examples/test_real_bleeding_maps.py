"""Sheets of marked slices, and the counts of readers' answers."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import real_bleeding_maps as maps


def test_each_mark_lies_where_its_source_points() -> None:
    places = {maps.MODEL: (8, 24), maps.RANDOM: None, maps.MIDDLE: (16, 16)}
    letters = dict(zip(maps.SOURCES, "BCA", strict=True))
    tile = maps.draw(maps.Shown("0001", 3, np.full((32, 32), 90, np.uint8), places), letters, 7)
    marked = tile[2:-2, 2:-2][:, maps.PANEL :]
    for who, place in places.items():
        row, column = (round((value + 0.5) * maps.PANEL / 32) for value in place or (0, 0))
        color = maps.COLORS[maps.LETTERS.index(letters[who])]
        assert (marked[row, column].tolist() == list(color)) == (place is not None)
        assert (marked == color).all(axis=2).any() == (place is not None)


def test_the_middle_is_that_of_the_head_and_not_of_the_image() -> None:
    hu = np.full((40, 40), -1000, np.int16)
    hu[10:21, 4:15] = 30
    assert maps.middle_of(hu) == (15, 9)


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    key = {"number": [1, 2, 3], "patient": ["a", "b", "c"], "slice": [4, 5, 6]}
    key |= {maps.MODEL: ["A", "B", "C"], maps.RANDOM: ["B", "", "A"], maps.MIDDLE: ["C", "A", "B"]}
    pd.DataFrame(key).to_csv(tmp_path / maps.KEY, index=False)
    return tmp_path


def answers(path: Path, on: list[str], unclear: list[str]) -> Path:
    pd.DataFrame({"number": range(1, len(on) + 1), "on": on, "unclear": unclear}).to_csv(path, index=False)
    return path


def test_answers_are_counted_by_source(sheets: Path) -> None:
    first = answers(sheets / "first.csv", ["AC", "B", ""], ["", "", "1"])
    second = answers(sheets / "second.csv", ["A", "B", "C"], ["", "", ""])
    text = maps.score(Namespace(out=sheets, score=[first, second]))
    table = [[cell.split("(")[0].strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    rows = {name: counts for name, *counts in table}
    assert rows[str(first)] == ["2", "2", "0", "1"]
    assert rows[str(second)] == ["3", "3", "0", "0"]
    assert "agree on 5 of 6 peaks on the 2 slices" in text


def test_answers_about_other_slices_are_refused(sheets: Path) -> None:
    with pytest.raises(SystemExit, match="got 2 rows, expected the 3 numbers"):
        maps.score(Namespace(out=sheets, score=[answers(sheets / "first.csv", ["A", "B"], ["", ""])]))
