"""Readers' CSVs: what they say, and of which scans."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ich_lstm.data.labels.cq500 import FINDINGS, READERS
from ich_lstm.errors import IchLstmError
from ich_lstm.evaluation.comparisons.reader_labels import place_marks, read_marks
from ich_lstm.labels import LABELS


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "readers.csv").write_text(text)
        return tmp_path / "readers.csv"

    return write


@pytest.fixture
def key() -> pd.DataFrame:
    """Two scans in folders of CQ500, of two slices each."""
    rows = [
        {"scan_id": f"h{scan}", "slice": n, "study_uid": f"1.{scan}", "file": f"CQ500CT{scan} CQ500CT{scan}/{n}.dcm"}
        for scan in (7, 8)
        for n in (1, 2)
    ]
    return pd.DataFrame(rows).assign(cache=lambda frame: frame["scan_id"])


class TestRead:
    def test_own_table(self, write: Callable[[str], Path]) -> None:
        marks = read_marks(write("study_uid,reader,any,subdural\n1.7,Ann,1,\n1.7,Bob,0,0\n"))
        assert marks[["kind", "name", "reader", "line"]].to_numpy().tolist() == [
            ["study_uid", "1.7", "Ann", 2],
            ["study_uid", "1.7", "Bob", 3],
        ]
        np.testing.assert_array_equal(marks["any"], [1, 0])
        np.testing.assert_array_equal(marks["subdural"], [np.nan, 0])
        assert marks["epidural"].isna().all()

    def test_cq500(self, write: Callable[[str], Path]) -> None:
        cells = {f"{reader}:{finding}": 0 for reader in READERS for finding in FINDINGS}
        row = {"name": "CQ500-CT-7", "Category": "B1", **cells, "R2:ICH": 1, "R2:SDH": 1}
        marks = read_marks(write(pd.DataFrame([row]).to_csv(index=False))).set_index("reader")
        assert set(marks["name"]) == {"CQ500CT7 CQ500CT7"}
        assert marks.loc["R2", list(LABELS)].tolist() == [0, 0, 0, 0, 1, 1]
        assert not marks.loc[["R1", "R3"], list(LABELS)].any(axis=None)

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("scan_id,any\na,1\n", "wrong_columns"),
            ("reader,any\nAnn,1\n", "wrong_columns"),
            ("scan_id,reader\na,Ann\n", "wrong_columns"),
            ("scan_id,study_uid,reader,any\na,b,Ann,1\n", "wrong_columns"),
            ("scan_id,reader,any,sdh\na,Ann,1,1\n", "wrong_columns"),
            ("scan_id,reader,any\na,Ann,2\n", "bad_label"),
            ("scan_id,reader,any\na,,1\n", "empty_name"),
        ],
    )
    def test_bad_tables_stop(self, write: Callable[[str], Path], text: str, code: str) -> None:
        with pytest.raises(IchLstmError) as caught:
            read_marks(write(text))
        assert caught.value.code == code


class TestPlace:
    @pytest.mark.parametrize(("kind", "names"), [("study_uid", ("1.7", "1.8")), ("scan_id", ("h7", "h8"))])
    def test_names(self, write: Callable[[str], Path], key: pd.DataFrame, kind: str, names: tuple[str, str]) -> None:
        path = write(f"{kind},reader,any\n{names[1]},Ann,1\n{names[0]},Ann,0\n")
        assert place_marks(read_marks(path), path, key)["scan_id"].tolist() == ["h8", "h7"]

    def test_cq500(self, write: Callable[[str], Path], key: pd.DataFrame) -> None:
        cells = {f"{reader}:{finding}": 0 for reader in READERS for finding in FINDINGS}
        rows = [{"name": name, "Category": "B1", **cells} for name in ("CQ500-CT-8", "CQ500-CT-9")]
        path = write(pd.DataFrame(rows).to_csv(index=False))
        assert place_marks(read_marks(path), path, key)["scan_id"].tolist() == ["h8"] * 3 + [""] * 3

    def test_names_need_the_key(self, write: Callable[[str], Path]) -> None:
        path = write("study_uid,reader,any\n1.7,Ann,1\n")
        with pytest.raises(IchLstmError, match="missing_key"):
            place_marks(read_marks(path), path)

    def test_once_per_scan_and_reader(self, write: Callable[[str], Path], key: pd.DataFrame) -> None:
        path = write("study_uid,reader,any\n1.7,Ann,1\n1.7,Bob,1\n1.7,Ann,1\n")
        with pytest.raises(IchLstmError, match=r"repeated_rows.*line 4"):
            place_marks(read_marks(path), path, key)
