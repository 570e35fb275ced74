"""How fast cached scans become batches, and how full the batches are; medians of interleaved rounds.

    python examples/benchmarks/data.py [--rounds 5] [--scans 100]

It makes its own files (synthetic heads, at 512 x 512 as DICOM and at 256 x 256 in the cache) and removes them.
Goals: 4,500 slices per second from one worker, 15 times a plain loader that reads the DICOM files each time into three float
channels; at most 2 % of a batch's room unused. `cache.py` measures the cache, `label_table.py` the table.
"""

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.loader import ScanLoader, begin_worker, worker_context
from ich_lstm.data.loading.sampler import SliceBudgetSampler
from ich_lstm.data.prepared.scan_cache import CachedScan, write_cached
from ich_lstm.labels import LABELS
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.preprocessing.augmentation import Geometry
from ich_lstm.preprocessing.crop_and_resize import Preprocessing, preprocess_scan
from ich_lstm.reading import choose_series, index_source, load_scan

WINDOWS = ((40, 80), (80, 200), (600, 2800))
SIDE, SLICES = 256, 35
BUDGETS = (128, 256, 512)
RSNA_SCANS = 21_744


# ------------------------------------------------------------------------------------------------ ways to load
class PlainDataset(Dataset):
    """What most pipelines do: each time dcmread, float rescale, three windows at full size, then a resize."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        data_set = pydicom.dcmread(self.paths[index])
        hu = data_set.pixel_array * float(data_set.RescaleSlope) + float(data_set.RescaleIntercept)
        channels = [np.clip((hu - (level - width / 2)) / width, 0, 1).astype(np.float32) for level, width in WINDOWS]
        resized = [cv2.resize(channel, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for channel in channels]
        return torch.from_numpy(np.stack(resized)), torch.zeros(len(LABELS))


def cached_loader(scans: Sequence[LabelledScan], geometry: Geometry | None, budget: int = 256) -> ScanLoader:
    """Packed batches from one worker, as in training."""
    dataset = ScanDataset(scans, geometry)
    sampler = SliceBudgetSampler(
        dataset.lengths, identifiers=[scan.series_uid for scan in scans], slices_per_batch=budget, shuffle=True
    )
    return ScanLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=worker_context(),
        worker_init_fn=begin_worker,
    )


class Rate:
    """Slices per second of a loader with one worker, by the clock and by the worker's own processor time.

    The second does not depend on what else the machine is doing, and says what a core of one's own would give.
    """

    def __init__(self, loader: Iterable) -> None:
        self.loader = loader
        before = set(multiprocessing.active_children())
        for _ in loader:  # starts the worker, fills the file cache
            pass
        (self.worker,) = set(multiprocessing.active_children()) - before
        self.by_clock: list[float] = []
        self.by_processor: list[float] = []

    def measure(self) -> None:
        """One pass over all batches."""
        begin, spent = time.perf_counter(), self._spent()
        slices = sum(len(batch[0]) for batch in self.loader)
        self.by_clock.append(slices / (time.perf_counter() - begin))
        self.by_processor.append(slices / (self._spent() - spent))

    def _spent(self) -> float:
        """Processor seconds of the worker so far, in the kernel's too."""
        fields = Path(f"/proc/{self.worker.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------------------------------ files
def make_cache(folder: Path, count: int) -> list[LabelledScan]:
    """Cached scans of 35 slices: copies, for the cost of reading does not depend on whose head it is."""
    settings = PhantomSettings(patients=1, slices=SLICES, size=SIDE, seed=1)
    source = index_source(write_phantom(settings, folder / "dicom", workers=1)).studies()[0]
    scan = load_scan(choose_series(source).series)
    hu = preprocess_scan(scan, Preprocessing(size=SIDE, crop="none"))
    slice_ids = tuple(f"{i:032x}" for i in range(len(hu)))
    labels = np.zeros((len(hu), len(LABELS)), np.float32)
    scans = []
    for i in range(count):
        path = folder / f"{i}.b2nd"
        write_cached(path, CachedScan(hu, np.arange(len(hu), dtype=np.float32), slice_ids, (), ()))
        scans.append(LabelledScan(str(i), "", str(i), "", "", path, slice_ids, slice_ids, labels, labels[0]))
    return scans


def rsna_lengths() -> list[int]:
    """Slices of as many scans as in RSNA's training set: 35 on the average, mostly 20 to 60."""
    return np.clip(np.random.default_rng(1).normal(34.6, 6, RSNA_SCANS).round(), 20, 60).astype(int).tolist()


# ------------------------------------------------------------------------------------------------ report
def hardware() -> str:
    """Processor, cores, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "blosc2", "numpy"))
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {versions}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scans", type=int, default=100, help="in the cache; the machine's file cache should hold them")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    out = Console(soft_wrap=True)
    table = Table("what", "measured", "goal", title=hardware())
    with tempfile.TemporaryDirectory() as scratch:
        _measure_loading(Path(scratch) / "loading", given.rounds, given.scans, table)
    out.print(table)
    out.print(_packing())
    return 0


def _measure_loading(folder: Path, rounds: int, count: int, table: Table) -> None:
    scans = make_cache(folder, count)
    dicom = write_phantom(PhantomSettings(patients=4, slices=SLICES, size=512, seed=1), folder / "large", workers=1)
    plain = DataLoader(
        PlainDataset(sorted(dicom.rglob("*.dcm"))),
        batch_size=32,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=worker_context(),
    )
    cached, augmented, files = (Rate(one) for one in (cached_loader(scans, None), cached_loader(scans, Geometry()), plain))
    for _ in range(rounds):
        for rate in (cached, augmented, files):
            rate.measure()
    for name, rate, goal in (
        ("cached scans", cached, "4,500"),
        ("the same, augmented", augmented, ""),
        ("plain loader of DICOM files", files, ""),
    ):
        figures = f"{statistics.median(rate.by_clock):,.0f} / {statistics.median(rate.by_processor):,.0f}"
        table.add_row(f"{name}, one worker, slices/s by the clock / by its processor time", figures, goal)
    clock, processor = (
        statistics.median(fast / slow for fast, slow in zip(ours, theirs, strict=True))
        for ours, theirs in ((cached.by_clock, files.by_clock), (cached.by_processor, files.by_processor))
    )
    table.add_row("times faster than plain (medians of the rounds' ratios)", f"{clock:.1f} / {processor:.1f}", "15")


def _packing() -> Table:
    lengths = rsna_lengths()
    table = Table(
        "budget", "processes", "steps", "room unused, %", "ranks wait, %", "s per epoch", title="Packing RSNA's lengths"
    )
    for budget in BUDGETS:
        for world in (1, 8):
            samplers = [
                SliceBudgetSampler(lengths, slices_per_batch=budget, shuffle=True, rank=rank, world_size=world)
                for rank in range(world)
            ]
            begin = time.process_time()
            dealt = [list(sampler) for sampler in samplers]
            seconds = (time.process_time() - begin) / world
            sizes = np.array([[sum(lengths[request.scan] for request in batch) for batch in batches] for batches in dealt])
            unused, waits = 1 - sizes.sum() / sizes.size / budget, 1 - sizes.mean() / sizes.max(axis=0).mean()
            table.add_row(f"{budget}", f"{world}", f"{len(samplers[0])}", f"{unused:.2%}", f"{waits:.3%}", f"{seconds:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
