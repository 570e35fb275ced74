"""Facts about a training run apart from its predictions: its model, its subsets, and the outcome of every file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ich_lstm.inference.older_settings import with_parts
from ich_lstm.privacy import PRIVATE
from ich_lstm.reading.ledger.reasons import phrase_of

COUNTED_UNITS = ("patients", "scans", "slices")


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """Facts about a study as its files record them; all are shareable, and any may be missing.

    Args:
        model: The contents of ``model.json``, for example ``name``, ``hash``, ``settings`` and ``positive_share``.
        config: Contents of the run's shareable ``config.yaml``, which has no paths.
        subsets: Numbers of ``patients, scans, slices`` in each subset of the run.
        positives: Numbers of ``patients, scans, slices`` with each label in each subset, and ``unknown_slices``.
        split: How patients were divided, from ``audit.json``.
        findings: The ``code``, ``action``, ``title`` and ``count`` of each finding of the audit.
        files: Number of files by outcome: ``used``, or the reason why not.
        prepared: Numbers of ``patients, scans, slices`` that were prepared, labelled or not.
        recipe: Name of the recipe; empty if unknown.
        seconds: Duration of the training.
        history: A PNG file of the losses by epoch; empty if there is none.
        patients_are_studies: Whether every study was counted as a separate patient; None if unknown.
        is_synthetic: Whether model or data are of synthetic heads.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    subsets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    positives: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)
    prepared: Mapping[str, int] = field(default_factory=dict)
    recipe: str = ""
    seconds: float | None = None
    history: bytes = field(default=b"", repr=False)
    patients_are_studies: bool | None = None
    is_synthetic: bool = False


def read_study(run: Path | str | None = None, data: Path | str | None = None) -> StudyFacts:
    """Gather the facts from a run's folder and from the folder of the data; a missing file leaves its facts unknown.

    Args:
        run: A run's folder, its model folder, or a ``.ckpt`` in it.
        data: The evaluated data: a folder made by `prepare`, or predictions; None for the prepared folder named by the run.
    """
    run = None if run is None else _run_folder(Path(run))
    config, model, results, audit = ({}, {}, {}, {})
    if run is not None:
        config = _read_yaml(run / "config.yaml")
        model = _read_json(run / "model" / "model.json") or _read_json(run / "model.json")
        results, audit = _read_json(run / "results.json"), _read_json(run / "audit.json")
    folder = Path(data) if data is not None else _data_of(run)
    manifest = {} if folder is None else _read_json(folder / "manifest.json")
    findings = audit.get("findings") or ()
    return StudyFacts(
        model=with_parts(model),
        config=config,
        subsets=results.get("counts") or audit.get("parts") or {},
        positives=audit.get("labels") or {},
        split=audit.get("split") or {},
        findings=tuple({name: finding[name] for name in ("code", "action", "title", "count")} for finding in findings),
        files={} if folder is None else _files(folder, manifest),
        prepared={name: manifest[name] for name in COUNTED_UNITS if manifest.get(name)},  # NIfTI files name no patient
        recipe=str(results.get("recipe") or ""),
        seconds=results.get("seconds"),
        history=b"" if run is None else _read_bytes(run / "history.png"),
        patients_are_studies=results.get("patients_are_studies"),
        is_synthetic=bool(model.get("is_synthetic") or audit.get("synthetic") or manifest.get("synthetic")),
    )


def _run_folder(path: Path) -> Path:
    """Find the run's folder that contains a file or folder."""
    for folder in (path, *path.resolve().parents[:2]):
        if (folder / "config.yaml").is_file():
            return folder
    return path


def _data_of(run: Path | None) -> Path | None:
    """Find the prepared folder of a run: its own, or the one named by its configuration."""
    if run is None:
        return None
    data = _read_yaml(run / PRIVATE / "config.yaml").get("data") or {}
    named = [data[name] for name in ("cache_dir", "root") if data.get(name)]
    places = [run / PRIVATE / "prepared", *map(Path, named)]
    return next((place for place in places if (place / "manifest.json").is_file()), None)


def _files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, int]:
    """Count files by outcome, with reasons if the ledger is available; the paths in it are not read."""
    ledger = folder / PRIVATE / "ledger.csv"
    if ledger.is_file():
        rows = pd.read_csv(ledger, usecols=["action", "code"], dtype="category", keep_default_na=False)
        excluded = rows["code"][rows["action"] != "used"].value_counts()
        reasons = {phrase_of(str(code)): int(count) for code, count in excluded.items() if count}
        return {"used": int((rows["action"] == "used").sum()), **reasons}
    counts = manifest.get("files") or (manifest.get("counts") or {}).get("files") or {}
    return {name: count for name, count in counts.items() if count or name == "used"}


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
