"""`read_scan`: from a path to the scan of the one study that it holds."""

from pathlib import Path

from ich_lstm.errors import StudyError
from ich_lstm.formatting import first_of
from ich_lstm.reading.index.build import index_source
from ich_lstm.reading.series.load import load_scan, short_uid
from ich_lstm.reading.series.nifti import in_archive, is_nifti, read_nifti
from ich_lstm.reading.study.choose import choose_series
from ich_lstm.scan import Scan


def read_scan(path: Path | str, series_uid: str | None = None) -> Scan:
    """Read the head CT of a folder, a zip or a file that holds one study, or a NIfTI file, alone or in a folder without DICOM.

    Args:
        path: The source.
        series_uid: The series to read, instead of the plain axial brain series that is chosen by rules.

    Raises:
        SourceError: If there is no CT.
        FileError: If a NIfTI file holds no head CT in HU.
        StudyError: If there are several studies (``many_studies``), or no series that fits.
        SeriesError: If the series makes no scan.

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
            todo="Name the folder of one, or its series.",
        )
    return load_scan(choose_series(studies[0], series_uid).series)
