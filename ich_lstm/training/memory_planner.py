"""Finds by trial how many slices fit into the memory of a device during training."""

import gc
import math
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ich_lstm.data.loading.batch import ScanBatch
from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS
from ich_lstm.models.scan_model import ModelSettings, ScanModel
from ich_lstm.parallel import end_with_parent, undisturbed
from ich_lstm.training.losses import weighted_loss_sums
from ich_lstm.unexpected import is_out_of_memory

MOST_SLICES = 512
"""The largest batch that a plan proposes, in slices. Large devices could hold more, but an epoch would have few steps."""

FEWEST_SLICES = 64
"""The smallest batch that is tried with chunks, in slices: more than a scan of usual length. A longer scan gets a batch of its
own, and may need slightly more memory than the trial."""

USABLE_SHARE = 0.85
"""Share of the free memory that a plan may use. Fragmentation, the loader, and scans longer than the budget need the rest."""

SCAN_SLICES = 32
"""Slices of each scan in a trial; how the slices are divided into scans has little effect on memory."""

GROWTH = 4
"""Factor by which the number of slices grows from trial to trial, until one does not fit."""

MIB = 2**20


class MemoryPlan(NamedTuple):
    """Settings with which a training step fits into memory.

    Args:
        slices_per_chunk: Value for ``model.encoder.slices_per_chunk``; None if a whole batch fits without recomputation.
        slices_per_batch: Value for ``data.batches.slices``.
        needed: Peak memory of the trial with these two values, in bytes.
        available: Free memory per process in bytes, times `USABLE_SHARE`.
    """

    slices_per_chunk: int | None
    slices_per_batch: int
    needed: int
    available: int

    def __str__(self) -> str:
        chunk = "null" if self.slices_per_chunk is None else self.slices_per_chunk
        return (
            f"--data.batches.slices {self.slices_per_batch} --model.encoder.slices_per_chunk {chunk}   "
            f"({self.needed / MIB:,.0f} of {self.available / MIB:,.0f} MiB)"
        )


class Trial(NamedTuple):
    """A training step to try.

    Args:
        slices: Number of slices in the batch.
        chunk: Slices in each chunk of the encoder; None to encode all slices at once.
        size: Side length of the square slices in pixels.
    """

    slices: int
    chunk: int | None
    size: int


def plan_memory(
    settings: ModelSettings,
    *,
    size: int,
    device: torch.device,
    precision: str,
    processes: int = 1,
    slices_per_batch: int | None = None,
    seconds: float = math.inf,
    begin: Callable[[Trial], None] = lambda trial: None,
    progress: Callable[[Trial, int | None], None] = lambda trial, needed: None,
    measure: Callable[[Trial], int | None] | None = None,
    available: int | None = None,
) -> MemoryPlan:
    """Find the largest batch, and then the largest chunk, with which a training step fits into the memory of a device.

    On a CPU, every trial runs in its own process, whose peak memory is read. On a GPU, torch's statistics are read.

    Args:
        settings: Settings of the network.
        size: Side length of the square input in pixels.
        device: The device that will train.
        precision: Precision of the training, by Lightning's name: ``32-true``, ``bf16-mixed`` and so on.
        processes: Number of training processes that share the memory of the device: all of them on a CPU, one on a GPU.
        slices_per_batch: Size of the batch, if it is given; then only the chunk is searched. None to search both.
        seconds: Time limit of the search. When it is over, the plan is the largest batch that is known to fit without chunks.
        begin: Called with every trial before it starts, because one may take minutes.
        progress: Called after every trial with the trial and its peak memory in bytes; None if it did not fit.
        measure: Replaces a real trial, for tests; it gives the peak memory in bytes, or None if the trial did not fit.
        available: Replaces the free memory of the device, in bytes.

    Raises:
        ConfigError: If one slice does not fit, if the given batch does not fit, or if the time limit ended the search before a
            batch was known to fit.
    """
    deadline = time.monotonic() + seconds
    room = int(USABLE_SHARE * (_free_memory(device) if available is None else available) / processes)
    try_out = measure or (lambda trial: _measure(settings, trial, device, precision, deadline))

    def fits(slices: int, chunk: int | None) -> int | None:
        trial = Trial(slices, chunk, size)
        if time.monotonic() >= deadline:
            raise _OutOfTime
        begin(trial)
        needed = try_out(trial)
        progress(trial, needed)
        return needed if needed is not None and needed <= room else None

    search = _Search(fits, slices_per_batch or MOST_SLICES, is_settled=slices_per_batch is not None)
    try:
        return search.run(device, room, size)
    except _OutOfTime:
        if search.good and slices_per_batch is None:
            return MemoryPlan(None, search.good, search.needed, room)
        raise ConfigError(
            "plan_timeout",
            where=f"{slices_per_batch or 1} slices of {size} x {size} on {device}",
            got=f"nothing that fits after {seconds:.0f} s" if not search.good else f"{search.good} slices after {seconds:.0f} s",
            expected="trials that end within the time limit",
            todo="Raise --plan_minutes, or give data.batches.slices and model.encoder.slices_per_chunk as numbers.",
        ) from None


class _OutOfTime(Exception):
    """The time limit of the search has passed."""


class _Search:
    """The search for a plan. It keeps the largest batch that is known to fit, for the case that the time limit ends it.

    Args:
        fits: Tries a number of slices with a chunk size (None for no chunks), and gives the peak memory in bytes; None if it does
            not fit.
        most: The largest batch to try, in slices.
        is_settled: Whether the batch must have exactly this size.
    """

    def __init__(self, fits: Callable[[int, int | None], int | None], most: int, *, is_settled: bool) -> None:
        self.fits, self.most, self.is_settled = fits, most, is_settled
        self.good, self.needed = 0, 0

    def run(self, device: torch.device, room: int, size: int) -> MemoryPlan:
        """Search the largest batch and the largest chunk.

        Args:
            device: The device, for errors.
            room: Memory that may be used, in bytes.
            size: Side length of the square input in pixels, for errors.

        Raises:
            ConfigError: ``no_room``, if one slice or the smallest batch does not fit.
        """
        if not self._fits_at_once(1):
            raise _no_room(device, room, f"one slice of {size} x {size}")
        # A chunk needs about as much memory as a batch of its size. Every trial takes seconds, so the first steps are large.
        bad: int | None = None
        while self.good < self.most and bad is None:
            wider = min(self.most, self.good * GROWTH)
            bad = None if self._fits_at_once(wider) else wider
        if bad is None:
            return MemoryPlan(None, self.most, self.needed, room)
        while bad - self.good > max(1, self.good // 8):
            middle = (self.good + bad) // 2
            bad = bad if self._fits_at_once(middle) else middle
        # The rest of the batch needs some memory too. A chunk of down to half the size is preferred to a smaller batch.
        batch, good = self.most, self.good
        while True:
            for chunk in sorted({good, good * 3 // 4, max(1, good // 2)} - {0}, reverse=True):
                together = self.fits(batch, chunk)
                if together is not None:
                    return MemoryPlan(chunk, batch, together, room)
            if batch <= FEWEST_SLICES or self.is_settled:
                raise _no_room(device, room, f"{batch} slices of {size} x {size} in chunks of {chunk}")
            batch //= 2

    def _fits_at_once(self, slices: int) -> bool:
        """Whether a batch fits without chunks; if so, it is kept as the largest known one."""
        needed = self.fits(slices, None)
        if needed is not None:
            self.good, self.needed = slices, needed
        return needed is not None


def _no_room(device: torch.device, room: int, what: str) -> ConfigError:
    return ConfigError(
        "no_room",
        where=str(device),
        got=f"{room / MIB:,.0f} MiB, too little for {what}",
        expected="enough memory for a training step",
        todo="Choose a smaller backbone, input or batch.",
    )


def _measure(
    settings: ModelSettings, trial: Trial, device: torch.device, precision: str, deadline: float = math.inf
) -> int | None:
    """Peak memory of a training step in bytes, or None if it did not fit."""
    if device.type != "cuda":
        return _measure_in_child(settings, trial, precision, deadline)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _step(settings, trial, device, precision)
        return int(torch.cuda.max_memory_reserved(device))
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def _measure_in_child(settings: ModelSettings, trial: Trial, precision: str, deadline: float = math.inf) -> int | None:
    """Peak memory of a training step in a child process in bytes, or None if it did not fit."""
    context = multiprocessing.get_context("spawn")  # a forked process would start with the memory of this one
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sending, settings, trial, precision), daemon=True)
    with undisturbed():
        child.start()
    sending.close()
    if not receiving.poll(None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())):
        child.kill()
        child.join()
        raise _OutOfTime
    try:
        answer: int | str | None = receiving.recv()
    except EOFError:
        child.join()
        # A negative exit code is a signal, most likely because memory ran out. The child reports all other failures itself.
        answer = None if (child.exitcode or 0) < 0 else f"the process ended with code {child.exitcode}"
    child.join()
    if isinstance(answer, str):
        raise ConfigError(
            "trial_failed",
            where=f"{trial.slices} slices of {trial.size} x {trial.size}",
            got=answer,
            expected="a training step",
            todo="Check the backbone and the size of the input.",
        )
    return answer


def _child(connection: Connection, settings: ModelSettings, trial: Trial, precision: str) -> None:
    """Run a trial, and send its peak memory in bytes, None if memory ran out, or a text that describes another error."""
    end_with_parent()
    try:
        _step(settings, trial, torch.device("cpu"), precision)
        connection.send(_peak_memory())
    except Exception as error:
        connection.send(None if is_out_of_memory(error) else f"{type(error).__name__}: {str(error).splitlines()[0]}")


def _peak_memory() -> int:
    """Peak memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # preferred, because ru_maxrss is at least the memory of the parent process
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    # ru_maxrss is in KiB, but in bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _step(settings: ModelSettings, trial: Trial, device: torch.device, precision: str) -> None:
    """Run two training steps with AdamW. Its state is allocated in the first, so the second has the full peak of memory."""
    encoder = replace(settings.encoder, pretrained=False, pretrained_file=None, slices_per_chunk=trial.chunk)
    model = ScanModel(replace(settings, encoder=encoder))
    model.to(device).train()
    if model.reducer is not None and model.reducer.needs_fit:
        _pretend_fitted(model)
    optimizer = torch.optim.AdamW(model.parameters())
    batch = _make_batch(trial, device)
    is_mixed = precision in ("bf16-mixed", "16-mixed")
    kind = torch.float16 if precision.startswith("16") else torch.bfloat16
    for _ in range(2):
        with torch.autocast(device.type, dtype=kind) if is_mixed else nullcontext():
            logits = model(batch.hu, batch.lengths, batch.positions_mm, batch.draws)
        terms = [(logits.slice_logits, batch.slice_labels), (logits.scan_logits, batch.scan_labels)]
        terms += [] if logits.encoder_logits is None else [(logits.encoder_logits, batch.slice_labels)]
        torch.stack([weighted_loss_sums(*term)[0] for term in terms]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def _pretend_fitted(model: ScanModel) -> None:
    """Fit the reduction to random features, because its memory does not depend on them."""
    reducer = model.reducer
    assert reducer is not None
    random = torch.randn(reducer.out_features + 1, model.encoder.out_features)
    weight = model.encoder_classifier.weight.detach().cpu() if isinstance(model.encoder_classifier, nn.Linear) else None
    reducer.fit(random, weight)


def _make_batch(trial: Trial, device: torch.device) -> ScanBatch:
    """Make a batch of random HU."""
    lengths = [SCAN_SLICES] * (trial.slices // SCAN_SLICES)
    lengths += [trial.slices % SCAN_SLICES] if trial.slices % SCAN_SLICES else []
    return ScanBatch(
        hu=torch.randint(-1024, 1024, (trial.slices, trial.size, trial.size), dtype=torch.int16, device=device),
        lengths=torch.tensor(lengths),
        positions_mm=torch.arange(trial.slices, device=device) * 5.0,
        slice_labels=torch.zeros(trial.slices, len(LABELS), device=device),
        scan_labels=torch.zeros(len(lengths), len(LABELS), device=device),
        draws=torch.zeros(trial.slices, dtype=torch.int64, device=device),
        scan_ids=[""] * len(lengths),
    )


def _free_memory(device: torch.device) -> int:
    """Free memory in bytes. For a CPU, it is the smaller of what the system and the container still have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if Path("/proc/meminfo").is_file():
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
