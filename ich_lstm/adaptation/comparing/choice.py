"""The choice among candidates: the simplest one within one standard error of the best, if it beats the model as it is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ich_lstm.adaptation.comparing.candidates import AS_IS, Candidate
from ich_lstm.adaptation.scans.site import Probabilities, Site
from ich_lstm.labels import ANY, LABEL_WEIGHTS, LABELS
from ich_lstm.statistics import auroc
from ich_lstm.statistics.measures.scores import clipped

POWER = 0.8
"""Probability with which the stated number of patients would show the difference that was found."""


class Verdict(NamedTuple):
    """What a comparison of candidates says.

    Args:
        chosen: Name of the candidate to use; that of the model as it is if nothing is better.
        best: Name of the candidate with the lowest loss.
        is_adapted: Whether another candidate than the model as it is was chosen.
        reason: Why, in one or two sentences.
        positives_needed: About how many positive patients would show that the best candidate is better, if it is; None if it
            was shown, or no number would show it.
    """

    chosen: str
    best: str
    is_adapted: bool
    reason: str
    positives_needed: int | None


def patient_losses(site: Site, probabilities: Probabilities) -> np.ndarray:
    """What each patient contributes to the weighted log loss of slices and scans, ``(patients,)``; its mean is that loss.

    A level counts if one of its labels is known as present and as absent. If both levels do, each counts one half. A soft label
    counts by its share of each class.

    Args:
        site: The site.
        probabilities: The probabilities of all its scans.
    """
    names, index = np.unique(site.patients.astype(str), return_inverse=True)
    levels = [
        (site.slice_labels, probabilities.slices, index[site.scan_index]),
        (site.scan_labels, probabilities.scans, index),
    ]
    found = []
    for labels, p, patient in levels:
        known = ~np.isnan(labels)
        if not any((labels[:, k] >= 0.5).any() and (labels[:, k] < 0.5).any() for k in range(len(LABELS))):
            continue
        p = clipped(p)
        y = np.nan_to_num(labels)
        losses = -(y * np.log(p) + (1 - y) * np.log1p(-p))
        weights = known * np.array(LABEL_WEIGHTS)
        sums = np.bincount(patient, weights=(losses * weights).sum(axis=1), minlength=len(names))
        found.append(sums / weights.sum() * len(names))
    return np.mean(found, axis=0)


def tabulate(candidates: Sequence[Candidate], site: Site, found: Mapping[str, Sequence[Probabilities]]) -> pd.DataFrame:
    """Compare candidates, each by the mean over its repeats.

    Args:
        candidates: The candidates, the simplest first, beginning with the model as it is.
        site: The site.
        found: The out-of-fold probabilities of each candidate, in each repeat.

    Returns:
        One row per candidate: ``candidate, about, trains, correction``; ``loss``; ``over_best`` and ``over_best_se``, its
        difference to the lowest loss and the standard error of that difference over patients; ``change``, ``change_low`` and
        ``change_high``, its difference to the model as it is with a 95 % interval over patients (Student's t);
        ``auroc_any`` of scans.
    """
    losses = {each.name: np.mean([patient_losses(site, p) for p in found[each.name]], axis=0) for each in candidates}
    best = min(losses, key=lambda name: float(losses[name].mean()))
    rows = []
    for each in candidates:
        over, change = losses[each.name] - losses[best], losses[each.name] - losses[AS_IS]
        half = _standard_error(change) * float(stats.t.ppf(0.975, max(1, len(change) - 1)))
        labels = np.where(np.isnan(site.scan_labels), np.nan, site.scan_labels >= 0.5)[:, LABELS.index(ANY)]
        areas = [auroc(labels, p.scans[:, LABELS.index(ANY)]).value for p in found[each.name]]
        rows.append(
            {
                "candidate": each.name,
                "about": each.about,
                "trains": each.trains,
                "correction": each.correction,
                "loss": float(losses[each.name].mean()),
                "over_best": float(over.mean()),
                "over_best_se": _standard_error(over),
                "change": float(change.mean()),
                "change_low": float(change.mean()) - half,
                "change_high": float(change.mean()) + half,
                "auroc_any": math.nan if None in areas else float(np.mean([area for area in areas if area is not None])),
            }
        )
    return pd.DataFrame(rows)


def decide(table: pd.DataFrame, *, patients: int, positives: int) -> Verdict:
    """Choose a candidate by the rule of one standard error (Breiman et al. 1984), here of the paired difference.

    Args:
        table: The table of `tabulate`.
        patients: Number of patients.
        positives: Number of patients with a hemorrhage.
    """
    row: Any = table.set_index("candidate")
    best = str(table["candidate"][table["loss"].argmin()])
    near = table[table["over_best"] <= table["over_best_se"]]
    chosen = str(near["candidate"].iloc[0])
    change, low, high = row.at[chosen, "change"], row.at[chosen, "change_low"], row.at[chosen, "change_high"]
    if chosen != AS_IS and high < 0:
        about, losses = str(row.at[chosen, "about"]), [row.at[name, "loss"] for name in (chosen, AS_IS)]
        reason = f"{about[0].upper()}{about[1:]}: weighted log loss {losses[0]:.4f} instead of {losses[1]:.4f} "
        reason += f"(difference {change:+.4f}, {low:+.4f} to {high:+.4f})."
        if row.at[chosen, "trains"] == "nothing":
            reason += " No training on these scans is better than that by more than one standard error."
        return Verdict(chosen, best, True, reason, None)
    if best == AS_IS:
        return Verdict(AS_IS, best, False, "Nothing that was tried has a lower loss than the model as it is.", None)
    judged = best if chosen == AS_IS else chosen
    change, low, high = row.at[judged, "change"], row.at[judged, "change_low"], row.at[judged, "change_high"]
    needed = _needed(change, (high - low) / 2, patients, positives)
    more = "" if needed is None else f" About {needed:,} positive patients would show such a difference; there are {positives:,}."
    return Verdict(
        AS_IS,
        best,
        False,
        f"The best candidate ({judged}) is not clearly better than the model as it is: difference in weighted log loss "
        f"{change:+.4f} ({low:+.4f} to {high:+.4f}).{more}",
        needed,
    )


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _needed(change: float, half: float, patients: int, positives: int) -> int | None:
    """Number of positive patients with whom a difference would probably be shown, all else being equal."""
    if change >= 0 or half <= 0:
        return None
    se = half / float(stats.t.ppf(0.975, max(1, patients - 1)))
    factor = ((stats.norm.ppf(0.975) + stats.norm.ppf(POWER)) * se / abs(change)) ** 2
    return max(positives + 1, math.ceil(float(factor) * positives))
