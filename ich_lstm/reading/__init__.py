"""Files -> scans: the only room of the library that reads DICOM."""

from pathlib import Path

from ich_lstm.errors import StudyError
from ich_lstm.reading.dicom import SliceHeader as SliceHeader
from ich_lstm.reading.dicom import read_header as read_header
from ich_lstm.reading.dicom import read_hu as read_hu
from ich_lstm.reading.index import Index as Index
from ich_lstm.reading.index import index_source as index_source
from ich_lstm.reading.ledger import Ledger as Ledger
from ich_lstm.reading.ledger import LedgerRow as LedgerRow
from ich_lstm.reading.series import Series as Series
from ich_lstm.reading.series import load_scan as load_scan
from ich_lstm.reading.series import short_uid as short_uid
from ich_lstm.reading.sources import FileRef as FileRef
from ich_lstm.reading.sources import walk_source as walk_source
from ich_lstm.reading.study import Candidate as Candidate
from ich_lstm.reading.study import Study as Study
from ich_lstm.reading.study import choose_series as choose_series
from ich_lstm.reading.study import rank_series as rank_series
from ich_lstm.scan import Scan


def read_scan(path: Path | str, series_uid: str | None = None) -> Scan:
    """Read the head CT of a folder, a zip or a file that holds one study.

    Args:
        path: The source.
        series_uid: The series to read, instead of the plain axial brain series that is chosen by rules.

    Raises:
        SourceError: If there is no CT.
        StudyError: If there are several studies (``many_studies``), or no series that fits.
        SeriesError: If the series makes no scan.

    Example:
        >>> scan = read_scan("export.zip")  # doctest: +SKIP
        >>> scan.hu.shape, scan.flags  # doctest: +SKIP
    """
    studies = index_source(path).studies()
    if series_uid is not None:
        studies = [
            study for study in studies if any(series.series_uid.startswith(series_uid) for series in study.series)
        ] or studies
    if len(studies) > 1:
        names = ", ".join(short_uid(study.study_uid) for study in studies[:8])
        raise StudyError(
            "many_studies",
            where=str(path),
            got=f"{len(studies)} studies ({names}{', ...' if len(studies) > 8 else ''})",
            expected="one",
            todo="Name the folder of one, or its series.",
        )
    return load_scan(choose_series(studies[0], series_uid).series)
