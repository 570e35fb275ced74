"""`read_scan`: loads the scan of a source that contains one study."""

from pathlib import Path

from ich_lstm.errors import StudyError
from ich_lstm.formatting import first_of
from ich_lstm.reading.index.build import index_source
from ich_lstm.reading.series.load import load_scan, short_uid
from ich_lstm.reading.series.nifti import in_archive, is_nifti, read_nifti
from ich_lstm.reading.study.choose import choose_series
from ich_lstm.scan import Scan


def read_scan(path: Path | str, series_uid: str | None = None) -> Scan:
    """Read the head CT of one study: a folder, a zip or a file of DICOM, a NIfTI file, or a folder with only a NIfTI file.

    Args:
        path: A folder, an archive, or a file.
        series_uid: UID of the series to read; by default the plain axial brain series is chosen by the library's rules.

    Raises:
        SourceError: If the source contains no CT.
        FileError: If a NIfTI file does not contain a head CT in HU.
        StudyError: If the source contains several studies (``many_studies``), or no suitable series.
        SeriesError: If the series does not form a scan.

    Example:
        >>> scan = read_scan("export.zip")  # doctest: +SKIP
        >>> scan.hu.shape, scan.flags  # doctest: +SKIP
    """
    if is_nifti(path):
        return read_nifti(path)
    index = index_source(path, must_have_ct=False)
    index.refuse_empty(Path(path))
    studies, files = index.studies(), index.nifti_files
    if len(files) == 1 and not studies:
        if files[0].member is not None:
            raise in_archive(files[0])
        return read_nifti(files[0].path)
    if series_uid is not None:
        studies = [
            study for study in studies if any(uid.startswith(series_uid) for series in study.series for uid in series.series_uids)
        ] or studies
    if len(studies) > 1 or not studies:
        names = [short_uid(study.study_uid) for study in studies] or [file.member or file.path.name for file in files]
        raise StudyError(
            "many_studies",
            where=str(path),
            got=f"{len(names)} studies ({first_of(names)})",
            expected="one",
            todo="Name the folder of one study, or its series.",
        )
    return load_scan(choose_series(studies[0], series_uid).series)
