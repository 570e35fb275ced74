"""Tables hold no formula and no control character, and are read back exactly."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ich_lstm.files.csv_table import CsvRows, plain_cell, plain_table, safe_cell, write_csv

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "=cmd|' /C calc'!A0",
    "\uff1d1",
    '=HYPERLINK("x")',
    "-",
    "--1",
]
HARMLESS = ["", "brain", "-0.5", "+3e-7", "-inf", "1.2.840.113619", "'quoted'", "a=b", "a-b", "0012", "Müller^Jörg", "頭部"]
LOOKALIKES = ["'=x", "''=x", "'-5", "'-", r"a\x1b", "'", "\\"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    cell = str(safe_cell(text))
    assert len(cell) == 1 or cell.lstrip()[0] not in "=+-@\t\r\uff1d"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert safe_cell(text) == text


@pytest.mark.parametrize("value", [-0.5, -3, None, True, float("nan")])
def test_numbers_stay_numbers(value: object) -> None:
    assert safe_cell(value) is value


@pytest.mark.parametrize("text", [*FORMULAS, *HARMLESS, *LOOKALIKES, "a\nb", "\x1b[31m", "a\udcff", "\u202e"], ids=ascii)
def test_cells_are_restored(text: str) -> None:
    cell = safe_cell(text)
    assert isinstance(cell, str)
    assert plain_cell(cell) == text
    assert cell.isprintable()


def test_a_table_is_restored(tmp_path: Path) -> None:
    texts = [*FORMULAS, *HARMLESS[1:], *LOOKALIKES, "a\nb", "a,b", 'a"b']
    table = pd.DataFrame({"text": texts, "kind": pd.Categorical(texts), "value": np.linspace(-1, 1, len(texts)) / 3, "=n": 1})
    write_csv(tmp_path / "a.csv", table)
    read = pd.read_csv(tmp_path / "a.csv", keep_default_na=False, dtype={"text": str, "kind": str})
    assert list(read) == ["text", "kind", "value", "'=n"]
    read = plain_table(read)
    assert read["text"].tolist() == read["kind"].tolist() == texts
    assert read["value"].tolist() == table["value"].tolist()  # to the last bit
    assert len((tmp_path / "a.csv").read_text().splitlines()) == len(texts) + 1
    assert table["text"].tolist() == texts  # the caller's table is unchanged


def test_rows_are_restored() -> None:
    file = io.StringIO()
    rows = CsvRows(file)
    rows.add(["=a", -1.5, None, "x\ny"])
    assert file.getvalue() == "'=a,-1.5,,x\\x0ay\n"
    assert list(map(plain_cell, next(csv.reader([file.getvalue()])))) == ["=a", "-1.5", "", "x\ny"]
