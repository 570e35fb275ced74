"""The commands themselves: killed in the middle, they leave no process; a damaged cache file ends a training with its name."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_parallel import processes_with, wait_until_none

from ich_lstm.data.prepared.folder import CACHE_FOLDER, PreparedFolder

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")


def train_command(prepared: PreparedFolder, phantom: Path, out: Path, *options: str) -> list[str]:
    return [
        *("-m", "ich_lstm.cli.train", "--data.root", str(prepared.folder), "--data.labels", str(phantom / "stage_2_train.csv")),
        *("--data.batches.slices=24", "--model.encoder.backbone=test_resnet", "--model.encoder.pretrained=false"),
        *("--model.head.hidden_size=8", "--trainer.accelerator=cpu", "--out", str(out), *options),
    ]


def environment_of(mark: Path) -> dict[str, str]:
    return {**os.environ, "ICH_LSTM_TEST_MARK": str(mark), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "how"), [(1, signal.SIGKILL), (1, signal.SIGTERM), (1, signal.SIGINT), *3 * [(2, signal.SIGKILL)]]
)
def test_a_training_leaves_no_process(
    processes: int, how: signal.Signals, prepared: PreparedFolder, phantom: Path, tmp_path: Path
) -> None:
    options = ["--data.num_workers=2", "--trainer.max_epochs=1000", f"--trainer.devices={processes}"]
    options += ["--trainer.strategy=ddp"] if processes > 1 else []
    command = [sys.executable, *train_command(prepared, phantom, tmp_path / "run", *options)]
    mark = f"ICH_LSTM_TEST_MARK={tmp_path}"
    with (tmp_path / "log").open("w") as log:
        main = subprocess.Popen(command, env=environment_of(tmp_path), stdout=log, stderr=log)
    until = time.monotonic() + 120
    # The process, a fork server, a resource tracker and two workers for each training process.
    while (len(processes_with(mark)) < 5 * processes or not list(tmp_path.rglob("*.ckpt"))) and time.monotonic() < until:
        assert main.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.2)
    assert len(processes_with(mark)) >= 5 * processes, (tmp_path / "log").read_text()
    main.send_signal(how)
    threading.Thread(target=main.wait, daemon=True).start()
    assert wait_until_none(mark) == {}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_cache_file_is_named(
    workers: int, damage: str, prepared: PreparedFolder, phantom: Path, tmp_path: Path
) -> None:
    """Found while a training runs, which began with whole files."""
    folder = Path(shutil.copytree(prepared.folder, tmp_path / "prepared"))
    options = [f"--data.num_workers={workers}", "--trainer.max_epochs=1000"]
    command = [sys.executable, *train_command(PreparedFolder.open(folder), phantom, tmp_path / "run", *options)]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment_of(tmp_path), **streams, text=True) as main:
        until = time.monotonic() + 120
        while not list(tmp_path.rglob("*.ckpt")) and main.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        files = sorted((folder / CACHE_FOLDER).iterdir())
        for file in files:
            content = file.read_bytes()
            file.unlink()
            if damage != "missing":
                middle = len(content) // 2
                changed = content[:middle] if damage == "truncated" else content[:middle] + b"\xff" * 64 + content[middle + 64 :]
                file.write_bytes(changed)
        _, text = main.communicate(timeout=120)
    line = text.strip().splitlines()[-1]
    assert main.returncode == 1, text
    assert line.startswith("ich-train: CacheError[cache_unreadable]: ")
    assert any(file.name in line for file in files)
    assert "ich-prepare" in line
