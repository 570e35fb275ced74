"""ich-train in two processes: stopped, killed, restarted by torchrun, requeued by SLURM; the same weights as without a fault."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch
from test_parallel import wait_until_none

from ich_lstm.data.prepared.folder import PreparedFolder

pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc"),
]

SAVED_SECONDS = 10
"""Longest time from a signal to the line that says where all is saved."""

LOST_SECONDS = 30
"""Longest time from the end of a process to the last line of the others."""

LONGEST = 60
"""Longest time from the last line to the end of all processes."""

PROBE = '''
import os
import signal
import time
from pathlib import Path

from pytorch_lightning import Callback


class Fault(Callback):
    """Does something to a process or to its group after a step, once."""

    def __init__(self, folder: str, rank: int, step: int, what: str) -> None:
        self.done, self.rank, self.step, self.what = Path(folder) / "fault", rank, step, what

    def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
        if (trainer.global_rank, trainer.global_step) != (self.rank, self.step) or self.done.exists():
            return
        self.done.write_text(str(time.time()))
        if self.what == "raise":
            raise ValueError("the fault of this test")
        name, *how = self.what.split()
        if how == ["group"]:
            os.killpg(0, getattr(signal, name))
        else:
            os.kill(os.getpid(), getattr(signal, name))
        if how == ["twice"]:
            time.sleep(1.5)
            os.kill(os.getpid(), getattr(signal, name))
'''


class Fault(NamedTuple):
    """What happens to a training.

    Args:
        what: ``raise``, or the name of a signal; with ``group`` all processes get it, with ``twice`` the one gets it twice.
        rank: Rank of the process to which it happens, or that sends the signal.
        step: Number of steps after which it happens; there are two in an epoch.
    """

    what: str
    rank: int = 0
    step: int = 3


class Done(NamedTuple):
    """A command that has ended.

    Args:
        code: Exit code.
        text: All that its processes have printed.
        seconds: Time from the fault to the last line that was printed; 0 if there was no fault.
    """

    code: int
    text: str
    seconds: float


class Runs:
    """Starts trainings in two processes, which all have ended afterwards.

    Args:
        folder: Folder for the runs.
        data: Options that name the data.
    """

    def __init__(self, folder: Path, data: Sequence[str]) -> None:
        self.folder = folder
        (folder / "probe.py").write_text(PROBE)
        self.options = [
            *data,
            *("--data.batches.slices=12", "--model.encoder.backbone=test_resnet", "--model.encoder.pretrained=false"),
            *("--model.encoder.dropout=0.3", "--model.head.hidden_size=8", "--model.head.input_dropout=0.3", "--model.ema=0.8"),
            *("--trainer.accelerator=cpu", "--trainer.max_epochs=3", "--trainer.precision=32-true"),
            *("--trainer.devices=2", "--trainer.strategy=ddp"),
        ]

    def start(
        self,
        out: Path,
        *options: str,
        fault: Fault | None = None,
        resume: bool = False,
        launcher: Sequence[str] = (),
        variables: dict[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        """Start a training; a fault happens only once in a folder."""
        words = ["--resume", str(out), "--trust-config"] if resume else [*self.options, "--out", str(out)]
        if fault is not None:
            given = {"folder": str(out.parent), **fault._asdict()}
            words += [f"--trainer.callbacks={{class_path: probe.Fault, init_args: {given}}}"]
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "ich_lstm.cli.train", *words, *options],
            env=self.environment | (variables or {}),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        paths = [str(self.folder), *filter(None, sys.path)]
        own = {"ICH_LSTM_TEST_MARK": str(self.folder), "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **own, "PYTHONWARNINGS": ""}

    def run(self, out: Path, *options: str, **how: Any) -> Done:
        """Run a training to its end, and check that no process of it is left."""
        out.parent.mkdir(parents=True, exist_ok=True)
        process = self.start(out, *options, **how)
        return self.ended(out, process)

    def ended(self, out: Path, process: "subprocess.Popen[str]", *, alone: bool = True) -> Done:
        """Wait for the end of a training, and check that no process of it is left, if it runs alone."""
        fault, text, seconds = out.parent / "fault", "", 0.0
        assert process.stdout is not None
        for line in process.stdout:
            text += line
            seconds = time.time() - float(fault.read_text() or time.time()) if fault.exists() else 0.0
        process.stdout.close()
        code = process.wait(timeout=LONGEST)
        assert not alone or wait_until_none(f"ICH_LSTM_TEST_MARK={self.folder}") == {}, text
        return Done(code, text, seconds)


def result_of(out: Path) -> dict[str, Any]:
    """What must be equal, bit for bit: the weights, their moving average, the curves, and the predictions."""
    last = torch.load(out / "checkpoints/last.ckpt", weights_only=True)
    weights = {name: value.numpy().tobytes() for name, value in last["state_dict"].items()}
    curves = pd.read_csv(out / "metrics.csv")
    return {
        "weights": weights,
        "trained": {name: value.numpy().tobytes() for name, value in last["current_model_state"].items()},
        "model": b"".join(path.read_bytes() for path in sorted((out / "model").glob("*.safetensors"))),
        "curves": curves[[name for name in curves if "loss" in name or "monitor" in name]].to_csv(),
        "predictions": [path.read_text() for path in sorted((out / "predictions").glob("*.csv"))],
    }


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def torchrun(*options: str) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *options]


@pytest.fixture(scope="session")
def data_options(prepared: PreparedFolder, phantom: Path) -> list[str]:
    return ["--data.root", str(prepared.folder), "--data.labels", str(phantom / "stage_2_train.csv")]


@pytest.fixture
def runs(data_options: list[str], tmp_path: Path) -> Iterator[Runs]:
    yield Runs(tmp_path, data_options)
    wait_until_none(f"ICH_LSTM_TEST_MARK={tmp_path}")


@pytest.fixture(scope="session")
def unbroken(data_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result without a fault."""
    folder = tmp_path_factory.mktemp("unbroken")
    done = Runs(folder, data_options).run(folder / "run")
    assert done.code == 0, done.text
    return result_of(folder / "run")


def said(text: str) -> list[str]:
    """The lines of errors and of stops."""
    return [line for line in text.splitlines() if line.startswith("ich-train: ")]


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


class TestStopped:
    @pytest.mark.parametrize(
        ("what", "rank", "workers", "code"),
        [
            slow("SIGTERM group", 0, 2, 143),
            slow("SIGTERM group", 0, 0, 143),
            slow("SIGTERM", 0, 0, 143),
            slow("SIGTERM", 1, 0, 143),
            slow("SIGINT group", 0, 2, 130),
            slow("SIGINT", 0, 0, 130),
            slow("SIGINT", 1, 2, 130),
        ],
    )
    def test_it_is_saved_and_goes_on(
        self, what: str, rank: int, workers: int, code: int, runs: Runs, unbroken: dict[str, Any], tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        stopped = runs.run(out, f"--data.num_workers={workers}", fault=Fault(what, rank))
        assert stopped.code == code, stopped.text
        assert stopped.seconds < SAVED_SECONDS
        (line,) = said(stopped.text)
        assert f"Everything is saved in {out / 'checkpoints/last.ckpt'}. Go on with: ich-train --resume {out}" in line
        assert "Traceback" not in stopped.text
        done = runs.run(out, resume=True)
        assert done.code == 0, done.text
        assert result_of(out) == unbroken

    @pytest.mark.slow
    @pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("moment", [0.5, 4.0, 8.0])
    def test_before_the_first_step_it_stops_at_once(
        self, signum: signal.Signals, moment: float, runs: Runs, tmp_path: Path
    ) -> None:
        """Signals to the first process alone, while the second one starts or both wait for each other."""
        process = runs.start(tmp_path / "run")
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith("files: "):
                break
        time.sleep(moment)
        process.send_signal(signum)
        done = runs.ended(tmp_path / "run", process)
        assert done.code == 128 + signum or (done.code == 0 and moment > 1), done.text
        assert "Traceback" not in done.text

    @pytest.mark.slow
    def test_a_second_ctrl_c_stops_at_once(self, runs: Runs, tmp_path: Path) -> None:
        done = runs.run(tmp_path / "run", fault=Fault("SIGINT twice"))
        assert done.code == 130, done.text
        (line,) = said(done.text)
        assert "Everything is saved" not in line

    @pytest.mark.slow
    @pytest.mark.parametrize("what", ["SIGTERM group", "SIGINT group"])
    def test_one_process_with_workers(self, what: str, runs: Runs, tmp_path: Path) -> None:
        alone = ["--trainer.devices=1", "--trainer.strategy=auto", "--data.num_workers=2", "--trainer.max_epochs=3"]
        assert runs.run(tmp_path / "whole/run", *alone).code == 0
        stopped = runs.run(tmp_path / "stopped/run", *alone, fault=Fault(what, step=6))
        assert stopped.code == (143 if "TERM" in what else 130), stopped.text
        assert stopped.seconds < SAVED_SECONDS
        done = runs.run(tmp_path / "stopped/run", resume=True)
        assert done.code == 0, done.text
        assert result_of(tmp_path / "stopped/run") == result_of(tmp_path / "whole/run")


class TestLost:
    @pytest.mark.parametrize(
        ("what", "rank"),
        [("SIGKILL", 1), slow("raise", 1), slow("raise", 0), slow("SIGKILL", 0), slow("SIGSEGV", 1)],
    )
    def test_its_error_ends_the_run(self, what: str, rank: int, runs: Runs, tmp_path: Path) -> None:
        done = runs.run(tmp_path / "run", fault=Fault(what, rank))
        assert done.code == (1 if what == "raise" or rank else -signal.SIGKILL), done.text
        assert done.seconds < LOST_SECONDS
        lines = said(done.text)
        if what == "raise":
            assert sum("ValueError: the fault of this test" in line for line in lines) == 1
        if rank == 1:
            ended = "ended with exit code 1" if what == "raise" else f"killed by {what}"
            assert f"WorkerError[process_lost]: process 2 of 2: {ended}" in lines[-1]

    @pytest.mark.slow
    @pytest.mark.parametrize(("what", "rank"), [("SIGKILL", 0), ("raise", 0), ("raise", 1)])
    def test_under_torchrun(self, what: str, rank: int, runs: Runs, tmp_path: Path) -> None:
        done = runs.run(tmp_path / "run", fault=Fault(what, rank), launcher=torchrun())
        assert done.code not in (0, None)
        assert done.seconds < LOST_SECONDS
        if what == "raise":
            assert sum("ValueError: the fault of this test" in line for line in said(done.text)) == 1
        else:
            assert "Signal 9 (SIGKILL)" in done.text


class TestTorchrun:
    @pytest.mark.parametrize(
        ("what", "rank", "minutes"),
        [("SIGKILL", 1, 1e-6), slow("SIGKILL", 0, 1e-6), slow("raise", 1, 1e-6), slow("raise", 0, 15), slow("SIGKILL", 1, 15)],
    )
    def test_it_restarts_and_goes_on(
        self, what: str, rank: int, minutes: float, runs: Runs, unbroken: dict[str, Any], tmp_path: Path
    ) -> None:
        """From the checkpoint of the last step, or from that of the last validation."""
        out = tmp_path / "run"
        done = runs.run(out, f"--checkpoint_minutes={minutes}", fault=Fault(what, rank), launcher=torchrun("--max-restarts=2"))
        assert done.code == 0, done.text
        assert (tmp_path / "fault").exists()
        assert result_of(out) == unbroken
        assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"fault", "probe.py", "run"}

    @pytest.mark.slow
    @pytest.mark.parametrize("step", [1, 2])
    def test_a_fault_before_the_first_checkpoint_begins_anew(
        self, step: int, runs: Runs, unbroken: dict[str, Any], tmp_path: Path
    ) -> None:
        done = runs.run(tmp_path / "run", fault=Fault("SIGKILL", 1, step), launcher=torchrun("--max-restarts=1"))
        assert done.code == 0, done.text
        assert result_of(tmp_path / "run") == unbroken

    @pytest.mark.slow
    @pytest.mark.parametrize(("what", "code"), [("SIGTERM group", 143), ("SIGINT group", 130)])
    def test_a_signal_to_all_saves(self, what: str, code: int, runs: Runs, unbroken: dict[str, Any], tmp_path: Path) -> None:
        """torchrun repeats the signal to its processes; that is no second Ctrl-C."""
        out = tmp_path / "run"
        stopped = runs.run(out, fault=Fault(what), launcher=torchrun())
        assert stopped.code != 0
        assert f"Everything is saved in {out / 'checkpoints/last.ckpt'}" in stopped.text
        done = runs.run(out, resume=True, launcher=torchrun())
        assert done.code == 0, done.text
        assert result_of(out) == unbroken

    @pytest.mark.slow
    def test_without_a_folder_it_is_said(self, runs: Runs, tmp_path: Path) -> None:
        process = subprocess.run(
            [sys.executable, *torchrun(), "-m", "ich_lstm.cli.train", *runs.options],
            env=runs.environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert process.returncode != 0
        assert "ConfigError[no_out]" in process.stderr


SCONTROL = """#!/bin/sh
echo "$@" >> "$SCONTROL_LOG"
exit $SCONTROL_CODE
"""


class TestSlurm:
    def job(self, runs: Runs, out: Path, *options: str, restarts: int = 0, code: int = 0, **how: Any) -> tuple[Done, Done]:
        """Run the two tasks of a job as srun does, with a `scontrol` that only notes what it is told."""
        programs = runs.folder / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "scontrol").write_text(SCONTROL)
        (programs / "scontrol").chmod(0o755)
        variables = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "SCONTROL_LOG": str(runs.folder / "scontrol.log"),
            "SCONTROL_CODE": str(code),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": "train",
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_NNODES": "1",
            "SLURM_NODEID": "0",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_RESTART_COUNT": str(restarts),
            "MASTER_PORT": str(port()),
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        tasks = [
            runs.start(out, *options, variables=variables | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}, **how)
            for rank in range(2)
        ]
        first, second = (runs.ended(out, task, alone=False) for task in tasks)
        assert wait_until_none(f"ICH_LSTM_TEST_MARK={runs.folder}") == {}, first.text + second.text
        return first, second

    @pytest.mark.parametrize(("rank", "workers"), [slow(0, 2), slow(1, 0), slow(0, 0)])
    def test_it_saves_is_requeued_and_goes_on(
        self, rank: int, workers: int, runs: Runs, unbroken: dict[str, Any], tmp_path: Path
    ) -> None:
        out, options = tmp_path / "run", f"--data.num_workers={workers}"
        first, second = self.job(runs, out, options, fault=Fault("SIGUSR1 group", rank))
        assert (first.code, second.code) == (138, 0), first.text + second.text
        assert f"Everything is saved in {out / 'checkpoints/last.ckpt'}" in said(first.text)[0]
        assert said(first.text)[1:] == ["ich-train: SLURM runs job 4711 again, which goes on"]
        assert said(second.text) == []
        assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
        assert not list(out.rglob("hpc_ckpt*"))
        again = self.job(runs, out, options, restarts=1)
        assert [done.code for done in again] == [0, 0], again[0].text + again[1].text
        assert result_of(out) == unbroken

    @pytest.mark.slow
    def test_a_requeue_that_fails_is_told(self, runs: Runs, tmp_path: Path) -> None:
        first, _ = self.job(runs, tmp_path / "run", code=1, fault=Fault("SIGUSR1"))
        assert first.code == 138
        assert said(first.text)[-1] == "ich-train: scontrol requeue 4711 failed: exit code 1"
