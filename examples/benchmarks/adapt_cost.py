"""How long ich-adapt takes on a CPU, and how much memory: 300 scans of 35 slices, ResNeXt-50 at 256 pixels.

    python examples/benchmarks/adapt_cost.py --out runs/adapt-cost
    python examples/benchmarks/adapt_cost.py --out runs/adapt-cost --patients 40 --slices 8      # a quick look

The weights are random, because the time does not depend on them. Heads are synthetic, and are written once. Printed are the
seconds of reading and encoding, those of everything after it (the goal is at most 900 s), and the peak of resident memory of the
process (the goal is at most 6 GB). Processes that read files end before the network starts, and are not counted.
"""

import argparse
import logging
import resource
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ich_lstm import LSTM, AdaptSettings, Encoder, Preprocessing, ScanClassifier, ScanDataModule, adapt
from ich_lstm.phantom import PhantomSettings, write_phantom


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--slices", type=int, default=35)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--backbone", default="resnext50_32x4d")
    given = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    heads = given.out / "heads"
    if not (heads / "stage_2_train.csv").is_file():
        write_phantom(
            PhantomSettings(patients=given.patients, slices=given.slices, size=given.size, seed=1, prevalence=0.3), heads
        )
    torch.manual_seed(1)
    model = ScanClassifier(encoder=Encoder(backbone=given.backbone, pretrained=False), head=LSTM(hidden_size=512, num_layers=2))
    model.preprocessing = Preprocessing(size=given.size)
    data = ScanDataModule(heads, heads / "stage_2_train.csv", cache_dir=given.out / "prepared", num_workers=0)
    shutil.rmtree(given.out / "features", ignore_errors=True)
    first: dict[str, float] = {}

    @contextmanager
    def show() -> Iterator:
        yield lambda what, done, total: first.setdefault(what, time.monotonic())

    started = time.monotonic()
    # Random weights rank nothing, so that every label is doubtful.
    done = adapt(model.eval(), data, AdaptSettings(most_wrong=1.0), features=given.out / "features", show=show)
    ended, encoded = time.monotonic(), first["cross-validating"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{done.counts['scans']} scans, {done.counts['slices']:,} slices, {given.backbone} at {given.size}, "
        f"{torch.get_num_threads()} threads: reading and encoding {encoded - started:.0f} s, "
        f"everything after it {ended - encoded:.0f} s, peak memory {memory:.1f} GiB"
    )


if __name__ == "__main__":
    main()
