"""Corrections win over label tables, and what followed from a label follows anew."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ich_lstm import LABELS, ScanDataModule
from ich_lstm.cli import prepare
from ich_lstm.data.joining.join import LabelledScan, join_labels
from ich_lstm.data.joining.locate import locate_labels
from ich_lstm.data.labels.corrections import Correction, apply_corrections, correct_labels, read_corrections
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.prepared.images import ImageTable
from ich_lstm.data.split.split_file import Split
from ich_lstm.errors import TableError

NAN = np.nan
ANY, SUBDURAL, EPIDURAL = (LABELS.index(name) for name in ("any", "subdural", "epidural"))
SIX = ",".join(LABELS)

Join = Callable[..., list[LabelledScan]]


@pytest.fixture
def join(tmp_path: Path) -> Join:
    """Join labels and corrections to two scans of three slices: series ``1.9`` with slices ``1.0`` to ``1.2``, and ``2.9``."""

    def _join(labels: str, *corrections: str, **changes: object) -> list[LabelledScan]:
        scans = [make(name) for name in ("1", "2")]
        paths = [tmp_path / f"corrections{i}.csv" for i in range(len(corrections))]
        for path, text in zip((tmp_path / "labels.csv", *paths), (labels, *corrections), strict=True):
            path.write_text(text)
        table = apply_corrections(read_label_table(tmp_path / "labels.csv"), read_corrections(paths))
        located = locate_labels(table, ImageTable(pd.concat(scans, ignore_index=True)))
        located.check_unmatched("stop")
        return join_labels(located, **changes).scans(tmp_path)

    return _join


def make(name: str, slices: int = 3) -> pd.DataFrame:
    columns = {
        "scan_id": f"scan-{name}",
        "slice_id": [f"id-{name}-{i}" for i in range(slices)],
        "patient_id": f"P{name}",
        "study_uid": f"{name}.8",
        "series_uid": f"{name}.9",
        "sop_uid": [f"{name}.{i}" for i in range(slices)],
        "file": [f"case {name}/{i}.dcm" for i in range(slices)],
        "hu_hash": "",
        "accession_number": f"A{name}",
        "study_date": "",
        "cache": f"{name}.b2nd",
    }
    return pd.DataFrame(columns)


def six(present: str = "", *, others: float = 0) -> list[float]:
    """Labels: those named are 1, the others as said; any is 1 if one is named."""
    named = present.split()
    return [1.0 if label in named or (named and label == "any") else others for label in LABELS]


def slices_of(*present: str) -> str:
    """A table of the slices of scan 1 in RSNA's manner: every label known."""
    rows = [f"1.{i}," + ",".join(f"{value:.0f}" for value in six(names)) for i, names in enumerate(present)]
    return f"sop_uid,{SIX}\n" + "\n".join(rows) + "\n"


class TestOneSlice:
    @pytest.mark.parametrize(
        ("before", "row", "after"),
        [
            # A type that is found makes any 1, and leaves the others as they were.
            ("", "subdural=1", six("subdural")),
            # The only type is taken away.
            ("subdural", "subdural=0", six()),
            ("subdural epidural", "subdural=0", six("epidural")),
            # One type was another.
            ("subdural", "subdural=0 epidural=1", six("epidural")),
            ("subdural epidural", "any=0", six()),
            # Something is there, and nobody says what: none of the five zeros can be trusted.
            ("", "any=1", [NAN] * 5 + [1]),
            ("subdural", "any=1", six("subdural")),
            ("subdural", "any=1 subdural=0", [0 if label == "subdural" else NAN for label in LABELS[:-1]] + [1]),
            ("", "unsure=subdural", [NAN if label in ("subdural", "any") else 0 for label in LABELS]),
            ("subdural", "unsure=subdural", [NAN if label in ("subdural", "any") else 0 for label in LABELS]),
            ("subdural epidural", "unsure=subdural", [*six("epidural")[:SUBDURAL], NAN, 1]),
            ("", "unsure=any", [NAN] * 6),
            ("subdural", "unsure=any", [NAN if label in ("subdural", "any") else 0 for label in LABELS]),
            ("subdural", "", six("subdural")),
        ],
    )
    def test_what_follows_follows_anew(self, join: Join, before: str, row: str, after: list[float]) -> None:
        cells = {"any": "", **dict(cell.split("=") for cell in row.split())}
        text = f'sop_uid,{",".join(cells)},comment\n1.1,{",".join(cells.values())},"seen, twice"\n'
        scan = join(slices_of("", before, ""), text)[0]
        np.testing.assert_array_equal(scan.slice_labels[1], after)
        assert (scan.slice_labels[[0, 2]] == 0).all()
        np.testing.assert_array_equal(scan.scan_labels, after)  # its other slices are all 0

    def test_any_without_a_type_stays_if_no_type_is_taken_away(self) -> None:
        bare = np.array([[0, 0, 0, 0, 0, 1.0]])
        said = np.full((1, 6), NAN)
        said[0, EPIDURAL] = 0
        np.testing.assert_array_equal(correct_labels(bare, Correction(said, np.zeros((1, 6), bool))), bare)


class TestNames:
    @pytest.mark.parametrize("name", ["sop_uid,any\n1.1,0", "file,any\ncase 1/1.dcm,0"])
    def test_a_slice_may_be_named_otherwise_than_in_the_table(self, join: Join, name: str) -> None:
        scan = join(slices_of("", "subdural", ""), f"{name}\n")[0]
        assert (scan.slice_labels == 0).all()
        assert (scan.scan_labels == 0).all()

    @pytest.mark.parametrize("name", ["series_uid,any\n1.9,0", "accession_number,any\nA1,0", "folder,any\ncase 1,0"])
    def test_a_corrected_scan_overrules_its_slices(self, join: Join, name: str) -> None:
        scan = join(slices_of("", "subdural", ""), f"{name}\n")[0]
        assert (scan.slice_labels == 0).all()
        assert (scan.scan_labels == 0).all()

    def test_a_type_of_a_scan_is_taken_from_its_slices(self, join: Join) -> None:
        scan = join(slices_of("epidural", "subdural", "subdural epidural"), "series_uid,subdural\n1.9,0\n")[0]
        assert (scan.slice_labels[:, SUBDURAL] == 0).all()
        assert scan.slice_labels[:, ANY].tolist() == [1, 0, 1]
        assert scan.scan_labels.tolist() == six("epidural")

    def test_a_scan_found_positive_has_unknown_slices(self, join: Join) -> None:
        scan = join(slices_of("", "", ""), "series_uid,subdural\n1.9,1\n")[0]
        assert np.isnan(scan.slice_labels[:, [SUBDURAL, ANY]]).all()
        assert (scan.slice_labels[:, EPIDURAL] == 0).all()
        assert scan.scan_labels.tolist() == six("subdural")

    def test_a_corrected_slice_overrules_the_label_of_its_scan(self, join: Join) -> None:
        table = "series_uid,any\n1.9,0\n2.9,0\n"
        first, second = join(table, "sop_uid,subdural\n1.1,1\n")
        assert first.slice_labels[:, SUBDURAL].tolist() == [0, 1, 0]
        assert first.scan_labels.tolist() == six("subdural")
        assert (second.scan_labels == 0).all()
        scan = join("series_uid,any\n1.9,1\n", "sop_uid,any\n1.0,0\n1.1,0\n1.2,0\n")[0]
        assert (scan.scan_labels == 0).all()

    def test_one_slice_that_is_absent_does_not_clear_a_scan(self, join: Join) -> None:
        scan = join("series_uid,any\n1.9,1\n", "sop_uid,any\n1.1,0\n")[0]
        assert scan.scan_labels[ANY] == 1
        np.testing.assert_array_equal(scan.slice_labels[:, ANY], [NAN, 0, NAN])

    def test_the_table_that_the_page_of_the_label_audit_saves(self, join: Join) -> None:
        rows = ['1.1,1.9,,,,,1,1,,"thin, ""maybe"" old"', ",2.9,,,,,,,subdural any,"]
        text = "\ufeff" + "\r\n".join([f"sop_uid,series_uid,{SIX},unsure,comment", *rows, ""])
        first, second = join("series_uid,any,subdural,epidural\n1.9,0,,\n2.9,1,1,0\n", text)
        assert first.scan_labels.tolist() == six("subdural")
        assert first.slice_labels[:, SUBDURAL].tolist() == [0, 1, 0]
        assert second.scan_labels[EPIDURAL] == 0
        assert np.isnan(second.scan_labels[[SUBDURAL, ANY]]).all()

    def test_what_nobody_labelled_can_be_corrected(self, join: Join) -> None:
        first, second = join(slices_of("", "", ""), "series_uid,subdural\n2.9,1\n")
        assert (first.scan_labels == 0).all()
        assert (second.scan_id, second.scan_labels[SUBDURAL]) == ("scan-2", 1)


class TestSaid:
    def test_what_changes_is_counted(self, join: Join, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            join(slices_of("", "subdural", ""), "sop_uid,subdural,epidural\n1.1,0,1\n1.0,0,\n")
        assert "corrections change 2 labels of 1 slices" in caplog.text

    def test_rows_are_counted_and_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("sop_uid,any,comment\n1.0,1,\n1.1,,nothing wrong\n")
        table = read_corrections([tmp_path / "a.csv"])
        assert len(table.flags) == 1
        assert {"a.csv", "2", "1"} <= set(table.flags[0].replace(":", " ").split())
        assert table.rows["line"].tolist() == ["a.csv:2", "a.csv:3"]

    @pytest.mark.parametrize(
        ("texts", "lines"),
        [
            (["sop_uid,any\n1.0,1\n1.0,0\n"], ["line 2, 3"]),
            (["sop_uid,file,any\n1.0,,1\n,case 1/0.dcm,0\n"], ["corrections0.csv:2", "corrections0.csv:3"]),
            (["sop_uid,any\n1.0,1\n", "sop_uid,any\n1.0,0\n"], ["corrections0.csv:2", "corrections1.csv:2"]),
            (["sop_uid,any,unsure\n1.0,1,\n", "sop_uid,any,unsure\n1.0,,any\n"], ["corrections0.csv:2", "corrections1.csv:2"]),
            (["sop_uid,series_uid,any\n1.0,,1\n,1.9,0\n"], ["corrections0.csv:2", "corrections0.csv:3"]),
            (
                ["series_uid,subdural\n1.9,1\n", "sop_uid,any\n1.0,0\n1.1,0\n1.2,0\n"],
                ["corrections0.csv:2", "corrections1.csv:4"],
            ),
            (["sop_uid,any,unsure\n1.0,1,any\n"], ["line 2"]),
            (["sop_uid,any,unsure\n1.0,0,subdural\n"], ["line 2"]),
            (["sop_uid,any,unsure\n1.0,,any\n1.0,,subdural\n"], ["line 3"]),
        ],
    )
    def test_contradictions_stop_with_their_lines(self, join: Join, texts: list[str], lines: list[str]) -> None:
        with pytest.raises(TableError) as caught:
            join(slices_of("", "", ""), *texts)
        assert caught.value.code == "contradicting_rows"
        assert all(line in str(caught.value) for line in lines)

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("sop_uid,any\n1.0,2\n", "bad_label"),
            ("sop_uid,any,unsure\n1.0,,anysubdural\n", "bad_label"),
            ("sop_uid,any,subdural\n1.0,0,1\n", "any_contradicts_types"),
            ("sop_uid,any\n7.7,1\n", "labels_without_image"),
        ],
    )
    def test_what_is_wrong_in_a_table_is_wrong_here(self, join: Join, text: str, code: str) -> None:
        with pytest.raises(TableError) as caught:
            join(slices_of("", "", ""), text)
        assert caught.value.code == code

    def test_labels_still_contradict_one_another_elsewhere(self, join: Join) -> None:
        table = "series_uid,sop_uid,any\n1.9,,0\n,1.0,1\n2.9,,0\n,2.0,1\n"
        with pytest.raises(TableError) as caught:
            join(table, "sop_uid,any\n1.0,0\n")
        assert caught.value.code == "contradicting_rows"
        assert "line 4:" in str(caught.value)


class TestCommands:
    def test_training_and_preparation_take_them(self, phantom: Path, prepared: PreparedFolder, tmp_path: Path) -> None:
        labels = phantom / "stage_2_train.csv"
        before = scans_of(labels, prepared)
        scan = next(scan for scan in before.values() if scan.scan_labels[ANY] == 1)
        uids = prepared.key.loc[prepared.key["slice_id"].isin(scan.slice_ids), "sop_uid"]
        path = tmp_path / "corrections.csv"
        path.write_text("sop_uid,any\n" + "".join(f"{uid},0\n" for uid in uids))
        after = scans_of(labels, prepared, corrections=str(path))
        assert (after[scan.scan_id].scan_labels == 0).all()
        for other in before.keys() - {scan.scan_id}:
            np.testing.assert_array_equal(before[other].slice_labels, after[other].slice_labels)
        arguments = [str(prepared.folder), "--check", "--labels", str(labels)]
        counts = []
        for i, more in enumerate(([], ["--corrections", str(path)])):
            assert prepare.main([*arguments, "--out", str(tmp_path / str(i)), *more]) == 0
            counts.append(pd.read_json(tmp_path / str(i) / "audit.json", typ="series")["labels"]["any"]["all"]["scans"])
        assert counts[0] - counts[1] == 1

    def test_corrections_without_labels_are_wrong_usage(self, prepared: PreparedFolder, tmp_path: Path) -> None:
        assert prepare.main([str(prepared.folder), "--check", "--corrections", "c.csv"]) == 2


def scans_of(labels: Path, prepared: PreparedFolder, **changes: object) -> dict[str, LabelledScan]:
    data = ScanDataModule(str(prepared.folder), labels=str(labels), num_workers=0, split=Split(fractions=(1, 1, 1)), **changes)
    data.setup()
    return {scan.scan_id: scan for scans in data.scans.values() for scan in scans}
