"""Reading of files into scans: the only subpackage of the library that reads DICOM and NIfTI."""

from typing import TYPE_CHECKING

from ich_lstm.lazy import lazy_names

if TYPE_CHECKING:
    from ich_lstm.reading.files.sources import FileRef as FileRef
    from ich_lstm.reading.files.sources import walk_source as walk_source
    from ich_lstm.reading.header.identity import read_identity as read_identity
    from ich_lstm.reading.index.build import Index as Index
    from ich_lstm.reading.index.build import index_source as index_source
    from ich_lstm.reading.index.read_scan import read_scan as read_scan
    from ich_lstm.reading.ledger.ledger import Ledger as Ledger
    from ich_lstm.reading.ledger.ledger import LedgerRow as LedgerRow
    from ich_lstm.reading.pixels.dicom_file import SliceHeader as SliceHeader
    from ich_lstm.reading.pixels.dicom_file import read_header as read_header
    from ich_lstm.reading.pixels.dicom_file import read_hu as read_hu
    from ich_lstm.reading.series.load import Series as Series
    from ich_lstm.reading.series.load import load_scan as load_scan
    from ich_lstm.reading.series.load import short_uid as short_uid
    from ich_lstm.reading.series.nifti import is_nifti as is_nifti
    from ich_lstm.reading.series.nifti import read_nifti as read_nifti
    from ich_lstm.reading.study.choose import Candidate as Candidate
    from ich_lstm.reading.study.choose import Study as Study
    from ich_lstm.reading.study.choose import choose_series as choose_series
    from ich_lstm.reading.study.choose import rank_series as rank_series

# Module of each name. Modules are imported on first use: the decoding child starts often, and needs none of them.
_HOMES = {
    "Candidate": "study.choose",
    "FileRef": "files.sources",
    "Index": "index.build",
    "Ledger": "ledger.ledger",
    "LedgerRow": "ledger.ledger",
    "Series": "series.load",
    "SliceHeader": "header.header",
    "Study": "study.choose",
    "choose_series": "study.choose",
    "index_source": "index.build",
    "is_nifti": "series.nifti",
    "load_scan": "series.load",
    "rank_series": "study.choose",
    "read_header": "header.header",
    "read_hu": "pixels.dicom_file",
    "read_identity": "header.identity",
    "read_nifti": "series.nifti",
    "read_scan": "index.read_scan",
    "short_uid": "series.load",
    "walk_source": "files.sources",
}
__all__ = [*_HOMES]

__getattr__, __dir__ = lazy_names(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
