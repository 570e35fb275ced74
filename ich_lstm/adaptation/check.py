"""Compares new scans with those that a model was adapted to: drift, without labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ich_lstm.adaptation.write import MODEL, read_record
from ich_lstm.data.prepare.prepare import prepare
from ich_lstm.data.prepared.folder import PreparedFolder, settle_preprocessing
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.data.profile import FEWEST, Drift, compare_profiles, profile_scans
from ich_lstm.errors import TableError
from ich_lstm.inference.forward import evaluating, infer, predicted
from ich_lstm.inference.predictor import Predictor
from ich_lstm.labels import ANY, LABELS
from ich_lstm.privacy import ProjectKey

Progress = Callable[[str, int, int | None], None]


class Check(NamedTuple):
    """The result of a check.

    Args:
        scans: Number of new scans.
        drift: Every figure that the record and the new scans have in common.
    """

    scans: int
    drift: list[Drift]

    @property
    def moved(self) -> list[Drift]:
        """The figures that have moved."""
        return [each for each in self.drift if each.moved]

    @property
    def in_words(self) -> str:
        """One plain sentence for each figure that has moved, or one that says that none has."""
        if not self.moved:
            return f"{self.scans:,} scans: nothing has moved since the adaptation, in {len(self.drift)} figures."
        lines = [
            f"{each.figure}: {each.before} then, {each.now} now (distance {each.distance:.2f}, limit {each.limit:.2f})"
            for each in self.moved
        ]
        return f"{self.scans:,} scans: {len(lines)} of {len(self.drift)} figures have moved since the adaptation. " + "; ".join(
            lines
        )


def check_drift(
    adapted: Path,
    root: Path,
    cache: Path,
    *,
    key: ProjectKey,
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Check:
    """Compare new scans with those of an adaptation. No labels are needed.

    Args:
        adapted: The folder that `ich_lstm.adaptation.write.write_adaptation` wrote.
        root: New scans: a folder, a zip, or a folder made by `prepare`.
        cache: Folder for prepared scans, if ``root`` is not one.
        key: The key that hashes ids.
        workers: Number of processes that read scans; None for one per core.
        device: Device of the model: ``cpu`` or ``cuda``.
        progress: Called with the activity, the number of items done since the last call, and the total.

    Raises:
        CheckpointError: ``not_adapted``.
        TableError: ``too_few_scans``, with fewer than `FEWEST` scans.
    """
    record = read_record(adapted)
    predictor = Predictor.load(adapted / MODEL)
    preprocessing = predictor.known_preprocessing()
    if PreparedFolder.is_one(root):
        settle_preprocessing(root, preprocessing)
        folder = PreparedFolder.open(root)
    else:
        folder = prepare(root, cache, preprocessing=preprocessing, key=key, workers=workers, progress=progress)
    facts = folder.facts
    if len(facts) < FEWEST:
        raise TableError(
            "too_few_scans",
            where=str(root),
            got=f"{len(facts)} scans",
            expected=f"at least {FEWEST}, because a smaller number shows no drift",
            todo="Check a longer time, for example a month.",
        )
    model = predictor.model.to(device)
    scores = np.empty(len(facts))
    with evaluating(model):
        for row, name in enumerate(facts["cache"].astype(str)):
            scores[row] = _score(predictor, folder.cache / name, device)
            if progress is not None:
                progress("predicting scans", 1, len(facts))
    return Check(len(facts), compare_profiles(record["profile"], profile_scans(facts, scores)))


def _score(predictor: Any, path: Path, device: str) -> float:
    """The probability of "any" of a scan, before any correction, as the record has it."""
    scan = read_cached(path)
    lengths = torch.tensor([len(scan.hu)])
    positions = torch.from_numpy(scan.positions_mm).to(device)
    hu = torch.from_numpy(scan.hu).to(device)
    logits = infer(predictor.model, hu, lengths, positions, test_time=predictor.test_time)
    return float(predicted(logits, lengths).scans[0, LABELS.index(ANY)])
