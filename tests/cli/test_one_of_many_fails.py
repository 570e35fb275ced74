"""One study, series or file meets an error that nobody foresaw: it has a row with the reason, and all others go on."""

import errno
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import pytest
import torch
from dicom_files import make_series
from fabricated import make_classifier

from ich_lstm.archive import study as archive_study
from ich_lstm.archive.exports.formats import find_export
from ich_lstm.cli import predict, prepare
from ich_lstm.data.prepare import prepare_scan
from ich_lstm.errors import CheckpointError, StudyError
from ich_lstm.inference import predictor as predictor_module
from ich_lstm.inference.predictor import Predictor
from ich_lstm.labels import LABELS
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading.index import build
from ich_lstm.reading.series import load

STUDIES = 3
FAILING = "1.2.3.1"
"""Study UID of the second study."""

SECRET = "/secret/ward7/DOE^JOHN"

ERRORS: dict[str, tuple[Exception, str]] = {
    "cv2": (cv2.error(f"OpenCV(4.11.0) {SECRET} error: (-215:Assertion failed) !ssize.empty()"), "unexpected_error"),
    "memory": (MemoryError(f"Unable to allocate 4 GiB for {SECRET}"), "out_of_memory"),
    "gpu memory": (torch.OutOfMemoryError(f"CUDA out of memory. {SECRET}"), "out_of_memory"),
    "allocator": (RuntimeError(f"DefaultCPUAllocator: can't allocate memory {SECRET}"), "out_of_memory"),
    "cv2 memory": (cv2.error(f"Insufficient memory {SECRET}"), "out_of_memory"),
    "recursion": (RecursionError(f"maximum recursion depth exceeded {SECRET}"), "unexpected_error"),
    "input": (OSError(errno.EIO, "Input/output error", SECRET), "unexpected_error"),
    "system": (SystemError(f"error return without exception set {SECRET}"), "unexpected_error"),
    "empty": (ValueError(), "unexpected_error"),
}
SOME = ("cv2", "memory", "input")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for number in range(STUDIES):
        uid = f"1.2.3.{number}"
        own = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "PatientID": f"PAT{number}"}
        make_series(folder / f"{number:03d}", **own, start=(-96, -96, number - 20))
    return folder


def failing(function: Callable[..., Any], error: BaseException, *, study: str = FAILING) -> Callable[..., Any]:
    """A function that raises an error for arguments that belong to a study, and otherwise does its work."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for arg in args:
            scan = getattr(arg, "scan", arg)
            headers = getattr(arg, "headers", None)
            uid = headers[0].study_uid if headers is not None and len(headers) else getattr(scan, "study_uid", "")
            if uid == study or (study == "" and uid):
                raise error.with_traceback(None)  # the errors are shared by all tests, whose frames they would keep
        return function(*args, **kwargs)

    return wrapped


def arguments(archive: Path, model: Path, out: Path, *options: str) -> list[str]:
    return [str(archive), "--checkpoint", str(model), "--out", str(out), *options]


def statuses(out: Path) -> list[str]:
    return pd.read_csv(out / "scans.csv")["status"].tolist()


def check_refused(out: Path, code: str) -> None:
    """The second study has a row with the reason alone, the others have probabilities, and nothing secret is shareable."""
    assert statuses(out) == ["ok", code, "ok"]
    scans = pd.read_csv(out / "scans.csv")
    assert scans.loc[1, list(LABELS)].isna().all()
    assert scans.loc[[0, 2], list(LABELS)].notna().all(axis=None)
    assert scans.loc[1, "scan_id"] not in set(pd.read_csv(out / "slices.csv")["scan_id"])
    assert pd.read_csv(out / "worklist.csv")["status"].tolist().count(code) == 1
    ledger = pd.read_csv(out / "private/ledger.csv").set_index("series_uid")
    assert set(ledger.loc[f"{FAILING}.1", "action"]) == {"refused"}
    assert set(ledger.loc[f"{FAILING}.1", "code"]) == {code}
    for path in out.rglob("*"):
        if path.is_file() and not path.is_relative_to(out / "private"):
            assert "ward7" not in path.read_text()
            assert "Traceback" not in path.read_text()


class TestPredict:
    @pytest.mark.parametrize("name", ERRORS)
    def test_any_error(
        self, name: str, archive: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        error, code = ERRORS[name]
        out = tmp_path / "out"
        with monkeypatch.context() as patch:
            patch.setattr(predictor_module, "encode_scan", failing(predictor_module.encode_scan, error))
            assert predict.main(arguments(archive, model_folder, out, "--heat-maps", "none")) == 3
        check_refused(out, code)
        records = [json.loads(path.read_text()) for path in (out / "private/studies").glob("*.json")]
        (record,) = [record for record in records if record["status"] == code]
        assert type(error).__name__ in record["error"]
        assert "predictor.py, line" in record["error"]
        assert "Traceback" in record["tracebacks"][0]
        # The same command tries again, and only what failed.
        assert predict.main(arguments(archive, model_folder, out, "--heat-maps", "none")) == 0
        assert statuses(out) == ["ok"] * STUDIES

    @pytest.mark.parametrize("name", SOME)
    @pytest.mark.parametrize(("room", "function"), [(load, "_load"), (archive_study, "load_scan")])
    def test_anywhere(
        self,
        name: str,
        room: Any,
        function: str,
        archive: Path,
        model_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        error, code = ERRORS[name]
        monkeypatch.setattr(room, function, failing(getattr(room, function), error))
        assert predict.main(arguments(archive, model_folder, tmp_path / "out", "--heat-maps", "none")) == 3
        check_refused(tmp_path / "out", code)

    @pytest.mark.parametrize("name", SOME)
    @pytest.mark.parametrize("what", ["pages", "heat_maps", "dicom"])
    def test_without_a_page_the_probabilities_are_kept(
        self, name: str, what: str, archive: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        error, _ = ERRORS[name]
        out = tmp_path / "out"
        options = ["--heat-maps", "all" if what == "heat_maps" else "none"]
        options += ["--dicom"] if what == "dicom" else []
        with monkeypatch.context() as patch:
            if what == "heat_maps":
                patch.setattr(archive_study, "explain", _raising(error))
            elif what == "pages":
                patch.setattr(archive_study, "prediction_page", _raising(error))
            else:
                patch.setattr(type(find_export("dicom")), "write", _raising(error))
            assert predict.main(arguments(archive, model_folder, out, *options)) == 3
        assert statuses(out) == ["ok"] * STUDIES
        assert pd.read_csv(out / "worklist.csv")["not_made"].tolist() == [what] * STUDIES
        assert predict.main(arguments(archive, model_folder, out, *options)) == 0
        assert pd.read_csv(out / "worklist.csv")["not_made"].isna().all()

    @pytest.mark.parametrize(
        ("error", "exit_code"),
        [
            (OSError(errno.ENOSPC, "No space left on device"), 1),
            (KeyboardInterrupt(), 130),
            (CheckpointError("no_preprocessing", where="this model", got="none"), 1),
        ],
    )
    def test_what_concerns_all_ends_the_command(
        self,
        error: BaseException,
        exit_code: int,
        archive: Path,
        model_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(predictor_module, "encode_scan", failing(predictor_module.encode_scan, error))
        assert predict.main(arguments(archive, model_folder, tmp_path / "out")) == exit_code
        assert not (tmp_path / "out/scans.csv").exists()

    def test_many_in_a_row_are_told_once(
        self, archive: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("ich_lstm.archive.run.MANY_IN_A_ROW", 2)
        monkeypatch.setattr(predictor_module, "encode_scan", failing(predictor_module.encode_scan, MemoryError(), study=""))
        with caplog.at_level(logging.WARNING, logger="ich_lstm.archive.run"):
            assert predict.main(arguments(archive, model_folder, tmp_path / "out")) == 1
        assert statuses(tmp_path / "out") == ["out_of_memory"] * STUDIES
        assert sum("in a row" in record.message for record in caplog.records) == 1


def _raising(error: Exception) -> Callable[..., Any]:
    def wrapped(*_: Any, **__: Any) -> Any:
        raise error

    return wrapped


@pytest.mark.parametrize("part", ["encoder.", "sequence_classifier."])
def test_a_model_that_gives_nan_has_no_row_with_a_number(part: str, archive: Path, tmp_path: Path) -> None:
    """Weights that are not finite are neither saved nor loaded; finite ones can be so large that the logits are not."""
    classifier = make_classifier()
    with torch.no_grad():
        for name, parameter in classifier.model.named_parameters():
            if name.startswith(part) and parameter.ndim > 1:
                parameter.fill_(3e38)
    classifier.save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    assert predict.main(arguments(archive, tmp_path / "model", out)) == 1
    assert statuses(out) == ["not_finite"] * STUDIES
    assert pd.read_csv(out / "scans.csv")[list(LABELS)].isna().all(axis=None)
    assert not (out / "slices.csv").exists()
    with pytest.raises(StudyError, match=r"3 studies.*not_finite"):
        list(Predictor.load(tmp_path / "model").predict(archive, project_key=ProjectKey(bytes(32))))


@pytest.mark.parametrize("name", ["cv2", "memory", "recursion"])
def test_python_goes_on_and_lists_it(name: str, archive: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error, code = ERRORS[name]
    monkeypatch.setattr(predictor_module, "encode_scan", failing(predictor_module.encode_scan, error))
    found: list[Any] = []
    with pytest.raises(StudyError, match=rf"1 studies.*\[{code}\]: study 1\.2\.3\.1"):
        found.extend(Predictor.load(model_folder).predict(archive, project_key=ProjectKey(bytes(32))))
    assert len(found) == STUDIES - 1


class TestPrepare:
    @pytest.mark.parametrize("name", ERRORS)
    def test_a_series(self, name: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        error, code = ERRORS[name]
        command = [str(archive), "--out", str(tmp_path / "out"), "--size", "32", "--crop", "none", "--workers", "1"]
        with monkeypatch.context() as patch:
            patch.setattr(prepare_scan, "preprocess_scan", failing(prepare_scan.preprocess_scan, error))
            assert prepare.main(command) == 3
        ledger = pd.read_csv(tmp_path / "out/private/ledger.csv").set_index("series_uid")
        assert set(ledger.loc[f"{FAILING}.1", "code"]) == {code}
        assert set(ledger.drop(f"{FAILING}.1")["action"]) == {"used"}
        assert prepare.main(command) == 0

    @pytest.mark.parametrize("name", ["cv2", "memory", "recursion"])
    def test_a_header(self, name: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        error, code = ERRORS[name]
        read_header = build.read_header

        def read(ref: Any) -> Any:
            if str(ref).endswith("001/3.dcm"):
                raise error
            return read_header(ref)

        monkeypatch.setattr(build, "read_header", read)
        command = [str(archive), "--out", str(tmp_path / "out"), "--size", "32", "--crop", "none", "--workers", "1"]
        assert prepare.main(command) == 3
        ledger = pd.read_csv(tmp_path / "out/private/ledger.csv").set_index("path")
        assert ledger["code"].dropna().tolist() == [code]
        assert ledger["code"].dropna().index[0].endswith("001/3.dcm")

    @pytest.mark.parametrize("name", ["cv2", "memory", "recursion"])
    def test_a_check(self, name: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        error, code = ERRORS[name]
        monkeypatch.setattr(load, "_load", failing(load._load, error))
        assert prepare.main([str(archive), "--check", "--out", str(tmp_path / "out"), "--workers", "1"]) == 3
        ledger = pd.read_csv(tmp_path / "out/private/ledger.csv").set_index("series_uid")
        assert set(ledger.loc[f"{FAILING}.1", "code"]) == {code}
        assert set(ledger.drop(f"{FAILING}.1")["action"]) == {"used"}

    def test_a_full_disk_ends_the_command(self, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(prepare_scan, "preprocess_scan", failing(prepare_scan.preprocess_scan, full))
        assert prepare.main([str(archive), "--out", str(tmp_path / "out"), "--size", "32", "--workers", "1"]) == 1
