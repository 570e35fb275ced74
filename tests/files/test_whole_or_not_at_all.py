"""A full disk at any moment of writing: no cut file under its own name, the old one unchanged, and one error that says where."""

import errno
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated import make_classifier

import ich_lstm
from ich_lstm import ScanClassifier
from ich_lstm.cli.training.monitoring.logs import make_loggers
from ich_lstm.errors import CheckpointError, StorageError
from ich_lstm.files.atomic_write import SUFFIX, atomic_write, write_text
from ich_lstm.files.csv_table import write_csv
from ich_lstm.inference.checkpoint import read_model
from ich_lstm.labels import LABELS
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.phantom.layouts.cq500 import Cq500Layout
from ich_lstm.prediction import ScanPrediction

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fail_at(patch: pytest.MonkeyPatch, name: str, moment: int, number: int = errno.ENOSPC) -> None:
    """Let a function of the system fail at its n-th call, and at all later ones."""
    right, calls = getattr(os, name), []

    def call(*given: Any) -> Any:
        calls.append(given)
        if len(calls) > moment:
            raise OSError(number, os.strerror(number))
        return right(*given)

    patch.setattr(f"ich_lstm.files.atomic_write.os.{name}", call)


def check(raised: pytest.ExceptionInfo[StorageError], folder: Path, files: dict[Path, bytes]) -> None:
    """The error names the folder and the need; the folder holds what it held before."""
    assert raised.value.code == "disk_full"
    assert str(folder) in raised.value.where
    assert "more than the" in str(raised.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def prediction() -> ScanPrediction:
    return ScanPrediction(
        scan_id="7f3a19c04be2d851",
        patient_id="",
        slice_ids=("a", "b"),
        positions_mm=np.array([0.0, 5.0]),
        spacing_mm=(5.0, 1.0, 1.0),
        hu=np.zeros((2, 32, 32), np.int16),
        slice_probabilities=np.full((2, len(LABELS)), 0.25),
        scan_probabilities=np.full(len(LABELS), 0.25),
        model_name="m",
        model_hash="0" * 12,
    )


class TestOneFile:
    @pytest.mark.parametrize("number", FULL, ids=[errno.errorcode[number] for number in FULL])
    @pytest.mark.parametrize("name", ["fsync", "replace"])
    def test_at_the_end(self, tmp_path: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.txt"
        write_text(path, "old")
        fail_at(monkeypatch, name, 0, number)
        with pytest.raises(StorageError) as raised:
            write_text(path, "new")
        check(raised, tmp_path, {path: b"old"})

    @pytest.mark.parametrize("written", [0, 1, 1000])
    def test_in_between(self, tmp_path: Path, written: int) -> None:
        path = tmp_path / "a.txt"

        def write() -> None:
            with atomic_write(path) as unfinished:
                unfinished.write_bytes(bytes(written))
                raise RuntimeError("write failed: No space left on device")  # as libraries say it

        with pytest.raises(StorageError) as raised:
            write()
        check(raised, tmp_path, {})

    def test_other_errors_stay_what_they_are(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_at(monkeypatch, "replace", 0, errno.EACCES)
        with pytest.raises(PermissionError):
            write_text(tmp_path / "a.txt", "new")
        with pytest.raises(FileNotFoundError):
            write_text(tmp_path / "missing" / "a.txt", "new")
        assert list(tmp_path.iterdir()) == []


class TestCalls:
    """What users call in Python."""

    @pytest.mark.parametrize(("name", "moment"), [("fsync", 0), ("replace", 0)])
    def test_to_html(self, tmp_path: Path, name: str, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_at(monkeypatch, name, moment)
        with pytest.raises(StorageError) as raised:
            prediction().to_html(tmp_path / "page.html")
        check(raised, tmp_path, {})

    @pytest.mark.parametrize("moment", [0, 1, 2])
    def test_write_csv(self, tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
        table = pd.DataFrame({"a": range(3)})
        fail_at(monkeypatch, "replace", moment)
        for i in range(moment):
            write_csv(tmp_path / f"{i}.csv", table)
        with pytest.raises(StorageError):
            write_csv(tmp_path / "last.csv", table)
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{i}.csv" for i in range(moment)]

    @pytest.mark.parametrize("moment", [5, *(pytest.param(moment, marks=pytest.mark.slow) for moment in (1, 9))])
    @pytest.mark.parametrize("layout", [None, Cq500Layout(archives=True)], ids=["rsna", "cq500"])
    def test_write_phantom(
        self, tmp_path: Path, moment: int, layout: Cq500Layout | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = PhantomSettings(patients=8, slices=12, size=64)
        fail_at(monkeypatch, "replace", moment if layout is None else min(moment, 8))
        with pytest.raises(StorageError):
            write_phantom(settings, tmp_path / "heads", layout=layout, workers=1)
        monkeypatch.undo()
        assert json.loads((tmp_path / "heads/phantom.json").read_text())["files"] is None
        assert not list(tmp_path.rglob(f"*{SUFFIX}"))


class TestModel:
    """Weights and description belong together."""

    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        make_classifier().save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    @pytest.mark.parametrize(("name", "moment"), [("fsync", 0), ("fsync", 1), ("replace", 0)])
    def test_full_disk_before_a_new_model(self, tmp_path: Path, name: str, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
        fail_at(monkeypatch, name, moment)
        with pytest.raises(StorageError) as raised:
            make_classifier().save_pretrained(tmp_path)
        check(raised, tmp_path, {})

    @pytest.mark.parametrize("moment", [0, 1])
    def test_full_disk_keeps_the_old_model(self, old: Path, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
        files = {path: path.read_bytes() for path in old.iterdir()}
        fail_at(monkeypatch, "fsync", moment)
        with pytest.raises(StorageError) as raised:
            make_classifier(pooling={"kind": "max"}).save_pretrained(old)
        check(raised, old, files)
        ScanClassifier.load(old)

    def test_full_disk_within_the_weights(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files = {path: path.read_bytes() for path in old.iterdir()}

        def cut(weights: object, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("ich_lstm.inference.checkpoint.save_file", cut)
        with pytest.raises(StorageError) as raised:
            make_classifier().save_pretrained(old)
        check(raised, old, files)

    @pytest.mark.parametrize("name", ["fsync", "replace", "open"])
    @pytest.mark.parametrize("moment", range(5))
    def test_a_kill_never_leaves_two_halves(self, old: Path, name: str, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
        class Killed(BaseException):
            pass

        before = read_model(old).hash
        new = make_classifier(pooling={"kind": "max"})
        right, calls = getattr(os, name), []

        def call(*given: Any, **more: Any) -> Any:
            calls.append(given)
            if len(calls) > moment:
                raise Killed
            return right(*given, **more)

        monkeypatch.setattr(f"ich_lstm.files.atomic_write.os.{name}", call)
        with suppress(Killed):
            new.save_pretrained(old)
        monkeypatch.undo()
        if (old / "model.json").exists():
            assert read_model(old).hash in (before, new.weights_hash())
        else:
            with pytest.raises(CheckpointError, match="not_a_model"):
                read_model(old)


class HalfWritten:
    """A file that takes the half of a text before the disk is full."""

    def __init__(self, path: str, mode: str) -> None:
        self.file = open(path, mode)  # noqa: SIM115

    def __enter__(self) -> "HalfWritten":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, text: str) -> None:
        self.file.write(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullFileSystem:
    def isfile(self, path: str) -> bool:
        return Path(path).is_file()

    def open(self, path: str, mode: str, newline: str) -> HalfWritten:
        return HalfWritten(path, mode)


class TestMetrics:
    """``metrics.csv`` grows row by row, and has whole rows when the disk is full."""

    @pytest.mark.parametrize("rows", [0, 1, 7])
    def test_whole_rows(self, tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        (logger,) = make_loggers(None, tmp_path, tmp_path / "private", wandb=None, tensorboard=False)
        for step in range(rows):
            logger.log_metrics({"loss": step / 3}, step)
        path = tmp_path / "metrics.csv"
        before = path.read_bytes() if rows else None
        monkeypatch.setattr(logger.experiment, "_fs", FullFileSystem())
        with pytest.raises(StorageError, match=re.escape(str(tmp_path))):
            logger.log_metrics({"loss": 0.5}, rows)
        assert (path.read_bytes() if path.exists() else None) == before

    @pytest.mark.parametrize("moment", ["fsync", "replace"])
    def test_a_new_column(self, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
        (logger,) = make_loggers(None, tmp_path, tmp_path / "private", wandb=None, tensorboard=False)
        logger.log_metrics({"loss": 0.25}, 0)
        before = (tmp_path / "metrics.csv").read_bytes()
        with monkeypatch.context() as patch:
            fail_at(patch, moment, 0)
            with pytest.raises(StorageError):
                logger.log_metrics({"loss": 0.5, "auc": 0.75}, 1)
        assert (tmp_path / "metrics.csv").read_bytes() == before


def test_no_module_writes_under_the_name_of_a_file() -> None:
    """Whoever writes a file writes it aside, with `atomic_write`."""
    writes = re.compile(r"\.(?:write_text|write_bytes|to_csv|to_parquet|savefig|save_as)\(|\bsave_file\(")
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(ich_lstm.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if writes.search(line) and not re.search(r"unfinished|new_about|new_weights|StringIO|stream|buffer|picture|``", line)
    ]
    assert found == []
