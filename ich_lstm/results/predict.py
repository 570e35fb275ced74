"""Predict an archive: every study gets a row, and what fails does not end the rest."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.prepared import KEY_COLUMNS, SLICE_MARK, key_rows
from ich_lstm.data.submission import SampleSubmission, write_submission
from ich_lstm.errors import ConfigError, IchLstmError, StudyError
from ich_lstm.labels import LABELS
from ich_lstm.learning.classifier import ScanClassifier
from ich_lstm.learning.statistics import Estimate
from ich_lstm.privacy import PRIVATE, ProjectKey, private_folder
from ich_lstm.reading import (
    Candidate,
    Ledger,
    Series,
    Study,
    choose_series,
    index_source,
    is_nifti,
    load_scan,
    rank_series,
    read_nifti,
    short_uid,
)
from ich_lstm.reading.ledger import ACTIONS, LedgerRow
from ich_lstm.results.site import check_estimable, describe_calibration, move_to_estimated_share
from ich_lstm.views.prediction import ScanPrediction

Progress = Callable[[str, int, int | None], None]

SLICES, SCANS, MANIFEST = "slices.csv", "scans.csv", "manifest.json"
KEY_TABLE, LEDGER_TABLE, SERIES_TABLE, PAGES = "key.csv", "ledger.csv", "series.csv", "pages"
SUBMISSION = "submission.csv"


class StudyResult(NamedTuple):
    """What became of one study, or of a path from which no study could be read.

    Args:
        name: The study, or the path, for a person; private.
        prediction: Of the series that was read, or None.
        choices: A line per series: the one that was read, and why not the others.
        error: Why there is no prediction, or None.
        page: The page that was written, or None.
    """

    name: str
    prediction: ScanPrediction | None
    choices: list[str]
    error: IchLstmError | None
    page: Path | None


def predict_archive(
    classifier: ScanClassifier,
    paths: Sequence[Path],
    out: Path,
    *,
    key: ProjectKey,
    series_uid: str | None = None,
    allow_contrast: bool = False,
    allow_other_part: bool = False,
    estimate_share: bool = False,
    submission: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[StudyResult]:
    """Predict every study below some paths, and write the tables, the pages and the manifest.

    Shareable, with hashed ids: ``slices.csv``, ``scans.csv`` (a row for every study; ``status`` is ``ok`` or the reason code)
    and ``manifest.json``. In ``private/``: the key to the ids, the ledger of all files, the series of every study with the
    reason for which each is or is not read, a page per scan (a stack of slices shows the face), and the submission.

    Args:
        classifier: The model.
        paths: Folders, zips or files.
        out: Folder to make; it must be new or empty.
        key: The project's key.
        series_uid: The series to read, instead of the one that is chosen; its beginning is enough.
        allow_contrast: Predict series with contrast too, where there is nothing plainer; they are flagged.
        allow_other_part: Predict what is no head by its name or its pixels too.
        estimate_share: When all is predicted, estimate the share of positive scans without labels, and move the calibrated
            probabilities in the tables to it (not those on the pages); the manifest tells it, and what it assumes.
        submission: RSNA's sample submission, to answer it when all is predicted.
        progress: Told how far it is.

    Yields:
        What became of each study, when it is on disk.

    Raises:
        ConfigError: If ``out`` holds something already.
        TableError: If the sample submission is malformed, which shows first; or an image of it has no probability, which shows
            last, when all else is on disk.
    """
    tell = progress or (lambda what, done, total: None)
    allowed = {"allow_contrast": allow_contrast, "allow_other_part": allow_other_part}
    sample = SampleSubmission.read(submission) if submission else None
    if estimate_share:
        check_estimable(classifier.calibration)
    folder = _PredictionFolder(out, key, classifier.calibration.columns if classifier.calibration else [])
    counts = {"studies": 0, "predicted": 0, "failed": 0}
    files: Counter[str] = Counter()
    for path in paths:
        if is_nifti(path):
            result = _predict_nifti(classifier, path, allowed, folder)
            counts["studies"] += 1
            counts["predicted" if result.prediction else "failed"] += 1
            files["used" if result.prediction else "refused"] += 1
            yield result
            continue
        try:
            index = index_source(path, progress=lambda done: tell("reading headers", done, None))
        except IchLstmError as error:
            counts["failed"] += 1
            folder.add_failure(str(path), "", error)
            yield StudyResult(str(path), None, [], error, None)
            continue
        studies = index.studies()
        tell("predicting", 0, len(studies))
        for study in studies:
            if folder.has_seen(study):
                result = _repeated(study, folder)
            else:
                result = _predict_study(classifier, study, series_uid, allowed, index.ledger, folder, path)
            counts["studies"] += 1
            counts["predicted" if result.prediction else "failed"] += 1
            tell("predicting", 1, len(studies))
            yield result
        folder.add(PRIVATE / LEDGER_TABLE, index.ledger.to_frame())
        files.update(index.ledger.counts())
    try:
        if sample is not None:
            folder.answer(sample)
    finally:
        estimated = move_to_estimated_share(out / SLICES, out / SCANS, classifier.calibration) if estimate_share else None
        folder.write_manifest(classifier, estimated, {**counts, "files": {action: files[action] for action in ACTIONS}})


def _predict_study(
    classifier: ScanClassifier,
    study: Study,
    series_uid: str | None,
    allowed: dict[str, bool],
    ledger: Ledger,
    folder: "_PredictionFolder",
    root: Path,
) -> StudyResult:
    name = f"study {short_uid(study.study_uid)}"
    candidates = rank_series(study, **allowed)
    chosen: Series | None = None
    try:
        chosen = choose_series(study, series_uid, ledger=ledger, **allowed).series
        scan = load_scan(chosen, ledger=ledger, slab_mm=classifier.slab_mm, allow_other_part=allowed["allow_other_part"])
        prediction = classifier.predict_scan(scan, folder.key)
    except IchLstmError as error:
        folder.add_failure(study.study_uid, study.patient_id, error)
        return StudyResult(name, None, folder.add_choices(study, candidates, None), error, None)
    choices = folder.add_choices(study, candidates, chosen)
    headers = {header.sop_uid: header for header in chosen.headers}
    folder.add(PRIVATE / KEY_TABLE, key_rows(folder.key, prediction.scan_id, [headers[uid] for uid in scan.file_sop_uids], root))
    return StudyResult(name, prediction, choices, None, folder.add_prediction(prediction))


def _repeated(study: Study, folder: "_PredictionFolder") -> StudyResult:
    """A study that another path has brought already: its row says so, and its probabilities stand there once."""
    name = f"study {short_uid(study.study_uid)}"
    error = StudyError("repeated_study", where=name, got="the same files below two paths", todo="Name each folder once.")
    folder.add_failure(study.study_uid, study.patient_id, error)
    return StudyResult(name, None, [], error, None)


def _predict_nifti(classifier: ScanClassifier, path: Path, allowed: dict[str, bool], folder: "_PredictionFolder") -> StudyResult:
    """A NIfTI file is a study of its own, without any identifier but its name."""
    try:
        scan = read_nifti(path, slab_mm=classifier.slab_mm, allow_other_part=allowed["allow_other_part"])
        prediction = classifier.predict_scan(scan, folder.key)
    except IchLstmError as error:
        folder.add_failure(str(path), "", error)
        folder.add(PRIVATE / LEDGER_TABLE, pd.DataFrame([LedgerRow(str(path), "", "", "refused", error.code, error.detail)]))
        return StudyResult(str(path), None, [], error, None)
    uids = scan.file_sop_uids
    key = pd.DataFrame({"scan_id": prediction.scan_id, "slice": range(1, len(uids) + 1), "sop_uid": uids})
    key = key.assign(
        slice_id=[folder.key.hash_id(uid) for uid in uids],
        series_uid=scan.series_uid,
        # As label tables name a slice of such a file: by its number along the file's own axis, with which its UID ends.
        file=[f"{path.name}{SLICE_MARK}{uid.rpartition('.')[2]}" for uid in uids],
    )
    folder.add(PRIVATE / KEY_TABLE, key.reindex(columns=list(KEY_COLUMNS), fill_value=""))
    folder.add(PRIVATE / LEDGER_TABLE, pd.DataFrame([LedgerRow(str(path), "", scan.series_uid, "used", "", "")]))
    return StudyResult(str(path), prediction, [], None, folder.add_prediction(prediction))


class _PredictionFolder:
    """The folder that is being filled; every row is on disk before the next study begins."""

    def __init__(self, out: Path, key: ProjectKey, further: Sequence[str]) -> None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError("out_not_empty", where="--out", got=f"{out}, which is not empty", expected="a new or empty folder")
        self.out = out
        self.key = key
        self._columns = (*LABELS, *further)
        self._seen: set[bytes] = set()
        out.mkdir(parents=True, exist_ok=True)
        (private_folder(out) / PAGES).mkdir()

    def add(self, table: Path, rows: pd.DataFrame) -> None:
        """Append rows to a CSV."""
        path = self.out / table
        rows.to_csv(path, mode="a", header=not path.exists(), index=False)

    def has_seen(self, study: Study) -> bool:
        """Whether the same files have come before, below another path."""
        files = sorted(str(header.source) for series in study.series for header in series.headers)
        digest = hashlib.sha256("\n".join([study.study_uid, *files]).encode(errors="surrogateescape")).digest()
        seen = digest in self._seen
        self._seen.add(digest)
        return seen

    def add_prediction(self, prediction: ScanPrediction) -> Path:
        """Rows of both tables, and the page, whose path is returned."""
        self.add(Path(SLICES), prediction.to_frame())
        page = prediction.to_html(self.out / PRIVATE / PAGES / f"{prediction.scan_id}.html")
        self.add(Path(SCANS), prediction.scan_frame())
        return page

    def add_failure(self, identifier: str, patient_id: str, error: IchLstmError) -> None:
        """A row of ``scans.csv`` without probabilities, and with the reason's code."""
        ids = {"scan_id": self.key.hash_id(identifier), "patient_id": self.key.hash_id(patient_id) if patient_id else ""}
        self.add(Path(SCANS), pd.DataFrame([ids | dict.fromkeys(self._columns, "") | {"flags": "", "status": error.code}]))

    def add_choices(self, study: Study, candidates: Sequence[Candidate], chosen: Series | None) -> list[str]:
        """Rows on the series of a study, and the same as lines for a person."""
        rows, lines = [], []
        for candidate in candidates:
            first = candidate.series.headers[0]
            read = chosen is not None and candidate.series == chosen
            code, reason = ("", "read") if read else (candidate.code or "not_chosen", candidate.reason)
            title = first.series_description or "(no description)"
            lines.append(f"{'read' if read else 'not read'}: {title} ({len(candidate.series)} images): {candidate.reason}")
            uids = {"study_uid": study.study_uid, "series_uid": candidate.series.series_uid}
            rows.append(
                uids | {"description": title, "images": len(candidate.series), "read": read, "code": code, "reason": reason}
            )
        self.add(PRIVATE / SERIES_TABLE, pd.DataFrame(rows))
        return lines

    def answer(self, sample: SampleSubmission) -> None:
        """Write the submission from the tables that are on disk."""
        columns = {Path(SLICES): ["scan_id", "slice", *LABELS], PRIVATE / KEY_TABLE: ["scan_id", "slice", "sop_uid"]}
        slices, key = (
            pd.read_csv(self.out / table, usecols=names, dtype=str)  # hashes and UIDs may look like numbers
            if (self.out / table).exists()  # not if every study failed
            else pd.DataFrame(columns=names)
            for table, names in columns.items()
        )
        slices = slices.astype(dict.fromkeys(LABELS, np.float64))  # exactly: pandas' own parser may round the last bit
        write_submission(slices, key, sample, self.out / PRIVATE / SUBMISSION)

    def write_manifest(self, classifier: ScanClassifier, estimated: Estimate | None, counts: dict[str, Any]) -> None:
        """What was made by which model, and which of the files are private."""
        private = (file.relative_to(self.out).as_posix() for file in (self.out / PRIVATE).rglob("*") if file.is_file())
        manifest = {
            "ich_lstm": version("ich_lstm"),
            "model": {"name": classifier.name, "hash": classifier.weights_hash()},
            "labels": list(LABELS),
            "calibration": describe_calibration(classifier.calibration, estimated),
            "counts": counts,
            "private": sorted(private),
        }
        (self.out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
