"""External validation: a model on a data set that it was not trained on."""

from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.split.assign import SUBSETS
from ich_lstm.data.split.split_file import SPLIT_FILE, SplitFile
from ich_lstm.errors import ConfigError
from ich_lstm.evaluation.evaluate import predict_subset
from ich_lstm.evaluation.evidence import Evidence, check_unseen, make_evidence
from ich_lstm.privacy import PRIVATE, ProjectKey
from ich_lstm.reading.series.slabs import THIN_MM
from ich_lstm.training.classifier import ScanClassifier


def predict_evidence(
    classifier: ScanClassifier,
    data: ScanDataModule,
    *,
    key: ProjectKey,
    trained_on: Collection[str] = (),
    truth: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    """Predict all scans of a data set on which the model was not trained, in all subsets of the data set's split.

    Args:
        classifier: The model, on the device to predict on.
        data: The data after ``setup``, prepared like the model's training data.
        key: The key that hashes patient ids.
        trained_on: Raw ids of the patients of the training and validation sets.
        truth: The rule by which several readers made the labels; it is only recorded.
        progress: Called with the number of scans done since the last call, and the number of all scans.

    Raises:
        ConfigError: If the data were prepared with other settings, or the model was trained on some of the patients.
    """
    if data.preprocessing != classifier.preprocessing:
        raise ConfigError(
            "other_preprocessing",
            where="--data.root",
            got=f"scans prepared as {data.preprocessing}",
            expected=f"{classifier.preprocessing}, the settings of the model's training",
            todo="Name the DICOM files themselves, or prepare them again with ich-prepare and these settings.",
        )
    scans = [scan for subset in SUBSETS for scan in data.scans[subset]]
    check_unseen({scan.patient_id for scan in scans}, trained_on, where="--data.root")
    subsets = [subset for subset in SUBSETS if data.scans[subset]]
    step = None if progress is None else lambda done: progress(done, len(scans))
    predictions = [predict_subset(classifier, data, subset, hash_patient=key.hash_id, progress=step) for subset in subsets]
    slices = pd.concat([each.slices for each in predictions], ignore_index=True).drop(columns="split")
    notes = []
    steps = slices.groupby("scan_id")["position_mm"].agg(lambda positions: positions.diff().abs().median())
    thin = int((steps <= THIN_MM).sum())
    if thin and classifier.slab_mm is not None:
        notes.append(
            f"{thin} scans of thin slices were predicted without averaging, although the model was trained on averaged slices; "
            "ich-predict averages them"
        )
    if not trained_on:
        notes.append("not known whether the model was trained on these patients: private/split.json of its run was not found")
    source = {
        "kind": "checkpoint",
        "is_unseen": bool(trained_on),
        "model": {"name": classifier.name, "hash": classifier.weights_hash()},
        "part": "",
        "truth": truth,
        "counts": {},
        "notes": notes,
    }
    scan_rows = pd.concat([each.scans for each in predictions], ignore_index=True).drop(columns="split")
    return make_evidence(slices, scan_rows, source, is_test=True)


def patients_of_run(checkpoint: Path) -> set[str]:
    """Raw ids of the patients of a run's training and validation sets; empty if its split cannot be found.

    Args:
        checkpoint: A run's folder, its model folder, or a ``.ckpt`` in it.
    """
    for folder in (checkpoint, *checkpoint.resolve().parents[:2]):
        path = folder / PRIVATE / SPLIT_FILE
        if path.is_file():
            patients = SplitFile.read(path).patients
            # A split into folds does not say which fold was held out, so all of its patients count as seen.
            return {patient for patient, subset in patients.items() if subset != "test"}
    return set()
