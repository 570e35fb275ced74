"""How many labels of scans are probably wrong, and which, by confident learning.

Source: Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021;70:1373-1411.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.adaptation.comparing.candidates import Candidate
from ich_lstm.adaptation.comparing.corrections import FEWEST_POSITIVE_PATIENTS
from ich_lstm.adaptation.comparing.cross_validation import OutOfFold, mean_of
from ich_lstm.adaptation.comparing.settings import Doubtful
from ich_lstm.adaptation.scans.site import Probabilities, Site
from ich_lstm.labels import ANY, LABELS
from ich_lstm.statistics import auroc


class LabelNoise(NamedTuple):
    """The estimated noise of one label, over scans.

    Args:
        label: The label.
        known: Number of scans whose label is known.
        wrong: Estimated share of wrong labels, in [0, 1]; NaN if one class is missing.
        false_positive: Estimated share of scans labelled 1 among those without the finding; NaN if unknown.
        false_negative: Estimated share of scans labelled 0 among those with the finding; NaN if unknown.
        doubtful: Whether each scan's label is probably wrong, bool ``(b,)``.
        margin: By how much the model prefers the other label, ``(b,)``, in [-1, 1].
        labels: The labels, ``(b,)``.
        probabilities: The probabilities by which they were judged, ``(b,)``.
    """

    label: str
    known: int
    wrong: float
    false_positive: float
    false_negative: float
    doubtful: np.ndarray
    margin: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray


def estimate_noise(labels: np.ndarray, probabilities: np.ndarray, label: str = ANY) -> LabelNoise:
    """Estimate the noise of one label.

    A label is doubtful if the probability of the other class is at least as high as it is on average among the scans that are
    labelled with that class, and the probability of its own class is not.

    Args:
        labels: Labels of scans, ``(b,)``: 1, 0 or NaN.
        probabilities: Probabilities of scans by models that were not trained on them, ``(b,)``.
        label: Name of the label.

    Example:
        >>> y = np.array([1, 1, 1, 0, 0, 0, 0, 1.0])
        >>> p = np.array([0.9, 0.8, 0.9, 0.1, 0.1, 0.2, 0.1, 0.05])
        >>> noise = estimate_noise(y, p)
        >>> print(noise.doubtful.nonzero()[0], f"{noise.wrong:.3f}")
        [7] 0.125
    """
    p = np.stack([1 - probabilities, probabilities], axis=1)  # (b, 2)
    known = ~np.isnan(labels)
    given = np.where(known, labels, 0).astype(int)
    margin = np.where(known, p[np.arange(len(p)), 1 - given] - p[np.arange(len(p)), given], np.nan)
    counts = np.array([(known & (given == each)).sum() for each in (0, 1)])
    if not counts.all():
        return LabelNoise(label, int(known.sum()), np.nan, np.nan, np.nan, np.zeros(len(p), bool), margin, labels, probabilities)
    usual = np.array([p[known & (given == each), each].mean() for each in (0, 1)])
    confident = p >= usual  # (b, 2)
    likely = np.where(confident.all(axis=1), p.argmax(axis=1), confident.argmax(axis=1))
    judged = known & confident.any(axis=1)
    joint = np.array([[(judged & (given == a) & (likely == b)).sum() for b in (0, 1)] for a in (0, 1)], dtype=np.float64)
    rows = joint.sum(axis=1)
    joint = np.where(rows[:, None] > 0, joint / np.maximum(rows, 1)[:, None], np.eye(2)) * counts[:, None]  # given x true
    true = np.maximum(joint.sum(axis=0), 1e-12)
    return LabelNoise(
        label,
        int(known.sum()),
        float((joint[0, 1] + joint[1, 0]) / counts.sum()),
        float(joint[1, 0] / true[0]),
        float(joint[0, 1] / true[1]),
        judged & (likely != given),
        margin,
        labels,
        probabilities,
    )


def judge_of_labels(out_of_fold: OutOfFold, site: Site, candidates: Sequence[Candidate]) -> Probabilities:
    """The probabilities by which labels are judged: those that rank "any" best, corrected to the site by Platt scaling.

    Without the correction, a model from another site calls many negative scans nearly as probable as the average positive one,
    and their labels would all be doubtful.

    Args:
        out_of_fold: Out-of-fold predictions.
        site: The site, with its labels as they were given.
        candidates: The candidates; of equally good ones, the first is taken.
    """
    k = LABELS.index(ANY)

    def ranking(candidate: Candidate) -> float:
        return auroc(site.scan_labels[:, k], mean_of(out_of_fold.by_part[candidate.trains]).scans[:, k]).value or 0.0

    best = max((each for each in candidates if each.correction == "platt"), key=ranking)
    return mean_of(out_of_fold.corrected(best, site, None, None))


def estimate_all(site: Site, probabilities: Probabilities) -> list[LabelNoise]:
    """Estimate the noise of every label. With few positive patients, that of a label is unknown, and none is doubtful.

    Args:
        site: The site, with its labels as they were given.
        probabilities: Probabilities of all scans, as `judge_of_labels` gives them.
    """
    found = []
    for k, label in enumerate(LABELS):
        labels, p = site.scan_labels[:, k], probabilities.scans[:, k]
        noise = estimate_noise(labels, p, label)
        if len(np.unique(site.patients[labels == 1].astype(str))) < FEWEST_POSITIVE_PATIENTS:
            noise = noise._replace(wrong=np.nan, false_positive=np.nan, false_negative=np.nan, doubtful=np.zeros(len(p), bool))
        found.append(noise)
    return found


def tabulate_noise(noise: list[LabelNoise]) -> pd.DataFrame:
    """One row per label: ``label, known, doubtful, wrong, false_positive, false_negative``.

    Args:
        noise: The estimates.
    """
    return pd.DataFrame(
        [
            {
                "label": each.label,
                "known": each.known,
                "doubtful": int(each.doubtful.sum()),
                "wrong": each.wrong,
                "false_positive": each.false_positive,
                "false_negative": each.false_negative,
            }
            for each in noise
        ]
    )


def treat_doubtful(site: Site, noise: list[LabelNoise], probabilities: Probabilities, how: Doubtful) -> Site:
    """Change labels that are probably wrong.

    Args:
        site: The site.
        noise: The estimates of all labels.
        probabilities: The probabilities by which they were made.
        how: ``unknown``: a doubtful label of a scan and of its slices becomes unknown. ``soft``: the scan's label becomes the
            probability that the finding is present, given the label, the probability and the noise; doubtful labels of slices
            become unknown. ``keep``: nothing changes.
    """
    if how == "keep":
        return site
    slice_labels, scan_labels = site.slice_labels.copy(), site.scan_labels.copy()
    for k, each in enumerate(noise):
        slice_labels[each.doubtful[site.scan_index], k] = np.nan
        if how == "unknown" or np.isnan(each.wrong):
            scan_labels[each.doubtful, k] = np.nan
            continue
        given = site.scan_labels[:, k]
        # The probabilities were fitted to the labels as they were given; this one is of the finding itself.
        right = max(1 - each.false_positive - each.false_negative, 1e-6)
        p = np.clip((probabilities.scans[:, k] - each.false_positive) / right, 0, 1)
        if_present = np.where(given == 1, 1 - each.false_negative, each.false_negative)
        if_absent = np.where(given == 1, each.false_positive, 1 - each.false_positive)
        total = p * if_present + (1 - p) * if_absent
        soft = np.divide(p * if_present, total, out=given.copy(), where=total > 0)
        scan_labels[:, k] = np.where(np.isnan(given), np.nan, soft)
    return site.labelled(slice_labels, scan_labels)
