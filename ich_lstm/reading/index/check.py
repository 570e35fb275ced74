"""Dry run on a source: tests the headers, the choice of series, and the pixels of the chosen series of every study."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from ich_lstm.errors import FileError, IchLstmError, UnexpectedError
from ich_lstm.parallel import count_cores, map_ahead
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.index.build import Index, index_source
from ich_lstm.reading.ledger.ledger import Ledger, LedgerRow
from ich_lstm.reading.series.load import Series, load_scan, name_series, short_uid
from ich_lstm.reading.series.nifti import NiftiSeries, nifti_series, read_nifti
from ich_lstm.reading.study.choose import Study, choose_series
from ich_lstm.unexpected import one_of_many

SCANS_FOR_WORKERS = 8
"""With fewer scans, starting processes takes longer than reading them here."""

Progress = Callable[[str, int, int | None], None]
"""Called with the current activity, the number of items done since the last call, and the total if known."""


def check_source(
    path: Path | str,
    *,
    allow_contrast: bool = False,
    allow_other_part: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    exclude: Path | None = None,
) -> Index:
    """Read a source as a prediction does, including NIfTI files, and keep only the ledger.

    Args:
        path: A folder, an archive, or a file.
        allow_contrast: Accept contrast-enhanced series.
        allow_other_part: Accept series of other parts of the body.
        workers: Number of processes; by default one per core if there are many scans.
        executor: Runs the calls in place of processes on this machine.
        folder: Folder for the index, which should be private. An interrupted index in it is continued.
        progress: Called as the check advances.
        exclude: A folder inside the source that is not searched, such as the output folder.

    Returns:
        The index, whose ledger states for every file whether it is used, skipped or refused, and whose ``scans`` is set. For a
        source without CT in DICOM, the index has no studies.

    Raises:
        SourceError: If the path does not exist, or the source is empty.
    """
    report = progress or (lambda what, done, total: None)
    index = index_source(
        path,
        workers=workers,
        executor=executor,
        folder=folder,
        progress=lambda done: report("reading headers", done, None),
        must_have_ct=False,
        exclude=exclude,
    )
    studies = index.studies()
    files = index.nifti_files
    count = len(studies) + len(files)
    if executor is None:
        workers = max(1, min(workers or count_cores(), count // SCANS_FOR_WORKERS))
    report("reading pixels", 0, count)

    def chosen() -> Iterator[Series | None]:
        for study in studies:
            yield _choose(study, index.ledger, allow_contrast, allow_other_part)
        for file in files:
            yield _open_nifti(file, index.ledger)

    load = partial(_try_to_load, allow_other_part=allow_other_part)
    index.scans = 0
    for is_read, rows in map_ahead(load, chosen(), workers or count_cores(), executor):
        index.ledger.update(rows)
        index.scans += is_read
        report("reading pixels", 1, count)
    if folder is not None:
        index.write(folder)
    return index


def _choose(study: Study, ledger: Ledger, allow_contrast: bool, allow_other_part: bool) -> Series | None:
    try:
        with one_of_many(f"study {short_uid(study.study_uid)}"):
            return choose_series(study, allow_contrast=allow_contrast, allow_other_part=allow_other_part, ledger=ledger).series
    except UnexpectedError as error:
        for series in study.series:
            ledger.mark(series.headers, error.code, error.detail)
    except IchLstmError:
        pass  # the ledger has the reason for each series of the study
    return None


def _open_nifti(file: FileRef, ledger: Ledger) -> Series | None:
    try:
        series = nifti_series(file, str(file))
    except FileError as error:
        ledger.add(file, error)
        return None
    ledger.mark_used(series.headers)
    return series


def _try_to_load(series: Series | None, allow_other_part: bool) -> tuple[bool, list[LedgerRow]]:
    """Whether a scan was loaded, and the outcomes of the files that it does not contain."""
    ledger = Ledger()
    if series is None:
        return False, []
    try:
        with one_of_many(name_series(series)):
            if isinstance(series, NiftiSeries):
                read_nifti(series.headers[0].source.path, allow_other_part=allow_other_part)
            else:
                load_scan(series, ledger=ledger, allow_other_part=allow_other_part)
    except IchLstmError as error:
        if isinstance(series, NiftiSeries):
            ledger.mark(series.headers, error.code, error.detail)
        return False, ledger.rows()  # load_scan has recorded the reason for each file
    return True, ledger.rows()
