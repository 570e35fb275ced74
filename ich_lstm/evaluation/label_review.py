"""Finds where model and labels disagree most, for review by a person who looks at the images."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.audit.montage import LOWEST_SHOWN, NOT_SHOWN, brain_if_possible
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.errors import ConfigError, IchLstmError, TableError
from ich_lstm.evaluation.aggregate import OWN, cases_at, in_words
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.csv_table import write_csv
from ich_lstm.formatting import first_of
from ich_lstm.labels import LABELS
from ich_lstm.pages.review_page import ReviewCase, ReviewPicture, review_page
from ich_lstm.privacy import private_folder
from ich_lstm.statistics.measures.scores import log_losses
from ich_lstm.unexpected import one_of_many

logger = logging.getLogger(__name__)

ReviewLevel = Literal["slice", "scan"]

REVIEW_PAGE, REVIEW_TABLE = "review.html", "review.csv"

DISAGREES = math.log(2)
"""Log loss above which the probability lies on the wrong side of one half."""

COLUMNS = (
    "rank",
    "level",
    "scan_id",
    "slice",
    "slice_id",
    "patient_id",
    "label",
    "labelled",
    "probability",
    "log_loss",
    "disagreeing",
)


class ReviewFiles(NamedTuple):
    """The files that `write_review` wrote.

    Args:
        private: The page with raw ids and whole pictures, on which corrections are made.
        shareable: The page with hashed ids and pictures that show only the inside of the skull.
        table: The table of the disagreements without pictures; shareable.
    """

    private: Path
    shareable: Path
    table: Path


def find_disagreements(
    evidence: Evidence, level: ReviewLevel, *, most: int = 50, most_per_scan: int = 3, aggregation: str = OWN
) -> pd.DataFrame:
    """Find the slices or scans on which model and label disagree most, measured by the log loss of a single label.

    Args:
        evidence: Predictions on patients on whom the model was not trained: held-out ones, or those of a held-out fold.
        level: The cases to examine: ``slice`` or ``scan``.
        most: Maximum number of slices or scans in the list.
        most_per_scan: Maximum number of slices of one scan, so that a scan with one wrong label does not fill the page.
        aggregation: Method by which `cases_at` aggregates slices to scans.

    Returns:
        One row per slice (or scan) and label with a probability on the wrong side of one half, worst slices first: ``rank`` (of
        the slice, from 1), ``level``, ``scan_id, slice`` (its number; 0 of scans), ``slice_id, patient_id`` (hashes),
        ``label``, ``labelled`` (1 or 0), ``probability``, ``log_loss``, ``disagreeing`` (number of all slices or scans with
        a disagreement).

    Raises:
        ConfigError: If the model was trained on these patients, or fewer than one case is requested.
    """
    if evidence.source["part"] == "train":
        raise ConfigError(
            "trained_on_these",
            where="label audit",
            got="the training set",
            expected="patients on whom the model was not trained",
            todo="A model learns the wrong labels that it is trained on. "
            "Train with --data.split.folds of ich-train, and review the held-out patients of each run.",
        )
    if most < 1 or most_per_scan < 1:
        raise ConfigError("nothing_to_review", where="--most", got=f"{most}, {most_per_scan} of a scan", expected="at least 1")
    cases = cases_at(evidence, level, aggregation=aggregation)
    losses = log_losses(cases.labels, cases.probabilities)  # (n, k)
    at, k = np.nonzero(losses > DISAGREES)
    # Equal losses are sorted by id, so that the page does not depend on the order of the rows.
    order = np.argsort(-losses[at, k], kind="stable")
    at, k = at[order], k[order]
    worst_first = pd.Series(pd.unique(at))
    scan = evidence.scan_index if level == "slice" else np.arange(len(cases.ids))
    place = worst_first.groupby(scan[worst_first]).cumcount()
    chosen = worst_first[place < most_per_scan].head(most).to_numpy()
    rank = pd.Index(chosen).get_indexer(pd.Index(at))
    kept = np.flatnonzero(rank >= 0)
    kept = kept[np.argsort(rank[kept], kind="stable")]
    at, k = at[kept], k[kept]
    nothing = np.full(len(cases.ids), "", dtype=object)
    columns = {
        "rank": rank[kept] + 1,
        "level": level,
        "scan_id": cases.ids[at],
        "slice": evidence.slices["slice"].to_numpy()[at] if level == "slice" else 0,
        "slice_id": (evidence.slices["slice_id"].to_numpy(object) if level == "slice" else nothing)[at],
        "patient_id": cases.patients[at],
        "label": np.array(LABELS, dtype=object)[k],
        "labelled": cases.labels[at, k].astype(int),
        "probability": cases.probabilities[at, k],
        "log_loss": losses[at, k],
        "disagreeing": len(worst_first),
    }
    return pd.DataFrame(columns, columns=list(COLUMNS))


def write_review(
    folder: Path, evidence: Evidence, found: pd.DataFrame, prepared: PreparedFolder, *, aggregation: str = OWN
) -> ReviewFiles:
    """Write the pages and the table of disagreements.

    Args:
        folder: The folder of the figures; created if missing.
        evidence: The predictions and labels in which the disagreements were found.
        found: One or several tables made by `find_disagreements`, concatenated.
        prepared: The folder of ``ich-prepare`` that holds the scans, made with the same project key.
        aggregation: Method by which scans were aggregated in `find_disagreements`.

    Raises:
        TableError: If scans or slices are not in the prepared folder.
        CacheError: If a cached scan is damaged.
    """
    files = ReviewFiles(private_folder(folder) / REVIEW_PAGE, folder / REVIEW_PAGE, folder / REVIEW_TABLE)
    write_csv(files.table, found)
    cases = collect_cases(evidence, found, prepared, aggregation=aggregation)
    about = _about(evidence, found, aggregation)
    write_text(files.private, review_page(cases, **about))
    write_text(files.shareable, review_page([_shareable(case) for case in cases], is_private=False, **about))
    return files


def collect_cases(
    evidence: Evidence, found: pd.DataFrame, prepared: PreparedFolder, *, aggregation: str = OWN
) -> list[ReviewCase]:
    """Collect the cases of the page, with raw ids and whole pictures; private.

    A slice is shown between its neighbours. For a scan, the slice with the highest probability of the label is shown.

    Args:
        evidence: The predictions and labels in which the disagreements were found.
        found: One or several tables made by `find_disagreements`, concatenated.
        prepared: The folder of ``ich-prepare`` that holds the scans, made with the same project key.
        aggregation: Method by which scans were aggregated in `find_disagreements`.
    """
    places = _Places(evidence, prepared, found["scan_id"].unique().tolist())
    of_scans = cases_at(evidence, "scan", aggregation=aggregation)
    cases = []
    for _, rows in found.groupby(["level", "rank"], sort=False):
        level = str(rows["level"].iloc[0])
        scan_id, labels = str(rows["scan_id"].iloc[0]), tuple(rows["label"])
        slices = places.slices(scan_id)
        probabilities, known = columns_of(slices, ""), columns_of(slices, LABEL_PREFIX)
        if level == "slice":
            shown = int(np.flatnonzero(slices["slice"] == rows["slice"].iloc[0])[0])
            p, y = probabilities[shown], known[shown]
        else:
            shown, i = int(probabilities[:, LABELS.index(labels[0])].argmax()), int(np.flatnonzero(of_scans.ids == scan_id)[0])
            p, y = of_scans.probabilities[i], of_scans.labels[i]
        numbers, key = places.find(scan_id, slices["slice_id"])
        hu = places.read(str(key["cache"].iloc[0]))
        near = [n for n in (shown - 1, shown, shown + 1) if 0 <= n < len(slices)]
        row = key.iloc[shown]
        cases.append(
            ReviewCase(
                level=level,
                rank=int(rows["rank"].iloc[0]),
                scan_id=scan_id,
                slice=int(slices["slice"].iloc[shown]),
                slices=len(slices),
                labels=y,
                probabilities=p,
                disagreeing=labels,
                pictures=tuple(
                    ReviewPicture(
                        None if hu is None else hu[numbers[n]], int(slices["slice"].iloc[n]), n - shown, _present(known[n])
                    )
                    for n in near
                ),
                sop_uid=str(row["sop_uid"]) if level == "slice" else "",
                series_uid=str(row["series_uid"]),
                flags=places.flags(str(row["cache"])),
            )
        )
    return cases


class _Places:
    """The places of predicted slices in a prepared folder."""

    def __init__(self, evidence: Evidence, prepared: PreparedFolder, scan_ids: Sequence[str]) -> None:
        self._prepared = prepared
        of_these = evidence.slices["scan_id"].isin(scan_ids)
        self._slices = dict(tuple(evidence.slices[of_these].groupby("scan_id")))
        key = prepared.key[prepared.key["scan_id"].isin(scan_ids)]
        self._keys = dict(tuple(key.groupby("scan_id")))
        self._flags = dict(zip(prepared.facts["cache"], prepared.facts["flags"], strict=True))
        missing = [scan_id for scan_id in scan_ids if scan_id not in self._keys]
        _stop_at_missing("scans", missing, prepared)
        there = set(key["slice_id"])
        _stop_at_missing("slices", [one for one in evidence.slices["slice_id"][of_these] if one not in there], prepared)

    def slices(self, scan_id: str) -> pd.DataFrame:
        """The probabilities and labels of a scan's slices, inferior to superior."""
        return self._slices[scan_id]

    def find(self, scan_id: str, slice_ids: pd.Series) -> tuple[np.ndarray, pd.DataFrame]:
        """Find the indices of these slices in their prepared scan, and their rows of the key."""
        key = self._keys[scan_id]
        # Two kernels under one series UID are two scans with the same id, which only their slices distinguish.
        key = key[key["cache"] == key.loc[key["slice_id"] == slice_ids.iloc[0], "cache"].iloc[0]]
        at = pd.Index(key["slice_id"]).get_indexer(pd.Index(slice_ids))
        return at, key.iloc[at]

    def read(self, cache: str) -> np.ndarray | None:
        """Read the HU of a prepared scan; None, with a warning, if it cannot be read: its case is then shown without pictures."""
        try:
            with one_of_many(cache):
                return read_cached(self._prepared.folder / "cache" / cache).hu
        except IchLstmError as error:
            logger.warning("shown without pictures: %s", error)
            return None

    def flags(self, cache: str) -> str:
        """Codes of the scan's flags, separated by blanks."""
        return str(self._flags.get(cache, ""))


def _stop_at_missing(what: str, ids: Sequence[str], prepared: PreparedFolder) -> None:
    if ids:
        raise TableError(
            "not_in_prepared_folder",
            where=str(prepared.folder),
            got=f"no {what} {first_of(ids)} ({len(ids)} {what})",
            expected="the predicted scans, prepared with the same project key",
            todo="Give --review the folder of ich-prepare on which the model was trained.",
        )


def _shareable(case: ReviewCase) -> ReviewCase:
    """Remove raw ids, and all pictures or parts of pictures that may show a face."""
    named = bool(NOT_SHOWN & set(case.flags.split()))
    pictures = []
    for picture in case.pictures:
        hide = named or picture.hu is None or picture.slice - 1 < LOWEST_SHOWN * case.slices
        pictures.append(
            picture._replace(hu=None if hide or picture.hu is None else brain_if_possible(picture.hu, f"scan {case.scan_id}"))
        )
    return case._replace(pictures=tuple(pictures), sop_uid="", series_uid="")


def _present(labels: np.ndarray) -> tuple[str, ...] | None:
    """List the labels that are present; None if no label is known."""
    if np.isnan(labels).all():
        return None
    return tuple(label for label, value in zip(LABELS, labels, strict=True) if value == 1)


def _about(evidence: Evidence, found: pd.DataFrame, aggregation: str) -> dict[str, Any]:
    """Collect facts and notes for the head of the page."""
    source = evidence.source
    facts = {"Model": str(source["model"].get("name", "")), "Subset": str(source["part"]), "Truth": str(source["truth"])}
    facts |= {name.capitalize(): f"{source['counts'][name]:,}" for name in ("patients", "scans", "slices")}
    if (found["level"] == "scan").any():
        facts["Scan"] = in_words(aggregation)
    notes = []
    if source["kind"] != "run" and not source.get("is_unseen"):
        notes.append(
            "Whether the model was trained on these patients was not checked. If it was, it may have learned their wrong labels."
        )
    if source["part"] == "validation":
        notes.append("These patients are the validation set (used for model selection).")
    disagreeing = {str(level): int(rows["disagreeing"].iloc[0]) for level, rows in found.groupby("level")}
    return {"facts": {name: text for name, text in facts.items() if text}, "notes": notes, "disagreeing": disagreeing}
