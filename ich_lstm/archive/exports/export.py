"""The interface of an export: a format of another system in which predictions are written in addition to tables and pages."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ich_lstm.archive.exports.requirement import Requirement

if TYPE_CHECKING:
    from ich_lstm.prediction import ScanPrediction
    from ich_lstm.reading import Series
    from ich_lstm.scan import Scan


class PredictedStudy(NamedTuple):
    """A predicted study, from which an export is written.

    Args:
        prediction: Probabilities with hashed ids, and calibration and heat maps if available.
        scan: The predicted scan, which has raw identifiers.
        series: The DICOM series from which the scan was read; None if it was read from NIfTI.
    """

    prediction: "ScanPrediction"
    scan: "Scan"
    series: "Series | None"


class Export(Protocol):
    """An export format that is listed in `EXPORTS`.

    The help of ``ich-predict`` reads the attributes. A module that defines an export therefore imports heavy packages only
    inside `write`.
    """

    name: str
    """Name in lower-case letters, used for the option ``ich-predict --NAME``, the folder, and the key in ``not_made``."""

    description: str
    """Description for the help of ``ich-predict``, without a capital letter at the beginning and without a full stop."""

    requirement: Requirement | None
    """Package that must be installed; None if the library's own dependencies suffice."""

    is_private: bool
    """Whether the files contain an identity, so that their folder must be inside ``private/``."""

    def write(self, study: PredictedStudy, folder: Path) -> list[Path]:
        """Write the files of one study.

        Args:
            study: The predicted study.
            folder: An existing folder that only this format uses.

        Returns:
            The files. Their names begin with the prediction's ``scan_id``, so that a new prediction of the study replaces them.

        Raises:
            IchLstmError: If the study cannot be written in this format. Its probabilities are kept, the reason is reported, and
                ``ich-predict`` exits with 3.
        """
        ...
