"""The export ``dicom``: a structured report and an image of each study."""

from pathlib import Path

from ich_lstm.archive.exports.export import PredictedStudy
from ich_lstm.archive.exports.requirement import HIGHDICOM, Requirement


class DicomExport:
    """A Comprehensive 3D SR by TID 1500 and a Secondary Capture, which both contain the patient's identity."""

    name = "dicom"
    description = "a structured report and a picture of each study as DICOM"
    requirement: Requirement | None = HIGHDICOM
    is_private = True

    def write(self, study: PredictedStudy, folder: Path) -> list[Path]:
        """Write the report and the image; `write_dicom` documents the errors."""
        from ich_lstm.archive.exports.dicom_out import write_dicom

        return write_dicom(study.prediction, study.scan, study.series, folder)
