"""What coherent probabilities change: log loss and AUC of runs on synthetic heads, raw and coherent, before and after Platt.

    for s in 1 2 3; do
      ich-train --config demo --out runs/coherence-$s --seed_everything $s --phantom.seed $s --phantom.patients 150 \
        --phantom.slices 20 --phantom.size 128 --data.preprocessing.size 96 --data.split.fractions "[0.6,0.2,0.2]" \
        --stages null --model.head.encoder_residual true --trainer.max_epochs 20
    done
    python examples/benchmarks/coherence.py runs/coherence-1 runs/coherence-2 runs/coherence-3

Each run's held-out patients are judged; corrections are fitted to its validation patients, each time to probabilities of the same
kind. A contradiction is a scan less probable than one of its slices, or "any" less probable than a type, by more than 0.001.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from ich_lstm import LABELS, ScanClassifier, ScanDataModule, Split
from ich_lstm.evaluation.aggregate import aggregate
from ich_lstm.evaluation.evaluate import LabelledPredictions, predict_subset
from ich_lstm.evaluation.evidence import LABEL_PREFIX, columns_of
from ich_lstm.labels import ANY
from ich_lstm.privacy import PRIVATE, ProjectKey
from ich_lstm.statistics import fit_platt
from ich_lstm.training.metrics import LabelAUROC, WeightedLogLoss

LEVELS = ("slices", "scans")
OF_ANY = LABELS.index(ANY)


def data_of(run: Path, classifier: ScanClassifier) -> ScanDataModule:
    data = ScanDataModule(
        str(run / "phantom"),
        preprocessing=classifier.known_preprocessing(),
        split=Split(file=run / PRIVATE / "split.json"),
        num_workers=0,
        cache_dir=str(run / PRIVATE / "prepared"),
    )
    data.prepare_data()
    data.setup()
    return data


def figures(probabilities: np.ndarray, labels: np.ndarray) -> list[float]:
    """Weighted log loss, AUC of any, and the mean AUC of the types that occur."""
    loss, areas = WeightedLogLoss(), LabelAUROC()
    for metric in (loss, areas):
        metric.update(torch.tensor(probabilities), torch.tensor(labels))
    by_label = areas.compute().numpy()
    return [float(loss.compute()), float(by_label[OF_ANY]), float(np.nanmean(np.delete(by_label, OF_ANY)))]


def corrected(chosen: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Platt per label, where there are positives and negatives to fit it to."""
    found = judged.copy()
    for k in range(len(LABELS)):
        if 0 < labels[:, k].sum() < len(labels):
            found[:, k] = fit_platt(labels[:, k], chosen[:, k]).apply(judged[:, k])
    return found


def contradictions(predictions: LabelledPredictions) -> float:
    slices, scans = columns_of(predictions.slices, ""), columns_of(predictions.scans, "")
    index = predictions.scans["scan_id"].searchsorted(predictions.slices["scan_id"])
    least = np.maximum(scans, aggregate(slices, index, "max"))
    least[:, OF_ANY] = least.max(axis=1)
    return float((least - scans > 1e-3).any(axis=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[tuple[str, str, str], list[list[float]]] = {}
    for run in given.runs:
        classifier = ScanClassifier.load(run)
        data, key = data_of(run, classifier), ProjectKey.open()
        for kind in ("raw", "coherent"):
            validation, test = (
                predict_subset(classifier, data, part, hash_patient=key.hash_id, coherent=kind == "coherent")
                for part in ("validation", "test")
            )
            if kind == "raw":
                print(f"{run.name}: {len(test.scans)} scans, {contradictions(test):.0%} with a contradiction", flush=True)
            for level in LEVELS:
                chosen, judged = (getattr(part, level) for part in (validation, test))
                labels = columns_of(judged, LABEL_PREFIX)
                plain = columns_of(judged, "")
                platt = corrected(columns_of(chosen, ""), columns_of(chosen, LABEL_PREFIX), plain)
                rows.setdefault((level, "as predicted", kind), []).append(figures(plain, labels))
                rows.setdefault((level, "after Platt", kind), []).append(figures(platt, labels))
    print("\n| level | | probabilities | weighted log loss | AUC any | mean AUC of types |\n|---|---|---|---|---|---|")
    for (level, when, kind), values in sorted(rows.items()):
        mean = np.mean(values, axis=0)
        print(f"| {level} | {when} | {kind} | {mean[0]:.4f} | {mean[1]:.4f} | {mean[2]:.4f} |")
    print("\n" + json.dumps({" ".join(name): np.round(values, 4).tolist() for name, values in rows.items()}))


if __name__ == "__main__":
    main()
