"""Identity of patient and study: the attributes that a new series of the same study must repeat."""

import warnings

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from ich_lstm.errors import FileError
from ich_lstm.reading.header.header import SliceHeader, read_data_set

PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
"""Attributes of the Patient Module (PS3.3 C.7.1.1) that are copied; comments and additional names are not."""

DEIDENTIFICATION = ("PatientIdentityRemoved", "DeidentificationMethod")
"""Further attributes of the Patient Module: a de-identified file must stay marked as such. They are only valid as a pair."""

STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDescription",
)
"""Attributes of the General Study Module (PS3.3 C.7.2.1)."""

PATIENT_STUDY = ("PatientAge", "PatientSize", "PatientWeight")
"""Attributes of the Patient Study Module (PS3.3 C.7.2.2)."""

DATES = ("ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime", "SeriesDate", "SeriesTime")
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

REQUIRED = ("PatientName", "PatientID", "StudyInstanceUID")
"""Attributes by which an archive files a study: an invalid value is an error here, and is not omitted."""

SEXES = ("M", "F", "O")


def read_identity(header: SliceHeader) -> Dataset:
    """Read the attributes of patient and study that a new series repeats, and no others.

    Args:
        header: Any slice of the series.

    Returns:
        The attributes of ``PATIENT``, ``DEIDENTIFICATION``, ``STUDY``, ``PATIENT_STUDY``, ``DATES`` and ``LOSSY`` that the file
        contains, decoded by its Specific Character Set. Invalid values are omitted.

    Raises:
        FileError: ``invalid_identity`` if an attribute of ``REQUIRED`` is invalid; or if the file can no longer be read.
    """
    source = read_data_set(header.source)
    kept = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns about values that are checked here
        for keyword in (*PATIENT, *DEIDENTIFICATION, *STUDY, *PATIENT_STUDY, *DATES, *LOSSY):
            tag = tag_for_keyword(keyword)
            assert tag is not None
            if tag not in source:
                continue
            try:
                # The value is decoded to text, because the new file has an encoding of its own.
                value = source[tag].value
                kept.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.RAISE))
            except Exception as error:  # pydicom raises many kinds
                if keyword in REQUIRED:
                    raise FileError(
                        "invalid_identity",
                        where=str(header.source),
                        got=f"a {keyword} that DICOM does not allow",  # without the value, because messages are displayed
                        expected=f"a value of VR {dictionary_VR(tag)} (PS3.5, 6.2)",
                        todo="Correct the study in the archive.",
                    ) from error
    if kept.get("PatientSex") not in (None, "", *SEXES):
        del kept.PatientSex
    if not all(kept.get(keyword) for keyword in DEIDENTIFICATION):
        for keyword in DEIDENTIFICATION:
            if keyword in kept:
                delattr(kept, keyword)
    return kept
