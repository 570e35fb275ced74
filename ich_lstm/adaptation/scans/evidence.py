"""Predictions for a site's scans as evidence, as every other evaluation takes it."""

import numpy as np
import pandas as pd

from ich_lstm.adaptation.scans.site import Probabilities, Site
from ich_lstm.data.features.feature_dataset import ScanFeatures
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, make_evidence
from ich_lstm.labels import LABELS
from ich_lstm.privacy import ProjectKey
from ich_lstm.training.classifier import ScanClassifier


def make_site_evidence(
    site: Site, stored: ScanFeatures, found: Probabilities, key: ProjectKey, model: ScanClassifier, how: str
) -> Evidence:
    """Join predictions with the labels as they were given.

    Args:
        site: The site.
        stored: Stored features of its scans, which know the positions of slices.
        found: Probabilities of all scans.
        key: The key that hashes patient ids.
        model: The model that stands for the predictions.
        how: Name of the candidate.
    """
    index = site.scan_index
    ids = np.array([scan.scan_id for scan in site.scans], dtype=object)
    slices = pd.DataFrame(
        {
            "scan_id": ids[index],
            "slice": np.concatenate([np.arange(1, length + 1) for length in site.lengths]),
            "position_mm": np.concatenate([stored.read(scan).positions_mm for scan in site.scans]),
            "slice_id": [name for scan in site.scans for name in scan.slice_ids],
            **dict(zip(LABELS, found.slices.T, strict=True)),
            **{LABEL_PREFIX + label: site.slice_labels[:, k] for k, label in enumerate(LABELS)},
        }
    )
    scans = pd.DataFrame(
        {
            "scan_id": ids,
            "patient_id": [key.hash_id(scan.patient_id) for scan in site.scans],
            **dict(zip(LABELS, found.scans.T, strict=True)),
            **{LABEL_PREFIX + label: site.scan_labels[:, k] for k, label in enumerate(LABELS)},
        }
    )
    source = {
        "kind": "adaptation",
        "model": {"name": model.name, "hash": model.weights_hash()},
        "part": "cross-validation",
        "truth": "",
        "counts": {},
        "notes": [
            f"{how}: predictions of scans by models and corrections that were not fitted to them (cross-validation by patient)"
        ],
    }
    return make_evidence(slices, scans, source, is_test=False)
