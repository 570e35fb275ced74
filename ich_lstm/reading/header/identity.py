"""Identity of patient and study: the attributes that a new series of the same study repeats."""

import warnings

from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from ich_lstm.errors import FileError
from ich_lstm.reading.header.header import SliceHeader, read_data_set

PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
"""Of the Patient Module (PS3.3 C.7.1.1); its comments, further names and numbers are left where they are."""

DEIDENTIFICATION = ("PatientIdentityRemoved", "DeidentificationMethod")
"""Of the Patient Module too: what was de-identified must go on saying so. One is worth nothing without the other."""

STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDescription",
)
"""Of the General Study Module (PS3.3 C.7.2.1)."""

PATIENT_STUDY = ("PatientAge", "PatientSize", "PatientWeight")
"""Of the Patient Study Module (PS3.3 C.7.2.2)."""

DATES = ("ContentDate", "ContentTime", "AcquisitionDate", "AcquisitionTime", "SeriesDate", "SeriesTime")
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")

REQUIRED = ("PatientName", "PatientID", "StudyInstanceUID")
"""An archive files by these: a value that DICOM does not allow is no reason to leave one out."""

SEXES = ("M", "F", "O")


def read_identity(header: SliceHeader) -> Dataset:
    """The patient and the study of a slice, by a list of what is copied; nothing else of the file.

    Args:
        header: Any slice of the series.

    Returns:
        Those of ``PATIENT``, ``DEIDENTIFICATION``, ``STUDY``, ``PATIENT_STUDY``, ``DATES`` and ``LOSSY`` that the file has,
        decoded by its Specific Character Set. A value that DICOM does not allow is left out.

    Raises:
        FileError: ``invalid_identity`` if such a value is one of ``REQUIRED``; or if the file cannot be read any more.
    """
    source = read_data_set(header.source)
    kept = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are checked here
        for keyword in (*PATIENT, *DEIDENTIFICATION, *STUDY, *PATIENT_STUDY, *DATES, *LOSSY):
            tag = tag_for_keyword(keyword)
            assert tag is not None
            if tag not in source:
                continue
            try:
                # Text, not bytes: what is written is encoded anew.
                value = source[tag].value
                kept.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=config.RAISE))
            except Exception as error:  # pydicom's, of many kinds
                if keyword in REQUIRED:
                    raise FileError(
                        "invalid_identity",
                        where=str(header.source),
                        got=f"a {keyword} that DICOM does not allow",  # without the value: messages are shown
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
