"""A hundred canaries in the input of every command: none may be found in a file that may be shared."""

import base64
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import make_series, slice_hu

from ich_lstm.cli import evaluate, predict, prepare, train

PATIENTS = 12
SIZE, SPACING = 64, 3.0

TEXTS = (
    "PatientName",
    "PatientID",
    "OtherPatientNames",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "PatientMotherBirthName",
    "PatientComments",
    "EthnicGroup",
    "Occupation",
    "AdditionalPatientHistory",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "ReferringPhysicianName",
    "PhysiciansOfRecord",
    "PerformingPhysicianName",
    "OperatorsName",
    "NameOfPhysiciansReadingStudy",
    "RequestingPhysician",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "DeviceSerialNumber",
    "ProtocolName",
    "SeriesDescription",
    "ImageComments",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
    "AdmissionID",
    "IssuerOfPatientID",
    "ConvolutionKernel",
    "DeviceDescription",
)
"""Each holds its own canary in each patient."""

SIGN = re.compile(rb"zq[0-9a-f]{8}", re.IGNORECASE)

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


def canary(place: str, patient: int) -> str:
    """A text that stands nowhere else."""
    return f"Zq{zlib.crc32(f'{place}/{patient}'.encode()):08x}"


def uid(place: str, patient: int) -> str:
    return f"1.2.826.{zlib.crc32(f'{place}/{patient}'.encode())}.{7700 + patient}"


class Canaries(list[str]):
    """What must not be found, and where it was put."""

    def text(self, place: str, patient: int) -> str:
        self.append(canary(place, patient))
        return self[-1]

    def uid(self, place: str, patient: int) -> str:
        self.append(uid(place, patient))
        return self[-1]


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Path:
    """An export of a hospital: canaries in names, numbers, dates, UIDs, private tags, comments, folders and files."""
    folder = tmp_path_factory.mktemp("export") / canaries.text("export", 0)
    rows = []
    for patient in range(PATIENTS):
        elements: dict[str, Any] = {name: canaries.text(name, patient) for name in TEXTS}
        elements["SeriesDescription"] = f"HEAD {elements['SeriesDescription']}"
        elements["ConvolutionKernel"] = f"H40 {elements['ConvolutionKernel']}"
        elements |= {name: canaries.uid(name, patient) for name in UIDS}
        # Dates and times of which every digit tells: 1917 is nobody's year of study.
        elements |= {"StudyDate": f"1917{1 + patient % 12:02d}23", "PatientBirthDate": f"1871{1 + patient % 12:02d}19"}
        elements |= {"StudyTime": "235917.171717", "PatientWeight": f"77.{424242 + patient}"}
        canaries += [elements[name] for name in ("StudyDate", "PatientBirthDate", "StudyTime", "PatientWeight")]
        canaries += [f"1917-{1 + patient % 12:02d}-23"]
        name = canaries.text("folder", patient)
        place = folder / name / canaries.text("subfolder", patient)
        hurt = 80 if patient % 2 else 35

        def own(i: int, hurt: int = hurt, patient: int = patient) -> dict[str, Any]:
            hu = slice_hu((-96, -96, 5.0 * i), size=SIZE, spacing=SPACING)
            hu[30:36, 30:36] = hurt
            hu += np.random.default_rng((patient, i)).integers(-8, 9, hu.shape)  # no two patients share a slice
            return {"hu": hu}

        paths = make_series(place, change=own, PixelSpacing=[SPACING, SPACING], **elements)
        for path in paths:
            _add_private(path, canaries.text("private", patient))
            path.rename(path.with_name(f"{canaries.text(path.name, patient)}.dcm"))
        # The table names patients as somebody has typed them, and holds what no table should hold.
        rows.append(
            {
                "accession_number": elements["AccessionNumber"],
                "patient_id": elements["PatientID"],
                "any": patient % 2,
                "subdural": patient % 2,
            }
        )
    table = folder.parent / f"{canaries.text('table', 0)}.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    return folder


def _add_private(path: Path, text: str) -> None:
    import pydicom

    data_set = pydicom.dcmread(path)
    block = data_set.private_block(0x0099, text, create=True)
    block.add_new(0x01, "LO", text)
    data_set.save_as(path)


def contents(path: Path) -> Iterator[bytes]:
    """All bytes of a file, and what they hold: members of archives, tables, compressed and encoded parts."""
    data = path.read_bytes()
    yield data
    yield path.name.encode()
    if zipfile.is_zipfile(path):  # checkpoints are archives too
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    if path.suffix == ".parquet":
        yield pd.read_parquet(path).to_csv().encode()
    if path.suffix == ".html":
        for coded in re.findall(rb"[A-Za-z0-9+/=]{64,}", data):
            raw = base64.b64decode(coded + b"=" * (-len(coded) % 4))
            yield raw
            yield _inflated(raw)
    if path.suffix == ".png":
        for part in re.finditer(rb"(?:zTXt|iTXt|tEXt)", data):
            yield _inflated(data[part.end() :])


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data)
    except zlib.error:
        return b""


def shareable(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "private" not in path.relative_to(folder).parts]


def check(folder: Path, canaries: Canaries, *, paths: tuple[Path, ...]) -> None:
    """Nothing of the input, and no path, in any file that may be shared."""
    files = shareable(folder)
    assert files
    texts = {text.lower() for text in canaries if text.startswith("Zq")}
    others = {*canaries, *map(str, paths), str(folder)} - {text for text in canaries if text.startswith("Zq")}
    forms = [form for text in others for form in (text.encode(), text.encode("utf-16-le"))]
    for path in files:
        for content in contents(path):
            # Of most canaries the beginning is the same, and is found fast; what only begins like one is none.
            for place in chain(SIGN.finditer(content), SIGN.finditer(content.replace(b"\0", b""))):
                assert place[0].decode().lower() not in texts, f"{path.relative_to(folder)}: {place[0]!r}"
            for form in forms:
                assert form not in content, f"{path.relative_to(folder)}: {form!r}"


def check_manifest(folder: Path) -> None:
    """The private files are those that the manifest names."""
    named = json.loads((folder / "manifest.json").read_text())["private"]
    found = {path.relative_to(folder).as_posix() for path in (folder / "private").rglob("*") if path.is_file()}
    assert {name for name in found if not any(name == each or name.startswith(f"{each}/") for each in named)} == set()
    assert all((folder / name).exists() for name in named)
    assert (folder / "private").stat().st_mode & 0o077 == 0


@pytest.fixture(scope="module")
def trained(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    (table,) = export.parent.glob("*.csv")
    data = ["--data.root", str(export), "--data.labels", str(table), "--data.preprocessing.size=32", "--data.num_workers=0"]
    model = [
        "--model.encoder.backbone=test_byobnet",
        "--model.encoder.pretrained=false",
        "--model.head.hidden_size=8",
        "--model.head.num_layers=1",
    ]
    trainer = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--out", str(out)]
    assert train.main([*data, *model, *trainer]) == 0
    return out


@pytest.fixture(scope="module")
def predicted(export: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predicted") / "out"
    options = ["--identify", "--share-pages", "--heat-maps", "all", "--allow-other-body-part"]
    assert predict.main([str(export), "--checkpoint", str(trained), "--out", str(out), *options]) == 0
    return out


def test_there_are_more_than_a_hundred(export: Path, canaries: Canaries):
    assert len(set(canaries)) > 100
    text = b"".join(path.read_bytes() for path in export.rglob("*.dcm"))
    for name in TEXTS:
        assert canary(name, 3).encode() in text, name


def test_prepare(export: Path, canaries: Canaries, tmp_path: Path):
    out = tmp_path / "prepared"
    (table,) = export.parent.glob("*.csv")
    assert prepare.main([str(export), "--out", str(out), "--labels", str(table)]) == 0
    check(out, canaries, paths=(export, table))
    check_manifest(out)


def test_train(export: Path, trained: Path, canaries: Canaries):
    check(trained, canaries, paths=(export,))


def test_predict_and_explain(export: Path, predicted: Path, trained: Path, canaries: Canaries):
    assert (predicted / "index.html").is_file()
    assert len(list((predicted / "pages").glob("*.html"))) == PATIENTS
    check(predicted, canaries, paths=(export, trained))
    check_manifest(predicted)


def test_the_identity_is_where_it_was_asked_for(predicted: Path):
    worklist = pd.read_csv(predicted / "private/worklist.csv", dtype=str)
    assert set(worklist["accession_number"]) == {canary("AccessionNumber", patient) for patient in range(PATIENTS)}
    assert set(worklist["study_uid"]) == {uid("StudyInstanceUID", patient) for patient in range(PATIENTS)}
    assert (predicted / "private").stat().st_mode & 0o077 == 0


def test_evaluate(export: Path, predicted: Path, trained: Path, canaries: Canaries, tmp_path: Path):
    (table,) = export.parent.glob("*.csv")
    assert evaluate.main([str(trained), "--out", str(tmp_path / "held-out"), "--replicates", "100"]) == 0
    options = ["--labels", str(table), "--out", str(tmp_path / "joined"), "--replicates", "100"]
    assert evaluate.main([str(predicted), *options]) == 0
    for name in ("held-out", "joined"):
        check(tmp_path / name, canaries, paths=(export, table, trained, predicted))


class TestCrash:
    def test_of_a_training(self, export: Path, canaries: Canaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        from ich_lstm import ScanClassifier

        out = tmp_path / "run"
        (table,) = export.parent.glob("*.csv")

        def crash(*_: object) -> None:
            raise RuntimeError(f"at {export} {canary('PatientName', 3)}")

        monkeypatch.setattr(ScanClassifier, "on_validation_epoch_end", crash)
        data = ["--data.root", str(export), "--data.labels", str(table), "--data.preprocessing.size=32", "--data.num_workers=0"]
        model = [
            "--model.encoder.backbone=test_byobnet",
            "--model.encoder.pretrained=false",
            "--model.head.hidden_size=8",
            "--debug",
        ]
        assert train.main([*data, *model, "--trainer.accelerator=cpu", "--out", str(out)]) == 1
        check(out, canaries, paths=(export, table))

    def test_of_a_prediction(
        self, export: Path, trained: Path, canaries: Canaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from ich_lstm.inference.predictor import Predictor

        calls = []
        whole = Predictor.encode

        def crash(self: Predictor, scan: Any) -> Any:
            calls.append(scan)
            if len(calls) == 3:
                raise RuntimeError(f"in {scan.series_uid} of {scan.patient_id}")
            return whole(self, scan)

        monkeypatch.setattr(Predictor, "encode", crash)
        out = tmp_path / "out"
        options = ["--checkpoint", str(trained), "--out", str(out), "--share-pages", "--allow-other-body-part"]
        assert predict.main([str(export), *options]) == 3  # this study has no result, and the others go on
        assert len(calls) > 3
        check(out, canaries, paths=(export, trained))
