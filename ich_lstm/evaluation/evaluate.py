"""Predicts labelled scans with a model, and summarizes the results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ich_lstm.archive.folder.file_names import SCANS, SLICES
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.split.assign import Subset
from ich_lstm.evaluation.evidence import ENCODER_PREFIX, LABEL_PREFIX, columns_of
from ich_lstm.files.csv_table import write_csv
from ich_lstm.inference.forward import predicted, probabilities_of
from ich_lstm.labels import LABELS
from ich_lstm.statistics import auroc, log_loss, weighted_log_loss
from ich_lstm.training.classifier import ScanClassifier


class LabelledPredictions(NamedTuple):
    """Probabilities with labels, one row per slice and one row per scan.

    Args:
        slices: The columns ``scan_id``, ``slice`` (from 1), ``slice_id`` and ``position_mm``; six probabilities; with the prefix
            ``encoder_`` those of the encoder alone if the model has a recurrent head; with the prefix ``label_`` the labels
            (empty if unknown); and ``split``.
        scans: The columns ``scan_id`` and ``patient_id`` (hashed), six probabilities, six labels, and ``split``.
    """

    slices: pd.DataFrame
    scans: pd.DataFrame


def predict_subset(
    classifier: ScanClassifier,
    data: ScanDataModule,
    subset: Subset,
    *,
    hash_patient: Callable[[str], str],
    progress: Callable[[int], None] | None = None,
    coherent: bool = True,
) -> LabelledPredictions:
    """Predict every scan of a subset on the model's device, in the same way as ``ich-predict``.

    Args:
        classifier: The model to evaluate; it is left in evaluation mode.
        data: The data of the run, after ``setup``.
        subset: The subset to predict.
        hash_patient: Function from a raw patient id to a shareable one.
        progress: Called with the number of scans done since the last call.
        coherent: Whether a scan's probability is raised to that of its most probable slice, and "any" to that of the most
            probable type. The encoder's own probabilities are never raised.
    """
    scans = {scan.scan_id: scan for scan in data.scans[subset]}
    slice_rows, scan_rows = [], []
    classifier.eval()
    with torch.inference_mode():
        for batch in data.evaluation_loader(subset):
            batch = classifier.transfer_batch_to_device(batch, classifier.device, 0)
            logits = classifier.infer(batch)
            found = predicted(logits, batch.lengths, coherent=coherent)
            sizes = batch.lengths.tolist()
            encoder = None if logits.encoder_logits is None else probabilities_of(logits.encoder_logits)
            of_slices = [_split(found.slices, sizes), _split(encoder, sizes)]
            of_scans = found.scans.cpu().numpy()
            positions = [p.cpu().numpy() for p in batch.positions_mm.split(sizes)]
            for i, scan_id in enumerate(batch.scan_ids):
                scan = scans[scan_id]
                rows = pd.DataFrame(
                    {
                        "scan_id": scan_id,
                        "slice": np.arange(1, sizes[i] + 1),
                        "slice_id": scan.slice_ids,
                        "position_mm": positions[i],
                    }
                )
                columns = [_columns("", of_slices[0][i]), _columns(LABEL_PREFIX, scan.slice_labels)]
                if logits.encoder_logits is not None:
                    columns.insert(1, _columns(ENCODER_PREFIX, of_slices[1][i]))
                slice_rows.append(pd.concat([rows, *columns], axis=1))
                ids = pd.DataFrame([{"scan_id": scan_id, "patient_id": hash_patient(scan.patient_id)}])
                known = _columns(LABEL_PREFIX, scan.scan_labels[None])
                scan_rows.append(pd.concat([ids, _columns("", of_scans[i : i + 1]), known], axis=1))
            if progress is not None:
                progress(len(sizes))
    return LabelledPredictions(
        pd.concat(slice_rows, ignore_index=True).sort_values(["scan_id", "slice"], ignore_index=True).assign(split=subset),
        pd.concat(scan_rows, ignore_index=True).sort_values("scan_id", ignore_index=True).assign(split=subset),
    )


def summarize(predictions: LabelledPredictions) -> dict[str, Any]:
    """Compute the weighted log loss, and AUROC and log loss of each label, of the sequence model and of the encoder alone.

    Returns:
        ``{"slices": {"sequence": {...}, "encoder": {...}}, "scans": {"sequence": {...}}}``; a value is None where it is
        undefined, for example the AUROC of a label that is never present.
    """
    summary: dict[str, Any] = {"slices": {"sequence": _figures(predictions.slices, "")}}
    if ENCODER_PREFIX + LABELS[0] in predictions.slices:
        summary["slices"]["encoder"] = _figures(predictions.slices, ENCODER_PREFIX)
    summary["scans"] = {"sequence": _figures(predictions.scans, "")}
    return summary


def write_labelled(folder: Path, predictions: list[LabelledPredictions]) -> None:
    """Write ``slices.csv`` and ``scans.csv`` with all digits of every probability."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tables in ((SLICES, [each.slices for each in predictions]), (SCANS, [each.scans for each in predictions])):
        write_csv(folder / name, pd.concat(tables))


def _figures(frame: pd.DataFrame, prefix: str) -> dict[str, Any]:
    labels, probabilities = columns_of(frame, LABEL_PREFIX), columns_of(frame, prefix)
    return {
        "weighted_log_loss": weighted_log_loss(labels, probabilities).value,
        **{
            name: {label: figure(labels[:, k], probabilities[:, k]).value for k, label in enumerate(LABELS)}
            for name, figure in (("auroc", auroc), ("log_loss", log_loss))
        },
    }


def _columns(prefix: str, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[prefix + label for label in LABELS])


def _split(probabilities: torch.Tensor | None, sizes: list[int]) -> list[np.ndarray]:
    return [] if probabilities is None else [rows.cpu().numpy() for rows in probabilities.split(sizes)]
