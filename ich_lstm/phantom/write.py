"""Writes a data set of synthetic heads to disk, in one of several layouts."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.output_folder import is_new_or_empty
from ich_lstm.parallel import end_with_parent, undisturbed
from ich_lstm.phantom.layouts.layout import Layout
from ich_lstm.phantom.layouts.masks import MASK_FILES
from ich_lstm.phantom.layouts.rsna import RsnaLayout
from ich_lstm.phantom.settings import PhantomSettings

MARKER_FILE = "phantom.json"

PHANTOM_VERSION = 2
"""Version of the generator; it grows whenever the same settings give different bytes."""


def write_phantom(
    settings: PhantomSettings,
    folder: Path,
    *,
    layout: Layout[Any] | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write synthetic scans and their label tables.

    The bytes depend only on the settings and the layout, not on the number of workers. A folder that already holds the
    complete data set is left unchanged.

    Args:
        settings: Settings of the data set.
        folder: Folder to write; it must be missing, empty, or hold the same data set, complete or partial.
        layout: Layout of the files on disk; None is `RsnaLayout`: ``stage_2_train/ID_<9 hex>.dcm`` and ``stage_2_train.csv``.
        workers: Number of processes; None starts one per core, and 1 works in this process.
        progress: Called with the number of patients done since the last call; in total ``layout.patients(settings)``.

    Returns:
        The folder that was given.

    Raises:
        ConfigError: If the folder holds anything else, ``workers`` is below 1, or the layout does not fit the settings.

    Example:
        >>> write_phantom(PhantomSettings(patients=60), Path("cq500"), layout=Cq500Layout(archives=True))  # doctest: +SKIP
    """
    folder, layout = Path(folder), layout or RsnaLayout()
    if workers is not None and workers < 1:
        raise ConfigError(
            "phantom_workers", where="workers", got=str(workers), expected="1 or more", todo="Choose another number."
        )
    layout.check(settings)
    marker = _marker(settings, layout)
    if _holds_same(folder, marker, layout):
        if progress:
            progress(layout.patients(settings))
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _write_marker(folder, {**marker, "files": None})
    records: dict[int, Any] = {}
    for patient, record in _each_patient(settings, layout, folder, workers):
        records[patient] = record
        if progress:
            progress(1)
    layout.write_tables(settings, folder, [records[patient] for patient in sorted(records)])
    _write_marker(folder, {**marker, "files": _count_files(folder, layout)})
    return folder


def _marker(settings: PhantomSettings, layout: Layout[Any]) -> dict[str, object]:
    marker = {"phantom_version": PHANTOM_VERSION, "settings": asdict(settings), "layout": {"name": layout.name, **asdict(layout)}}
    return json.loads(json.dumps(marker))  # as JSON gives it back: tuples become lists


def _holds_same(folder: Path, marker: dict[str, object], layout: Layout[Any]) -> bool:
    """Whether the folder holds the same data set, complete; an error if it holds anything else than a part of it."""
    if is_new_or_empty(folder):
        return False
    try:
        found = json.loads((folder / MARKER_FILE).read_text())
        files = found.pop("files")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise _foreign(folder, "other files") from error
    if found != marker:
        raise _foreign(folder, "a phantom with other settings")
    # An incomplete data set is written again.
    return files is not None and files == _count_files(folder, layout)


def _count_files(folder: Path, layout: Layout[Any]) -> int:
    return sum(1 for pattern in (*layout.contents, MASK_FILES) for path in folder.glob(pattern) if path.is_file())


def _foreign(folder: Path, got: str) -> ConfigError:
    return ConfigError(
        "phantom_folder_not_empty",
        where=str(folder),
        got=got,
        expected="an empty folder",
        todo="Name a new folder, or remove this one.",
    )


def _each_patient(settings: PhantomSettings, layout: Layout[Any], folder: Path, workers: int | None) -> Iterable[tuple[int, Any]]:
    """Write every patient; yield number and record of each as soon as it is done."""
    patients = layout.patients(settings)
    workers = min(workers or os.cpu_count() or 1, patients)
    if workers == 1:
        for patient in range(patients):
            yield patient, layout.write_patient(settings, patient, folder)
        return
    # Spawned, not forked: a caller may hold threads and locks (torch, OpenMP) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        with undisturbed():
            jobs = {pool.submit(layout.write_patient, settings, patient, folder): patient for patient in range(patients)}
        try:
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """End a worker with its parent, and limit it to one core."""
    import cv2

    end_with_parent()
    cv2.setNumThreads(1)


def _write_marker(folder: Path, marker: dict[str, object]) -> None:
    write_text(folder / MARKER_FILE, json.dumps(marker, indent=2, sort_keys=True) + "\n")
