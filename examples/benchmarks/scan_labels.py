"""Do labels of scans alone teach slices? Trained without a single slice label, and judged on the slices of other patients.

    python examples/benchmarks/scan_labels.py --out runs/scan-labels
    python examples/benchmarks/scan_labels.py --out runs/scan-labels --at-least 0.80    # fails below that AUC of slices

Synthetic heads of 8 slices, half of them with a hemorrhage; the smallest encoder from scratch, each slice seen alone, its logits
pooled to those of the scan. What is known of slices is that those of a scan without a hemorrhage have none. The validation
patients choose nothing here: their slices are judged, by labels that the training has not seen.
"""

import argparse
import logging
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything

from ich_lstm import (
    LABELS,
    Batches,
    Encoder,
    Loss,
    NoHead,
    Optimizer,
    Pooling,
    Preprocessing,
    ScanClassifier,
    ScanDataModule,
    Split,
)
from ich_lstm.evaluation.evaluate import predict_subset, summarize
from ich_lstm.labels import ANY
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.reading import index_source

SLICES, SIZE, PHANTOM_SIZE = 8, 96, 128


def write_scan_labels(folder: Path, slice_labels: Path) -> Path:
    """A table with a row per scan and no other column than its labels, made from RSNA's table of slices."""
    table = pd.read_csv(slice_labels)
    table[["image", "label"]] = table["ID"].str.rsplit("_", n=1, expand=True).to_numpy()
    slices = table.pivot(index="image", columns="label", values="Label")
    series = {header.sop_uid: header.series_uid for header in index_source(folder).headers}
    scans = slices.groupby(slices.index.map(series).rename("series_uid"))[list(LABELS)].max()
    path = folder / "scans.csv"
    scans.to_csv(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=400, help="a fifth of them to be judged on")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--pooling", default="noisy-or", help="kind, as of Pooling")
    parser.add_argument("--scan-weight", type=float, default=4.0, help="of the loss of scans; that of slices has 1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--at-least", type=float, help="end with an error if the slices' AUC of any is lower")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    settings = PhantomSettings(patients=given.patients, slices=SLICES, size=PHANTOM_SIZE, prevalence=0.5, noise=0.3, seed=5)
    folder = write_phantom(settings, given.out / "heads", workers=given.threads)
    slice_labels = folder / "stage_2_train.csv"
    scan_labels = write_scan_labels(folder, slice_labels)

    def data_of(labels: Path) -> ScanDataModule:
        cache = given.out / f"prepared-{labels.stem}"
        return ScanDataModule(
            folder,
            labels,
            preprocessing=Preprocessing(size=SIZE),
            batches=Batches(slices=64),
            num_workers=0,
            cache_dir=cache,
            split=Split(fractions=(0.8, 0.2, 0)),
        )

    seed_everything(given.seed, verbose=False)
    data = data_of(scan_labels)
    model = ScanClassifier(
        # The maximum finds a small bleeding that the mean dilutes.
        Encoder(backbone="test_byobnet", global_pool="catavgmax", pretrained=False),
        head=NoHead(),
        pooling=Pooling(kind=given.pooling),
        loss=Loss(scan=given.scan_weight),
        optimizer=Optimizer(lr=3e-3, encoder_lr=3e-3),
    )
    began = time.monotonic()
    trainer = Trainer(
        max_epochs=given.epochs,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, data)
    seconds = time.monotonic() - began
    truth = data_of(slice_labels)
    truth.prepare_data()
    truth.setup()
    found = summarize(predict_subset(model, truth, "validation", hash_patient=str))
    slices, scans = (found[level]["sequence"]["auroc"][ANY] for level in ("slices", "scans"))
    print(
        f"{len(data.scans['train'])} scans to train on, seed {given.seed}, "
        f"{given.pooling}, {given.epochs} epochs, {seconds:.0f} s: of {len(truth.scans['validation'])} other scans, AUC of any "
        f"{slices:.3f} for slices, {scans:.3f} for scans"
    )
    if given.at_least is not None and not slices >= given.at_least:
        sys.exit(f"AUC of slices {slices:.3f}, expected at least {given.at_least}")


if __name__ == "__main__":
    main()
