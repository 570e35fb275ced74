"""Kill a training again and again, at any moment, and compare what it gives with a training that was never killed.

Command:  python examples/benchmarks/kills.py --out kills
Time:     about 15 minutes on two cores for 60 kills. Exit code 0 if every run equals the one that was never killed.

A training of synthetic heads has three stages, one of them on stored features, dropout, a moving average of the weights and two
loader processes. It is run once as it is. Then it is run again, and killed with SIGKILL several times before it may end; each
time it is resumed with ``ich-train --resume``. A third of the kills come at the moment a checkpoint is being written; some runs
have their temporary folder on another file system. At the end the weights, the checkpoints' states, the predictions and the
logged values must be the same, bit for bit, and no checkpoint may have been lost.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ich_lstm.cli.training.run_folder import PROGRESS_FILE, private_config
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.training.checkpoints.checkpoint_io import BEFORE_LAST, LAST, damage_in

RECIPE = """
data:
  preprocessing: {size: 64}
  batches: {slices: 24}
  num_workers: 2
model:
  encoder: {backbone: test_resnet, pretrained: false, dropout: 0.2}
  head: {class_path: LSTM, init_args: {hidden_size: 16, num_layers: 1, input_dropout: 0.2, output_dropout: 0.2}}
stages:
  warm-up: {train: encoder, max_epochs: 2, optimizer: {encoder_lr: 0.003}}
  head: {train: head, features: stored, views: 1, max_epochs: 3, optimizer: {lr: 0.003}}
  joint: {max_epochs: 3, ema: 0.9, optimizer: {lr: 0.003, encoder_lr: 0.001}}
trainer: {accelerator: cpu, precision: 32-true}
checkpoint_minutes: 0.002
"""

SHARED_MEMORY = Path("/dev/shm")  # another file system than that of the runs, on every Linux
"""A temporary folder on another file system."""

LONGEST = 300
"""Seconds after which a training counts as hanging."""


def main() -> int:
    given = _arguments()
    given.out.mkdir(parents=True)
    write_phantom(PhantomSettings(patients=14, slices=12, size=64), given.out / "heads")
    (given.out / "recipe.yaml").write_text(RECIPE)
    began = time.monotonic()
    _finish(_start(given, given.out / "whole"))
    seconds = time.monotonic() - began
    whole = outcome(given.out / "whole")
    draw = random.Random(given.seed)
    kills: dict[str, int] = {"at random": 0, "while a checkpoint was written": 0, "with the temporary folder elsewhere": 0}
    wrong: list[str] = []
    number = 0
    while sum(kills.values()) < given.kills:
        number += 1
        folder = given.out / f"run-{number}"
        elsewhere = kills["with the temporary folder elsewhere"] < given.kills // 12
        process = _start(given, folder, elsewhere=elsewhere)
        for _ in range(min(given.each, given.kills - sum(kills.values()))):
            writes = kills["while a checkpoint was written"] < given.kills // 3 and not elsewhere
            if not _kill(process, folder, draw.uniform(0, seconds), at_writing=writes):
                break  # it had ended before
            kind = (
                "with the temporary folder elsewhere"
                if elsewhere
                else "while a checkpoint was written"
                if writes
                else "at random"
            )
            kills[kind] += 1
            wrong += [f"{folder.name}: {path.name} is lost" for path in _lost(folder)]
            process = _start(given, folder, resume=True, elsewhere=elsewhere)
        _finish(process)
        now = outcome(folder)
        wrong += [f"{folder.name}: {name} differs" for name in whole if now.get(name) != whole[name]]
        print(f"run {number}: {kills}, {len(wrong)} faults", flush=True)
        shutil.rmtree(folder)
    result = {"kills": kills, "runs": number, "seconds_of_a_run": round(seconds, 1), "faults": wrong}
    (given.out / "kills.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return int(bool(wrong))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=60, help="kills in all")
    parser.add_argument("--each", type=int, default=5, help="most kills of one run")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills")
    return parser.parse_args()


def _start(given: argparse.Namespace, folder: Path, *, resume: bool = False, elsewhere: bool = False) -> subprocess.Popen[bytes]:
    """Begin or resume a training; one that was killed before its folder was a run's begins anew."""
    command = [sys.executable, "-m", "ich_lstm.cli.train"]
    if resume and (folder / PROGRESS_FILE).is_file() and private_config(folder).is_file():
        command += ["--resume", str(folder)]
    else:
        heads = given.out / "heads"
        command += ["--config", str(given.out / "recipe.yaml"), "--out", str(folder), "--data.root", str(heads)]
        command += ["--data.cache_dir", str(given.out / "prepared")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if elsewhere:
        environment["TMPDIR"] = str(SHARED_MEMORY)
    log = given.out / f"{folder.name}.log"
    with log.open("ab") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait(LONGEST):
        raise SystemExit(f"a training ended with {process.returncode}; see the logs")


def _kill(process: subprocess.Popen[bytes], folder: Path, after: float, *, at_writing: bool) -> bool:
    """Kill a training after some seconds, or as soon as a checkpoint is being written after them; False if it ended before."""
    moment = time.monotonic() + after / (4 if at_writing else 1)
    while process.poll() is None:
        is_writing = any(folder.rglob("checkpoints/.*.unfinished")) if at_writing else True
        if time.monotonic() >= moment and is_writing:
            process.send_signal(signal.SIGKILL)
            process.wait(LONGEST)
            return True
        time.sleep(0.0005 if at_writing else 0.01)
    return False


def _lost(folder: Path) -> list[Path]:
    """Checkpoints that are not whole."""
    names = (LAST, BEFORE_LAST, "best.ckpt")
    return [path for path in folder.rglob("*.ckpt") if path.name in names and damage_in(path) is not None]


def outcome(folder: Path) -> dict[str, Any]:
    """What a run gives, as digests by name of the file."""
    files = ["model/model.safetensors", "model/model.json", "predictions/slices.csv", "predictions/scans.csv", "metrics.csv"]
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    for path in sorted(folder.rglob("*.ckpt")):
        found[str(path.relative_to(folder))] = _digest(torch.load(path, weights_only=True)) if path.name != BEFORE_LAST else None
    return found


def _digest(value: Any) -> str:
    """A digest of nested tensors and plain values."""
    if isinstance(value, torch.Tensor):
        content = (
            str((value.dtype, tuple(value.shape))).encode()
            + value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    elif isinstance(value, dict):
        content = "".join(f"{key}:{_digest(item)};" for key, item in value.items()).encode()
    elif isinstance(value, list | tuple):
        content = "".join(_digest(item) for item in value).encode()
    else:
        content = repr(value).encode()
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
