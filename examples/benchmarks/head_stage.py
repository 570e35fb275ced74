"""What a stage on stored features costs beside an epoch of the encoder's warm-up, and its memory beside the size of the store.

    python examples/benchmarks/head_stage.py [--backbone resnet18] [--size 256] [--device cpu]

Measured are, as medians of interleaved rounds in one process: slices a second of training steps of the head, a BiLSTM of 2 layers
of 512 on 2,048 features, with reading its batches from a store; of training steps of the encoder (forward, backward); and of
its forward pass alone, which fills the store. From these rates follows what a head stage of 40 epochs costs, encoding included,
in epochs of the encoder's warm-up, for RSNA's 752,803 slices. A ResNet-18 is the fastest of the usual encoders: with any other
one the head costs a smaller share.

Memory is what a process holds of its own (Linux: RssAnon) after an epoch over a store, and over one four times as large.

Goals: a head stage of 40 epochs costs less than one epoch of the warm-up; memory does not grow with the store.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import hardware

from ich_lstm import LSTM, Encoder, ModelSettings, ScanModel
from ich_lstm.data.features.feature_dataset import FeatureDataset, ScanFeatures
from ich_lstm.data.features.feature_store import FeatureStore, StoredView, bytes_per_slice
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading.slice_sampling import SampleRequest
from ich_lstm.labels import LABELS
from ich_lstm.training.losses import weighted_loss_sums

RSNA_SLICES = 752_803
EPOCHS = 40
WIDE = "resnet50"
"""Its 2,048 features are as many as those of the recipes' ResNeXts. It is not run."""

SLICES = 35
"""Slices of a scan, about as many as in RSNA's training set."""

SCANS_PER_BATCH = 28
"""About 1,000 slices: features are small."""


def make_store(folder: Path, scans: int, width: int) -> tuple[ScanFeatures, list[LabelledScan]]:
    """A store of random features, and its scans with random labels."""
    random = np.random.default_rng(0)
    store = FeatureStore.open(folder, width, {"weights": "random"})
    labelled = []
    with store.writer() as writer:
        for number in range(scans):
            name = f"scan-{number}"
            features = random.normal(size=(SLICES, width)).astype(np.float16)
            writer.add(StoredView(name), features, 5 * np.arange(SLICES), shown=name)
            labels = random.integers(0, 2, (SLICES, len(LABELS))).astype(np.float32)
            ids = tuple(f"{name}-{i}" for i in range(SLICES))
            path = folder / f"{name}.b2nd"
            labelled.append(LabelledScan(name, name, name, name, "", path, ids, ids, labels, labels.max(axis=0)))
    store.read_index()
    return ScanFeatures(store), labelled


def rate_of(step: Callable[[], int], seconds: float) -> float:
    """Slices a second of a step that is repeated for some seconds."""
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += step()
    return done / (time.perf_counter() - began)


def anonymous_mib() -> float:
    """What this process holds of its own, in MiB; the pages of memory-mapped files are the system's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def main() -> int:
    given = _arguments()
    device = torch.device(given.device)
    torch.manual_seed(0)
    encoder = Encoder(backbone=given.backbone, pretrained=False)
    model = ScanModel(ModelSettings(encoder=encoder, head=LSTM(hidden_size=512, num_layers=2))).to(device)
    head = ScanModel(ModelSettings(encoder=Encoder(backbone=WIDE, pretrained=False), head=LSTM(hidden_size=512, num_layers=2)))
    head.to(device).requires_grad_(True).encoder.requires_grad_(False)
    width = head.encoder.out_features
    hu = torch.randint(-100, 200, (given.slices, given.size, given.size), dtype=torch.int16, device=device)
    lengths = torch.tensor([given.slices])

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def encode_and_train() -> int:
        model.zero_grad()
        model.train()
        model.encode(hu, lengths).sum().backward()
        synchronize()
        return given.slices

    def encode() -> int:
        model.eval()
        with torch.inference_mode():
            model.encode(hu, lengths)
        synchronize()
        return given.slices

    with tempfile.TemporaryDirectory() as folder:
        small, scans = make_store(Path(folder) / "small", given.scans, width)
        dataset = FeatureDataset(scans, small)
        random = np.random.default_rng(1)

        def read_and_train() -> int:
            batch = dataset[[SampleRequest(int(scan), 0) for scan in random.integers(len(scans), size=SCANS_PER_BATCH)]]
            head.zero_grad()
            features, positions = batch.features.to(device).float(), batch.positions_mm.to(device)
            logits = head.logits_of(features, batch.lengths, positions)
            loss, weight = weighted_loss_sums(logits.slice_logits, batch.slice_labels.to(device), mean="weights")
            (loss / weight).backward()
            synchronize()
            return len(batch.features)

        for step in (read_and_train, encode_and_train, encode):
            step()  # the first warms up
        rates: dict[str, list[float]] = {"head": [], "encoder, training": [], "encoder, forward": []}
        for _ in range(given.rounds):
            for name, step in zip(rates, (read_and_train, encode_and_train, encode), strict=True):
                rates[name].append(rate_of(step, given.seconds))
        before = anonymous_mib()
        for first in range(len(scans)):
            dataset[[SampleRequest(first, 0)]]
        one = anonymous_mib() - before
        large, more = make_store(Path(folder) / "large", 4 * given.scans, width)
        four_times = FeatureDataset(more, large)
        before = anonymous_mib()
        for first in range(len(more)):
            four_times[[SampleRequest(first, 0)]]
        four = anonymous_mib() - before
    medians = {name: statistics.median(values) for name, values in rates.items()}
    warm_up = RSNA_SLICES / medians["encoder, training"]
    stage = RSNA_SLICES / medians["encoder, forward"] + EPOCHS * RSNA_SLICES / medians["head"]
    room = RSNA_SLICES * bytes_per_slice(width) / 1e9
    print(f"{hardware(given.device)}, {torch.get_num_threads()} threads; {given.backbone} at {given.size} pixels")
    for name, rate in medians.items():
        print(f"{name}: {rate:,.0f} slices a second ({min(rates[name]):,.0f} to {max(rates[name]):,.0f})")
    print(f"RSNA's {RSNA_SLICES:,} slices, projected: {room:.1f} GB of features")
    print(f"  an epoch of the encoder's warm-up: {warm_up / 3600:.2f} h")
    print(f"  the head, {EPOCHS} epochs and the encoding before: {stage / 3600:.2f} h, {stage / warm_up:.2f} of that epoch")
    print(f"memory of its own after an epoch: {one:+.1f} MiB, over four times as many features {four:+.1f} MiB")
    reached = stage < warm_up and four < one + 8
    print("goals reached" if reached else "goals missed")
    return 0 if reached else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--slices", type=int, default=16, help="in a step of the encoder")
    parser.add_argument("--scans", type=int, default=500, help="in the smaller store")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a step in a round")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
