"""What training in chunks saves in memory and costs in time; on a GPU, how fast whole scans train beside the bare encoder.

    python examples/benchmarks/model.py [--backbone resnext50_32x4d] [--size 256] [--chunk 4] [--counts 8 16 32 64 128 256 512]
    python examples/benchmarks/model.py --throughput --device cuda [--backbone resnext50_32x4d resnext101_32x8d] [--budget 256]

The first measures a training step (forward and backward, the LSTM included, no optimizer) on random slices with random weights.
Memory is the peak above the idle model, which has seen one small batch, in a fresh process per point: resident memory on a CPU
(Linux), torch's own account on a GPU. Gradients and the batch are in it. Beside it stands what is kept of the encoder alone: the
tensors that autograd saves, the features, and the activations of the one chunk that is alive in the backward pass. Times are
medians of interleaved rounds in one process: the same chunks recomputed and kept; scans of unlike lengths, and a single one.

The second trains with Lightning from a cache of synthetic heads that it makes and removes, without recomputation, beside the
training step of timm's bare encoder on the same number of slices: eager and compiled, bf16, channels-last.

Goals: 64 slices at most 1.05 times the memory of 8; beyond, at most 0.3 MiB a slice; the encoder alone at most 1.05 times
at 512; at 32 slices a sixth of plain training; recomputation at most 1.35 times, and no bit of gradients and statistics
changed; no padding. On a GPU 0.95 of the bare encoder, 1.2 with compile; RSNA's 752,803 slices in 200 s (ResNeXt-50), 600 s
(ResNeXt-101 32x8d).
"""

import argparse
import contextlib
import copy
import gc
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from machine import hardware
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ich_lstm import Encoder, ModelSettings, ScanClassifier, ScanModel
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading.batch import ScanBatch
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.loader import ScanLoader, begin_worker, worker_context
from ich_lstm.data.loading.sampler import SliceBudgetSampler
from ich_lstm.data.prepared.scan_cache import CachedScan, write_cached
from ich_lstm.labels import LABELS
from ich_lstm.models.execution.recompute import batch_norms, run_in_chunks, strided_places
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.preprocessing.crop_and_resize import Preprocessing, preprocess_scan
from ich_lstm.reading import choose_series, index_source, load_scan
from ich_lstm.training.losses import weighted_loss_sums

MIB = 2**20
SCAN_SLICES = 32
MIXED = (20, 25, 35, 60)
"""Slices of the scans of the mixed batch."""

KEPT_SLICES = 16
"""Of the comparison of recomputed and kept chunks: all that is kept has to fit."""

RSNA_SLICES = 752_803
RSNA_SECONDS = {"resnext50_32x4d": 200, "resnext101_32x8d": 600}
WARM_STEPS = 5


class Way(NamedTuple):
    """How the encoder is trained."""

    slices_per_chunk: int | None = None
    checkpoint_blocks: bool = False

    def __str__(self) -> str:
        if self.checkpoint_blocks:
            return "timm's blocks"
        return "plain" if self.slices_per_chunk is None else f"chunks of {self.slices_per_chunk}"


class Point(NamedTuple):
    """A training step of so many slices; MiB above the idle model, and of the encoder alone."""

    slices: int
    way: Way
    peak: float
    encoder: float | None
    seconds: float


# ------------------------------------------------------------------------------------------------ a training step
def make_model(given: argparse.Namespace, way: Way) -> ScanModel:
    """A network in training mode, with random weights."""
    torch.manual_seed(0)
    model = ScanModel(ModelSettings(encoder=Encoder(backbone=given.backbone[0], pretrained=False, **way._asdict())))
    return model.to(given.device).train()


def make_batch(lengths: Sequence[int], size: int, device: str) -> ScanBatch:
    """Scans of noise."""
    count = sum(lengths)
    return ScanBatch(
        hu=torch.randint(-1024, 1024, (count, size, size), dtype=torch.int16, device=device),
        lengths=torch.tensor(lengths),
        positions_mm=torch.arange(count, device=device) * 5.0,
        slice_labels=torch.zeros(count, len(LABELS), device=device),
        scan_labels=torch.zeros(len(lengths), len(LABELS), device=device),
        draws=torch.zeros(count, dtype=torch.int64, device=device),
        scan_ids=[""] * len(lengths),
    )


def scans_of(count: int) -> list[int]:
    """As many scans of usual length as make so many slices."""
    return [SCAN_SLICES] * (count // SCAN_SLICES) + [count % SCAN_SLICES] * (count % SCAN_SLICES > 0)


def mixed_precision(given: argparse.Namespace) -> contextlib.AbstractContextManager:
    """The precision in which the encoder computes."""
    return torch.autocast(torch.device(given.device).type, torch.bfloat16, enabled=given.precision == "bf16-mixed")


def backward(model: ScanModel, features: Tensor, batch: ScanBatch) -> None:
    """The head, the losses on all that the model says, and the gradients."""
    logits = model.head(features, batch.lengths, batch.positions_mm)
    assert logits.encoder_logits is not None
    terms = [(logits.slice_logits, batch.slice_labels), (logits.encoder_logits, batch.slice_labels)]
    sums = [weighted_loss_sums(*term)[0] for term in [*terms, (logits.scan_logits, batch.scan_labels)]]
    torch.stack(sums).sum().backward()


def seconds_of(function: Callable[[], object], device: str) -> float:
    """Time of a call, all work of the device included."""
    _finish(device)
    begin = time.perf_counter()
    function()
    _finish(device)
    return time.perf_counter() - begin


def _finish(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


# ------------------------------------------------------------------------------------------------ memory
class Saved:
    """Bytes that autograd saves for the backward pass: each storage once, without parameters and the batch."""

    def __init__(self, model: ScanModel, batch: ScanBatch) -> None:
        self.given = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), batch.hu)}
        self.storages: dict[int, int] = {}

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is saved meanwhile."""
        with torch.autograd.graph.saved_tensors_hooks(self._add, lambda tensor: tensor):
            yield

    def _add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.given:
            self.storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    @property
    def mib(self) -> float:
        """All of them."""
        return sum(self.storages.values()) / MIB


def measure_point(given: argparse.Namespace, way: Way, count: int) -> Point:
    """A training step, in this process, which must be fresh."""
    torch.set_num_threads(given.threads)
    model = make_model(given, way)
    # Code and tables of the first use, some 200 MiB, have nothing to do with how many slices follow.
    small = make_batch([2], 64, given.device)
    backward(model, model.encode(small.hu, small.lengths), small)
    model.zero_grad()
    idle = _memory(given.device, begin=True)
    batch = make_batch(scans_of(count), given.size, given.device)
    saved = Saved(model, batch)
    is_counted = way.slices_per_chunk is not None  # it costs time where much is saved
    begin = time.perf_counter()
    with mixed_precision(given), saved.counted() if is_counted else contextlib.nullcontext():
        features = model.encode(batch.hu, batch.lengths, batch.draws)
    backward(model, features, batch)
    _finish(given.device)
    seconds = time.perf_counter() - begin
    peak = _memory(given.device) - idle
    if way.slices_per_chunk is None:
        return Point(count, way, peak, None, seconds)
    chunk = Saved(model, batch)
    places = strided_places(count, way.slices_per_chunk, batch.hu.device)[0]
    with mixed_precision(given), chunk.counted():
        kept = model.features_of(batch.hu, batch.lengths, batch.draws)(places)
    del kept
    return Point(count, way, peak, saved.mib + features.untyped_storage().nbytes() / MIB + chunk.mib, seconds)


def _memory(device: str, *, begin: bool = False) -> float:
    """Memory of this process in MiB: the peak since the last call with ``begin``, which gives what it has now."""
    if torch.device(device).type == "cuda":
        if begin:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / MIB
    if begin:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc(5)); building the model had one too
    # Not getrusage: its peak is inherited from the process that started this one.
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS" if begin else "VmHWM"].split()[0]) / 1024


def _child(connection: Connection, given: argparse.Namespace, way: Way, count: int) -> None:
    connection.send(measure_point(given, way, count))


def in_fresh_process(given: argparse.Namespace, way: Way, count: int) -> Point:
    """`measure_point` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sending, given, way, count))
    child.start()
    sending.close()
    try:
        return receiving.recv()
    except EOFError:
        sys.exit(f"{way}, {count} slices: the process ended, with code {child.exitcode}: too little memory?")
    finally:
        child.join()


def measure_memory(given: argparse.Namespace, out: Console) -> list[list[str]]:
    """All points; returns the goals."""
    points: dict[tuple[Way, int], Point] = {}
    chunks, blocks, plain = Way(given.chunk), Way(checkpoint_blocks=True), Way()
    wanted = [(way, count) for way in (plain, blocks) for count in given.plain] + [(chunks, count) for count in given.counts]
    for way, count in wanted:
        point = points[way, count] = in_fresh_process(given, way, count)
        alone = "" if point.encoder is None else f", encoder alone {point.encoder:,.1f} MiB"
        out.print(f"{way}, {count} slices: {point.peak:,.0f} MiB{alone} ({point.seconds:.1f} s)")
    counts = sorted({*given.counts, *given.plain})
    table = Table("MiB above the idle model", *(str(count) for count in counts))
    for way in (plain, blocks, chunks):
        table.add_row(str(way), *(f"{points[way, n].peak:,.0f}" if (way, n) in points else "" for n in counts))
    alone = [f"{points[chunks, n].encoder:,.1f}" if n in given.counts else "" for n in counts]
    table.add_row("of it, the encoder alone", *alone)
    out.print(table)
    few, most = min(given.counts), max(given.counts)
    peak, encoder = ({n: points[chunks, n][i] for n in given.counts} for i in (2, 3))
    goals = []
    if 64 in peak:
        goals.append(_goal(f"64 slices beside {few}", peak[64] / peak[few], at_most=1.05))
        if most > 64:
            goals.append(_goal(f"MiB a slice from 64 to {most}", (peak[most] - peak[64]) / (most - 64), at_most=0.3))
    goals.append(_goal(f"the encoder alone, {most} slices beside {few}", encoder[most] / encoder[few], at_most=1.05))
    if 32 in given.plain and 32 in peak:
        goals.append(_goal("plain training beside chunks, 32 slices", points[plain, 32].peak / peak[32], at_least=6))
    return goals


# ------------------------------------------------------------------------------------------------ time
def measure_time(given: argparse.Namespace) -> list[list[str]]:
    """Recomputation, and scans of unlike lengths; returns the goals."""
    torch.set_num_threads(given.threads)
    model = make_model(given, Way(given.chunk))
    batch = make_batch(scans_of(KEPT_SLICES), given.size, given.device)
    kept, again = (_in_chunks(given, batch, recompute=recompute) for recompute in (False, True))
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    kept(first)
    again(second)
    gradients = zip(first.parameters(), second.parameters(), strict=True)
    equal = all(torch.equal(one.grad, other.grad) for one, other in gradients if one.grad is not None)
    equal &= all(torch.equal(one, other) for one, other in zip(first.buffers(), second.buffers(), strict=True))
    del first, second
    cost = _ratio(lambda: again(model), lambda: kept(model), given)
    size, slices = given.size // 2, sum(MIXED)
    mixed, single = (make_batch(lengths, size, given.device) for lengths in (MIXED, [slices]))
    unlike = _ratio(lambda: _encoder_step(given, model, mixed), lambda: _encoder_step(given, model, single), given)
    same = ["gradients and statistics, recomputed and kept", "equal to the bit" if equal else "unequal", "equal to the bit"]
    return [
        _goal(f"time of recomputed beside kept chunks, {KEPT_SLICES} slices", cost, at_most=1.35),
        [*same, "met" if equal else "missed"],
        # No goal of its own: padding all to the longest would give 1.71.
        [f"encoder's time, {len(MIXED)} scans of 20 to 60 slices beside one of {slices} ({size} px)", f"{unlike:.3f}", "1", ""],
    ]


def _in_chunks(given: argparse.Namespace, batch: ScanBatch, *, recompute: bool) -> Callable[[ScanModel], None]:
    """A training step in chunks, whose activations are kept or computed again."""

    def step(model: ScanModel) -> None:
        model.zero_grad()
        with mixed_precision(given):
            features = run_in_chunks(
                model.features_of(batch.hu, batch.lengths, batch.draws),
                strided_places(len(batch.hu), given.chunk, batch.hu.device),
                recompute=recompute,
                trained=list(model.encoder.parameters()),
                normalizing=batch_norms(model.encoder),
            )
        backward(model, features.float(), batch)

    return step


def _encoder_step(given: argparse.Namespace, model: ScanModel, batch: ScanBatch) -> None:
    model.zero_grad()
    with mixed_precision(given):
        features = model.encode(batch.hu, batch.lengths, batch.draws)
    features.square().mean().backward()


def _ratio(one: Callable[[], object], other: Callable[[], object], given: argparse.Namespace) -> float:
    """The median of the rounds' ratios of times."""
    ratios = []
    for i in range(given.rounds + 1):
        pair = [one, other] if i % 2 else [other, one]  # neither always follows the other
        seconds = {function: seconds_of(function, given.device) for function in pair}
        ratios.append(seconds[one] / seconds[other])
    return statistics.median(ratios[1:])  # the first warms up


# ------------------------------------------------------------------------------------------------ throughput
class Clock(Callback):
    """Slices per second of a fit, from the end of the warm-up to its last step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.slices = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Start after the warm-up; stop at the end of every step, but wait for the device only at the last."""
        if batch_idx + 1 <= WARM_STEPS:
            _finish(self.device)
            self.begin = time.perf_counter()
            return
        self.slices += len(batch.hu)
        if batch_idx + 1 == trainer.num_training_batches:
            _finish(self.device)
            self.rate = self.slices / (time.perf_counter() - self.begin)


def make_cache(folder: Path, size: int, slices: int) -> list[LabelledScan]:
    """Cached scans of 20 to 60 slices, parts of one head: what reading costs does not depend on whose it is."""
    settings = PhantomSettings(patients=1, slices=60, size=size, seed=1)
    source = index_source(write_phantom(settings, folder / "dicom", workers=1)).studies()[0]
    hu = preprocess_scan(load_scan(choose_series(source).series), Preprocessing(size=size, crop="none"))
    random = np.random.default_rng(1)
    scans: list[LabelledScan] = []
    while sum(len(scan.slice_labels) for scan in scans) < slices:
        count = min(60, max(20, round(random.normal(34.6, 6))))
        path, name = folder / f"{len(scans)}.b2nd", str(len(scans))
        ids, labels = tuple(f"{i:032x}" for i in range(count)), np.zeros((count, len(LABELS)), np.float32)
        write_cached(path, CachedScan(hu[:count], np.arange(count, dtype=np.float32), ids, (), ()))
        scans.append(LabelledScan(name, "", name, "", "", path, ids, ids, labels, labels[0]))
    return scans


def bare_rate(given: argparse.Namespace, backbone: str, *, compiled: bool) -> float:
    """Slices per second of timm's encoder alone, on one tensor that stays on the device."""
    network = timm.create_model(backbone, num_classes=len(LABELS)).to(given.device, memory_format=torch.channels_last).train()
    if compiled:
        network.compile()
    optimizer = torch.optim.AdamW(network.parameters())
    x = torch.randn(given.budget, 3, given.size, given.size, device=given.device).to(memory_format=torch.channels_last)
    y = torch.zeros(given.budget, len(LABELS), device=given.device)

    def steps(count: int) -> None:
        for _ in range(count):
            with torch.autocast(torch.device(given.device).type, torch.bfloat16):
                logits = network(x)
            torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), y).backward()
            optimizer.step()
            optimizer.zero_grad()

    steps(WARM_STEPS)
    return given.budget * given.steps / seconds_of(lambda: steps(given.steps), given.device)


def scan_rate(given: argparse.Namespace, backbone: str, scans: Sequence[LabelledScan], *, compiled: bool) -> tuple[float, float]:
    """Slices per second of a fit from the cache, and its peak memory in MiB (0 without a GPU)."""
    dataset = ScanDataset(scans)
    sampler = SliceBudgetSampler(dataset.lengths, slices_per_batch=given.budget, shuffle=True)
    workers: dict[str, Any] = {"num_workers": given.workers}
    if given.workers:
        workers |= {"multiprocessing_context": worker_context(), "worker_init_fn": begin_worker, "prefetch_factor": 4}
    is_cuda = torch.device(given.device).type == "cuda"
    loader = ScanLoader(dataset, batch_size=None, sampler=sampler, pin_memory=is_cuda, **workers)
    clock = Clock(given.device)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_epochs=1,
        limit_train_batches=WARM_STEPS + given.steps,
        accelerator=given.device,
        devices=1,
        precision="bf16-mixed",
        callbacks=[clock],
        **quiet,
    )
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(ScanClassifier(Encoder(backbone=backbone, pretrained=False, compiled=compiled)), loader)
    return clock.rate, torch.cuda.max_memory_allocated() / MIB if is_cuda else 0.0


def measure_throughput(given: argparse.Namespace, out: Console) -> list[list[str]]:
    """Whole scans beside the bare encoder, in interleaved rounds; returns the goals."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*LightningCLI|.*`?configure_optimizers.*|.*lr_scheduler.step.*")
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(given.threads)
    table = Table("backbone", "", "bare encoder, slices/s", "whole scans, slices/s", "ratio", "peak, MiB", "RSNA's epoch, s")
    goals = []
    with tempfile.TemporaryDirectory() as scratch:
        # A tenth more: the sampler fills batches nearly, not quite.
        scans = make_cache(Path(scratch), given.size, round(1.1 * (WARM_STEPS + given.steps + 1) * given.budget))
        for backbone in given.backbone:
            rates: dict[bool, tuple[list[float], list[float]]] = {}
            for compiled in (False, True):
                bare, ours = rates.setdefault(compiled, ([], []))
                for _ in range(given.rounds):
                    bare.append(bare_rate(given, backbone, compiled=compiled))
                    _forget(given.device)
                    rate, peak = scan_rate(given, backbone, scans, compiled=compiled)
                    ours.append(rate)
                    _forget(given.device)
                fast, slow = statistics.median(ours), statistics.median(bare)
                how = "compiled" if compiled else "eager"
                figures = [f"{slow:,.1f}", f"{fast:,.1f}", f"{fast / slow:.3f}", f"{peak:,.0f}", f"{RSNA_SLICES / fast:,.0f}"]
                table.add_row(backbone, how, *figures)
            eager, compiled_ratio = (
                statistics.median(mine / theirs for mine, theirs in zip(rates[way][1], rates[False][0], strict=True))
                for way in (False, True)
            )
            goals.append(_goal(f"{backbone}, eager beside bare eager", eager, at_least=0.95))
            goals.append(_goal(f"{backbone}, compiled beside bare eager", compiled_ratio, at_least=1.2))
            best = RSNA_SLICES / max(statistics.median(ours) for _, ours in rates.values())
            if backbone in RSNA_SECONDS:
                goals.append(_goal(f"{backbone}, RSNA's epoch in s", best, at_most=RSNA_SECONDS[backbone]))
    out.print(table)
    return goals


def _forget(device: str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


# ------------------------------------------------------------------------------------------------ report
def _goal(what: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> list[str]:
    """A row of the table of goals."""
    if at_most is not None:
        return [what, f"{value:.3f}", f"at most {at_most:g}", "met" if value <= at_most else "missed"]
    return [what, f"{value:.3f}", f"at least {at_least:g}", "met" if value >= (at_least or 0) else "missed"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--backbone", nargs="+", default=["resnext50_32x4d"], help="several with --throughput")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--counts", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256, 512], help="slices, in chunks")
    parser.add_argument("--plain", type=int, nargs="*", default=[8, 16, 32], help="slices without chunks")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--throughput", action="store_true", help="whole scans beside the bare encoder, and nothing else")
    parser.add_argument("--budget", type=int, default=256, help="slices of a batch, with --throughput")
    parser.add_argument("--steps", type=int, default=30, help="timed, with --throughput")
    parser.add_argument("--workers", type=int, default=4, help="that read the cache, with --throughput")
    given = parser.parse_args(arguments)
    out = Console(soft_wrap=True)
    if given.throughput:
        title = f"{given.size} x {given.size}, {given.budget} slices a batch, bf16-mixed, {hardware(given.device)}"
    else:
        title = f"{given.backbone[0]}, {given.size} x {given.size}, {given.precision}, {hardware(given.device)}"
    out.print(title)
    goals = measure_throughput(given, out) if given.throughput else measure_memory(given, out) + measure_time(given)
    table = Table("what", "measured", "goal", "", title=title)
    for row in goals:
        table.add_row(*row)
    out.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
