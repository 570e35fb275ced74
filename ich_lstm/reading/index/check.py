"""Dry run on a source: tests the headers, the choice of series, and the pixels of the chosen series of every study."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from ich_lstm.errors import FileError, IchLstmError
from ich_lstm.parallel import count_cores, map_ahead
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.index.build import Index, index_source
from ich_lstm.reading.ledger.ledger import Ledger, LedgerRow
from ich_lstm.reading.series.load import Series, load_scan
from ich_lstm.reading.series.nifti import NiftiSeries, nifti_series, read_nifti
from ich_lstm.reading.study.choose import Study, choose_series

SCANS_FOR_WORKERS = 8
"""Below this, starting processes takes longer than reading."""

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much has been done since, and the total if known."""


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
    """Read a source like a prediction does, NIfTI files too, and keep nothing but the account of its files.

    Args:
        path: A folder, an archive, or a file.
        allow_contrast: Take series with contrast too.
        allow_other_part: Take series of other parts of the body too.
        workers: Processes; by default one per core where there is much to do.
        executor: What runs the calls instead of processes of this machine.
        folder: Where the index is written, which should be private; one that was interrupted there goes on.
        progress: Told how far it is.
        exclude: A folder that is not searched even if it lies in the source: where results are written.

    Returns:
        The index, whose ledger says of every file whether it is used, skipped or refused. A source without any CT in DICOM
        has an index without studies. Its `scans` are counted.

    Raises:
        SourceError: If there is no such path, or it is empty.
    """
    tell = progress or (lambda what, done, total: None)
    index = index_source(
        path,
        workers=workers,
        executor=executor,
        folder=folder,
        progress=lambda done: tell("reading headers", done, None),
        must_have_ct=False,
        exclude=exclude,
    )
    studies = index.studies()
    files = index.nifti_files
    count = len(studies) + len(files)
    if executor is None:
        workers = min(workers or count_cores(), count // SCANS_FOR_WORKERS)
    tell("reading pixels", 0, count)

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
        tell("reading pixels", 1, count)
    if folder is not None:
        index.write(folder)
    return index


def _choose(study: Study, ledger: Ledger, allow_contrast: bool, allow_other_part: bool) -> Series | None:
    try:
        return choose_series(study, allow_contrast=allow_contrast, allow_other_part=allow_other_part, ledger=ledger).series
    except IchLstmError:
        return None  # the ledger has the reason of each of its series


def _open_nifti(file: FileRef, ledger: Ledger) -> Series | None:
    try:
        series = nifti_series(file, str(file))
    except FileError as error:
        ledger.add(file, error)
        return None
    ledger.mark_used(series.headers)
    return series


def _try_to_load(series: Series | None, allow_other_part: bool) -> tuple[bool, list[LedgerRow]]:
    """Whether there is a scan, and what became of the files that are not in it."""
    ledger = Ledger()
    if series is None:
        return False, []
    try:
        if isinstance(series, NiftiSeries):
            read_nifti(series.headers[0].source.path, allow_other_part=allow_other_part)
        else:
            load_scan(series, ledger=ledger, allow_other_part=allow_other_part)
    except IchLstmError as error:
        if isinstance(series, NiftiSeries):
            ledger.mark(series.headers, error.code, error.detail)
        return False, ledger.rows()  # load_scan has noted the reason of each of its files
    return True, ledger.rows()
