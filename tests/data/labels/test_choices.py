"""Choices of series that override the rules."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ich_lstm.data.labels.choices import read_choices
from ich_lstm.errors import TableError


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a table of choices."""

    def _write(text: str) -> Path:
        path = tmp_path / "choices.csv"
        path.write_text(text)
        return path

    return _write


def test_studies_by_any_name_and_series_by_uid_or_description(write: Callable) -> None:
    path = write('\ufeffwhy,series,study\nthick,"5mm, soft",1.2.3\n,1.9.8,A77\n,CT Plain-2,CQ500-CT-172\n,Plain,case 7\n')
    assert read_choices(path) == {
        "1.2.3": "5mm, soft",
        "A77": "1.9.8",
        "CQ500CT172 CQ500CT172": "CT Plain-2",
        "case 7": "Plain",
    }


def test_equal_rows_are_one_choice(write: Callable) -> None:
    assert read_choices(write("study,series\nCQ500-CT-1,Plain\nCQ500CT1,Plain\n")) == {"CQ500CT1 CQ500CT1": "Plain"}


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("study,series\n1.2,Plain\n1.3,Plain\n1.2,BONE\n", "contradicting_choices", "line 2, 4"),
        ("study,series\nCQ500-CT-1,Plain\nCQ500CT1 CQ500CT1,BONE\n", "contradicting_choices", "line 2, 3"),
        ("study,series\n1.2,Plain\n\n1.3,\n,Plain\n", "incomplete_choice", "line 4, 5"),
        ("study,uid\n1.2,1.3\n", "missing_columns", "line 1"),
        ("study,series\n", "no_rows", ""),
        ("", "empty_table", ""),
    ],
)
def test_rows_that_are_wrong_are_named(write: Callable, text: str, code: str, where: str) -> None:
    with pytest.raises(TableError) as caught:
        read_choices(write(text))
    assert caught.value.code == code
    assert where in caught.value.where


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TableError) as caught:
        read_choices(tmp_path / "none.csv")
    assert caught.value.code == "missing_table"
