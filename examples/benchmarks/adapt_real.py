"""A model that has seen only synthetic heads, adapted to real bleeding of 60 patients, and judged on the other 35.

    python examples/benchmarks/adapt_real.py --data phe_sich --model runs/demo --out runs/adapt-real --splits 1 2 3 4 5

The set and its limits are described in ``phe_sich.py``: only intraparenchymal slices are labelled, all patients bleed, and all
near the basal ganglia, so that height alone has an AUC of 0.944. What counts is the AUC within ten bins of relative height.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import phe_sich

from ich_lstm import LABELS, AdaptSettings, ScanClassifier, ScanDataModule, Split, adapt
from ich_lstm.adaptation.comparing.corrections import apply_corrections
from ich_lstm.adaptation.scans.site import Site, joined, predict_pixels
from ich_lstm.files.atomic_write import write_text
from ich_lstm.statistics import auroc, log_loss, stratified_auroc

COLUMN, BINS, LEARNED_FROM = LABELS.index("intraparenchymal"), 10, 60


def judge(model: ScanClassifier, site: Site) -> dict[str, float | None]:
    """Figures of the slices of a site, with the model's calibration if it has one."""
    found = joined(predict_pixels(model, site, range(len(site.scans))))
    if model.calibration is not None:
        found = apply_corrections(model.calibration.corrections, found)
    heights = np.concatenate([(np.arange(n) + 0.5) / n for n in site.lengths])
    labels, p = site.slice_labels[:, COLUMN], found.slices[:, COLUMN]
    patients = site.patients[site.scan_index]
    return {
        "auroc": auroc(labels, p).value,
        "within_bins": stratified_auroc(labels, p, (heights * BINS).astype(int), patients).value,
        "log_loss": log_loss(labels, p).value,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    given.out.mkdir(parents=True, exist_ok=True)
    dicom, labels = phe_sich.convert(given.data, given.out)
    model = ScanClassifier.load(given.model)
    data = ScanDataModule(dicom, labels, split=Split(fractions=[0.6, 0.2, 0.2]), cache_dir=given.out / "prepared", num_workers=0)
    data.prepare_as(model.known_preprocessing())
    data.prepare_data()
    data.setup()
    every = [scan for scans in data.scans.values() for scan in scans]
    people = sorted({scan.patient_id for scan in every})
    rows = []
    print("| split | chosen | AUC | within bins | log loss |\n|---|---|---|---|---|", flush=True)
    for split in given.splits:
        mine = set(np.random.default_rng(split).permutation(people)[:LEARNED_FROM].tolist())
        others = [scan for scan in every if scan.patient_id not in mine]
        data.scans = {"train": others, "validation": [], "test": []}
        judged = Site.of(data, given.out / "features", "cpu")
        data.scans = {"train": [scan for scan in every if scan.patient_id in mine], "validation": [], "test": []}
        done = adapt(model, data, AdaptSettings(most_wrong=1.0), features=given.out / "features")
        before, after = judge(model, judged), judge(done.classifier, judged)
        rows.append({"split": split, "chosen": done.verdict.chosen, "before": before, "after": after})
        cells = [f"{before[name]:.3f} to {after[name]:.3f}" for name in before]
        print(f"| {split} | {done.verdict.chosen} | {' | '.join(cells)} |", flush=True)
        write_text(given.out / "results.json", json.dumps(rows, indent=1) + "\n")
    means = pd.DataFrame([{name: row["after"][name] - row["before"][name] for name in row["before"]} for row in rows]).mean()
    print("mean change: " + ", ".join(f"{name} {value:+.3f}" for name, value in means.items()))


if __name__ == "__main__":
    main()
