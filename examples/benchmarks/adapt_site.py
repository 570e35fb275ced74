"""Does ich-adapt help a site whose scanner and case mix differ, and does it leave a model alone where nothing differs?

    python examples/benchmarks/adapt_site.py --out runs/adapt-site --seeds 1 2 3 4 5
    python examples/benchmarks/adapt_site.py --out runs/adapt-site --seeds 1 --patients 60      # a quick look
    python examples/benchmarks/adapt_site.py --slope-by-chance     # what slopes a perfectly calibrated model would have

A model is trained by the demo's recipe and calibrated on 300 further heads like those of its training. Then, for each seed:

- `same`: a site like the training's. Expected: the model stays as it is.
- `other`: a site with another scanner (softer kernel, less contrast of blood, more noise, other maker), more confounders, and 8 %
  positive scans.
  The model is adapted to 300 scans and judged on 300 others, before and after.
- `noisy`: the labels of `other` with 20 % of the scans' labels turned round. Expected: refused, or no worse than before.

The heads are synthetic: the table shows that the method works, and says nothing about real hemorrhage.
"""

import argparse
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
from scipy import special

from ich_lstm import LABELS, AdaptSettings, ScanClassifier, ScanDataModule, adapt
from ich_lstm.adaptation.comparing.corrections import apply_corrections
from ich_lstm.adaptation.scans.site import Site, joined, predict_pixels
from ich_lstm.errors import TableError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.labels import ANY
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.reading import index_source
from ich_lstm.statistics import auroc, calibration_line, weighted_log_loss

SLICES, SIZE = 20, 192
WRONG = 0.2


def write_site(folder: Path, *, patients: int, seed: int, is_other: bool) -> Path:
    """Write the heads of a site and a table with a row per scan; what exists stays."""
    heads, table = folder / "heads", folder / "scans.csv"
    if table.is_file():
        return table
    prevalence, noise, difficulty = (0.08, 1.3, 0.5) if is_other else (0.41, 0.7, 0.0)
    write_phantom(
        PhantomSettings(
            patients=patients, slices=SLICES, size=SIZE, seed=seed, prevalence=prevalence, noise=noise, difficulty=difficulty
        ),
        heads,
    )
    labels = heads / "stage_2_train.csv"
    if is_other:
        for path in sorted(heads.rglob("*.dcm")):
            _change_scanner(path)
    rows = pd.read_csv(labels)
    rows[["image", "label"]] = rows["ID"].str.rsplit("_", n=1, expand=True).to_numpy()
    slices = rows.pivot(index="image", columns="label", values="Label")
    series = {header.sop_uid: header.series_uid for header in index_source(heads).headers}
    slices.groupby(slices.index.map(series).rename("series_uid"))[list(LABELS)].max().to_csv(table)
    return table


def _change_scanner(path: Path) -> None:
    """A softer kernel, and two thirds of the contrast between blood and brain."""
    data = pydicom.dcmread(path)
    hu = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
    hu = cv2.GaussianBlur(hu.astype(np.float32), (0, 0), 0.9)
    hu = np.where((hu > 42) & (hu < 110), 42 + 0.67 * (hu - 42), hu)
    stored = np.round((hu - float(data.RescaleIntercept)) / float(data.RescaleSlope)).astype(data.pixel_array.dtype)
    data.PixelData = stored.tobytes()
    data.ConvolutionKernel, data.Manufacturer = "SOFT", "Other"
    data.save_as(path)


def turn_round(table: Path, seed: int) -> Path:
    """Turn the labels of a share of the scans round: a negative one gets a type, a positive one loses all."""
    rows, random = pd.read_csv(table), np.random.default_rng(seed)
    wrong = random.random(len(rows)) < WRONG
    types = [label for label in LABELS if label != ANY]
    for row in np.flatnonzero(wrong):
        was = bool(rows.at[row, ANY])
        rows.loc[row, list(LABELS)] = 0
        if not was:
            rows.loc[row, [ANY, types[random.integers(len(types))]]] = 1
    path = table.with_name("noisy.csv")
    rows.to_csv(path, index=False)
    return path


def data_of(folder: Path, table: Path) -> ScanDataModule:
    return ScanDataModule(folder / "heads", table, cache_dir=folder / f"prepared-{table.stem}", num_workers=0)


def judge(model: ScanClassifier, folder: Path, table: Path) -> dict[str, Any]:
    """Figures of a model, with its calibration, on a site's scans."""
    data = data_of(folder, table)
    data.prepare_as(model.known_preprocessing())
    data.prepare_data()
    data.setup()
    site = Site.of(data, folder, "cpu")
    found = joined(predict_pixels(model, site, range(len(site.scans))))
    if model.calibration is not None:
        found = apply_corrections(model.calibration.corrections, found)
    labels, k = site.scan_labels, LABELS.index(ANY)
    return {
        "log_loss": weighted_log_loss(labels, found.scans).value,
        "auroc": auroc(labels[:, k], found.scans[:, k]).value,
        "slope": calibration_line(labels[:, k], found.scans[:, k]).slope.value,
    }


def home_model(out: Path, patients: int) -> ScanClassifier:
    """The demo's model, calibrated on further heads like those of its training; what exists stays."""
    run = out / "run"
    if not (run / "results.json").is_file():
        subprocess.run([sys.executable, "-m", "ich_lstm.cli.train", "--config", "demo", "--out", str(run)], check=True)
    folder = out / "home"
    if not (folder / "model").is_dir():
        table = write_site(folder, patients=patients, seed=9000, is_other=False)
        done = adapt(ScanClassifier.load(run), data_of(folder, table), AdaptSettings(), features=folder / "features")
        print(f"home: {done.verdict.reason}", flush=True)
        done.classifier.save_pretrained(folder / "model")
    return ScanClassifier.load(folder / "model")


def run(out: Path, kind: str, seed: int, patients: int) -> dict[str, Any]:
    """Adapt to one site, and judge on other patients of it; what is done already stays."""
    result = out / f"{kind}-{seed}.json"
    if result.is_file():
        return json.loads(result.read_text())
    model, is_other = home_model(out, patients), kind != "same"
    name = "other" if is_other else "same"
    folder, others = out / f"{name}-{seed}", out / f"{name}-{seed}-judged"
    table = write_site(folder, patients=patients, seed=100 + seed + 50 * is_other, is_other=is_other)
    judged = write_site(others, patients=patients, seed=300 + seed + 50 * is_other, is_other=is_other)
    table = turn_round(table, seed) if kind == "noisy" else table
    before = judge(model, others, judged)
    try:
        done = adapt(model, data_of(folder, table), AdaptSettings(), features=folder / "features")
        after = judge(done.classifier, others, judged) if done.is_adapted else before
        chosen, reason = done.verdict.chosen, done.verdict.reason
    except TableError as error:
        chosen, reason, after = f"refused ({error.code})", str(error), before
    found = {"chosen": chosen, "reason": reason, "before": before, "after": after}
    write_text(result, json.dumps(found, indent=1) + "\n")
    return found


def slope_by_chance(sites: int = 1000, scans: int = 300) -> str:
    """The calibration slope of a perfectly calibrated model on as many scans as are judged, 8 % of them positive."""
    random, slopes, aucs, shares = np.random.default_rng(0), [], [], []
    for _ in range(sites):
        p = special.expit(random.normal(-6.0, 4.0, scans))
        labels = (random.random(scans) < p).astype(float)
        if labels.sum() >= 8:
            slopes.append(calibration_line(labels, p).slope.value)
            aucs.append(auroc(labels, p).value)
            shares.append(labels.mean())
    inside = np.mean([0.8 <= slope <= 1.2 for slope in slopes])
    low, high = np.quantile(slopes, [0.05, 0.95])
    return (
        f"{len(slopes)} sites of {scans} scans, {100 * np.mean(shares):.1f} % positive, AUC {np.mean(aucs):.3f}: slope "
        f"{low:.2f} to {high:.2f} in nine of ten, between 0.8 and 1.2 in {100 * inside:.0f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--kinds", nargs="+", default=["same", "other", "noisy"], choices=["same", "other", "noisy"])
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--slope-by-chance", action="store_true")
    given = parser.parse_args()
    if given.slope_by_chance:
        print(slope_by_chance())
        return
    if given.out is None:
        parser.error("--out is needed")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    given.out.mkdir(parents=True, exist_ok=True)
    home_model(given.out, given.patients)
    print("| site | seed | chosen | log loss of scans | AUC any | slope |\n|---|---|---|---|---|---|", flush=True)
    for kind in given.kinds:
        for seed in given.seeds:
            found = run(given.out, kind, seed, given.patients)
            pairs = [
                f"{found['before'][name]:.{digits}f} to {found['after'][name]:.{digits}f}"
                for name, digits in (("log_loss", 4), ("auroc", 3), ("slope", 2))
            ]
            print(f"| {kind} | {seed} | {found['chosen']} | {' | '.join(pairs)} |", flush=True)


if __name__ == "__main__":
    main()
