"""What caching a scan costs beside reading its DICOM files; medians of interleaved rounds in one process.

    python examples/benchmarks/cache.py [--rounds 15] [--slices 35]

It makes its own files (a synthetic head of 512 x 512 as in the RSNA data set) and removes them. Times are of the processor, in
ms per scan. Reading is headers and HU with all checks and repairs, as for a prediction; writing is all else that ich-prepare
does for a scan: crop, resize, hashes, facts, compression, checksums, file and record. Goal: writing under twice reading.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
from rich.console import Console
from rich.table import Table

from ich_lstm.data.prepare.prepare_scan import CACHE_FOLDER, ScanJob, prepare_scan
from ich_lstm.data.prepared.scan_cache import ScanCache, read_cached
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey, private_folder
from ich_lstm.reading import FileRef, Series, load_scan, read_header

SETTINGS = {
    "256": Preprocessing(size=256),
    "256, clipped": Preprocessing(size=256, clip=(-250, 450)),
    "512": Preprocessing(size=512, crop="none"),
}


def read_plainly(paths: Sequence[Path]) -> np.ndarray:
    """What a script would do: pydicom and a float rescale, ``(n, h, w)``."""
    sets = [pydicom.dcmread(path) for path in paths]
    return np.stack([one.pixel_array * np.float32(one.RescaleSlope) + np.float32(one.RescaleIntercept) for one in sets])


def read(paths: Sequence[Path]) -> Series:
    """The scan's headers, and its HU."""
    headers = [read_header(FileRef(path)) for path in paths]
    series = Series(headers[0].series_uid, headers)
    load_scan(series, training=True, slab_mm=None)
    return series


def milliseconds(function: Callable[[], object]) -> float:
    """Processor time of a call."""
    begin = time.process_time()
    function()
    return (time.process_time() - begin) * 1e3


def measure(paths: Sequence[Path], scratch: Path, rounds: int) -> dict[str, list[float]]:
    """Times of each way, one per round, and bytes of each file."""
    times: dict[str, list[float]] = {}
    series, key = read(paths), ProjectKey(bytes(32))
    for i in range(rounds + 1):
        now = {"plain": milliseconds(lambda: read_plainly(paths)), "read": milliseconds(lambda: read(paths))}
        for name, preprocessing in SETTINGS.items():
            out = scratch / name
            private_folder(out)
            job = ScanJob(series, 1, paths[0].parent, out, key, preprocessing)
            load = milliseconds(lambda: load_scan(series, training=True, slab_mm=None))
            now[f"write {name}"] = milliseconds(lambda job=job: prepare_scan(job)) - load
            now[f"check {name}"] = milliseconds(lambda job=job: prepare_scan(job))
            file = ScanCache(out / CACHE_FOLDER, preprocessing).path(key.hash_id(series.identifier), series.headers)
            now[f"back {name}"] = milliseconds(lambda file=file: read_cached(file))
            now[f"slice {name}"] = milliseconds(lambda file=file: read_cached(file, [len(paths) // 2]))
            now[f"KiB {name}"] = file.stat().st_size / 1024
            shutil.rmtree(out)
        if i:  # the first warms up
            for name, value in now.items():
                times.setdefault(name, []).append(value)
    return times


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--slices", type=int, default=35)
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        write_phantom(PhantomSettings(patients=1, slices=given.slices, size=512, seed=1), source, workers=1)
        times = measure(sorted(source.rglob("*.dcm")), Path(scratch), given.rounds)
    table = Table(
        "side", "read", "write", "write / read", "check", "read back", "one slice", "KiB", title=f"{given.slices} slices"
    )
    for name in SETTINGS:
        ratios = [write / read for write, read in zip(times[f"write {name}"], times["read"], strict=True)]
        columns = [statistics.median(times[f"{what} {name}"]) for what in ("write", "check", "back", "slice", "KiB")]
        write, *others, size = columns
        middle = [f"{value:.2f}" for value in others]
        table.add_row(
            name,
            f"{statistics.median(times['read']):.1f}",
            f"{write:.1f}",
            f"{statistics.median(ratios):.2f}",
            *middle,
            f"{size:,.0f}",
        )
    out = Console(soft_wrap=True)
    out.print(table)
    out.print(
        f"pydicom with a float rescale, for comparison: {statistics.median(times['plain']):.1f} ms. Goal: write / read under 2."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
