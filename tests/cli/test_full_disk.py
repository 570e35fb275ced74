"""A disk that is full, and paths that the locale cannot encode."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from dicom_files import make_series

from ich_lstm.cli import predict, prepare, train
from ich_lstm.errors import StorageError
from ich_lstm.files.full_disk import is_disk_full
from ich_lstm.training.checkpoints.checkpoint_io import WholeCheckpointIO, read_checkpoint


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for number in range(4):
        uid = f"1.2.3.{number}"
        make_series(tmp_path / f"in/{number}", StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", PatientID=f"PAT{number}")
    return tmp_path / "in"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of a given size."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / "small"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("no right to mount a file system")
        mounted.append(folder)
        return folder

    try:
        yield mount
    except FileNotFoundError:
        pytest.skip("no mount")
    finally:
        for folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)


def said_in_one_line(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1, error
    assert "StorageError[disk_full]" in error
    assert str(folder) in error
    return error


class TestSmallDisk:
    def test_prepare(self, studies: Path, small_disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
        out = small_disk("40k") / "out"
        assert prepare.main([str(studies), "--out", str(out), "--size", "64"]) == 1
        error = said_in_one_line(capsys, out)
        assert "The scans in the cache are complete" in error
        assert not list(out.rglob("*.unfinished"))

    def test_predict_and_go_on_where_there_is_room(
        self, studies: Path, model_folder: Path, small_disk: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        disk = small_disk("900k")
        arguments = [str(studies), "--checkpoint", str(model_folder), "--out", str(disk / "out")]
        filler = disk / "filler"
        filler.write_bytes(bytes(700 << 10))
        assert predict.main(arguments) == 1
        error = said_in_one_line(capsys, disk / "out")
        assert "Make room, and run the same command again" in error
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert predict.main(arguments) == 0
        assert list(pd.read_csv(disk / "out/scans.csv")["status"]) == ["ok"] * 4

    def test_train(
        self, phantom: Path, small_disk: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = small_disk("1m") / "run"  # too small for a checkpoint
        data = ["--data.root", str(phantom), "--data.preprocessing.size=32", "--data.cache_dir", str(tmp_path / "cache")]
        model = ["--model.encoder.backbone=test_resnet", "--model.encoder.pretrained=false", "--model.head.hidden_size=8"]
        assert train.main([*data, *model, "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--out", str(out)]) == 1
        said_in_one_line(capsys, out)

    @pytest.mark.parametrize("room", [0, 64, 4096, 70_000])
    def test_checkpoint(self, room: int, small_disk: Callable[[str], Path]) -> None:
        """A real disk, because torch reports a full one in its own way, which depends on the byte at which it is full."""
        disk = small_disk("400k")
        former = {"step": torch.zeros(10)}
        WholeCheckpointIO().save_checkpoint(former, disk / "last.ckpt")
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free // 4096 * 4096 - room // 4096 * 4096))
        for _ in range(3):
            with pytest.raises(StorageError) as caught:
                WholeCheckpointIO().save_checkpoint({"step": torch.zeros(100_000)}, disk / "last.ckpt")
            assert caught.value.code == "disk_full"
            assert str(disk) in str(caught.value)
            assert sorted(path.name for path in disk.iterdir()) == ["filler", "last.ckpt"]
            torch.testing.assert_close(read_checkpoint(disk / "last.ckpt"), former)


class TestSimulated:
    """Without any right: the system's call fails as on a full disk or beyond a quota."""

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("good", [0, 3, 8])
    def test_predict_says_what_is_needed(
        self,
        number: int,
        good: int,
        studies: Path,
        model_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        replace, calls = os.replace, []

        def fail(*names: object) -> None:
            calls.append(names)
            if len(calls) > good:
                raise OSError(number, os.strerror(number))
            replace(*names)

        monkeypatch.setattr("ich_lstm.files.atomic_write.os.replace", fail)
        out = tmp_path / "out"
        assert predict.main([str(studies), "--checkpoint", str(model_folder), "--out", str(out)]) == 1
        error = said_in_one_line(capsys, out)
        assert ("of 4 that are not done" in error) == (good == 8)
        assert not list(tmp_path.rglob("*.unfinished"))

    def test_what_a_library_says_of_it_counts_too(self) -> None:
        def raised(error: Exception, cause: Exception | None = None) -> Exception:
            error.__cause__ = cause
            return error

        assert is_disk_full(RuntimeError("PytorchStreamWriter: No space left on device"))
        assert is_disk_full(raised(ValueError("could not write"), OSError(errno.ENOSPC, "full")))
        assert not is_disk_full(raised(ValueError("could not write"), OSError(errno.EACCES, "denied")))
        assert not is_disk_full(KeyError("space"))


IN_ONE_PROCESS = """
import sys
from ich_lstm.cli import predict, prepare
codes, commands, words = [], {"predict": predict, "prepare": prepare}, sys.argv[1:]
while words:
    end = words.index(";")
    sys.argv = words[:end]
    codes.append(commands[words[0]].main())
    del words[:end + 1]
print("\\nexit codes:", codes)
"""
"""Begins anew in UTF-8 with its first command, as every process of a command does; a semicolon ends the words of each."""


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        pytest.param(
            {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
            marks=pytest.mark.slow,
        ),
        pytest.param({"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
    ],
    ids=["C", "POSIX", "ascii terminal"],
)
def test_an_umlaut_that_the_locale_cannot_encode(locale: dict[str, str], model_folder: Path, tmp_path: Path) -> None:
    make_series(tmp_path / "Bücher/für Ärzte")
    commands = [
        ("predict", "Bücher", "--checkpoint", str(model_folder), "--out", "Vorhersägen"),
        ("predict", "nichts für Ärzte", "--checkpoint", str(model_folder), "--out", "leer"),
        ("prepare", "Bücher", "--out", "vorbereitet für", "--size", "32"),
        ("prepare", "Bücher", "--check"),
    ]
    if locale["LC_ALL"] != "C":  # every command once is enough: each begins anew in the same way
        commands = commands[:1]
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS, *(word for command in commands for word in (*command, ";"))],
        cwd=tmp_path,
        env={**os.environ, **locale},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith(b"exit codes:")] == [
        b"exit codes: " + str([0, 1, 0, 0][: len(commands)]).encode()
    ], done.stderr
    assert b"Encode" not in done.stdout + done.stderr
    ledger = pd.read_csv(tmp_path / "Vorhersägen/private/ledger.csv")
    assert ledger["path"].str.contains("/Bücher/für Ärzte/").all()
