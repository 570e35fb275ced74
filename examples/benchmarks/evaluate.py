"""How long all figures with 2,000 patient-bootstrap replicates take at RSNA's size, and how much memory.

    python examples/benchmarks/evaluate.py [--replicates 2000] [--plain 3]

Synthetic predictions for 752,803 slices of 18,938 patients and six labels, as rare as RSNA's. Beside it, on a tenth of the size,
a plain loop over scikit-learn calls: a few replicates of it are timed, and extrapolated. Goals: 3 minutes on 2 cores, and 4 GB.
"""

import argparse
import importlib.metadata
import platform
import resource
import sys
import time
from typing import NamedTuple

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from ich_lstm.labels import LABEL_WEIGHTS, LABELS
from ich_lstm.statistics import evaluate_labels

SLICES, PATIENTS = 752_803, 18_938
SHARES = (0.0042, 0.048, 0.035, 0.047, 0.063, 0.143)
"""About RSNA's shares of positive slices, in the order of LABELS."""

GOAL_SECONDS, GOAL_GIB = 180, 4


class Predictions(NamedTuple):
    """Labels ``(n, k)``, probabilities ``(n, k)`` and patients ``(n,)``."""

    labels: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray


def draw(slices: int, patients: int, seed: int = 0) -> Predictions:
    """Slices of a patient are alike, in truth and in what the model says of them."""
    random = np.random.default_rng(seed)
    patient = np.sort(random.integers(patients, size=slices))
    latent = 2.0 * random.standard_normal((patients, len(LABELS)))[patient] + random.standard_normal((slices, len(LABELS)))
    latent -= [np.quantile(latent[:, k], 1 - share) for k, share in enumerate(SHARES)]
    labels = (latent > 0).astype(np.float64)
    error = 0.5 * random.standard_normal((patients, len(LABELS)))[patient] + 0.7 * random.standard_normal(latent.shape)
    return Predictions(labels, 1 / (1 + np.exp(-2 * (latent + error))), patient)


def plain_loop(given: Predictions, replicates: int) -> None:
    """What most people write: draw patients, gather their slices, call scikit-learn for every figure."""
    random = np.random.default_rng(0)
    slices_of = np.split(np.arange(len(given.patients)), np.unique(given.patients, return_index=True)[1][1:])
    for _ in range(replicates):
        rows = np.concatenate([slices_of[i] for i in random.integers(len(slices_of), size=len(slices_of))])
        for k in range(len(LABELS)):
            y, p = given.labels[rows, k], given.probabilities[rows, k]
            roc_auc_score(y, p), average_precision_score(y, p), log_loss(y, p), brier_score_loss(y, p)
            confusion_matrix(y, p >= 0.5)
            calibration_curve(y, p, n_bins=10)
            LogisticRegression(C=1e10).fit(np.log(p / (1 - p))[:, None], y)
        log_loss(given.labels[rows].ravel(), given.probabilities[rows].ravel(), sample_weight=np.tile(LABEL_WEIGHTS, len(rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--plain", type=int, default=3, help="replicates of the plain loop that are timed")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy", "scikit-learn"))
    print(f"Python {platform.python_version()}, {versions}; {given.replicates} replicates, {given.workers} threads", flush=True)
    print("| | slices | patients | seconds | CPU seconds |\n|---|---|---|---|---|", flush=True)
    seconds = {}
    for name, part in (("ours, a tenth", 10), ("ours", 1)):
        data = draw(SLICES // part, PATIENTS // part)
        start, cpu = time.perf_counter(), time.process_time()
        evaluate_labels(*data, prevalences=(0.05, 0.1), replicates=given.replicates, workers=given.workers)
        seconds[name], cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"| {name} | {SLICES // part:,} | {PATIENTS // part:,} | {seconds[name]:.1f} | {cpu:.1f} |", flush=True)
        del data
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    start, cpu = time.perf_counter(), time.process_time()
    plain_loop(draw(SLICES // 10, PATIENTS // 10), given.plain)
    plain = (time.perf_counter() - start) / given.plain * given.replicates
    cpu = (time.process_time() - cpu) / given.plain * given.replicates
    print(f"| plain loop, a tenth, extrapolated | {SLICES // 10:,} | {PATIENTS // 10:,} | {plain:.0f} | {cpu:.0f} |")
    print(f"\non a tenth {plain / seconds['ours, a tenth']:.0f} times as fast as the plain loop; peak memory {memory:.2f} GiB")
    if given.replicates >= 2000 and (seconds["ours"] > GOAL_SECONDS or memory > GOAL_GIB):
        sys.exit(f"the goal is {GOAL_SECONDS} s and {GOAL_GIB} GiB")


if __name__ == "__main__":
    main()
