"""How fast head CT is read, and how much memory indexing takes; ratios within one run, medians of interleaved rounds.

    python examples/benchmarks/reading.py [--rounds 9] [--files 100000]

It makes its own files (a synthetic head of 512 x 512 as in the RSNA data set, and a tree of many small ones) and removes them.
Goals: 4,000 headers per second and core; file to 256 x 256 HU at least 6 times the straightforward way; at most 100 bytes of
memory per file above the start, child processes included.
"""

import argparse
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
from rich.console import Console
from rich.table import Table

from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.reading import FileRef, index_source, read_header, read_hu

WINDOWS = ((40, 80), (80, 200), (600, 2800))
SIDE = 256
FEW_FILES = 6_000
"""Enough for every worker to be up and busy: the start, above which memory is counted."""

FILES_PER_SERIES = 32


# ------------------------------------------------------------------------------------------------ ways to read
def straightforward(path: Path) -> np.ndarray:
    """What most pipelines do: float64 rescale, three windows at full size, then a resize; ``(3, 256, 256)``."""
    data_set = pydicom.dcmread(path)
    hu = data_set.pixel_array * float(data_set.RescaleSlope) + float(data_set.RescaleIntercept)
    channels = [np.clip((hu - (level - width / 2)) / width, 0, 1) for level, width in WINDOWS]
    return np.stack([cv2.resize(channel, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for channel in channels])


def ours(path: Path) -> np.ndarray:
    """Header, HU with all checks and repairs, resize; the windows are the model's first layer."""
    hu, _ = read_hu(read_header(FileRef(path)))
    return cv2.resize(hu, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def exact(path: Path) -> bool:
    """Whether HU without a resize are those of the straightforward way, after RSNA's repair."""
    data_set = pydicom.dcmread(path)
    stored, intercept = data_set.pixel_array.astype(np.int64), float(data_set.RescaleIntercept)
    if data_set.BitsStored == 12 and intercept > -100:
        stored, intercept = (stored + 1000) % 4096, -1000  # 12-bit wrap
    return bool(
        (read_hu(read_header(FileRef(path)))[0] == np.clip(stored * float(data_set.RescaleSlope) + intercept, -1024, 3071)).all()
    )


def seconds_of(function: Callable[[Path], object], paths: Sequence[Path]) -> float:
    """Processor seconds per file."""
    begin = time.process_time()
    for path in paths:
        function(path)
    return (time.process_time() - begin) / len(paths)


# ------------------------------------------------------------------------------------------------ memory
def make_tree(folder: Path, count: int) -> None:
    """Small slices, 32 per series, 3 series per study, each file with identifiers of its own."""
    write_phantom(PhantomSettings(patients=1, slices=8, size=48, seed=1), folder / "one", workers=1)
    template = next((folder / "one").rglob("*.dcm"))
    header = read_header(FileRef(template))
    data = template.read_bytes()
    shutil.rmtree(folder / "one")
    for i in range(count):
        series = i // FILES_PER_SERIES
        own = data
        for uid, number in ((header.sop_uid, i), (header.series_uid, series), (header.study_uid, series // 3)):
            own = own.replace(uid.encode(), f"{uid[:3]}{number:0{len(uid) - 3}d}".encode())
        place = folder / f"{series // 3:06d}" / f"{series:06d}"
        if i % FILES_PER_SERIES == 0:
            place.mkdir(parents=True)
        (place / f"{i:08d}.dcm").write_bytes(own)


def memory_of(process: int) -> int:
    """Bytes that a process and all below it have for themselves; mapped files are the system's to take back."""
    total = 0
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                total += int(line.split()[1]) * 1024
        for task in Path(f"/proc/{process}/task").iterdir():
            total += sum(memory_of(int(child)) for child in (task / "children").read_text().split())
    except OSError:
        pass  # it has just ended
    return total


INDEX = """
import sys
from ich_lstm.reading import index_source
if __name__ == "__main__":
    index = index_source(sys.argv[1], workers=int(sys.argv[2]))
    print(len(index.studies()), index.ledger.summary(), flush=True)
    sys.stdin.read()
"""


def peak_memory(folder: Path, workers: int) -> tuple[int, float, str]:
    """Peak bytes while a folder is indexed and its studies are listed, seconds, and what was found."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "index.py"
        script.write_text(INDEX)
        begin = time.perf_counter()
        command = [sys.executable, str(script), str(folder), str(workers)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            peak = [0]
            done = threading.Event()

            def watch() -> None:
                while not done.wait(0.1):
                    peak[0] = max(peak[0], memory_of(process.pid))

            watcher = threading.Thread(target=watch)
            watcher.start()
            assert process.stdout is not None
            found = process.stdout.readline().strip()
            seconds = time.perf_counter() - begin
            peak[0] = max(peak[0], memory_of(process.pid))
            done.set()
            watcher.join()
            process.communicate()
    return peak[0], seconds, found


# ------------------------------------------------------------------------------------------------ report
def hardware() -> str:
    """Processor, cores, memory, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("pydicom", "numpy", "pyarrow"))
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--files", type=int, default=100_000, help="of the tree for memory; 0 leaves it out")
    parser.add_argument("--workers", type=int, default=2, help="processes that index the tree")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    table = Table("what", "measured", "goal", title=hardware())
    with tempfile.TemporaryDirectory() as scratch:
        _measure_speed(Path(scratch) / "speed", given.rounds, table)
        if given.files:
            _measure_memory(Path(scratch) / "memory", given.files, given.workers, table)
    Console(soft_wrap=True).print(table)
    return 0


def _measure_speed(folder: Path, rounds: int, table: Table) -> None:
    write_phantom(PhantomSettings(patients=2, slices=35, size=512, seed=1), folder, workers=1)
    paths = sorted(folder.rglob("*.dcm"))
    for copy in range(1, 20):  # a tree of a thousand headers; the pixels of the first are read
        for path in paths:
            os.link(path, path.with_name(f"{path.stem}-{copy}.dcm"))
    assert all(map(exact, paths))
    index_source(folder, workers=1)  # page cache and imports
    headers, naive, fast = [], [], []
    for _ in range(rounds):
        begin = time.process_time()
        count = len(index_source(folder, workers=1).headers)
        headers.append(count / (time.process_time() - begin))
        naive.append(seconds_of(straightforward, paths))
        fast.append(seconds_of(ours, paths))
    ratios = [slow / quick for slow, quick in zip(naive, fast, strict=True)]
    table.add_row("headers indexed per second and core", f"{statistics.median(headers):,.0f}", "4,000")
    table.add_row("straightforward, file to 256 x 256, us", f"{statistics.median(naive) * 1e6:,.0f}", "")
    table.add_row("this library, file to 256 x 256 HU, us", f"{statistics.median(fast) * 1e6:,.0f}", "")
    table.add_row("times faster (median of the rounds' ratios)", f"{statistics.median(ratios):.1f}", "6")
    table.add_row("HU without resize equal bit for bit", f"{len(paths)} of {len(paths)} files", "all")


def _measure_memory(folder: Path, files: int, workers: int, table: Table) -> None:
    make_tree(folder / "few", FEW_FILES)
    make_tree(folder / "many", files)
    start, _, _ = peak_memory(folder / "few", workers)
    peak, seconds, found = peak_memory(folder / "many", workers)
    table.add_row("indexed", found, "")
    table.add_row(f"files per second, {workers} processes", f"{files / seconds:,.0f}", "")
    table.add_row(f"peak memory with {FEW_FILES:,} / {files:,} files, MB", f"{start / 1e6:.1f} / {peak / 1e6:.1f}", "")
    table.add_row("bytes per file above the start", f"{(peak - start) / (files - FEW_FILES):.0f}", "at most 100")


if __name__ == "__main__":
    sys.exit(main())
