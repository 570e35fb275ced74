"""What an export is: a format of another system in which predictions are written beside the tables and pages."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ich_lstm.archive.exports.requirement import Requirement

if TYPE_CHECKING:
    from ich_lstm.prediction import ScanPrediction
    from ich_lstm.reading import Series
    from ich_lstm.scan import Scan


class PredictedStudy(NamedTuple):
    """What an export is given of a study.

    Args:
        prediction: The probabilities, with hashed ids and whatever calibration and heat maps there are.
        scan: The scan that was predicted; it holds raw identifiers.
        series: The DICOM series that the scan was read from; None if it was read from NIfTI.
    """

    prediction: "ScanPrediction"
    scan: "Scan"
    series: "Series | None"


class Export(Protocol):
    """A format, as `EXPORTS` lists it.

    The help of ``ich-predict`` reads the attributes, so that a module that defines an export imports heavy packages inside
    `write` only.
    """

    name: str
    """Lower-case letters; ``ich-predict --NAME`` asks for it, and its folder and its place in ``left_out`` bear the name."""

    description: str
    """What it writes, for the help of ``ich-predict``: no capital letter at the beginning, no full stop."""

    requirement: Requirement | None
    """A package that must be installed; None: no other than the library's own."""

    is_private: bool
    """Whether the files hold an identity, so that their folder lies in ``private/``."""

    def write(self, study: PredictedStudy, folder: Path) -> list[Path]:
        """Write the files of one study.

        Args:
            study: What was predicted.
            folder: An existing folder, for this format alone.

        Returns:
            The files, whose names begin with the prediction's ``scan_id``: if the study is predicted again, they are replaced.

        Raises:
            IchLstmError: If the study cannot be written in this format. Its probabilities stand; the reason is reported, and
                ``ich-predict`` exits with 3.
        """
        ...
