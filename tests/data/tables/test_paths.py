"""Paths in tables beside the paths of files."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import make_series
from labelled_scans import label_scans

from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepare.prepare import prepare
from ich_lstm.data.tables.paths import PathNames, tidy
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey

NAMES = ("case 1/series/0.dcm", "case 2/series/0.dcm", "Fälle/Größe.dcm", "0.dcm")


def resolve(*paths: str, there: tuple[str, ...] = NAMES) -> list[str | None]:
    """What paths are called; None where that is doubtful."""
    found, doubtful = PathNames(there).resolve(pd.Series(paths, dtype=str))
    return [None if unsure else name for name, unsure in zip(found.tolist(), doubtful.tolist(), strict=True)]


class TestPathNames:
    @pytest.mark.parametrize(
        "path",
        [
            "case 1/series/0.dcm",
            "case 1\\series\\0.dcm",
            ".\\case 1\\series\\0.dcm",
            "./case 1/series/0.dcm",
            "case 1//series/./0.dcm/",
            "case 2/../case 1/series/0.dcm",
            "Case 1/Series/0.DCM",
            "D:\\Export\\2024\\case 1\\series\\0.dcm",
            "d:/case 1/series/0.dcm",
            "/mnt/archive/case 1/series/0.dcm",
            "\\\\server\\share\\CASE 1\\series\\0.dcm",
            "file:///mnt/case 1/series/0.dcm",
        ],
    )
    def test_one_file_by_many_spellings(self, path: str) -> None:
        assert resolve(path) == ["case 1/series/0.dcm"]

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    @pytest.mark.parametrize("there", ["NFC", "NFD"])
    def test_either_unicode_normal_form(self, form: str, there: str) -> None:
        name = unicodedata.normalize(there, "Fälle/Größe.dcm")
        assert resolve(unicodedata.normalize(form, "Fälle/Größe.dcm"), there=(name,)) == [name]
        assert resolve(unicodedata.normalize(form, "FÄLLE\\größe.DCM"), there=(name,)) == [name]

    def test_what_is_not_there_stays_as_it_is(self) -> None:
        assert resolve("case 3/series/0.dcm", "/mnt/nothing.dcm", "series/0.dcm") == [
            "case 3/series/0.dcm",
            "/mnt/nothing.dcm",
            "series/0.dcm",
        ]

    def test_the_exact_name_wins_and_others_of_two_cases_are_doubtful(self) -> None:
        there = ("Case/0.dcm", "case/0.dcm")
        assert resolve("Case/0.dcm", "case\\0.dcm", "CASE/0.dcm", there=there) == ["Case/0.dcm", "case/0.dcm", None]

    def test_two_normal_forms_of_one_name_are_doubtful_unless_exact(self) -> None:
        both = tuple(unicodedata.normalize(form, "Größe.dcm") for form in ("NFC", "NFD"))
        assert resolve(both[1], ".\\" + both[0], there=both) == [both[1], None]

    def test_the_longest_tail_counts(self) -> None:
        assert resolve("/export/a/0.dcm", there=("0.dcm", "a/0.dcm")) == ["a/0.dcm"]

    def test_two_places_that_end_alike_are_doubtful(self) -> None:
        assert resolve("/mnt/a/0.dcm", "/mnt/b/0.dcm", "/mnt/b/case 1/series/0.dcm") == [None, None, "case 1/series/0.dcm"]
        assert resolve("/mnt/a/0.dcm", "\\MNT\\a\\0.dcm") == ["0.dcm", "0.dcm"]

    @pytest.mark.parametrize(("path", "expected"), [("", ""), ("a\\", "a"), ("\\\\s\\x", "//s/x"), ("C:\\x\\", "C:/x")])
    def test_tidy(self, path: str, expected: str) -> None:
        assert tidy(path) == expected


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies in folders of their own."""
    root = tmp_path_factory.mktemp("tree") / "Export"
    for number in (1, 2):
        folder = root / f"Fall {number}" / "CT"
        folder.mkdir(parents=True)
        uids = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.2.{number}.1"}
        make_series(
            folder, PatientID=f"P{number}", change=lambda i, number=number: {"SOPInstanceUID": f"1.2.{number}.1.{i}"}, **uids
        )
    return root


@pytest.mark.parametrize(
    ("column", "write"),
    [
        ("folder", lambda root, n: f"Fall {n}\\CT\\"),
        ("folder", lambda root, n: f"./fall {n}/"),
        ("folder", lambda root, n: str(root / f"Fall {n}")),
        ("folder", lambda root, n: f"E:\\2024\\Export\\Fall {n}"),
        ("folder", lambda root, n: f"Export\\Fall {n}"),
        ("file", lambda root, n: f"Fall {n}\\CT\\3.dcm"),
        ("file", lambda root, n: str(root / f"Fall {n}/CT/3.dcm")),
        ("file", lambda root, n: f"Z:\\Fall {n}\\CT\\3.DCM"),
    ],
)
def test_scans_are_prepared_and_labelled_by_such_paths(
    tree: Path, tmp_path: Path, column: str, write: Callable[[Path, int], str]
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"{column},any\n{write(tree, 1)},1\n{write(tree, 2)},0\n")
    labels = read_label_table(path)
    key = ProjectKey.open(tmp_path / "key")
    folder = prepare(tree, tmp_path / "out", preprocessing=Preprocessing(size=32), key=key, labels=labels, workers=1)
    known = label_scans(folder, labels)
    assert [scan.patient_id for scan in known] == ["P1", "P2"]
    values = [scan.scan_labels[-1] if column == "folder" else scan.slice_labels[3, -1] for scan in known]
    assert values == [1, 0]
