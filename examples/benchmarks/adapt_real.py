"""A model that has seen only synthetic heads, adapted to real bleeding of 60 patients, and judged on the other 35.

    python examples/benchmarks/adapt_real.py --data phe_sich --model runs/demo --out runs/adapt-real --splits 1 2 3 4 5

Beside it, two trainings on the same 60 patients that start from ImageNet weights instead of the model (`real_bleeding.py` says
how, and where the weights come from; 48 patients are trained on, and 12 choose the epoch): `frozen`, a head on the features of
the encoder as it is, and `fine-tuned`, the encoder on single slices, then the head. ``--beside`` chooses among them. Each part of
a split leaves a file, and what exists is not done again.

The set and its limits are described in ``phe_sich.py``: only intraparenchymal slices are labelled, all patients bleed, and all
near the basal ganglia, so that height alone has an AUC of 0.944. What counts is the AUC within ten bins of relative height.
"""

import argparse
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import phe_sich
import real_bleeding
from pytorch_lightning import seed_everything

from ich_lstm import LABELS, AdaptSettings, ScanClassifier, ScanDataModule, Split, adapt
from ich_lstm.adaptation.comparing.corrections import apply_corrections
from ich_lstm.adaptation.scans.site import Site, joined, predict_pixels
from ich_lstm.cli.training.stage_trainer import best_precision
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.files.atomic_write import write_text
from ich_lstm.statistics import auroc, log_loss, stratified_auroc
from ich_lstm.training.stages import Stage

COLUMN, BINS, LEARNED_FROM, CHOOSING = LABELS.index("intraparenchymal"), 10, 60, 12
BESIDE = ("frozen", "fine-tuned")

Figures = dict[str, float | str | None]


def judge(model: ScanClassifier, site: Site) -> Figures:
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


class Splits:
    """The scans of a data module, divided again for each split.

    Args:
        data: The data, set up.
        features: Folder for the features of encoders.
    """

    def __init__(self, data: ScanDataModule, features: Path) -> None:
        self.data, self.features = data, features
        self.scans: list[LabelledScan] = [scan for scans in data.scans.values() for scan in scans]
        self.people = sorted({scan.patient_id for scan in self.scans})

    def divide(self, split: int, *, choosing: int = 0) -> tuple[Site, ScanDataModule]:
        """The patients who are judged, and the data of the 60 others, some of whom choose the epoch."""
        mine = np.random.default_rng(split).permutation(self.people)[:LEARNED_FROM].tolist()
        self.data.scans = {"train": self._of(set(self.people) - set(mine)), "validation": [], "test": []}
        judged = Site.of(self.data, self.features, "cpu")
        self.data.scans = {"train": self._of(mine[choosing:]), "validation": self._of(mine[:choosing]), "test": []}
        return judged, self.data

    def _of(self, people: set[str] | list[str]) -> list[LabelledScan]:
        return [scan for scan in self.scans if scan.patient_id in people]


def adapted(given: argparse.Namespace, split: int) -> dict[str, Figures]:
    """The model before and after its adaptation."""
    model = ScanClassifier.load(given.model)
    dicom, labels = phe_sich.convert(given.data, given.out)
    data = ScanDataModule(dicom, labels, split=Split(fractions=[0.6, 0.2, 0.2]), cache_dir=given.out / "prepared", num_workers=0)
    data.prepare_as(model.known_preprocessing())
    data.prepare_data()
    data.setup()
    judged, mine = Splits(data, given.out / "features").divide(split)
    # All labels of slices are a radiologist's; most labels of scans are unknown, and none is negative.
    done = adapt(model, mine, AdaptSettings(most_wrong=1.0), features=given.out / "features")
    return {"before": judge(model, judged), "after": {"chosen": done.verdict.chosen, **judge(done.classifier, judged)}}


def from_imagenet(given: argparse.Namespace, split: int, name: str) -> dict[str, Figures]:
    """A model that starts from ImageNet weights and is trained on the same patients."""
    options = real_bleeding.make_parser().parse_args([f"--data={given.data}", f"--out={given.out}"])
    options.precision = best_precision("cpu")
    heads = real_bleeding.make_heads(options)
    judged, data = Splits(real_bleeding.make_data(options, heads, 0), given.out / "features").divide(split, choosing=CHOOSING)
    known = real_bleeding.arms(options)
    head: Stage = known["no-joint"].stages[0]
    encoder: Stage = known["2d"].stages[0]
    arm = real_bleeding.Trained(
        about=name, stages=(head,) if name == "frozen" else (encoder, head), model={"test_time": "flip-reverse"}
    )
    seed_everything(split, verbose=False)
    model = real_bleeding.train(options, arm, split, data, given.out / f"{name}-{split}")
    return {name: judge(model, judged)}


def once(path: Path, what: Callable[[], dict[str, Figures]]) -> dict[str, Figures]:
    """The figures of a file, which is made if it is not there."""
    if not path.is_file():
        write_text(path, json.dumps(what(), indent=1) + "\n")
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--beside", nargs="*", default=list(BESIDE), choices=BESIDE)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    print("| split | model | AUC | within bins | log loss |\n|---|---|---|---|---|", flush=True)
    for split in given.splits:
        found = once(given.out / f"adapted-{split}.json", lambda: adapted(given, split))  # noqa: B023
        for name in given.beside:
            found |= once(given.out / f"{name}-{split}.json", lambda: from_imagenet(given, split, name))  # noqa: B023
        for name, figures in found.items():
            label = f"{name} ({figures['chosen']})" if "chosen" in figures else name
            rows.append({"model": name, **{key: figures[key] for key in ("auroc", "within_bins", "log_loss")}})
            cells = " | ".join(f"{value:.3f}" for value in list(rows[-1].values())[1:])
            print(f"| {split} | {label} | {cells} |", flush=True)
    means = pd.DataFrame(rows).groupby("model", sort=False).mean()
    for name, figures in means.iterrows():
        print(f"| mean | {name} | " + " | ".join(f"{value:.3f}" for value in figures) + " |")


if __name__ == "__main__":
    main()
