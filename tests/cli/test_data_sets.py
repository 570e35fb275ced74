"""Data sets as they are published, from their folders and tables through ich-prepare and ich-train."""

import json
from pathlib import Path

import pandas as pd
import pytest
from dicom_files import make_series, slice_hu

from ich_lstm.cli import prepare, train
from ich_lstm.data.prepared.folder import PreparedFolder

TINY = [
    "--model.encoder.backbone=test_byobnet.r160_in1k",
    "--model.encoder.pretrained=false",
    "--model.head.hidden_size=8",
    "--trainer.max_epochs=1",
]
TINY += ["--trainer.accelerator=cpu", "--data.num_workers=0"]


class TestCtIch:
    @pytest.fixture
    def ct_ich(self, tmp_path: Path) -> Path:
        """Four patients of eight slices, the first with a bleeding; one file is cut short."""
        pytest.importorskip("nibabel")
        from nifti_files import head_volume, make_nifti

        root = tmp_path / "ct-ich"
        for patient in range(49, 53):
            make_nifti(root / f"ct_scans/{patient:03d}.nii", head_volume() + patient - 49)
        (root / "ct_scans/052.nii").write_bytes((root / "ct_scans/052.nii").read_bytes()[:200])
        types = "Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural"
        rows = [
            f"{patient},{number},0,0,0,0,{int((patient, number) == (49, 3))},{int((patient, number) != (49, 3))},0"
            for patient in range(49, 53)
            for number in range(1, 9)
        ]
        header = f"\ufeffPatientNumber,SliceNumber,{types},No_Hemorrhage,Fracture_Yes_No"
        (root / "hemorrhage_diagnosis_raw_ct.csv").write_text("\n".join([header, *rows]) + "\n")
        (root / "phantom.json").write_text("{}")
        return root

    @pytest.mark.parametrize("root", ["", "ct_scans"])
    def test_from_either_folder(self, ct_ich: Path, tmp_path: Path, root: str, capsys: pytest.CaptureFixture[str]) -> None:
        labels = str(ct_ich / "hemorrhage_diagnosis_raw_ct.csv")
        out = ["--labels", labels, "--out", str(tmp_path / "prepared"), "--size", "32"]
        assert prepare.main([str(ct_ich / root), *out]) == 3  # one file is refused
        assert "3 scans, 24 slices" in capsys.readouterr().out
        manifest = PreparedFolder.open(tmp_path / "prepared").manifest
        assert (manifest["patients"], manifest["synthetic"]) == (0, True)
        data = ["--data.root", str(tmp_path / "prepared"), "--data.labels", labels]
        assert train.main([*data, *TINY, "--out", str(tmp_path / "run")]) == 0
        counts = json.loads((tmp_path / "run/results.json").read_text())["counts"]
        assert {name: sum(part[name] for part in counts.values()) for name in ("patients", "scans", "slices")} == {
            "patients": 3,
            "scans": 3,
            "slices": 24,
        }
        audit = {found["code"]: found["count"] for found in json.loads((tmp_path / "run/audit.json").read_text())["findings"]}
        assert audit["labels_left_out"] == 8


class TestCq500:
    def write_reads(self, path: Path, subdural: dict[int, int]) -> str:
        """Reads of scans on which all readers agree."""
        findings = ["ICH", "IPH", "IVH", "SDH", "EDH", "SAH", "BleedLocation-Left", "BleedLocation-Right", "ChronicBleed"]
        findings += ["Fracture", "CalvarialFracture", "OtherFracture", "MassEffect", "MidlineShift"]
        rows = [
            {"name": f"CQ500-CT-{number}", "Category": "B1"}
            | {f"R{reader}:{finding}": finding in ("ICH", "SDH") and present for reader in (1, 2, 3) for finding in findings}
            for number, present in subdural.items()
        ]
        pd.DataFrame(rows).replace({True: 1, False: 0}).to_csv(path, index=False)
        return str(path)

    @pytest.fixture
    def qct(self, tmp_path: Path) -> Path:
        """Four studies of a thick and a thin series each, and one that was all done with a bone kernel."""
        for number in range(5):
            for place, (name, kernel) in enumerate((("Plain", "H30s"), ("PLAIN THIN", "H30s"))):
                own = {"StudyInstanceUID": f"1.{number}", "SeriesInstanceUID": f"1.{number}.{place}", "PatientID": f"P{number}"}
                make_series(
                    tmp_path / f"qct/CQ500CT{number} CQ500CT{number}/Unknown Study/CT {name}",
                    SeriesDescription=name,
                    ConvolutionKernel="H70h" if number == 4 else kernel,
                    change=lambda i, number=number: {"hu": slice_hu((-96, -96, 5 * i)) + number},
                    **own,
                )
        return tmp_path / "qct"

    def test_boxes_in_all_series_and_a_scan_without_a_series(self, qct: Path, tmp_path: Path) -> None:
        reads = self.write_reads(tmp_path / "reads.csv", {0: 1, 1: 1, 2: 0, 3: 0, 4: 1})
        boxes = tmp_path / "2_Extrapolation_to_All_Series.csv"
        uids = [f"1.{number}.{place}.{i}" for number in (0, 3, 4) for place in (0, 1) for i in (3, 4)]
        boxes.write_text("SOPInstanceUID,labelName\n" + "".join(f"{uid},Subdural\n" for uid in uids))
        arguments = [str(qct), "--labels", reads, str(boxes), "--out", str(tmp_path / "prepared"), "--size", "32"]
        assert prepare.main(arguments) == 1  # a box in a scan that readers call free of blood
        assert prepare.main([*arguments, "--disagreement", "unknown"]) == 0
        data = ["--data.root", str(tmp_path / "prepared"), "--data.labels", f"[{reads}, {boxes}]"]
        assert train.main([*data, *TINY, "--data.disagreement=unknown", "--out", str(tmp_path / "run")]) == 0
        audit = {found["code"]: found["count"] for found in json.loads((tmp_path / "run/audit.json").read_text())["findings"]}
        assert audit["labels_left_out"] == 2 + 2 + 4 + 1  # boxes in the thin series, and all that is said of the fifth scan
