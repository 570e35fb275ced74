"""Files -> scans: the only room of the library that reads DICOM and NIfTI."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ich_lstm.reading.dicom import SliceHeader as SliceHeader
    from ich_lstm.reading.dicom import read_header as read_header
    from ich_lstm.reading.dicom import read_hu as read_hu
    from ich_lstm.reading.entrance import read_scan as read_scan
    from ich_lstm.reading.identity import read_identity as read_identity
    from ich_lstm.reading.index import Index as Index
    from ich_lstm.reading.index import index_source as index_source
    from ich_lstm.reading.ledger import Ledger as Ledger
    from ich_lstm.reading.ledger import LedgerRow as LedgerRow
    from ich_lstm.reading.nifti import is_nifti as is_nifti
    from ich_lstm.reading.nifti import read_nifti as read_nifti
    from ich_lstm.reading.series import Series as Series
    from ich_lstm.reading.series import load_scan as load_scan
    from ich_lstm.reading.series import short_uid as short_uid
    from ich_lstm.reading.sources import FileRef as FileRef
    from ich_lstm.reading.sources import walk_source as walk_source
    from ich_lstm.reading.study import Candidate as Candidate
    from ich_lstm.reading.study import Study as Study
    from ich_lstm.reading.study import choose_series as choose_series
    from ich_lstm.reading.study import rank_series as rank_series

# Where each name lives. Nothing is imported until it is used: the child that decodes needs none of it, and starts often.
_HOMES = {
    "Candidate": "study",
    "FileRef": "sources",
    "Index": "index",
    "Ledger": "ledger",
    "LedgerRow": "ledger",
    "Series": "series",
    "SliceHeader": "header",
    "Study": "study",
    "choose_series": "study",
    "index_source": "index",
    "is_nifti": "nifti",
    "load_scan": "series",
    "rank_series": "study",
    "read_header": "header",
    "read_hu": "dicom",
    "read_identity": "identity",
    "read_nifti": "nifti",
    "read_scan": "entrance",
    "short_uid": "series",
    "walk_source": "sources",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
