"""The processes of a training: which one speaks for all, what signals do to each, and what is said when one is lost."""

import os
import signal
import subprocess
import sys
import threading

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities import rank_zero_only
from torch.distributed import PrefixStore, TCPStore

from ich_lstm.cli.console import FAILED, HANDED_OVER, RESTARTS
from ich_lstm.errors import WorkerError
from ich_lstm.training.checkpoints.interruption import Interruption

SLURM_JOB = "SLURM_JOB_ID"
"""Environment variable with the number of the job."""

VERDICT_SECONDS = 10.0
"""Time that the first process waits for the end of another one after their connection has broken, to name that process."""


def rank() -> int:
    """Rank of this process among all training processes."""
    return int(rank_zero_only.rank)  # type: ignore[attr-defined]


def is_started_by_first() -> bool:
    """Whether Lightning started this process from the first one, which then speaks for it, and with which it ends."""
    return rank() != 0 and HANDED_OVER in os.environ


def heed_signals() -> Interruption:
    """Handle the signals that ask a training to stop; on SLURM also SIGUSR1, which announces the end of the job's time.

    Outside a fit there is nothing to save, so only the first process has something to say. A process that it started ends with
    it. One that torchrun or SLURM started may be waiting for the first one inside a library, where Python cannot raise an error.
    """
    signals = [signal.SIGTERM, signal.SIGINT]
    if SLURM_JOB in os.environ and hasattr(signal, "SIGUSR1"):
        signals.append(signal.SIGUSR1)
    outside = None if rank() == 0 else signal.SIG_IGN if is_started_by_first() else signal.SIG_DFL
    interruption = Interruption(signals, outside)
    interruption.stop_at_once()
    return interruption


def connect_anew(trainer: Trainer) -> None:
    """Connect the processes of a training that torchrun has restarted, apart from what the ended ones have left behind.

    torchrun's store lives on, with the addresses of the processes that have ended, and torch would connect to those. Lightning
    uses a connection that exists.

    Args:
        trainer: The Trainer of the first fit of this process.
    """
    restarts, strategy = int(os.environ.get(RESTARTS[0]) or 0), trainer.strategy
    if restarts == 0 or trainer.world_size == 1 or torch.distributed.is_initialized():
        return
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    torch.distributed.init_process_group(
        torch.distributed.get_default_backend_for_device(strategy.root_device),
        store=PrefixStore(f"restart-{restarts}", TCPStore(host, port, trainer.world_size, is_master=False)),
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )


class ProcessWatch(Callback):
    """Ends a training with an error as soon as a process has ended that Lightning started, also if this one waits for it.

    Lightning's own watch kills all processes without a word, some seconds later.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch; the processes of the first stage run all stages."""
        launcher = trainer.strategy.launcher
        processes = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
        for number, process in enumerate(processes, start=2):
            where = f"process {number} of {trainer.world_size}"
            watch = threading.Thread(target=_watch, args=(process, where), daemon=True, name=f"watch {where}")
            watch.start()
            self._threads.append(watch)

    def wait_for_error(self) -> None:
        """Let the watch end this process, if a process that it watches ends with an error now."""
        for thread in self._threads:
            thread.join(VERDICT_SECONDS / len(self._threads))


def _watch(process: subprocess.Popen[bytes], where: str) -> None:
    code = process.wait()  # until it returns, Lightning's watch, which asks now and then, does not learn of the end
    if code:
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        print(f"ich-train: {process_lost(where, ended)}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(FAILED)  # the main thread may wait forever for the process; all others end with this one


def process_lost(where: str, got: str) -> WorkerError:
    """The error that a process of the training has ended.

    Args:
        where: The process that reports it, or the one that has ended.
        got: What is known.
    """
    return WorkerError(
        "process_lost",
        where=where,
        got=got,
        expected="processes that run to the end",
        todo="Its own error stands above, if it had time for one. Checkpoints are whole: ich-train --resume RUN goes on.",
    )


def requeue() -> str:
    """Ask SLURM to run this job again; SLURM then starts the same command, which goes on with its run.

    Returns:
        What a user is told.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM ends the job that it puts back
    job = os.environ[SLURM_JOB]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
        reason = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"{type(error).__name__}: {error}"
    return f"scontrol requeue {job} failed: {reason}" if reason else f"SLURM runs job {job} again, which goes on"
