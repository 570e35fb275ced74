"""How fast the page of a scan is made, and how large it is; median of rounds.

    python examples/benchmarks/page.py [PATH] [--slices 40] [--rounds 5]

PATH: a series of head CT, whose slices are repeated; without one a synthetic head of 512 x 512. With heat maps of all labels.
Goals for 40 slices: less than 3 seconds, less than 15 MB.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import ich_lstm
from ich_lstm.explanation import Explanation
from ich_lstm.labels import LABELS
from ich_lstm.pages.scan_page import prediction_page
from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.prediction import ScanPrediction

CELLS = 24
"""Rows and columns of a heat map: an input of 384 pixels at stride 16."""


def read(path: Path | None) -> tuple[np.ndarray, tuple[float, float, float]]:
    """HU of a scan, and its spacing."""
    if path is None:
        head = make_head(PhantomSettings(size=512, slices=40, prevalence=1.0), 0)
        return head.hu, head.spacing_mm
    scan = ich_lstm.read_scan(path)
    return scan.hu, scan.spacing_mm


def make_prediction(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> ScanPrediction:
    """What no model has said: the page does not mind."""
    draw = np.random.default_rng(0)
    count, rows, columns = hu.shape
    slices = draw.random((count, len(LABELS)))
    explanation = Explanation(
        maps=draw.random((count, len(LABELS), CELLS, CELLS), dtype=np.float32),
        box=(0.0, 0.0, float(rows), float(columns)),
        contributions=draw.normal(size=(count, len(LABELS))),
        method="noise",
    )
    return ScanPrediction(
        slice_probabilities=slices,
        scan_probabilities=slices.max(axis=0),
        scan_id="benchmark",
        slice_ids=tuple(map(str, range(count))),
        positions_mm=np.arange(count) * spacing_mm[0],
        spacing_mm=spacing_mm,
        hu=hu,
        model_name="none",
        model_hash="0" * 16,
        explanation=explanation,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    hu, spacing_mm = read(options.path)
    repeated = hu[np.arange(options.slices) % len(hu)]
    prediction = make_prediction(repeated, spacing_mm)
    seconds = []
    for _ in range(options.rounds + 1):
        start = time.perf_counter()
        page = prediction_page(prediction)
        seconds.append(time.perf_counter() - start)
    # The first one loads the templates and the libraries.
    print(f"{options.slices} slices of {hu.shape[1]} x {hu.shape[2]}")
    print(f"page: {len(page.encode()) / 1e6:.1f} MB; HU alone as int16: {repeated.nbytes / 1e6:.1f} MB")
    print(f"first {seconds[0]:.2f} s; median of {options.rounds} more: {statistics.median(seconds[1:]):.2f} s")


if __name__ == "__main__":
    main()
