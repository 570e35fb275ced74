import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ich_lstm.labels import LABELS
from ich_lstm.phantom import CtIchLayout, PhantomSettings, make_head, write_phantom
from ich_lstm.reading import read_nifti

SETTINGS = PhantomSettings(patients=4, slices=10, size=64, seed=6, prevalence=1.0, masks=True)

COLUMNS = [
    "PatientNumber", "SliceNumber", "Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural", "Subdural",
    "No_Hemorrhage", "Fracture_Yes_No",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_phantom(SETTINGS, tmp_path_factory.mktemp("ich") / "set", layout=CtIchLayout(), workers=1)


def test_files_and_table_are_those_of_ct_ich(folder):
    assert sorted(path.name for path in (folder / "ct_scans").iterdir()) == ["049.nii", "050.nii", "051.nii", "052.nii"]
    table = (folder / "hemorrhage_diagnosis_raw_ct.csv").read_bytes()
    assert table.startswith(b"\xef\xbb\xbfPatientNumber,")
    header, *rows = csv.reader(table.decode("utf-8-sig").splitlines())
    assert header == COLUMNS
    assert [(row[0], row[1]) for row in rows] == [(str(n), str(i)) for n in range(49, 53) for i in range(1, 11)]


def test_the_labels_are_those_of_the_heads(folder):
    with (folder / "hemorrhage_diagnosis_raw_ct.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {(int(row["PatientNumber"]), int(row["SliceNumber"])): row for row in csv.DictReader(file)}
    fractures = set()
    for patient in range(SETTINGS.patients):
        head = make_head(SETTINGS, patient)
        for i, labels in enumerate(head.slice_labels):
            row = rows[49 + patient, i + 1]
            truth = dict(zip(LABELS, labels, strict=True))
            assert all(int(row[name.capitalize()]) == truth[name] for name in LABELS if name != "any")
            assert int(row["No_Hemorrhage"]) == 1 - truth["any"]
            assert row["Fracture_Yes_No"] == str(int("fracture" in head.findings))
            fractures.add(row["Fracture_Yes_No"])
    assert fractures <= {"0", "1"}


def test_the_reader_gives_back_the_heads(folder):
    tilted = 0
    for patient in range(SETTINGS.patients):
        head, scan = make_head(SETTINGS, patient), read_nifti(folder / "ct_scans" / f"{49 + patient:03d}.nii")
        assert np.array_equal(scan.hu, head.hu)
        assert np.diff(scan.positions_mm) == pytest.approx(head.spacing_mm[0], rel=1e-3)
        assert scan.spacing_mm[1:] == pytest.approx(head.spacing_mm[1:], rel=1e-4)
        assert scan.tilt_degrees == pytest.approx(head.tilt_degrees, abs=0.05)
        assert [uid.rpartition(".")[2] for uid in scan.sop_uids] == [str(i) for i in range(1, 11)]
        tilted += head.tilt_degrees > 0
    assert 0 < tilted < SETTINGS.patients


def test_the_byte_order_mark_is_an_option(tmp_path):
    small = PhantomSettings(patients=1, slices=8, size=48)
    folder = write_phantom(small, tmp_path / "set", layout=CtIchLayout(byte_order_mark=False), workers=1)
    assert (folder / "hemorrhage_diagnosis_raw_ct.csv").read_bytes().startswith(b"PatientNumber,")


def test_masks_are_named_like_the_scans(folder):
    assert sorted(path.stem for path in (folder / "masks").iterdir()) == ["049", "050", "051", "052"]


def test_without_nibabel_nothing_is_begun(tmp_path):
    code = (
        "import sys; sys.modules['nibabel'] = None\n"
        "from ich_lstm.cli import phantom\n"
        f"sys.exit(phantom.main(['--layout', 'ct-ich', '--patients', '1', '--out', {str(tmp_path / 'new')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "ich_lstm[nifti]" in done.stderr
    assert not (tmp_path / "new").exists()
