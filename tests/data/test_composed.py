"""Labels of scans that are joined from several series, and of series that hold several scans."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import make_series
from labelled_scans import label_scans

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepare.prepare import prepare
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey

PIECES = {"1.2.3.100.1": range(0, 60, 5), "1.2.3.100.2": range(60, 120, 5)}
OWN: dict[str, Any] = {"FrameOfReferenceUID": "1.2.3.9", "AcquisitionNumber": 1}


def label(folder: Path, source: Path, rows: list[str], key: ProjectKey) -> tuple[PreparedFolder, list[LabelledScan]]:
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    table = read_label_table(folder / "labels.csv")
    settings = Preprocessing(size=16)
    prepared = prepare(source, folder / "out", preprocessing=settings, key=key, labels=table, workers=1)
    return prepared, label_scans(prepared, table)


def by_scan(name: str) -> list[str]:
    return ["series_uid,patient_id,any", f"{name},SECRET-ID,1"]


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    for uid, places in PIECES.items():
        make_series(tmp_path / "in" / uid, places=places, SeriesInstanceUID=uid, SeriesNumber=int(uid[-1]), **OWN)
    return tmp_path / "in"


class TestJoined:
    @pytest.mark.parametrize("uid", PIECES)
    def test_a_label_of_either_series_is_one_of_the_scan(
        self, uid: str, joined: Path, project_key: ProjectKey, tmp_path: Path
    ) -> None:
        prepared, (scan,) = label(tmp_path, joined, by_scan(uid), project_key)
        assert len(scan.slice_ids) == 24
        assert scan.scan_labels[-1] == 1
        assert prepared.manifest["files"] == {"used": 24, "skipped": 0, "refused": 0}
        assert prepared.key["series_uid"].tolist() == [name for name in PIECES for _ in range(12)]

    def test_labels_of_both_series_that_agree(self, joined: Path, project_key: ProjectKey, tmp_path: Path) -> None:
        rows = [*by_scan("1.2.3.100.1"), "1.2.3.100.2,SECRET-ID,1"]
        _, (scan,) = label(tmp_path, joined, rows, project_key)
        assert scan.scan_labels[-1] == 1

    def test_labels_of_the_slices_of_both(self, joined: Path, project_key: ProjectKey, tmp_path: Path) -> None:
        rows = [f"{uid}.{i},SECRET-ID,{int(uid[-1] == '2')}" for uid in PIECES for i in range(1, 13)]
        _, (scan,) = label(tmp_path, joined, ["sop_uid,patient_id,any", *rows], project_key)
        np.testing.assert_array_equal(scan.slice_labels[:, -1], [0] * 12 + [1] * 12)


@pytest.fixture
def several(tmp_path: Path) -> Path:
    for number in (1, 2):
        change = [{"SOPInstanceUID": f"1.9.{number}.{i}"} for i in range(12)].__getitem__
        own = {"AcquisitionNumber": number, "start": (-96, -96, 2.0 * number)}
        make_series(tmp_path / "in" / str(number), 12, change=change, **own)
    return tmp_path / "in"


class TestParted:
    def test_a_label_of_the_series_is_one_of_the_acquisition_that_is_read(
        self, several: Path, project_key: ProjectKey, tmp_path: Path
    ) -> None:
        prepared, (scan,) = label(tmp_path, several, by_scan("1.2.3.100.1"), project_key)
        assert scan.scan_labels[-1] == 1
        assert prepared.key["sop_uid"].tolist() == [f"1.9.2.{i}" for i in range(12)]
        assert prepared.manifest["files"] == {"used": 12, "skipped": 12, "refused": 0}

    def test_labels_of_slices_are_of_their_own(self, several: Path, project_key: ProjectKey, tmp_path: Path) -> None:
        rows = [f"1.9.{number}.{i},SECRET-ID,{number - 1}" for number in (1, 2) for i in range(12)]
        prepared, scans = label(tmp_path, several, ["sop_uid,patient_id,any", *rows], project_key)
        assert sorted(scan.slice_labels[:, -1].tolist() for scan in scans) == [[0] * 12, [1] * 12]
        assert len({scan.scan_id for scan in scans}) == 2
        assert prepared.manifest["files"] == {"used": 24, "skipped": 0, "refused": 0}
